"""Blend overlapping tiles plane by plane: the exact feature sweep.

A decoder's last layer is linear and pointwise, so the weighted mean of its logits is the layer applied to the
weighted mean of the F features it reads. The sweep averages F channels in a ring one tile deep and hands out finished
planes; logits of all organs never exist for more than a chunk of voxels, and nothing grows with the volume's length.

The ring holds running means in 16 bits: arithmetic is float32 and is rounded once per tile. Sums would not do: their
weights span four decades, more than 16 bits resolve.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from .labels import TaskId
from .tiling import Range, importance
from .volume import Shape3

CPU_STEP = 2**18
"""Features averaged together on the CPU, so that they stay in its cache; at least one row of a tile."""

GPU_STEP = 2**24

PLANES_PER_STEP = 16
"""Planes read from the ring together. Their features are neighbors there: one by one they cost four times as much."""


@dataclass(frozen=True, eq=False)
class FeaturePlane:
    """One finished plane.

    Attributes:
        k: Its index on the model grid.
        features: Per task (I * J, F) float32, voxel-major, of the sweep's box.
        covered: (I, J) bool: where any tile lay. Elsewhere features are 0 and the answer is background.
        decoded: The same for tasks that some tile left out: where a tile lay that decoded them.
    """

    k: int
    features: Mapping[TaskId, torch.Tensor]
    covered: torch.Tensor
    decoded: Mapping[TaskId, torch.Tensor] = field(default_factory=dict)

    def covered_by(self, task: TaskId) -> torch.Tensor:
        """(I, J) bool: where the features of ``task`` are known."""
        return self.decoded.get(task, self.covered)


class FeatureSweep:
    """Weighted means of the features of all tiles that reach the planes still open.

    Args:
        box_ij: Half-open ranges of the model grid along i and j.
        tile: Tile shape; the ring is as deep as its last axis.
        num_features: Features F of every task.
        device: Where the means are kept.
        dtype: Of the means. What exceeds it becomes its largest number; instance norm keeps features of a tile of
            128^3 below 1449 times its weight. float32 and float64 serve to test exactness.
    """

    def __init__(
        self,
        box_ij: tuple[Range, Range],
        tile: Shape3,
        num_features: Mapping[TaskId, int],
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float16,
    ) -> None:
        self._origin = (box_ij[0][0], box_ij[1][0])
        self._shape = (box_ij[0][1] - box_ij[0][0], box_ij[1][1] - box_ij[1][0])
        self._depth = tile[2]
        exact = torch.promote_types(dtype, torch.float32)
        self._importance = importance(tile).to(device, exact)
        self._means = {
            task: torch.zeros((*self._shape, width, self._depth), device=device, dtype=dtype)
            for task, width in num_features.items()
        }
        self._weights = torch.zeros((*self._shape, self._depth), device=device, dtype=exact)
        # Only a task that some tile left out needs weights of its own; all others share theirs.
        self._own_weights: dict[TaskId, torch.Tensor] = {}
        self._step = CPU_STEP if device.type == "cpu" else GPU_STEP

    def add(self, start: Shape3, features: Mapping[TaskId, torch.Tensor], *, k_limit: int) -> None:
        """Add one tile.

        Args:
            start: Its first voxel on the model grid; what lies outside the box or the grid is dropped.
            features: Per task (F, I, J, K) of the tile, any float type. A task may be left out: its means are those
                of the other tiles.
            k_limit: Number of planes of the model grid.
        """
        for task in self._means:
            if task not in features and task not in self._own_weights:
                self._own_weights[task] = self._weights.clone()
        (i, tile_i), (j, tile_j) = (self._clip(start[axis], axis) for axis in range(2))
        for k, tile_k in self._ring_segments(start[2], k_limit):
            weight = self._importance[tile_i, tile_j, tile_k]
            total = self._weights[i, j, k].add_(weight)
            share = (weight / total)[:, :, None]
            for task, values in features.items():
                own = self._own_weights.get(task)
                part = share if own is None else (weight / own[i, j, k].add_(weight))[:, :, None]
                self._blend(self._means[task][i, j, :, k], values[:, tile_i, tile_j, tile_k], part)

    def _blend(self, means: torch.Tensor, values: torch.Tensor, share: torch.Tensor) -> None:
        """Move ``means`` (I, J, F, K) towards ``values`` (F, I, J, K) by ``share`` (I, J, 1, K), row by row."""
        values = values.permute(1, 2, 0, 3)
        limit = torch.finfo(means.dtype).max
        rows = max(1, self._step // max(1, values.shape[1:].numel()))
        for row in range(0, len(means), rows):
            at = slice(row, row + rows)
            mean, value = means[at], values[at].to(share.dtype)
            if mean.dtype == share.dtype:
                mean.lerp_(value, share[at])
            else:
                # Limited before it is averaged: an infinite value would leave NaN behind.
                value = value.clamp(-limit, limit)
                mean.copy_(mean.to(share.dtype).lerp_(value, share[at]))

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

    def take(self, planes: Range) -> Iterator[FeaturePlane]:
        """The finished ``planes`` in order. Their places in the ring are cleared for later ones."""
        low = planes[0]
        while low < planes[1]:
            wrap = (low // self._depth + 1) * self._depth
            high = min(planes[1], wrap, low + PLANES_PER_STEP)
            ring = slice(low % self._depth, low % self._depth + high - low)
            covered = self._weights[:, :, ring] > 0
            decoded = {task: own[:, :, ring] > 0 for task, own in self._own_weights.items()}
            for weights in (self._weights, *self._own_weights.values()):
                weights[:, :, ring] = 0
            features = {task: self._plane_major(means[..., ring]) for task, means in self._means.items()}
            for number in range(high - low):
                plane = {task: values[number].float() for task, values in features.items()}
                reached = {task: there[:, :, number] for task, there in decoded.items()}
                yield FeaturePlane(low + number, plane, covered[:, :, number], reached)
            low = high

    def _plane_major(self, means: torch.Tensor) -> torch.Tensor:
        """(I, J, F, K) of the ring to (K, I * J, F); the ring's part is cleared."""
        size_i, size_j, width, depth = means.shape
        out = means.new_empty((depth, size_i, size_j, width))
        rows = max(1, self._step // (size_j * width * depth))
        for row in range(0, size_i, rows):
            part = means[row : row + rows]
            # A plain transposition: permuting four axes at once takes four times as long.
            out[:, row : row + rows] = part.reshape(-1, depth).t().contiguous().view(depth, -1, size_j, width)
            part.zero_()
        return out.view(depth, -1, width)
