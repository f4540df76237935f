"""A model whose answer is known in closed form: thresholds on HU, built from the product's own encoder and decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from wbcss.cards import EncoderCard, TaskCard
from wbcss.catalogue import catalogue
from wbcss.labels import OrganName, TaskId
from wbcss.loading import LoadedModel
from wbcss.nn.blocks import ConvBlock
from wbcss.nn.encoder import freeze
from wbcss.nn.model import build_model
from wbcss.specs import DecoderSpec, EncoderSpec
from wbcss.volume import Shape3, Spacing_mm, Volume

Thresholds = Mapping[str, float]
"""Organ name to the HU from which on a voxel is this organ, ascending."""

SHA = "0" * 64


def threshold_model(
    tasks: Mapping[str, Thresholds],
    *,
    spacing_mm: Spacing_mm = (3.0, 3.0, 3.0),
    tile: Shape3 = (16, 16, 16),
    sharpness: float = 20.0,
    temperature: float = 1.0,
) -> LoadedModel:
    """One task per entry. HU between -1000 and 1000 pass the network unchanged, as feature (HU + 1000) / 1000."""
    encoder = EncoderSpec(
        stage_channels=(1, 1),
        strides=((1, 1, 1), (2, 2, 2)),
        kernels=((1, 1, 1), (1, 1, 1)),
        convs_per_stage=(1, 1),
        spacing_mm=spacing_mm,
        windows_hu=((-1000.0, 1000.0),),
        tile=tile,
    )
    specs = {TaskId(task): _decoder_spec(len(organs)) for task, organs in tasks.items()}
    network = build_model(encoder, specs)
    for block in network.modules():
        if isinstance(block, ConvBlock):
            # Without the norm the network is pointwise, so tiles cannot matter.
            block.norm = nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        first = network.encoder.stages[0][0].conv
        first.weight.fill_(1.0)
        first.bias.fill_(1.0)
        for task, organs in tasks.items():
            decoder = network.decoder(TaskId(task))
            decoder.stages[0][0].conv.weight[:, 1] = 1.0
            _set_head(decoder.head, list(organs.values()), sharpness)
    freeze(network)
    cards = {TaskId(t): _task_card(TaskId(t), list(o), specs[TaskId(t)], temperature) for t, o in tasks.items()}
    return LoadedModel(network, _encoder_card(encoder), cards)


def random_model(
    encoder: EncoderSpec, tasks: Mapping[str, tuple[Sequence[str], int]], *, temperature: float = 1.0
) -> LoadedModel:
    """Random weights; per task its organs and the number of features."""
    depth = len(encoder.stage_channels) - 1
    specs = {
        TaskId(task): DecoderSpec(
            stage_channels=(width,) * depth,
            kernels=((3, 3, 3),) * depth,
            convs_per_stage=(1,) * depth,
            num_organs=len(organs),
        )
        for task, (organs, width) in tasks.items()
    }
    network = build_model(encoder, specs)
    freeze(network)
    cards = {
        TaskId(task): _task_card(TaskId(task), list(organs), specs[TaskId(task)], temperature)
        for task, (organs, _) in tasks.items()
    }
    return LoadedModel(network, _encoder_card(encoder), cards)


def ras_affine(spacing_mm: Spacing_mm, origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Axes along R, A, S."""
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = origin_mm
    return affine


def balls(
    shape: Shape3,
    affine: np.ndarray,
    found: Sequence[tuple[tuple[float, float, float], float, float]],
    *,
    body_hu: float = -100.0,
) -> Volume:
    """A scan full of ``body_hu`` with balls (center_ras_mm, radius_mm, hu), edges softened over a voxel."""
    indices = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    points = indices @ affine[:3, :3].T + affine[:3, 3]
    voxels = np.full(shape, body_hu, np.float32)
    for center, radius, hu in found:
        distance = np.linalg.norm(points - np.asarray(center), axis=-1)
        inside = np.clip(0.5 + (radius - distance) / 3.0, 0, 1)
        voxels += (inside * (hu - body_hu)).astype(np.float32)
    return Volume(voxels, affine)


def center_ras_mm(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Center of mass of a mask."""
    return np.argwhere(mask).mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]


def _set_head(head: nn.Conv3d, thresholds_hu: Sequence[float], sharpness: float) -> None:
    """Channel c beats channel c - 1 exactly where the HU is above its threshold."""
    edges = np.cumsum([(t + 1000.0) / 1000.0 for t in thresholds_hu])
    for channel, edge in enumerate(edges, start=1):
        head.weight[channel, 0] = sharpness * channel
        head.bias[channel] = -sharpness * edge


def _decoder_spec(num_organs: int) -> DecoderSpec:
    return DecoderSpec(stage_channels=(1,), kernels=((1, 1, 1),), convs_per_stage=(1,), num_organs=num_organs)


def _encoder_card(spec: EncoderSpec) -> EncoderCard:
    return EncoderCard(name="test", spec=spec, license="Apache-2.0", provenance="made by a test", created="2026-11-20")


def _task_card(task: TaskId, organs: Sequence[str], spec: DecoderSpec, temperature: float) -> TaskCard:
    return TaskCard(
        task=task,
        version=1,
        organs=tuple(catalogue()[OrganName(name)] for name in organs),
        spec=spec,
        encoder_sha256=SHA,
        training_cases=1,
        calibration={"temperature": temperature},
        license="Apache-2.0",
        provenance="made by a test",
        created="2026-11-20",
    )
