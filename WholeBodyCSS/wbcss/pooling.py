"""Describe every organ of a decoder by the mean and spread of its features, added up plane by plane."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

MIN_VOXELS = 16
"""Organs of fewer voxels on the model grid (54 mm3 at 1.5 mm) are too small for a spread."""


class OrganPool:
    """Sums of features and of their squares over the voxels of every organ of one decoder.

    The memory is organs x features: nothing of the size of a volume.

    Args:
        num_organs: Of the decoder, C.
        num_features: F.
        device: Where planes are.
    """

    def __init__(self, num_organs: int, num_features: int, device: torch.device) -> None:
        self._count = torch.zeros(1 + num_organs, dtype=torch.float64, device=device)
        self._sums = torch.zeros((2, 1 + num_organs, num_features), dtype=torch.float64, device=device)

    def add(self, channels: torch.Tensor, features: torch.Tensor) -> None:
        """Add voxels: the winning channels (N,) int32, 0 for background, and the features (N, F)."""
        index = torch.nonzero(channels)[:, 0]
        if len(index) == 0:
            return
        organ, values = channels[index].long(), features[index].double()
        self._count.index_add_(0, organ, torch.ones_like(values[:, 0]))
        self._sums[0].index_add_(0, organ, values)
        self._sums[1].index_add_(0, organ, values.square())

    def descriptors(self) -> npt.NDArray[np.float64]:
        """(C, 2 F): means, then standard deviations; NaN for organs of fewer than ``MIN_VOXELS`` voxels."""
        count = self._count[1:, None]
        mean, square = self._sums[:, 1:] / count.clamp_min(1)
        spread = (square - mean.square()).clamp_min(0).sqrt()
        found = torch.where(count >= MIN_VOXELS, torch.cat([mean, spread], dim=1), torch.nan)
        described: npt.NDArray[np.float64] = found.cpu().numpy()
        return described
