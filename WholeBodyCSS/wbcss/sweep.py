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

FLOATS_PER_STEP = 2**17
"""Features turned voxel-major together on the CPU."""


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
        i, j = (self._clip(start[axis], axis) for axis in range(2))
        segments = self._ring_segments(start[2], k_limit)
        for target_k, source_k in segments:
            weight = self._importance[i[1], j[1], source_k]
            self._weights[i[0], j[0], target_k] += weight
        for task, values in features.items():
            sums = self._sums[task]
            rows = self._rows_per_step(values)
            for row in range(i[1].start, i[1].stop, rows):
                at = slice(row, min(row + rows, i[1].stop))
                voxel_major = _voxel_major(values[:, at]).to(sums.dtype)
                total = sums[i[0].start - i[1].start + at.start : i[0].start - i[1].start + at.stop, j[0]]
                for target_k, source_k in segments:
                    weight = self._importance[at, j[1], source_k, None]
                    total[:, :, target_k].addcmul_(voxel_major[:, j[1], source_k], weight)

    def _clip(self, start: int, axis: int) -> tuple[slice, slice]:
        """Where a tile lies in the box along ``axis``, and the part of the tile that lies there."""
        offset = start - self._origin[axis]
        first, last = max(0, -offset), min(self._importance.shape[axis], self._shape[axis] - offset)
        return slice(offset + first, offset + last), slice(first, last)

    def _ring_segments(self, k_start: int, k_limit: int) -> list[tuple[slice, slice]]:
        """The planes of a tile as at most two runs in the ring, each with the planes of the tile."""
        first, last = max(0, k_start), min(k_start + self._depth, k_limit)
        wrap = min(last, (first // self._depth + 1) * self._depth)
        return [
            (slice(low % self._depth, low % self._depth + high - low), slice(low - k_start, high - k_start))
            for low, high in ((first, wrap), (wrap, last))
            if low < high
        ]

    @staticmethod
    def _rows_per_step(values: torch.Tensor) -> int:
        """Rows to turn voxel-major together: on the CPU what stays in the cache until it is added, else all."""
        if values.device.type != "cpu" or values.stride(0) == 1:
            return int(values.shape[1])
        return max(1, FLOATS_PER_STEP // (values.shape[0] * values.shape[2] * values.shape[3]))

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
