"""The convolution block that encoder and decoders are built of."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..specs import Kernel3, Stride3


class ConvBlock(nn.Module):
    """Convolution, instance norm, leaky ReLU: the block of nnU-Net (Isensee et al., Nat Methods 18:203, 2021).

    The norm keeps no running statistics, so a frozen block answers bit for bit the same whatever was seen since.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: Kernel3, stride: Stride3 = (1, 1, 1)) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = nn.Conv3d(in_channels, out_channels, kernel, stride=stride, padding=padding)
        self.norm = nn.InstanceNorm3d(out_channels, affine=True, track_running_stats=False)
        self.act = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C_in, I, J, K) to (B, C_out, I / stride, J / stride, K / stride)."""
        out: torch.Tensor = self.act(self.norm(self.conv(x)))
        return out


def conv_stack(
    in_channels: int, out_channels: int, *, kernels: Sequence[Kernel3], stride: Stride3 = (1, 1, 1)
) -> nn.Sequential:
    """One block per kernel in a row; only the first strides. No kernel, no block."""
    blocks = [ConvBlock(in_channels, out_channels, kernel=kernel, stride=stride) for kernel in kernels[:1]]
    blocks += [ConvBlock(out_channels, out_channels, kernel=kernel) for kernel in kernels[1:]]
    return nn.Sequential(*blocks)
