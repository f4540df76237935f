"""Settle voxels that several tasks claim: organ by organ, never voxel by voxel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .claims import Claims, decide, overwrite
from .errors import LabelSpaceError
from .labels import BACKGROUND, MAX_LABEL, TaskId
from .lesions import LesionRules, count_inside, large_lesions
from .ownership import Evidence, Ownership, Tally, settle_ownership
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


@dataclass(frozen=True, kw_only=True)
class Witness:
    """What is known of a task's organ beside its claims.

    Attributes:
        gate: In [0, 1]; 0 where the organ cannot be in this part of the body.
        anomaly: Distance to the training data over its threshold, minus 1; 0 or less is nothing unusual, and not known.
    """

    gate: float = 1.0
    anomaly: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One task's part in the decision about an organ that several tasks know.

    Attributes:
        task: Who.
        label: The organ.
        voxels: How many voxels it claims.
        inputs: c, g, a, d, p of the logistic model of ``MergeRules``.
        score: Its z; -inf if the task was too unsure to compete.
        speaks: Whether it got the organ.
    """

    task: TaskId
    label: int
    voxels: int
    inputs: tuple[float, float, float, float, float]
    score: float
    speaks: bool


@dataclass(frozen=True, kw_only=True)
class Dispute:
    """Where tasks that know an organ disagree most about it: the voxel in canonical orientation, and how many."""

    voxels: int
    ijk: tuple[int, int, int]


