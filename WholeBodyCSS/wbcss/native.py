"""Carry finished planes to the caller's grid: interpolate features, then decide.

Trilinear interpolation commutes with the linear head, so features are interpolated instead of logits; and where all
corners of a model cell have the same label, every point between them has it too (the weights are convex), so the
head runs only where they differ. Nothing is rounded to the nearest label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch

from .bodyvote import OrganVote
from .heads import TaskHead
from .labels import TaskId
from .pooling import OrganPool
from .preprocess import AxisMap
from .sweep import FeaturePlane
from .tiling import Range


@dataclass(frozen=True, eq=False)
class NativePlane:
    """Answers for a rectangle of one plane of the caller's grid, in canonical orientation.

    Attributes:
        k: Native plane.
        i: Native range of the rectangle along i.
        j: Along j.
        labels: Per task, (I, J) uint16 global labels.
        confidence: Per task, (I, J) float16.
    """

    k: int
    i: Range
    j: Range
    labels: Mapping[TaskId, npt.NDArray[np.uint16]]
    confidence: Mapping[TaskId, npt.NDArray[np.float16]]


@dataclass(frozen=True, eq=False)
class _Samples:
    """Where native voxels of one axis fall between model voxels of a box.

    Attributes:
        native: Native range that the box answers for.
        lower: (N,) index in the box of the model voxel before.
        fraction: (N,) weight of the model voxel after, in [0, 1).
        reach: 1 if a voxel after is ever needed, else 0.
    """

    native: Range
    lower: npt.NDArray[np.int64]
    fraction: npt.NDArray[np.float32]
    reach: int

    @classmethod
    def of(cls, axis: AxisMap, box: Range) -> _Samples:
        model = axis.model_of(np.arange(axis.native_size))
        inside = np.flatnonzero((model >= box[0] - 0.5 - 1e-6) & (model <= box[1] - 0.5 + 1e-6))
        if len(inside) == 0:
            return cls((0, 0), np.zeros(0, np.int64), np.zeros(0, np.float32), 0)
        first, last = int(inside[0]), int(inside[-1]) + 1
        position = np.clip(model[first:last] - box[0], 0, box[1] - box[0] - 1)
        nearest = np.rint(position)
        position = np.where(np.abs(position - nearest) < 1e-6, nearest, position)
        lower = np.minimum(np.floor(position), max(0, box[1] - box[0] - 2)).astype(np.int64)
        fraction = (position - lower).astype(np.float32)
        if axis.aligned:
            lower, fraction = np.rint(position).astype(np.int64), np.zeros_like(fraction)
        return cls((first, last), lower, fraction, int(bool(fraction.any())))

    def index(self, device: torch.device) -> torch.Tensor:
        """``lower`` as a tensor."""
        return torch.from_numpy(self.lower).to(device)

    def weight(self, device: torch.device) -> torch.Tensor:
        """``fraction`` as a tensor."""
        return torch.from_numpy(self.fraction).to(device)


class _TaskPlanes:
    """The last two model planes of one task: features, winning channels and their probability."""

    def __init__(
        self,
        head: TaskHead,
        shape: tuple[int, int],
        device: torch.device,
        *,
        pool: OrganPool | None,
        vote: OrganVote | None,
    ) -> None:
        self.head = head
        self.pool = pool
        self.vote = vote
        num_features = len(head.weight)
        self.features = torch.zeros((2, shape[0] * shape[1], num_features), device=device)
        self.channels = torch.zeros((2, *shape), dtype=torch.int32, device=device)
        self.confidence = torch.ones((2, *shape), device=device)
        self.covered = torch.zeros((2, *shape), dtype=torch.bool, device=device)

    def put(self, k: int, slot: int, features: torch.Tensor, covered: torch.Tensor) -> None:
        self.features[slot] = features
        self.covered[slot] = covered
        if bool(covered.any()):
            self._classify(slot, features, covered)
        else:
            self.channels[slot], self.confidence[slot] = 0, 1.0
        if self.vote is not None:
            self.vote.add(k, self.channels[slot])

    def _classify(self, slot: int, features: torch.Tensor, covered: torch.Tensor) -> None:
        channels, confidence = self.head.classify(features)
        self.channels[slot] = torch.where(covered, channels.view(covered.shape), 0)
        if self.pool is not None:
            self.pool.add(self.channels[slot].flatten(), features)
        self.confidence[slot] = torch.where(covered, confidence.view(covered.shape), 1.0)

    def uniform_cells(self, slots: tuple[int, ...], reach: tuple[int, int]) -> torch.Tensor:
        """(I - reach, J - reach) bool: model cells whose corners all have one label."""
        first = self.channels[slots[0]]
        same = first == self.channels[slots[-1]]
        if reach[0]:
            same = same[:-1] & same[1:] & (first[:-1] == first[1:])
            first = first[:-1]
        if reach[1]:
            same = same[:, :-1] & same[:, 1:] & (first[:, :-1] == first[:, 1:])
        return same


class NativeCarrier:
    """Takes finished model planes in order and yields native planes as soon as both neighbors are there.

    Args:
        axes: Along R, A, S.
        box: Half-open model ranges along i, j, k that the planes cover.
        heads: Per task.
        device: Where the planes are.
        pools: Of tasks whose organs are to be described.
        votes: Of tasks that may contradict the body-part check.
    """

    def __init__(
        self,
        axes: tuple[AxisMap, AxisMap, AxisMap],
        box: tuple[Range, Range, Range],
        heads: Mapping[TaskId, TaskHead],
        device: torch.device,
        *,
        pools: Mapping[TaskId, OrganPool] = MappingProxyType({}),
        votes: Mapping[TaskId, OrganVote] = MappingProxyType({}),
    ) -> None:
        self._samples = tuple(_Samples.of(axis, extent) for axis, extent in zip(axes, box, strict=True))
        self._shape = (box[0][1] - box[0][0], box[1][1] - box[1][0])
        self._first_k = box[2][0]
        self._device = device
        self._tasks = {
            task: _TaskPlanes(head, self._shape, device, pool=pools.get(task), vote=votes.get(task))
            for task, head in heads.items()
        }
        self._lower = [self._samples[axis].index(device) for axis in range(2)]
        self._fraction = [self._samples[axis].weight(device) for axis in range(2)]
        self._next = 0

    @property
    def num_planes(self) -> int:
        """Native planes that will be yielded in all."""
        return len(self._samples[2].lower)

    def push(self, plane: FeaturePlane) -> Iterator[NativePlane]:
        """Take model plane ``plane.k`` (one after the last one taken) and yield what became ready."""
        k = plane.k - self._first_k
        for task, planes in self._tasks.items():
            planes.put(plane.k, k % 2, plane.features[task], plane.covered_by(task))
        samples = self._samples[2]
        while self._next < len(samples.lower):
            lower, fraction = int(samples.lower[self._next]), float(samples.fraction[self._next])
            if lower + (fraction > 0) > k:
                return
            yield self._plane(self._next, lower, fraction)
            self._next += 1

    def _plane(self, number: int, lower: int, fraction: float) -> NativePlane:
        at = [(lower % 2, 1 - fraction), ((lower + 1) % 2, fraction)]
        ends = [(slot, weight) for slot, weight in at if weight > 0]
        labels, confidence = {}, {}
        for task, planes in self._tasks.items():
            channels, probability = self._interpolate(planes, ends)
            labels[task] = planes.head.global_labels[channels.cpu().numpy()]
            confidence[task] = probability.clamp_(0, 1).half().cpu().numpy()
        i, j, k = (samples.native for samples in self._samples)
        return NativePlane(k[0] + number, i, j, labels, confidence)

    def _interpolate(self, planes: _TaskPlanes, ends: list[tuple[int, float]]) -> tuple[torch.Tensor, torch.Tensor]:
        reach = (self._samples[0].reach, self._samples[1].reach)
        slots = tuple(slot for slot, _ in ends)
        between = planes.confidence[slots[0]]
        if len(ends) == 2:
            between = torch.lerp(between, planes.confidence[slots[1]], ends[1][1])
        probability = self._bilinear(between, reach)
        channels = self._nearest(planes.channels[slots[0]])
        if len(ends) == 1 and reach == (0, 0):
            return channels, probability
        mixed = torch.nonzero(~self._nearest(planes.uniform_cells(slots, reach)))
        if len(mixed):
            rows, columns = mixed[:, 0], mixed[:, 1]
            exact, sure = planes.head.classify(self._features(planes, rows, columns, ends))
            channels[rows, columns] = exact
            probability[rows, columns] = sure
        return channels, probability

    def _nearest(self, plane: torch.Tensor) -> torch.Tensor:
        return plane.index_select(0, self._lower[0]).index_select(1, self._lower[1])

    def _bilinear(self, plane: torch.Tensor, reach: tuple[int, int]) -> torch.Tensor:
        for axis in range(2):
            lower = plane.index_select(axis, self._lower[axis])
            if reach[axis]:
                fraction = self._fraction[axis].view(-1, 1) if axis == 0 else self._fraction[axis]
                lower = torch.lerp(lower, plane.index_select(axis, self._lower[axis] + 1), fraction)
            plane = lower
        return plane

    def _features(
        self, planes: _TaskPlanes, rows: torch.Tensor, columns: torch.Tensor, ends: list[tuple[int, float]]
    ) -> torch.Tensor:
        """Trilinear mean (N, F) of the corners' features for the native voxels at ``rows``, ``columns``."""
        size_i, size_j = self._shape
        index = self._lower[0][rows] * size_j + self._lower[1][columns]
        weight = torch.ones_like(index, dtype=torch.float32)
        corners = [(index + slot * size_i * size_j, weight * share) for slot, share in ends]
        for axis, chosen, step in ((0, rows, size_j), (1, columns, 1)):
            if self._samples[axis].reach:
                share = self._fraction[axis][chosen]
                corners = [(at, w * (1 - share)) for at, w in corners] + [(at + step, w * share) for at, w in corners]
        indices = torch.stack([at for at, _ in corners], dim=1)
        weights = torch.stack([w for _, w in corners], dim=1)
        if not bool(planes.covered.all()):
            weights = _only_covered(weights, planes.covered.view(-1)[indices])
        # One fused pass; gathering the corners and adding them up takes ten times as long.
        table = planes.features.view(-1, planes.features.shape[-1])
        return torch.nn.functional.embedding_bag(indices.int(), table, mode="sum", per_sample_weights=weights)


def _only_covered(weights: torch.Tensor, covered: torch.Tensor) -> torch.Tensor:
    """Leave corners out that no tile reached: their features are unknown."""
    kept = weights * covered
    return kept / kept.sum(dim=1, keepdim=True).clamp_min(1e-12)
