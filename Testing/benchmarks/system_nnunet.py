"""nnU-Net v2's own predictor on the CPU: sliding window, resampling of the logits, arg-max, as ``nnUNetv2_predict``.

With ``convolutions`` on a scan of another spacing it is run the way whole-body users run it (TotalSegmentator): the
scan is brought to the model's spacing with cubic splines, predicted there, and the labels are carried back by nearest
neighbor, because logits of all organs on the native grid do not fit into memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import stub
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from job import Job, Outcome, Prepared, scan_voxels
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy import ndimage

WIDTHS = (32, 64, 128, 256, 320, 320)


def prepare(job: Job) -> Prepared:
    """Set up a predictor for the job's network."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    voxels, affine = scan_voxels(job)
    network = stub.StubNetwork(job.features, job.organs) if job.network == "stub" else _network(job)
    predictor = _predictor(job, network)
    if isinstance(network, stub.StubNetwork):
        x = stub.normalized(voxels)
        return lambda: _stubbed(predictor, x, network)
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    return lambda: _whole(predictor, job, voxels, spacing_mm)


def _stubbed(predictor: Any, x: torch.Tensor, network: stub.StubNetwork) -> Outcome:
    """Preprocessed scan to labels."""
    with torch.inference_mode():
        logits = predictor.predict_sliding_window_return_logits(x)
        labels = _export(predictor, logits, tuple(x.shape[1:]))
    return Outcome(labels=labels, network_cpu_s=network.stopwatch.cpu_s, details={"tiles": network.stopwatch.calls})


def _whole(predictor: Any, job: Job, voxels: np.ndarray, spacing_mm: np.ndarray) -> Outcome:
    """Native scan to native labels."""
    zoom = spacing_mm / job.spacing_mm
    image = ndimage.zoom(voxels.astype(np.float32), zoom, order=3)
    coarse = predictor.predict_single_npy_array(image[None], {"spacing": [job.spacing_mm] * 3})
    labels = ndimage.zoom(coarse, np.array(voxels.shape) / np.array(coarse.shape), order=0)
    return Outcome(labels=labels, details={"model_grid_shape": list(coarse.shape)})


def _export(predictor: Any, logits: Any, shape: tuple[int, ...]) -> Any:
    properties = {
        "spacing": list(predictor.configuration_manager.spacing),
        "shape_before_cropping": shape,
        "shape_after_cropping_and_before_resampling": shape,
        "bbox_used_for_cropping": [[0, size] for size in shape],
    }
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        predictor.plans_manager,
        predictor.configuration_manager,
        predictor.label_manager,
        properties,
        num_threads_torch=1,
    )


def _predictor(job: Job, network: torch.nn.Module) -> Any:
    plans = PlansManager(_plans(job))
    names = {"background": 0, **{f"organ{number}": number for number in range(1, job.organs + 1)}}
    predictor = nnUNetPredictor(
        tile_step_size=1 - job.overlap,
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        network,
        plans,
        plans.get_configuration("3d_fullres"),
        [network.state_dict()],
        {"labels": names, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"},
        "nnUNetTrainer",
        None,
    )
    return predictor


def _plans(job: Job) -> Mapping[str, Any]:
    """What nnU-Net's planner writes for a CT data set, as far as the predictor reads it."""
    intensities = {"mean": 0.0, "std": 1000.0, "percentile_00_5": stub.LOW_HU, "percentile_99_5": stub.HIGH_HU}
    resampling = "resample_data_or_seg_to_shape"
    return {
        "dataset_name": "Dataset001_Benchmark",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensities},
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [job.tile] * 3,
                "spacing": [job.spacing_mm] * 3,
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": resampling,
                "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
                "resampling_fn_seg": resampling,
                "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
                "resampling_fn_probabilities": resampling,
                "resampling_fn_probabilities_kwargs": {
                    "is_seg": False,
                    "order": 1,
                    "order_z": 0,
                    "force_separate_z": None,
                },
                "batch_dice": False,
                "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
            }
        },
    }


def _network(job: Job) -> torch.nn.Module:
    """nnU-Net's default for this patch: six stages of two convolutions, instance norm, leaky ReLU."""
    depth = len(WIDTHS)
    network: torch.nn.Module = PlainConvUNet(
        input_channels=1,
        n_stages=depth,
        features_per_stage=WIDTHS,
        conv_op=torch.nn.Conv3d,
        kernel_sizes=3,
        strides=(1, *(2,) * (depth - 1)),
        n_conv_per_stage=2,
        num_classes=1 + job.organs,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
    )
    return network
