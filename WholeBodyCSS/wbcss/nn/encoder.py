"""The one general encoder that every task's decoder reads."""

from __future__ import annotations

import torch
from torch import nn

from ..specs import EncoderSpec
from .blocks import conv_stack

Skips = list[torch.Tensor]
"""Encoder feature maps, finest first."""


class Encoder(nn.Module):
    """Plain strided convolution stages. Stage ``s`` is addressed as ``stages.s``."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        widths = (spec.in_channels, *spec.stage_channels)
        self.stages = nn.ModuleList(
            conv_stack(
                widths[s], widths[s + 1], kernels=(spec.kernels[s],) * spec.convs_per_stage[s], stride=spec.strides[s]
            )
            for s in range(len(spec.stage_channels))
        )

    def forward(self, x: torch.Tensor) -> Skips:
        """(B, C_in, I, J, K) with I, J, K multiples of ``spec.divisor`` to skips, finest first.

        Skip ``s`` is (B, stage_channels[s], I / d, J / d, K / d) with d the product of the strides up to ``s``.
        """
        skips: Skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


def freeze(module: nn.Module) -> None:
    """Put ``module`` into evaluation mode for good and let no gradient reach its parameters."""
    module.eval()
    module.requires_grad_(False)
