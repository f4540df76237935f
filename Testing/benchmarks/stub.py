"""A network that costs next to nothing: features in closed form, and a random last layer of the right size.

Every system runs the same one, so that what is compared is everything but the network. A feature is a hat over the
voxel's value plus a ramp across the tile: because of the ramp overlapping tiles disagree, as with a real network, and
a system that averages them otherwise than by their weights gets other labels.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

LOW_HU, HIGH_HU = -1000.0, 1000.0
"""Mapped to [-1, 1] for every system."""

HAT_RANGE = (-0.45, 1.0)
RAMP = 0.2


class Stopwatch:
    """CPU time inside the network; shared by copies of the network that holds it."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.calls = 0
        self._started = 0.0

    def __deepcopy__(self, memo: dict[int, Any]) -> Stopwatch:
        return self

    def __enter__(self) -> Stopwatch:
        self._started = time.process_time()
        return self

    def __exit__(self, *exc: object) -> None:
        self.cpu_s += time.process_time() - self._started
        self.calls += 1


def features(x: torch.Tensor, count: int) -> torch.Tensor:
    """(B, 1, I, J, K) in [-1, 1] to (B, count, I, J, K) float32, contiguous."""
    x = x.float().contiguous()
    low, high = HAT_RANGE
    step = (high - low) / max(1, count - 1)
    centers = (low + step * torch.arange(count)).view(1, -1, 1, 1, 1)
    out = torch.empty((x.shape[0], count, *x.shape[2:]))
    torch.sub(x, centers, out=out)
    out.abs_().mul_(-0.25 / step).add_(1.0).clamp_min_(0.0)
    for axis in range(3):
        size = x.shape[2 + axis]
        ramp = RAMP * (torch.arange(size) / size - 0.5)
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = size
        out[:, axis::3] += ramp.view(shape)
    return out


def head(count: int, organs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (1 + organs, count) and bias (1 + organs,) of the last layer, the same for everybody."""
    rng = np.random.default_rng(20261120)
    weight = rng.standard_normal((1 + organs, count)).astype(np.float32)
    bias = rng.standard_normal(1 + organs).astype(np.float32) * 0.1
    return torch.from_numpy(weight), torch.from_numpy(bias)


class StubNetwork(torch.nn.Module):
    """(B, 1, I, J, K) to logits (B, 1 + organs, I, J, K), as the peers expect a network to be."""

    def __init__(self, count: int, organs: int) -> None:
        super().__init__()
        weight, bias = head(count, organs)
        self.head = torch.nn.Conv3d(count, 1 + organs, 1)
        self.head.load_state_dict({"weight": weight.view(*weight.shape, 1, 1, 1), "bias": bias})
        self.requires_grad_(False)
        self.stopwatch = Stopwatch()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features, then the last layer."""
        with self.stopwatch:
            logits: torch.Tensor = self.head(features(x, self.head.in_channels))
        return logits


def normalized(voxels: Any) -> torch.Tensor:
    """HU to the network's input (1, I, J, K) float32 in [-1, 1]."""
    hu = torch.from_numpy(voxels).float().clamp_(LOW_HU, HIGH_HU)
    return hu.sub_((LOW_HU + HIGH_HU) / 2).mul_(2 / (HIGH_HU - LOW_HU))[None]
