"""What a search may choose from: for every level of a full decoder its width, the type of its kernel and its depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from wbcss.errors import SpecError
from wbcss.specs import DecoderSpec, EncoderSpec, Kernel3

KernelType = Literal["3x3x3", "1x3x3", "1x3x3+3x1x1"]
"""Written (S, A, R), the order of the literature: 1x3x3 lies within a slice, 3x1x1 runs along the body."""

KERNELS: Mapping[KernelType, tuple[Kernel3, tuple[int, ...]]] = {
    "3x3x3": ((3, 3, 3), ()),
    "1x3x3": ((3, 3, 1), ()),
    "1x3x3+3x1x1": ((3, 3, 1), (1, 1, 3)),
}
"""Kernel and following kernel, along (R, A, S) as everywhere in this project."""

WIDTH_SHARES = (1.0, 0.5, 0.25, 0.125)
_FULL: Kernel3 = (3, 3, 3)


@dataclass(frozen=True, kw_only=True)
class LevelChoice:
    """What one level of a decoder is.

    Attributes:
        width: Channels.
        kernel: Of its convolutions; without one it says nothing.
        count: How many there are; with two kernels, how many pairs. 0 is the transposed convolution alone.
    """

    width: int
    kernel: KernelType
    count: int


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """All decoders that a full one holds.

    Attributes:
        encoder: What they read.
        full: The largest; its kernels are 3x3x3 at every level.
    """

    encoder: EncoderSpec
    full: DecoderSpec

    def __post_init__(self) -> None:
        if any(kernel != _FULL for kernel in self.full.kernels) or self.full.then_kernels:
            raise SpecError(
                f"a search begins with a decoder of kernels {_FULL} at every level, got {self.full.kernels}"
                + (f" then {self.full.then_kernels}" if self.full.then_kernels else "")
            )
        stages = len(self.encoder.stage_channels)
        if self.num_levels > stages - 1:
            raise SpecError(
                f"a decoder of {self.num_levels} levels needs an encoder of at least {self.num_levels + 1} stages, "
                f"got {stages}"
            )

    @property
    def num_levels(self) -> int:
        """Levels of every decoder in the space."""
        return len(self.full.stage_channels)

    def widths(self, level: int) -> tuple[int, ...]:
        """Widths to choose from, the full one first; each is at least 1, and none is listed twice."""
        full = self.full.stage_channels[level]
        return tuple(dict.fromkeys(max(1, round(full * share)) for share in WIDTH_SHARES))

    @property
    def kernels(self) -> tuple[KernelType, ...]:
        """Kernel types to choose from at every level."""
        return tuple(KERNELS)

    def counts(self, level: int) -> tuple[int, ...]:
        """Depths to choose from, the full one first.

        The finest level may do without convolutions, above a level that has read the encoder: they are most of a
        decoder's arithmetic.
        """
        full = self.full.convs_per_stage[level]
        least = 0 if level == 0 and self.num_levels > 1 else min(1, full)
        return tuple(range(full, least - 1, -1))

    def spec(self, levels: Sequence[LevelChoice]) -> DecoderSpec:
        """The decoder of these choices, finest level first; the kernel of a level without convolutions is the full one.

        So decoders that compute the same have the same spec.
        """
        if len(levels) != self.num_levels:
            raise SpecError(f"each of the {self.num_levels} levels needs one choice, got {len(levels)}")
        kernels = [KERNELS[choice.kernel] if choice.count else (_FULL, ()) for choice in levels]
        then = tuple(pair[1] for pair in kernels)
        return DecoderSpec(
            stage_channels=tuple(choice.width for choice in levels),
            kernels=tuple(pair[0] for pair in kernels),
            convs_per_stage=tuple(choice.count for choice in levels),
            num_organs=self.full.num_organs,
            then_kernels=then if any(then) else (),
        )


def full_decoder(encoder: EncoderSpec, *, num_organs: int) -> DecoderSpec:
    """As wide as the encoder at every level, two convolutions of 3x3x3 each: nnU-Net's decoder (METHOD 1)."""
    levels = len(encoder.stage_channels) - 1
    return DecoderSpec(
        stage_channels=encoder.stage_channels[:levels],
        kernels=(_FULL,) * levels,
        convs_per_stage=(2,) * levels,
        num_organs=num_organs,
    )


def scaled_decoder(full: DecoderSpec, share: float) -> DecoderSpec:
    """``full`` with this share of its channels at every level, at least one, and all else as it is."""
    if not 0 < share <= 1:
        raise SpecError(f"the share of the channels must be above 0 and at most 1, got {share}")
    return replace(full, stage_channels=tuple(max(1, round(share * width)) for width in full.stage_channels))


def without_finest(full: DecoderSpec) -> DecoderSpec:
    """``full`` with a finest level that is its transposed convolution alone; of one level only, ``full`` itself."""
    if len(full.stage_channels) == 1:
        return full
    then = ((), *full.then_kernels[1:]) if any(full.then_kernels[1:]) else ()
    kernels = (_FULL, *full.kernels[1:])
    return replace(full, kernels=kernels, convs_per_stage=(0, *full.convs_per_stage[1:]), then_kernels=then)
