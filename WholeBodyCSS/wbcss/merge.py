"""Settle voxels that several tasks claim: organ by organ, never voxel by voxel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import LabelSpaceError
from .labels import BACKGROUND, MAX_LABEL, TaskId
from .progress import IsCancelled, check_cancelled, never
from .specs import MergeRules
from .volume import Confidence, LabelMap

Region = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class TaskPrediction:
    """What one decoder says about every voxel of a region.

    Attributes:
        task: Who says it.
        rank: Position of the task in the registry, the one published first being 0.
        labels: uint16 global label values; 0 where the task sees background or an organ nobody asked for.
        confidence: float16 in [0, 1], same shape: calibrated probability of what it says.
    """

    task: TaskId
    rank: int
    labels: LabelMap
    confidence: Confidence

    def __post_init__(self) -> None:
        if self.labels.shape != self.confidence.shape:
            raise LabelSpaceError(
                f"labels and confidence of task {self.task!r} must have one shape, "
                f"got {self.labels.shape} and {self.confidence.shape}"
            )


@dataclass(frozen=True, eq=False)
class _Contested:
    """Claims that wait for the statistics: N voxels of a region, T tasks in rank order."""

    region: Region
    index: npt.NDArray[np.int32]
    labels: npt.NDArray[np.uint16]
    confidence: npt.NDArray[np.float16]


class Merger:
    """Merges predictions region by region in two passes that need no second copy of them.

    Every voxel that is settled whatever the statistics say is written at once; the others (an organ that several
    tasks know, or two organs on one voxel) are kept as a list and written by ``finish``.

    An organ that several tasks know goes to one of them as a whole. With ``most_confident`` that is the task with
    the higher mean confidence over the union of all candidates, where a task that does not claim a voxel has
    confidence 0 in the organ there, so that a task which sees a part only does not win by being sure of it. Two
    different organs on a voxel: the more confident claim wins, then the smaller organ, then the smaller label.

    Args:
        labels: (I, J, K) uint16 output, zeros; views are written through.
        confidence: (I, J, K) float16 output, ones.
        organs: Per task the labels it may claim.
        ranks: Per task its position in the registry.
        rules: How to decide.
    """

    def __init__(
        self,
        labels: LabelMap,
        confidence: Confidence,
        *,
        organs: Mapping[TaskId, Iterable[int]],
        ranks: Mapping[TaskId, int],
        rules: MergeRules,
    ) -> None:
        self._labels = labels
        self._confidence = confidence
        self._rules = rules
        self._tasks = sorted(organs, key=lambda task: (ranks[task], task))
        counts = np.zeros(MAX_LABEL + 1, np.int64)
        for known in organs.values():
            counts[sorted(set(known))] += 1
        self._top = int(np.flatnonzero(counts).max(initial=0)) + 1
        self._shared = counts[: self._top] > (0 if rules.min_confidence > 0 else 1)
        self._shared[BACKGROUND] = False
        self._voxels = np.zeros((len(self._tasks), self._top), np.int64)
        self._sums = np.zeros((len(self._tasks), self._top))
        self._contested: list[_Contested] = []

    def write(self, region: Region, predictions: Sequence[TaskPrediction]) -> None:
        """Take what every task says about ``region``; each region is written once, in any order of tasks.

        Raises LabelSpaceError if a task is missing or was not announced.
        """
        told = {prediction.task: prediction for prediction in predictions}
        if sorted(told) != sorted(self._tasks) or len(predictions) != len(self._tasks):
            raise LabelSpaceError(
                f"each of the tasks {', '.join(self._tasks)} must say something once, "
                f"got {', '.join(prediction.task for prediction in predictions)}"
            )
        if len(self._tasks) == 1 and not self._shared.any():
            self._labels[region] = predictions[0].labels
            self._confidence[region] = predictions[0].confidence
            return
        labels = np.stack([told[task].labels for task in self._tasks])
        confidence = np.stack([told[task].confidence for task in self._tasks])
        self._count(labels, confidence)
        self._settle(region, labels, confidence)

    def _count(self, labels: npt.NDArray[np.uint16], confidence: npt.NDArray[np.float16]) -> None:
        for row in range(len(self._tasks)):
            flat = labels[row].ravel()
            if int(flat.max(initial=0)) >= self._top:
                raise LabelSpaceError(
                    f"task {self._tasks[row]!r} must claim labels that it announced, got {int(flat.max())}"
                )
            self._voxels[row] += np.bincount(flat, minlength=self._top)
            self._sums[row] += np.bincount(flat, weights=confidence[row].ravel(), minlength=self._top)

    def _settle(self, region: Region, labels: npt.NDArray[np.uint16], confidence: npt.NDArray[np.float16]) -> None:
        largest = labels.max(axis=0)
        claimed = labels != BACKGROUND
        waits = self._shared[labels].any(axis=0) | (claimed & (labels != largest)).any(axis=0)
        # Where one task claims an organ of its own the answer is its claim, elsewhere the least sure background.
        sure = np.where(claimed, confidence, np.float16(0)).max(axis=0)
        empty = np.where(claimed, np.float16(1), confidence).min(axis=0)
        self._labels[region] = np.where(waits, BACKGROUND, largest)
        self._confidence[region] = np.where(largest > 0, sure, empty)
        index = np.flatnonzero(waits).astype(np.int32)
        if len(index):
            tasks = len(self._tasks)
            kept = labels.reshape(tasks, -1)[:, index], confidence.reshape(tasks, -1)[:, index]
            self._contested.append(_Contested(region, index, *kept))

    def owners(self) -> npt.NDArray[np.bool_]:
        """(T, labels) bool: which task speaks for which organ, from the statistics so far."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(self._voxels > 0, self._sums / self._voxels, 0.0)
        competes = (self._voxels > 0) & (mean >= self._rules.min_confidence)
        # All candidates of an organ share one union, so comparing sums compares means over it.
        score = self._sums if self._rules.strategy == "most_confident" else np.ones_like(self._sums)
        score = np.where(competes, score, -1.0)
        first = np.argmax(score, axis=0)
        owner: npt.NDArray[np.bool_] = np.arange(len(self._tasks))[:, None] == first[None, :]
        return owner & competes

    def finish(self, cancelled: IsCancelled = never) -> None:
        """Write the voxels that waited. Raises Cancelled."""
        owner = self.owners()
        owner[:, BACKGROUND] = False
        size = np.where(owner, self._voxels, 0).sum(axis=0)
        while self._contested:
            check_cancelled(cancelled)
            part = self._contested.pop()
            label, confidence = _decide(part, owner, size)
            target = self._labels[part.region]
            at = np.unravel_index(part.index, target.shape)
            target[at] = label
            self._confidence[part.region][at] = confidence


