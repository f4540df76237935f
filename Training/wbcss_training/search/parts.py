"""A decoder as the parts that are measured, each with its exact parameters and multiply-accumulates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from wbcss.specs import DecoderSpec, EncoderSpec, Kernel3, Stride3
from wbcss.volume import Shape3

PartKind = Literal["up", "join", "conv", "head", "raised_head"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One step of a decoder.

    Attributes:
        kind: ``up`` is a transposed convolution, ``join`` the concatenation with the skip and the first convolution
            block after it, ``conv`` a further block, ``head`` the 1x1x1 convolution to logits, ``raised_head`` the
            same where it reads a transposed convolution, whose type and layout may suit it better.
        level: Where it runs; 0 is the finest.
        in_channels: What it reads; for ``join`` those of the level and of the skip together.
        out_channels: What it writes.
        kernel: Of the convolution; for ``up`` also its stride.
    """

    kind: PartKind
    level: int
    in_channels: int
    out_channels: int
    kernel: Kernel3

    @property
    def parameters(self) -> int:
        """Numbers that are stored: weight and bias, and scale and shift of the norm where there is one."""
        per_channel = 3 if self.kind in ("join", "conv") else 1
        return self.out_channels * (self.in_channels * math.prod(self.kernel) + per_channel)

    def macs(self, encoder: EncoderSpec, tile: Shape3) -> int:
        """Multiply-accumulates for one tile; norms and activations are left out."""
        # Kernel and stride of a transposed convolution are equal: every voxel it writes reads one.
        taps = 1 if self.kind == "up" else math.prod(self.kernel)
        return math.prod(level_shape(encoder, tile, self.level)) * self.in_channels * self.out_channels * taps


def level_shape(encoder: EncoderSpec, tile: Shape3, level: int) -> Shape3:
    """Voxels of ``level`` along each axis when the decoder works on ``tile``."""
    i, j, k = (n // math.prod(stride[axis] for stride in encoder.strides[: level + 1]) for axis, n in enumerate(tile))
    return i, j, k


def up_part(encoder: EncoderSpec, level: int, *, below: int, width: int) -> Part:
    """The transposed convolution that reaches ``level``."""
    kernel: Stride3 = encoder.strides[level + 1]
    return Part(kind="up", level=level, in_channels=below, out_channels=width, kernel=kernel)


def block_part(encoder: EncoderSpec, level: int, *, width: int, kernel: Kernel3, first: bool) -> Part:
    """A convolution block of ``level``; the first reads the skip too."""
    return Part(
        kind="join" if first else "conv",
        level=level,
        in_channels=width + encoder.stage_channels[level] if first else width,
        out_channels=width,
        kernel=kernel,
    )


def head_part(*, width: int, num_organs: int, is_bare: bool = False) -> Part:
    """The layer that makes logits of features; ``is_bare`` where they come from no block."""
    kind: PartKind = "raised_head" if is_bare else "head"
    return Part(kind=kind, level=0, in_channels=width, out_channels=1 + num_organs, kernel=(1, 1, 1))


def parts_of(spec: DecoderSpec, encoder: EncoderSpec) -> tuple[Part, ...]:
    """All parts of a decoder, coarsest level first, as they run."""
    below = (*spec.stage_channels[1:], encoder.stage_channels[len(spec.stage_channels)])
    parts: list[Part] = []
    for level in reversed(range(len(spec.stage_channels))):
        width = spec.stage_channels[level]
        parts.append(up_part(encoder, level, below=below[level], width=width))
        parts += [
            block_part(encoder, level, width=width, kernel=kernel, first=number == 0)
            for number, kernel in enumerate(spec.block_kernels(level))
        ]
    return (*parts, head_part(width=spec.num_features, num_organs=spec.num_organs, is_bare=not spec.block_kernels(0)))
