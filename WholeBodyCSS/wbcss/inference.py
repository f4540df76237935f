"""One pass over a volume: layers of tiles to features, finished planes to labels on the caller's grid."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
import torch

from .backend import TileEncoderDecoder
from .bodypart import BodyPartGate
from .heads import TaskHead
from .labels import TaskId
from .merge import Merger, TaskPrediction
from .native import NativeCarrier, NativePlane
from .pooling import OrganPool
from .preprocess import AIR_HU, ModelGrid, PlaneReader, hu_to_channels
from .progress import IsCancelled, Progress, check_cancelled
from .specs import WindowHU
from .sweep import FeatureSweep
from .tiling import Range, TileLayer, TilePlan

NETWORK_SHARE = 0.8
"""Part of a pass's progress that its tiles stand for; the rest are finished planes."""


class Clock:
    """Adds up wall time per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block as ``name``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


@dataclass(frozen=True, eq=False)
class Scan:
    """The volume as the pass reads it.

    Attributes:
        voxels: (I, J, K) HU in canonical orientation, a view of the caller's.
        grid: The model grid laid over it.
        windows_hu: One input channel each.
    """

    voxels: npt.NDArray[Any]
    grid: ModelGrid
    windows_hu: tuple[WindowHU, ...]


class TileFeeder:
    """Cuts network input out of the resampled planes of one layer at a time."""

    def __init__(self, scan: Scan, plan: TilePlan, device: torch.device) -> None:
        self._reader = PlaneReader(scan.voxels, scan.grid.axes, plan.box[:2], device)
        self._windows_hu = scan.windows_hu
        self._size = plan.size
        self._box = plan.box
        self._num_planes = scan.grid.shape[2]
        self._planes = torch.empty(0)
        self._k_start = 0

    def load(self, layer: TileLayer) -> None:
        """Resample the planes that the tiles of ``layer`` need."""
        first, last = max(0, layer.k_start), min(self._num_planes, layer.k_start + self._size[2])
        self._planes = self._reader.read(first, last)
        self._k_start = layer.k_start

    def tiles(self, starts_ij: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Input (B, C, I, J, K) of tiles of the loaded layer; what lies outside the scan is air."""
        return hu_to_channels(torch.stack([self._cut(start) for start in starts_ij]), self._windows_hu)

    def _cut(self, start_ij: tuple[int, int]) -> torch.Tensor:
        hu = self._planes.new_full(self._size, AIR_HU)
        inside, source = [], []
        for axis in range(2):
            offset = start_ij[axis] - self._box[axis][0]
            first = max(0, -offset)
            last = min(self._size[axis], self._box[axis][1] - self._box[axis][0] - offset)
            inside.append(slice(first, last))
            source.append(slice(offset + first, offset + last))
        k_first = max(0, -self._k_start)
        planes = slice(k_first, k_first + len(self._planes))
        hu[inside[0], inside[1], planes] = self._planes[:, source[0], source[1]].permute(1, 2, 0)
        return hu


@dataclass(eq=False)
class Pass:
    """Everything one attempt needs; ``run`` does it.

    Attributes:
        scan: The volume.
        plan: Its tiles.
        backend: Runs the network.
        heads: Last layer per task, in registry order.
        merger: Takes the answers in canonical orientation.
        device: Where tensors live.
        batch: Tiles per call of the backend.
        clock: Takes the stage times.
        progress: Told fractions of the pass and stages.
        cancelled: Asked at every tile and plane.
        pools: Take the features of every organ, for tasks whose organs are to be described.
        gate: Says which decoders and organs can be where; None runs and keeps all.
    """

    scan: Scan
    plan: TilePlan
    backend: TileEncoderDecoder
    heads: Mapping[TaskId, TaskHead]
    merger: Merger
    device: torch.device
    batch: int
    clock: Clock
    progress: Progress
    cancelled: IsCancelled
    gate: BodyPartGate | None = None
    pools: Mapping[TaskId, OrganPool] = field(default_factory=dict)
    _done: float = field(default=0.0, init=False)

    def run(self) -> None:
        """Write every voxel of the plan's box. Raises Cancelled, and torch.OutOfMemoryError on a full GPU."""
        plan, grid = self.plan, self.scan.grid
        feeder = TileFeeder(self.scan, plan, self.device)
        widths = {task: len(head.weight) for task, head in self.heads.items()}
        sweep = FeatureSweep(plan.box[:2], plan.size, widths, device=self.device)
        votes = {} if self.gate is None else self.gate.votes
        carrier = NativeCarrier(grid.axes, plan.box, self.heads, self.device, pools=self.pools, votes=votes)
        for number, layer in enumerate(plan.layers):
            self._run_layer(layer, feeder, sweep)
            is_last = number == len(plan.layers) - 1
            stop = plan.box[2][1] if is_last else plan.layers[number + 1].k_start
            self._finish_planes((max(layer.k_start, plan.box[2][0]), stop), sweep, carrier)

    def _run_layer(self, layer: TileLayer, feeder: TileFeeder, sweep: FeatureSweep) -> None:
        with self.clock.stage("resample"):
            self.progress(self._done, "resample")
            feeder.load(layer)
        for first in range(0, len(layer.starts_ij), self.batch):
            check_cancelled(self.cancelled)
            starts = layer.starts_ij[first : first + self.batch]
            with self.clock.stage("network"):
                self.progress(self._done, "network")
                gated = () if self.gate is None else (self.gate.chooser(starts, layer.k_start),)
                features = self.backend.features(feeder.tiles(starts), self.cancelled, *gated)
            with self.clock.stage("sweep"):
                for row, (i, j) in enumerate(starts):
                    start = (i, j, layer.k_start)
                    k_limit = self.scan.grid.shape[2]
                    sweep.add(start, {task: values[row] for task, values in features.items()}, k_limit=k_limit)
            # Else they would be there until the network has made the next ones.
            del features
            self._done += NETWORK_SHARE * len(starts) / self.plan.num_tiles

    def _finish_planes(self, planes: Range, sweep: FeatureSweep, carrier: NativeCarrier) -> None:
        share = (1 - NETWORK_SHARE) / (self.plan.box[2][1] - self.plan.box[2][0])
        finished = sweep.take(planes)
        for _ in range(*planes):
            check_cancelled(self.cancelled)
            with self.clock.stage("native"):
                self.progress(self._done, "native")
                for plane in carrier.push(next(finished)):
                    self._write(plane)
            self._done += share

    def _write(self, plane: NativePlane) -> None:
        region = (slice(*plane.i), slice(*plane.j), slice(plane.k, plane.k + 1))
        predictions = []
        for rank, task in enumerate(self.heads):
            labels, confidence = plane.labels[task], plane.confidence[task]
            if self.gate is not None:
                labels, confidence = self.gate.keep(task, plane.k, labels, confidence)
            predictions.append(
                TaskPrediction(task=task, rank=rank, labels=labels[:, :, None], confidence=confidence[:, :, None])
            )
        self.merger.write(region, predictions)