def _decide(
    part: _Contested, owner: npt.NDArray[np.bool_], size: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Label and confidence of every waiting voxel."""
    label = np.zeros(len(part.index), np.uint16)
    background = part.labels == BACKGROUND
    empty = np.where(background, part.confidence, np.float16(2)).min(axis=0)
    confidence = np.where(empty > 1, np.float16(0), empty)
    for row in range(len(part.labels)):
        claim, sure = part.labels[row], part.confidence[row]
        smaller = (size[claim] < size[label]) | ((size[claim] == size[label]) & (claim < label))
        better = (label == BACKGROUND) | (sure > confidence) | ((sure == confidence) & smaller)
        wins = owner[row][claim] & better
        label = np.where(wins, claim, label)
        confidence = np.where(wins, sure, confidence)
    return label, confidence


def merge_predictions(
    predictions: Sequence[TaskPrediction], *, rules: MergeRules = MergeRules()
) -> tuple[LabelMap, Confidence]:
    """Labels and confidence of whole (I, J, K) predictions; independent of their order.

    With one task and no ``min_confidence`` the answer is its own. Raises LabelSpaceError if there is no prediction
    or a task speaks twice.
    """
    if not predictions:
        raise LabelSpaceError("at least one prediction must be given, got none")
    shape = predictions[0].labels.shape
    labels = np.zeros(shape, np.uint16)
    confidence = np.ones(shape, np.float16)
    merger = Merger(
        labels,
        confidence,
        organs={p.task: [int(v) for v in np.unique(p.labels) if v] for p in predictions},
        ranks={p.task: p.rank for p in predictions},
        rules=rules,
    )
    everywhere = (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    merger.write(everywhere, predictions)
    merger.finish()
    return labels, confidence
