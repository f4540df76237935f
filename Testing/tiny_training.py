"""Small networks, patch sources and an atlas of boxes on which a training step takes milliseconds."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wbcss.io.writing import write_volume
from wbcss.labels import OrganName, TaskId
from wbcss.nn.encoder import Encoder
from wbcss.specs import DecoderSpec, EncoderSpec, spec_to_json
from wbcss_training.atlas import MAP_FILE, TABLE_FILE
from wbcss_training.config import TrainConfig
from wbcss_training.learner import Learner, build_learner
from wbcss_training.patches import FeaturePatch, Patch, patch_rng

TASK = TaskId("boxes")
ENCODER = EncoderSpec(
    stage_channels=(2, 3, 4),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 3,
    convs_per_stage=(1, 1, 1),
    spacing_mm=(4.0, 4.0, 4.0),
    tile=(16, 16, 16),
)
ORGANS = (OrganName("liver"), OrganName("spleen"), OrganName("vertebrae_L1"))
SPACING_MM = 4.0
ATLAS_ORIGIN_MM = (-100.0, -80.0, 800.0)

# label, name, kind, task, whole-body class, mean HU, SD, arterial, portal
ROWS = (
    (1, "liver", "organ", "wholebody", "liver", 50, 8, 10, 50),
    (2, "spleen", "organ", "wholebody", "spleen", 45, 8, 70, 70),
    (3, "vertebrae_L1", "organ", "wholebody", "vertebrae_L1", 180, 60, 0, 0),
    (4, "humerus_left", "organ", "wholebody", "humerus_left", 400, 150, 0, 0),
    (5, "lung_upper_lobe_left", "organ", "wholebody", "lung_upper_lobe_left", -850, 40, 0, 0),
    (6, "colon", "organ", "wholebody", "", 30, 15, 20, 30),
    (7, "bowel_gas_colon", "content", "", "colon", -900, 20, 0, 0),
    (200, "skin", "tissue", "", "", 10, 10, 0, 0),
    (201, "subcutaneous_fat", "tissue", "", "", -100, 10, 0, 0),
    (202, "visceral_fat", "tissue", "", "", -95, 10, 0, 0),
    (203, "intermuscular_fat", "tissue", "", "", -90, 10, 0, 0),
    (204, "other_muscle", "tissue", "", "", 55, 10, 5, 10),
)
COLUMNS = (
    *("label", "name", "kind", "group", "task", "wholebody_class", "fma", "voxels", "volume_ml", "hu_mean", "hu_std"),
    *("hu_source", "enh_arterial", "enh_portal"),
)


def decoder_spec(num_organs: int = len(ORGANS)) -> DecoderSpec:
    """Two levels on ``ENCODER``."""
    return DecoderSpec(stage_channels=(3, 3), kernels=((3, 3, 3),) * 2, convs_per_stage=(1, 1), num_organs=num_organs)


def config(**changes: Any) -> TrainConfig:
    """Six quick steps in float32."""
    base = TrainConfig(
        steps=6,
        warmup_steps=2,
        sampled_voxels=512,
        deep_supervision=2,
        checkpoint_every=3,
        log_every=1,
        autocast=False,
        ema_decay=0.9,
    )
    return dataclasses.replace(base, **changes)


def learner(settings: TrainConfig | None = None, *, num_organs: int = len(ORGANS), seed: int = 0) -> Learner:
    """Fresh networks; equal seeds give equal bits."""
    torch.manual_seed(seed)
    return build_learner(Encoder(ENCODER), {TASK: decoder_spec(num_organs)}, settings or config())


@dataclass(frozen=True, kw_only=True)
class BoxPatches:
    """PatchSource: noise with one bright box per organ, all organs in every patch. Importable, so workers can use it.

    Attributes:
        poison_at: Index of a patch that holds a NaN, to make a training diverge.
    """

    task: TaskId = TASK
    organs: tuple[OrganName, ...] = ORGANS
    seed: int = 5
    annotated: tuple[bool, ...] = (True, True, True, True)
    poison_at: int = -1

    def patch(self, index: int) -> Patch:
        """Draw patch ``index``."""
        rng = patch_rng(self.seed, index)
        labels = np.zeros(ENCODER.tile, np.uint8)
        for channel in range(1, len(self.organs) + 1):
            low = rng.integers(0, 10, 3)
            labels[low[0] : low[0] + 5, low[1] : low[1] + 5, low[2] : low[2] + 5] = channel
        for channel in range(1, len(self.organs) + 1):
            labels[4 * channel, 4, 4] = channel  # never hidden by another box; on the grid of every level
        image = labels / len(self.organs) + rng.normal(0, 0.1, labels.shape)
        if index == self.poison_at:
            image[0, 0, 0] = np.nan
        return Patch(
            image=torch.from_numpy(image[None].astype(np.float32)),
            labels=torch.from_numpy(labels),
            annotated=torch.tensor(self.annotated),
        )


def atlas_boxes() -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Nested boxes: skin around fat around muscle around organs, and a free arm at the side. (50, 40, 40)."""
    labels = np.zeros((50, 40, 40), np.uint16)
    labels[2:38, 4:36, :] = 200
    labels[3:37, 5:35, :] = 201
    labels[5:35, 7:33, :] = 204
    labels[20:32, 10:24, 4:20] = 1
    labels[8:16, 10:22, 6:18] = 2
    labels[18:24, 26:32, 2:38] = 3
    labels[8:18, 10:24, 22:36] = 5
    labels[20:32, 12:24, 24:34] = 6
    labels[23:29, 15:21, 26:32] = 7
    labels[40:48, 14:26, 4:36] = 200
    labels[41:47, 16:24, 4:36] = 4
    return labels