class Merger:
    """Merges predictions region by region in two passes that need no second copy of them.

    Every voxel that is settled whatever the statistics say is written at once; the others (an organ that several
    tasks know, two organs on one voxel, a lesion) are kept as a list and written by ``finish``.

    An organ that several tasks know goes to one of them as a whole, by ``rules``. Two different organs on a voxel: the
    more confident claim wins, then the smaller organ, then the smaller label. A task that is added last therefore
    changes an organ that it does not know only in voxels that it claims itself, more confidently (or as confidently,
    for a smaller organ); ``ownership`` says how that holds when it takes over a third organ.

    Args:
        labels: (I, J, K) uint16 output, zeros; views are written through.
        confidence: (I, J, K) float16 output, ones.
        organs: Per task the labels it may claim.
        ranks: Per task its position in the registry.
        rules: How to decide.
        lesions: What is known about lesions.
    """

    def __init__(
        self,
        labels: LabelMap,
        confidence: Confidence,
        *,
        organs: Mapping[TaskId, Iterable[int]],
        ranks: Mapping[TaskId, int],
        rules: MergeRules,
        lesions: LesionRules = LesionRules(),
    ) -> None:
        self._labels = labels
        self._confidence = confidence
        self._rules = rules
        self._lesions = lesions
        self._tasks = sorted(organs, key=lambda task: (ranks[task], task))
        knows = np.zeros((len(self._tasks), MAX_LABEL + 1), bool)
        for row, task in enumerate(self._tasks):
            knows[row, sorted(set(organs[task]))] = True
        self._top = int(np.flatnonzero(knows.any(axis=0)).max(initial=0)) + 1
        self._knows = knows[:, : self._top]
        self._knows[:, BACKGROUND] = False
        shared = self._knows.sum(axis=0) > (0 if rules.min_confidence > 0 else 1)
        self._shared = np.flatnonzero(shared)
        self._slots = np.full(self._top, len(self._shared), np.intp)
        self._slots[self._shared] = np.arange(len(self._shared))
        self._waits = shared.copy()
        if len(self._tasks) > 1:
            self._waits[[label for label in lesions.hosts if label < self._top]] = True
        self._voxels = np.zeros((len(self._tasks), self._top), np.int64)
        self._tally = Tally.empty(len(self._tasks), len(self._shared))
        self._disputes: dict[int, Dispute] = {}
        self._contested: list[Claims] = []
        self._ownership: Ownership | None = None

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
        if len(self._tasks) == 1 and not self._waits.any():
            self._labels[region] = predictions[0].labels
            self._confidence[region] = predictions[0].confidence
            return
        labels = np.stack([told[task].labels for task in self._tasks])
        confidence = np.stack([told[task].confidence for task in self._tasks])
        self._count(labels)
        if self._rules.is_voxelwise:
            self._labels[region], self._confidence[region] = overwrite(labels, confidence, self._rules.strategy)
        else:
            self._settle(region, labels, confidence)

    def _count(self, labels: npt.NDArray[np.uint16]) -> None:
        for row in range(len(self._tasks)):
            flat = labels[row].ravel()
            if int(flat.max(initial=0)) >= self._top:
                raise LabelSpaceError(
                    f"task {self._tasks[row]!r} must claim labels that it announced, got {int(flat.max())}"
                )
            self._voxels[row] += np.bincount(flat, minlength=self._top)

    def _settle(self, region: Region, labels: npt.NDArray[np.uint16], confidence: npt.NDArray[np.float16]) -> None:
        largest = labels.max(axis=0)
        claimed = labels != BACKGROUND
        waits = self._waits[labels].any(axis=0) | (claimed & (labels != largest)).any(axis=0)
        # Where one task claims an organ of its own the answer is its claim, elsewhere the least sure background.
        sure = np.where(claimed, confidence, np.float16(0)).max(axis=0)
        empty = np.where(claimed, np.float16(1), confidence).min(axis=0)
        self._labels[region] = np.where(waits, BACKGROUND, largest)
        self._confidence[region] = np.where(largest > 0, sure, empty)
        index = np.flatnonzero(waits).astype(np.int32)
        if len(index):
            tasks = len(self._tasks)
            part = Claims(region, index, labels.reshape(tasks, -1)[:, index], confidence.reshape(tasks, -1)[:, index])
            self._contested.append(part)
            self._tally.add(self._slots[part.labels], part.confidence)
            self._note_disputes(part)

    def _note_disputes(self, part: Claims) -> None:
        """Remember for every shared organ the part with most voxels that some of those who know it claim, not all."""
        for row in range(len(self._tasks)):
            claim = part.labels[row]
            disputed = (part.labels == claim).sum(axis=0) < self._knows.sum(axis=0)[claim]
            counts = np.bincount(self._slots[claim[disputed]], minlength=len(self._shared) + 1)[:-1]
            for slot in np.flatnonzero(counts):
                label = int(self._shared[slot])
                known = self._disputes.get(label)
                if known is None or counts[slot] > known.voxels:
                    at = np.flatnonzero(disputed & (claim == label))
                    i, j, k = part.places(self._labels.shape)[at[len(at) // 2]].tolist()
                    self._disputes[label] = Dispute(voxels=int(counts[slot]), ijk=(i, j, k))

    def finish(
        self, cancelled: IsCancelled = never, *, witnesses: Mapping[tuple[TaskId, int], Witness] | None = None
    ) -> None:
        """Write the voxels that waited.

        Args:
            cancelled: Asked between regions.
            witnesses: What else is known, by task and label.

        Raises Cancelled.
        """
        ownership = settle_ownership(self._tally, self._evidence(witnesses or {}), self._rules)
        self._ownership = ownership
        owns = self._knows.copy()
        until = np.zeros(self._knows.shape, np.intp)
        owns[:, self._shared] = np.arange(len(self._tasks))[:, None] == ownership.owner
        until[:, self._shared] = ownership.until
        while self._contested:
            check_cancelled(cancelled)
            part = self._contested.pop()
            label, confidence = decide(part, owns, until, self._voxels)
            target = self._labels[part.region]
            at = np.unravel_index(part.index, target.shape)
            target[at] = label
            self._confidence[part.region][at] = confidence

    def _evidence(self, witnesses: Mapping[tuple[TaskId, int], Witness]) -> Evidence:
        evidence = Evidence.none(len(self._tasks), len(self._shared))
        touched = self._touched_by_lesions()
        for row, task in enumerate(self._tasks):
            pathological = self._lesions.pathological.get(task, frozenset())
            for slot, label in enumerate(self._shared.tolist()):
                witness = witnesses.get((task, label), Witness())
                evidence.gate[row, slot] = witness.gate
                evidence.anomaly[row, slot] = max(0.0, witness.anomaly)
                evidence.pathology[row, slot] = label in touched and label in pathological
        return evidence

    def _touched_by_lesions(self) -> frozenset[int]:
        """Shared organs that a large enough lesion touches, whoever claims either of them."""
        shared = frozenset(self._shared.tolist())
        touched: set[int] = set()
        for lesion, hosts in self._lesions.hosts.items():
            wanted = (hosts & shared) - touched
            if len(self._tasks) == 1 or not wanted or lesion >= self._top or not self._voxels[:, lesion].any():
                continue
            low, mask = large_lesions(self._places(lesion), smallest_voxels=self._lesions.smallest_voxels)
            for part in self._contested:
                touched |= {
                    host for host in wanted - touched if count_inside(self._places_in(part, host), low, mask) > 0
                }
        return frozenset(touched)

    def _places(self, label: int) -> npt.NDArray[np.int64]:
        return np.concatenate([self._places_in(part, label) for part in self._contested])

    def _places_in(self, part: Claims, label: int) -> npt.NDArray[np.int64]:
        claimed = np.flatnonzero((part.labels == label).any(axis=0))
        places: npt.NDArray[np.int64] = part.places(self._labels.shape)[claimed]
        return places

    def candidates(self) -> tuple[Candidate, ...]:
        """Who claimed the organs that several tasks know, in order of label and publication; after ``finish``."""
        settled = self._ownership
        if settled is None:
            return ()
        return tuple(
            Candidate(
                task=self._tasks[row],
                label=label,
                voxels=int(self._tally.voxels[row, slot]),
                inputs=tuple(settled.inputs[row, slot].tolist()),
                score=float(settled.score[row, slot]),
                speaks=bool(settled.owner[slot] == row),
            )
            for slot, label in enumerate(self._shared.tolist())
            for row in range(len(self._tasks))
            if self._tally.voxels[row, slot]
        )

    def disputes(self) -> Mapping[int, Dispute]:
        """Where tasks disagree most, by the label of the organ."""
        return dict(self._disputes)


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
