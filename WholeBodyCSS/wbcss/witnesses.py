"""What a run knows of its organs beside the decoders' claims: for the merge before it, for the reader after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from .anomaly import ConfidenceSums, VolumeSums
from .cards import TaskCard
from .catalogue import Organ
from .checks import CheckRules, OrganFacts
from .heads import TaskHead
from .labels import OrganName, TaskId
from .lesions import LesionRules
from .loading import LoadedModel
from .merge import Candidate, Merger, Witness
from .numbering import Renumbering
from .pooling import OrganPool
from .preprocess import Orientation
from .selection import Selection
from .specs import MergeRules
from .volume import Affine, Shape3, Volume

_Sums = TypeVar("_Sums", VolumeSums, ConfidenceSums)

Descriptors = Mapping[TaskId, npt.NDArray[np.float64]]
"""Per task (organs, 2 F): mean and spread of the features of every organ, as ``OrganPool.descriptors``."""


def lesion_rules(model: LoadedModel, chosen: Selection, rules: MergeRules, volume: Volume) -> LesionRules:
    """What the cards of the tasks that run say about lesions."""
    organs = {
        task: [organ for organ in model.cards[task].organs if organ.name in chosen.names] for task in chosen.tasks
    }
    declared = {task: _names(model.cards[task].anomaly.get("pathological")) for task in chosen.tasks}
    voxel_mm3 = abs(float(np.linalg.det(volume.affine[:3, :3])))
    return LesionRules.of(organs, declared, smallest_voxels=rules.lesion_mm3 / voxel_mm3)


def _names(value: Any) -> list[str]:
    return [str(name) for name in value] if isinstance(value, (list, tuple)) else []


def open_pools(
    model: LoadedModel, heads: Mapping[TaskId, TaskHead], device: torch.device, *, describe: bool
) -> dict[TaskId, OrganPool]:
    """Pools for tasks that have sums to compare with and a threshold, or with ``describe`` for all."""
    wanted = [task for task in heads if describe or _threshold(model, task) is not None]
    return {
        task: OrganPool(len(model.cards[task].organs), len(heads[task].weight), device)
        for task in heads
        if task in wanted
    }


def _threshold(model: LoadedModel, task: TaskId) -> float | None:
    value = model.cards[task].anomaly.get("threshold")
    evidence = model.evidence.get(task)
    has_sums = evidence is not None and evidence.reference is not None
    return float(value) if has_sums and isinstance(value, (int, float)) and value > 0 else None


def witnesses(model: LoadedModel, descriptors: Descriptors) -> dict[tuple[TaskId, int], Witness]:
    """How unlike the training data each task's organs are, by task and label."""
    found = {}
    for task, described in descriptors.items():
        threshold = _threshold(model, task)
        evidence = model.evidence.get(task)
        if threshold is None or evidence is None or evidence.reference is None:
            continue
        distances = evidence.reference.distances(described)
        for organ, distance in zip(model.cards[task].organs, distances.tolist(), strict=True):
            if np.isfinite(distance):
                found[task, organ.label] = Witness(anomaly=distance / threshold - 1)
    return found


@dataclass(frozen=True, eq=False)
class Testimony:
    """Everything that the merge of one run leaves behind.

    Attributes:
        candidates: Who claimed the organs that several tasks know.
        witnesses: By task and label.
        disputes_ras_mm: Where tasks disagree most, by label.
    """

    candidates: tuple[Candidate, ...]
    witnesses: Mapping[tuple[TaskId, int], Witness]
    disputes_ras_mm: Mapping[int, tuple[float, float, float]]

    @classmethod
    def of(
        cls,
        merger: Merger,
        seen: Mapping[tuple[TaskId, int], Witness],
        *,
        orientation: Orientation,
        shape: Shape3,
        affine: Affine,
    ) -> Testimony:
        """Read a finished merger; ``shape`` and ``affine`` are the caller's, places come out in RAS mm."""
        places = {}
        for label, dispute in merger.disputes().items():
            ijk = np.zeros(3)
            for row, axis in enumerate(orientation.permutation):
                ijk[axis] = shape[axis] - 1 - dispute.ijk[row] if orientation.flips[row] else dispute.ijk[row]
            r, a, s = (float(mm) for mm in affine[:3, :3] @ ijk + affine[:3, 3])
            places[label] = (r, a, s)
        return cls(merger.candidates(), seen, places)


NO_TESTIMONY = Testimony((), {}, {})
"""Of a run that found no body."""


def organ_facts(
    testimony: Testimony,
    cards: Mapping[TaskId, TaskCard],
    organs: Sequence[Organ],
    renumberings: Sequence[Renumbering],
    rules: CheckRules = CheckRules(),
    *,
    values: str = "",
) -> dict[OrganName, OrganFacts]:
    """What the checks are told about each of ``organs``, by the task that speaks for it.

    ``values`` is what speaks against the values of the whole scan.
    """
    changed: dict[OrganName, list[OrganName]] = {}
    for renumbering in renumberings:
        changed.setdefault(renumbering.after, []).append(renumbering.before)
    facts = {}
    for organ in organs:
        rivals = [candidate for candidate in testimony.candidates if candidate.label == organ.label]
        owner = next((candidate.task for candidate in rivals if candidate.speaks), None)
        knowing = [task for task, card in cards.items() if any(known.name == organ.name for known in card.organs)]
        task = owner or (knowing[0] if len(knowing) == 1 else None)
        if task is None:
            facts[organ.name] = OrganFacts(renumbered=tuple(changed.get(organ.name, ())), values=values)
            continue
        witness = testimony.witnesses.get((task, organ.label))
        agreement = next((candidate.inputs[3] for candidate in rivals if candidate.speaks), None)
        facts[organ.name] = OrganFacts(
            anomaly=None if witness is None else witness.anomaly,
            agreement=agreement if len(rivals) > 1 else None,
            dispute_ras_mm=testimony.disputes_ras_mm.get(organ.label),
            volume_range_ml=volume_range(cards[task], organ.name, rules),
            renumbered=tuple(dict.fromkeys(changed.get(organ.name, ()))),
            values=values,
            least_confidence=least_confidence(cards[task], organ.name, rules),
        )
    return facts


def least_confidence(card: TaskCard, organ: OrganName, rules: CheckRules) -> float | None:
    """Mean confidence that the organ is usually above, by the card of its task; None if that says too little."""
    sums = _sums_of(ConfidenceSums, card.confidence.get("usual"), organ)
    if sums is None:
        return None
    return sums.least(false_alarm_rate=rules.confidence_alarm_rate, least_cases=rules.volume_cases)


def volume_range(card: TaskCard, organ: OrganName, rules: CheckRules) -> tuple[float, float] | None:
    """Volumes in ml that the card of a task lets expect; None if it says too little or nothing."""
    sums = _sums_of(VolumeSums, card.anomaly.get("volume_ml"), organ)
    if sums is None:
        return None
    return sums.range_ml(false_alarm_rate=rules.volume_alarm_rate, least_cases=rules.volume_cases)


def _sums_of(kind: type[_Sums], table: object, organ: OrganName) -> _Sums | None:
    """The row of ``organ`` in a table of a card, which may hold anything; None if there is none of this kind."""
    row = table.get(organ) if isinstance(table, Mapping) else None
    if not isinstance(row, Mapping):
        return None
    try:
        return kind(**row)
    except TypeError:
        return None
