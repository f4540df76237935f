"""All decoders of a space in one: shared weights, channel masks for widths, masked kernels, skipped blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from wbcss.nn.blocks import ConvBlock
from wbcss.nn.encoder import Skips

from .expected import LevelProbabilities
from .space import KERNELS, SearchSpace

_THEN = KERNELS["1x3x3+3x1x1"][1]


class SearchDecoder(nn.Module):
    """A decoder of full width whose levels are mixtures of their choices.

    Widths are masks on the first channels of shared weights (FBNetV2: Wan et al., CVPR 2020, section 3.1). The kernel
    1x3x3 is the middle slice of the 3x3x3 one (Single-Path NAS: Stamoulis et al., ECML PKDD 2019, section 3), so a
    mixture of both is one convolution. A level that may do without convolutions has a second transposed convolution
    for that case, as the head then reads it itself. With one-hot mixtures it computes exactly what the chosen
    ``Decoder`` computes with the leading channels of the same weights.
    """

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.space = space
        full, encoder = space.full, space.encoder
        below = (*full.stage_channels[1:], encoder.stage_channels[space.num_levels])
        self.ups = nn.ModuleList()
        self.stages = nn.ModuleList()
        self.thens = nn.ModuleList()
        self.bare_ups = nn.ModuleDict()
        for level, width in enumerate(full.stage_channels):
            stride = encoder.strides[level + 1]
            self.ups.append(nn.ConvTranspose3d(below[level], width, stride, stride=stride))
            if 0 in space.counts(level):
                self.bare_ups[str(level)] = nn.ConvTranspose3d(below[level], width, stride, stride=stride)
            count = full.convs_per_stage[level]
            sources = [width + encoder.stage_channels[level], *[width] * (count - 1)][:count]
            self.stages.append(nn.ModuleList(ConvBlock(source, width, kernel=(3, 3, 3)) for source in sources))
            then = (_THEN[0], _THEN[1], _THEN[2])
            self.thens.append(nn.ModuleList(ConvBlock(width, width, kernel=then) for _ in sources))
            masks = torch.zeros(len(space.widths(level)), width)
            for row, kept in enumerate(space.widths(level)):
                masks[row, :kept] = 1
            self.register_buffer(f"masks{level}", masks, persistent=False)
        self.head = nn.Conv3d(full.num_features, 1 + full.num_organs, 1)

    def levels(self, skips: Skips, mixture: Sequence[LevelProbabilities], *, finest: int = 0) -> list[torch.Tensor]:
        """As ``Decoder.levels``, every level mixed by the weights of ``mixture``; masked channels are 0."""
        x = skips[self.space.num_levels]
        outputs: list[torch.Tensor] = []
        for level in reversed(range(finest, self.space.num_levels)):
            weights = mixture[level]
            mask = self._mask(level, weights.widths, x.dtype)
            bare = self.bare_ups[str(level)](x) * mask if str(level) in self.bare_ups else None
            x = torch.cat([self.ups[level](x) * mask, skips[level]], dim=1)
            depth = self.space.full.convs_per_stage[level]
            for number, block in enumerate(cast(Sequence[ConvBlock], self.stages[level])):
                out = self._block(level, number, block, x, mask=mask, weights=weights.kernels)
                # A block beyond the chosen depth is passed by; depths are listed from the full one down.
                passed_by = bare if number == 0 else x
                x = out if passed_by is None else passed_by + weights.counts[: depth - number].sum() * (out - passed_by)
            outputs.insert(0, x if bare is None or depth else bare)
        return outputs

    def _mask(self, level: int, weights: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        masks = self.get_buffer(f"masks{level}")
        return (weights.to(masks) @ masks)[None, :, None, None, None].to(dtype)

    def _block(
        self,
        level: int,
        number: int,
        block: ConvBlock,
        x: torch.Tensor,
        *,
        mask: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        """Output of one block under the ``weights`` (3,) of the kernel types, in the order of ``KERNELS``."""
        outer = torch.stack([weights[0], torch.ones_like(weights[0]), weights[0]])
        conv = block.conv
        y = block.act(block.norm(F.conv3d(x, conv.weight * outer.to(conv.weight), conv.bias, padding=1))) * mask
        z = self.thens[level][number](y) * mask  # type: ignore[index]
        mixed: torch.Tensor = y + weights[2] * (z - y)
        return mixed
