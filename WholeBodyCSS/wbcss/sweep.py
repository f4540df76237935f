"""Blend overlapping tiles plane by plane: the exact feature sweep.

A decoder's last layer is linear and pointwise, so the weighted mean of its logits is the layer applied to the
weighted mean of the F features it reads. The sweep sums F channels in a ring one tile deep and hands out finished
planes; logits of all organs never exist for more than a chunk of voxels, and nothing grows with the volume's length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from .labels import TaskId
from .tiling import Range, importance
from .volume import Shape3

ROWS_PER_STEP = 4
"""Rows of a tile turned voxel-major together on the CPU: they stay in the cache until they are added."""


@dataclass(frozen=True, eq=False)
class FeaturePlane:
    """One finished plane.

    Attributes:
        k: Its index on the model grid.
        features: Per task (I * J, F) float32, voxel-major, of the sweep's box.
        covered: (I, J) bool: where any tile lay. Elsewhere features are 0 and the answer is background.
    """

    k: int
    features: Mapping[TaskId, torch.Tensor]
    covered: torch.Tensor


class FeatureSweep:
    """Weighted sums of the features of all tiles that reach the planes still open.

    Args:
        box_ij: Half-open ranges of the model grid along i and j.
        tile: Tile shape; the ring is as deep as its last axis.
        num_features: Features F of every task.
        device: Where the sums are kept.
        dtype: Of the sums; float64 only serves to test exactness.
    """

    def __init__(
        self,
        box_ij: tuple[Range, Range],
        tile: Shape3,
        num_features: Mapping[TaskId, int],
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._origin = (box_ij[0][0], box_ij[1][0])
        self._shape = (box_ij[0][1] - box_ij[0][0], box_ij[1][1] - box_ij[1][0])
        self._depth = tile[2]
        self._importance = importance(tile).to(device, dtype)
        self._sums = {
            task: torch.zeros((*self._shape, self._depth, width), device=device, dtype=dtype)
            for task, width in num_features.items()
        }
        self._weights = torch.zeros((*self._shape, self._depth), device=device, dtype=dtype)

    def add(self, start: Shape3, features: Mapping[TaskId, torch.Tensor], *, k_limit: int) -> None:
        """Add one tile.

        Args:
            start: Its first voxel on the model grid; what lies outside the box or the grid is dropped.
            features: Per task (F, I, J, K) of the tile, any float type.
            k_limit: Number of planes of the model grid.
        """
        inside, target = [], []
        for axis in range(2):
            offset = start[axis] - self._origin[axis]
            first, last = max(0, -offset), min(self._importance.shape[axis], self._shape[axis] - offset)
            inside.append(slice(first, last))
            target.append(slice(offset + first, offset + last))
        first, last = max(0, start[2]), min(start[2] + self._depth, k_limit)
        wrap = min(last, (first // self._depth + 1) * self._depth)
        for low, high in ((first, wrap), (wrap, last)):
            if low < high:
                ring = slice(low % self._depth, low % self._depth + high - low)
                planes = slice(low - start[2], high - start[2])
                self._add_part((target[0], target[1], ring), (inside[0], inside[1], planes), features)

    def _add_part(
        self,
        target: tuple[slice, slice, slice],
        source: tuple[slice, slice, slice],
        features: Mapping[TaskId, torch.Tensor],
    ) -> None:
        weight = self._importance[source]
        self._weights[target] += weight
        for task, values in features.items():
            total = self._sums[task][target]
            part = values[:, source[0], source[1], source[2]]
            rows = ROWS_PER_STEP if part.device.type == "cpu" and part.stride(0) != 1 else max(1, part.shape[1])
            for row in range(0, part.shape[1], rows):
                voxel_major = _voxel_major(part[:, row : row + rows]).to(total.dtype)
                total[row : row + rows].addcmul_(voxel_major, weight[row : row + rows, ..., None])

    def take(self, k: int) -> FeaturePlane:
        """The finished plane ``k``: weighted means. Its place in the ring is cleared for a later plane."""
        slot = k % self._depth
        weights = self._weights[:, :, slot].clone()
        self._weights[:, :, slot] = 0
        covered = weights > 0
        scale = torch.where(covered, weights, 1).reciprocal_()[..., None]
        features = {}
        for task, sums in self._sums.items():
            features[task] = (sums[:, :, slot] * scale).reshape(-1, sums.shape[-1]).float()
            sums[:, :, slot] = 0
        return FeaturePlane(k, features, covered)


def _voxel_major(features: torch.Tensor) -> torch.Tensor:
    """(F, I, J, K) to (I, J, K, F) contiguous."""
    if features.stride(0) == 1:
        return features.permute(1, 2, 3, 0)
    return features.reshape(features.shape[0], -1).t().contiguous().view(*features.shape[1:], -1)
