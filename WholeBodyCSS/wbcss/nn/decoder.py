"""A task's own decoder on the skips of the frozen encoder."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import SpecError
from ..specs import DecoderSpec, EncoderSpec
from .blocks import conv_stack
from .encoder import Skips


class Decoder(nn.Module):
    """Transposed convolution, skip concatenation and convolutions per level, then a 1x1x1 head (METHOD 1.2).

    A level without convolutions is its transposed convolution alone: sub-voxels of the level below (Shi et al.,
    Real-time super-resolution with a sub-pixel network, CVPR 2016, section 3).

    Holds no reference to the encoder: it takes the encoder's spec, so its state dict is the task's weights alone.
    The last layer is linear and pointwise, so averaging or interpolating ``features`` before the head equals doing
    it to the logits.
    """

    def __init__(self, spec: DecoderSpec, encoder: EncoderSpec) -> None:
        super().__init__()
        num_levels = len(spec.stage_channels)
        if num_levels > len(encoder.stage_channels) - 1:
            raise SpecError(
                f"a decoder of {num_levels} levels needs an encoder of at least {num_levels + 1} stages, "
                f"got {len(encoder.stage_channels)}"
            )
        self.spec = spec
        below = (*spec.stage_channels[1:], encoder.stage_channels[num_levels])
        self.ups = nn.ModuleList(
            nn.ConvTranspose3d(
                below[level], spec.stage_channels[level], encoder.strides[level + 1], stride=encoder.strides[level + 1]
            )
            for level in range(num_levels)
        )
        self.stages = nn.ModuleList(
            conv_stack(
                spec.stage_channels[level] + encoder.stage_channels[level],
                spec.stage_channels[level],
                kernels=spec.block_kernels(level),
            )
            for level in range(num_levels)
        )
        self.head = nn.Conv3d(spec.num_features, 1 + spec.num_organs, 1)

    def levels(self, skips: Skips, *, finest: int = 0) -> list[torch.Tensor]:
        """Outputs of the levels from ``finest`` on; level l is (B, stage_channels[l], I / d_l, J / d_l, K / d_l)."""
        num_levels = len(self.spec.stage_channels)
        x = skips[num_levels]
        outputs: list[torch.Tensor] = []
        for level in reversed(range(finest, num_levels)):
            x = self.ups[level](x)
            if self.spec.convs_per_stage[level]:
                x = self.stages[level](torch.cat([x, skips[level]], dim=1))
            outputs.insert(0, x)
        return outputs

    def features(self, skips: Skips) -> torch.Tensor:
        """What the head reads, (B, num_features, I, J, K)."""
        return self.levels(skips)[0]

    def forward(self, skips: Skips) -> torch.Tensor:
        """Skips, finest first, to logits (B, 1 + num_organs, I, J, K); channel 0 is background."""
        logits: torch.Tensor = self.head(self.features(skips))
        return logits


class DeepSupervision(nn.Module):
    """Extra 1x1x1 heads on the coarser decoder levels. Used in training only and never published.

    Args:
        spec: The decoder they supervise.
        num_levels: Supervised levels including the finest, at least 1.
    """

    def __init__(self, spec: DecoderSpec, *, num_levels: int) -> None:
        super().__init__()
        if not 1 <= num_levels <= len(spec.stage_channels):
            raise SpecError(f"num_levels must be in 1..{len(spec.stage_channels)}, got {num_levels}")
        self.heads = nn.ModuleList(
            nn.Conv3d(width, 1 + spec.num_organs, 1) for width in spec.stage_channels[1:num_levels]
        )

    def forward(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        """Decoder levels, finest first, to logits of the supervised coarser levels 1, 2, ..."""
        return [head(levels[level]) for level, head in enumerate(self.heads, start=1)]
