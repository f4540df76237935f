"""What a network costs by closed form: parameters, and multiply-accumulates of one tile."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from wbcss.specs import DecoderSpec, EncoderSpec
from wbcss.volume import Shape3
from wbcss.weights import Shapes, decoder_shapes, encoder_shapes


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a network or of a part of it.

    Attributes:
        parameters: Numbers that are stored.
        macs: Multiply-accumulates of the convolutions for one tile; norms and activations are left out.
    """

    parameters: int
    macs: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(parameters=self.parameters + other.parameters, macs=self.macs + other.macs)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(parameters=self.parameters - other.parameters, macs=self.macs - other.macs)


def encoder_cost(spec: EncoderSpec, tile: Shape3 | None = None) -> Cost:
    """Cost of an encoder on ``tile`` voxels (default: its own)."""
    macs = 0
    width = spec.in_channels
    voxels = _voxels_by_stage(spec, tile or spec.tile)
    for stage, channels in enumerate(spec.stage_channels):
        kernel = math.prod(spec.kernels[stage])
        for _ in range(spec.convs_per_stage[stage]):
            macs += voxels[stage] * width * channels * kernel
            width = channels
    return Cost(parameters=_count(encoder_shapes(spec)), macs=macs)


def decoder_cost(spec: DecoderSpec, encoder: EncoderSpec, tile: Shape3 | None = None) -> Cost:
    """Cost of a decoder with its head on ``tile`` voxels (default: the encoder's own)."""
    voxels = _voxels_by_stage(encoder, tile or encoder.tile)
    num_levels = len(spec.stage_channels)
    below = (*spec.stage_channels[1:], encoder.stage_channels[num_levels])
    macs = voxels[0] * spec.num_features * (1 + spec.num_organs)
    for level, channels in enumerate(spec.stage_channels):
        # Kernel and stride of the transposed convolution are equal: every voxel above reads one voxel below.
        macs += voxels[level] * below[level] * channels
        width = channels + encoder.stage_channels[level]
        for kernel in spec.block_kernels(level):
            macs += voxels[level] * width * channels * math.prod(kernel)
            width = channels
    return Cost(parameters=_count(decoder_shapes(spec, encoder)), macs=macs)


def total(costs: Iterable[Cost]) -> Cost:
    """Sum of ``costs``."""
    return sum(costs, Cost(parameters=0, macs=0))


def _count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _voxels_by_stage(spec: EncoderSpec, tile: Shape3) -> list[int]:
    voxels, size = [], list(tile)
    for stride in spec.strides:
        size = [n // s for n, s in zip(size, stride, strict=True)]
        voxels.append(math.prod(size))
    return voxels
