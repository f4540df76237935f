"""Which task speaks for an organ that several tasks know, by counts over all voxels. No voxel is seen here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .specs import MergeRules

MAX_ANOMALY = 3.0
"""Further away than four times the threshold is simply far away."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tally:
    """What T tasks, in the order of their publication, claim of S organs.

    Attributes:
        voxels: (T, S) int64 voxels claimed.
        sums: (T, S) sum of the confidence in them.
        first: (T, S) int64 voxels claimed that no earlier task claims as this organ too.
        both: (T, T, S) int64 voxels that two tasks claim as this organ.
    """

    voxels: npt.NDArray[np.int64]
    sums: Floats
    first: npt.NDArray[np.int64]
    both: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, num_tasks: int, num_organs: int) -> Tally:
        """Nothing was claimed yet."""
        shape = (num_tasks, num_organs)
        counts = (np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64))
        return cls(*counts, np.zeros((num_tasks, *shape), np.int64))

    def add(self, slots: npt.NDArray[np.intp], confidence: npt.NDArray[Any]) -> None:
        """Count N voxels.

        Args:
            slots: (T, N) number of the organ that each task claims; S where it claims none of them.
            confidence: (T, N).
        """
        num_tasks, size = self.voxels.shape
        for row in range(num_tasks):
            self.voxels[row] += _count(slots[row], size)
            self.sums[row] += np.bincount(slots[row], confidence[row], size + 1)[:size]
            is_first = np.ones(slots.shape[1], bool)
            for earlier in range(row):
                same = slots[row] == slots[earlier]
                is_first &= ~same
                self.both[row, earlier] += _count(slots[row][same], size)
                self.both[earlier, row] = self.both[row, earlier]
            self.first[row] += _count(slots[row][is_first], size)


def _count(slots: npt.NDArray[np.intp], size: int) -> npt.NDArray[np.int64]:
    return np.bincount(slots, minlength=size + 1)[:size]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What else is known of T tasks and S organs, beside the claims.

    Attributes:
        gate: (T, S) in [0, 1].
        anomaly: (T, S) at least 0: distance to the training data over its threshold, minus 1; 0 if not known.
        pathology: (T, S) in {0, 1}.
    """

    gate: Floats
    anomaly: Floats
    pathology: Floats

    @classmethod
    def none(cls, num_tasks: int, num_organs: int) -> Evidence:
        """Nothing is known."""
        shape = (num_tasks, num_organs)
        return cls(np.ones(shape), np.zeros(shape), np.zeros(shape))


@dataclass(frozen=True, eq=False)
class Ownership:
    """Who speaks for what.

    Attributes:
        inputs: (T, S, 5) inputs c, g, a, d, p of the logistic model.
        score: (T, S) its z; -inf where a task does not compete.
        owner: (S,) row of the task that speaks, or -1 for nobody.
        until: (T, S): where a task spoke for an organ before a later one took it over, the row up to which tasks must
            still respect its claims; 0 elsewhere. See ``settle_ownership``.
    """

    inputs: Floats
    score: Floats
    owner: npt.NDArray[np.intp]
    until: npt.NDArray[np.intp]


def settle_ownership(tally: Tally, evidence: Evidence, rules: MergeRules) -> Ownership:
    """Find the owner of every organ, and what former owners leave behind.

    Taking over an organ must change no other: where the former owner's claim had won over a third organ, and the new
    owner does not claim the voxel, the third organ does not spread into the gap. So a former owner's claims still
    hold off organs of tasks that are no newer than its successor's predecessor. Who was owner before follows from the
    order of publication alone: the owner among the first 1, 2, ... tasks.
    """
    num_tasks, num_organs = tally.voxels.shape
    owners = np.full((num_tasks, num_organs), -1, np.intp)
    inputs, score = np.zeros((num_tasks, num_organs, 5)), np.full((num_tasks, num_organs), -np.inf)
    for count in range(1, num_tasks + 1):
        inputs, score = _scores(tally, evidence, rules, count)
        best = np.argmax(score, axis=0)
        owners[count - 1] = np.where(np.isfinite(score[best, np.arange(num_organs)]), best, -1)
    owner = owners[-1] if num_tasks else np.zeros(num_organs, np.intp)
    until = np.zeros((num_tasks, num_organs), np.intp)
    for count in range(num_tasks):
        organs = np.flatnonzero((owners[count] >= 0) & (owners[count] != owner))
        until[owners[count][organs], organs] = count + 1
    return Ownership(inputs, score, owner, until)


def _scores(tally: Tally, evidence: Evidence, rules: MergeRules, count: int) -> tuple[Floats, Floats]:
    """Inputs and z of the first ``count`` tasks as if there were no other."""
    voxels, sums = tally.voxels[:count], tally.sums[:count]
    union = tally.first[:count].sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        confidence = np.where(union > 0, sums / union, 0.0)
        own = np.where(voxels > 0, sums / voxels, 0.0)
        dice = 2 * tally.both[:count, :count] / (voxels[:, None] + voxels[None])
    others = (voxels > 0)[None] & ~np.eye(count, dtype=bool)[:, :, None]
    agreement = np.where(others, np.nan_to_num(dice), 0).sum(axis=1) / np.maximum(1, others.sum(axis=1))
    anomaly = np.clip(evidence.anomaly[:count], 0, MAX_ANOMALY)
    inputs = np.stack([confidence, evidence.gate[:count], anomaly, agreement, evidence.pathology[:count]], axis=-1)
    competes = (voxels > 0) & (own >= rules.min_confidence)
    if rules.strategy == "registry_order":
        z = -np.arange(count, dtype=float)[:, None] + np.zeros_like(confidence)
    elif rules.strategy == "most_confident":
        z = confidence
    else:
        z = logistic_score(inputs, rules)
    return inputs, np.where(competes, z, -np.inf)


def logistic_score(inputs: Floats, rules: MergeRules) -> Floats:
    """z of inputs (..., 5) in the order c, g, a, d, p; 1 / (1 + exp(-z)) is the chance of being the best."""
    weights = np.array(
        [
            rules.confidence_weight,
            rules.gate_weight,
            -rules.anomaly_weight,
            rules.agreement_weight,
            rules.pathology_weight,
        ]
    )
    # Term by term: a matrix product may round equal inputs differently, and ties would fall at random.
    z = np.full(inputs.shape[:-1], rules.bias)
    for number, weight in enumerate(weights):
        z = z + weight * inputs[..., number]
    return z