def write_atlas(folder: Path) -> Path:
    """The atlas of boxes as files, in the layout that ``prepare_atlas`` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    affine[:3, 3] = ATLAS_ORIGIN_MM
    write_volume(folder / MAP_FILE, atlas_boxes(), affine)
    with (folder / TABLE_FILE).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for label, name, kind, task, organ, mean, sd, arterial, portal in ROWS:
            table.writerow([label, name, kind, "", task, organ, "", 0, 0, mean, sd, "made up", arterial, portal])
    return folder


def write_case(
    folder: Path, name: str, *, shape: tuple[int, int, int] = (18, 16, 14), spacing_mm: float = 4.0, shift_mm: float = 0
) -> dict[str, str]:
    """Image and labels of one case: liver (1) at 60 HU and spleen (2) at 120 HU in air. Returns its list entry."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.zeros(shape, np.uint8)
    labels[2:8, 3:9, 3:9] = 1
    labels[10:15, 3:9, 3:9] = 2
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    write_volume(folder / f"{name}.nii.gz", np.array([-1000, 60, 120], np.int16)[labels], affine)
    affine[0, 3] += shift_mm
    write_volume(folder / f"{name}_seg.nii.gz", labels, affine)
    return {"image": f"{name}.nii.gz", "labels": f"{name}_seg.nii.gz"}


def write_list(folder: Path, entries: list[dict[str, str]], **changes: Any) -> Path:
    """A JSON list of cases."""
    facts = {"organs": {"1": "liver", "2": "spleen"}, "cases": entries, **changes}
    path = folder / "list.json"
    path.write_text(json.dumps(facts))
    return path


def write_plan(
    path: Path, source: Mapping[str, Any], *, change: Callable[[dict[str, Any]], None] | None = None, **train: Any
) -> Path:
    """A plan of one task on ``source``; ``change`` may edit its JSON first."""
    decoder = spec_to_json(decoder_spec())
    del decoder["num_organs"]
    facts: dict[str, Any] = {
        "name": "tiny",
        "encoder": spec_to_json(ENCODER),
        "train": spec_to_json(config(**train)),
        "tasks": [{"task": TASK, "source": dict(source), "decoder": decoder}],
        "license": "CC0-1.0",
        "provenance": "boxes",
        "limits": "knows boxes only",
    }
    if change is not None:
        change(facts)
    path.write_text(json.dumps(facts))
    return path


def encoded_patches(count: int = 2) -> list[FeaturePatch]:
    """Patches of ``BoxPatches`` as an encoder of random weights sees them."""
    torch.manual_seed(3)
    encoder, source = Encoder(ENCODER), BoxPatches()
    made = []
    for number in range(count):
        patch = source.patch(number)
        with torch.no_grad():
            found = encoder(patch.image[None])
        made.append(FeaturePatch(tuple(skip[0].half() for skip in found), patch.labels, patch.annotated))
    return made
