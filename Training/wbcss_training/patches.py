"""What every source of training patches offers to the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from wbcss.labels import OrganName, TaskId
from wbcss.specs import WindowHU


@dataclass(frozen=True, eq=False)
class Patch:
    """One training patch on the model grid.

    Attributes:
        image: (C, I, J, K) float32, one channel per intensity window, in [-1, 1].
        labels: (I, J, K) uint8 or int16; value c is decoder channel c, 0 is background.
        annotated: (1 + num_organs,) bool; False marks an organ that this case does not annotate: its voxels are
            unknown, hidden among the background. Channel 0 is always True.
    """

    image: torch.Tensor
    labels: torch.Tensor
    annotated: torch.Tensor


@dataclass(frozen=True, eq=False)
class FeaturePatch:
    """A training patch as the frozen encoder sees it.

    Attributes:
        skips: Encoder feature maps, finest first: (C_s, I / d_s, J / d_s, K / d_s) float16.
        labels: As of ``Patch``, at full resolution.
        annotated: As of ``Patch``.
    """

    skips: tuple[torch.Tensor, ...]
    labels: torch.Tensor
    annotated: torch.Tensor


class Sample(Protocol):
    """What the loss needs to know of anything that a learner reads."""

    @property
    def labels(self) -> torch.Tensor: ...

    @property
    def annotated(self) -> torch.Tensor: ...


class SampleSource(Protocol):
    """Samples of one task. The same index and seed always give the same sample, in any process."""

    @property
    def task(self) -> TaskId: ...

    def patch(self, index: int) -> Sample: ...


class PatchSource(Protocol):
    """A dataset of one task. The same index and seed always give the same patch, in any process."""

    @property
    def task(self) -> TaskId: ...

    @property
    def organs(self) -> tuple[OrganName, ...]:
        """Organs in decoder channel order, starting at channel 1."""
        ...

    def patch(self, index: int) -> Patch: ...


def windowed(volume_hu: torch.Tensor, windows_hu: tuple[WindowHU, ...]) -> torch.Tensor:
    """(I, J, K) HU to (C, I, J, K): clipped to each window and mapped linearly to [-1, 1], as at inference."""
    channels = [(volume_hu.clamp(low, high) - low) * (2.0 / (high - low)) - 1.0 for low, high in windows_hu]
    return torch.stack(channels).float()


def patch_rng(seed: int, index: int) -> np.random.Generator:
    """The random stream of one patch: it depends on seed and index alone, so a resumed run sees the same data."""
    return np.random.default_rng(np.random.SeedSequence([seed, index]))
