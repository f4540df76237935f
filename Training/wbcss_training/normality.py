"""What the organs of a task normally look like: sums of descriptors and volumes, and when to call one strange.

Only sums leave this module: no image, no case, no identifier.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wbcss.anomaly import OrganReference, VolumeSums, alarm_threshold
from wbcss.catalogue import Organ
from wbcss.errors import Cancelled
from wbcss.labels import OrganName, TaskId
from wbcss.loading import LoadedModel
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.segment import Segmentation, SegmentOptions, segment
from wbcss.volume import LabelMap

from .annotation import Case, in_model_values, read_case

FALSE_ALARM_RATE = 0.05
NUM_DESCRIBED = 16
"""Training cases that are segmented for it at most: each takes as long as a held-out case."""

LEAST_DICE = 0.5
"""An organ found worse than this is not what the organ looks like."""

Descriptors = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NormalCase:
    """What one annotated case says.

    Attributes:
        descriptors: (C, D), rows of NaN for organs that were not found well enough or are not annotated.
        volumes_ml: Of the organs of the reference that no face of the image cuts.
    """

    descriptors: Descriptors
    volumes_ml: Mapping[OrganName, float]


def normal_case(result: Segmentation, reference: LabelMap, organs: Sequence[Organ], task: TaskId) -> NormalCase:
    """Look at a segmentation that has descriptors, and its reference in the same label values."""
    descriptors = result.descriptors[task].copy()
    inner = reference[1:-1, 1:-1, 1:-1]
    voxel_ml = abs(float(np.linalg.det(result.affine[:3, :3]))) / 1000
    volumes = {}
    for row, organ in enumerate(organs):
        theirs, ours = reference == organ.label, result.labels == organ.label
        size = int(theirs.sum())
        both = int((theirs & ours).sum())
        if size == 0 or 2 * both < LEAST_DICE * (size + int(ours.sum())):
            descriptors[row] = np.nan
        if size and int((inner == organ.label).sum()) == size:
            volumes[organ.name] = size * voxel_ml
    return NormalCase(descriptors, volumes)


def describe_cases(
    model: LoadedModel,
    task: TaskId,
    cases: Sequence[Case],
    *,
    options: SegmentOptions,
    seconds: float = math.inf,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> list[NormalCase]:
    """Segment ``cases`` as the product does, with ``task`` alone, until ``seconds`` are over.

    Raises CaseError, Cancelled.
    """
    started_s = time.monotonic()
    organs = model.cards[task].organs
    numbers = {organ.name: organ.label for organ in organs}
    found = []
    for number, case in enumerate(cases, start=1):
        if cancelled():
            raise Cancelled(f"the description was stopped before case {number} of {len(cases)}")
        if time.monotonic() - started_s > seconds:
            break
        progress((number - 1) / len(cases), f"describing case {number} of {len(cases)}")
        volume, reference = read_case(case)
        described = dataclasses.replace(options, describe=True)
        result = segment(volume, model, tasks=[task], options=described, cancelled=cancelled)
        wanted = {value: name for value, name in case.values.items() if name in numbers}
        found.append(normal_case(result, in_model_values(reference, wanted, numbers), organs, task))
    return found


def normality(
    training: Sequence[NormalCase], held_out: Sequence[NormalCase], organs: Sequence[Organ]
) -> tuple[OrganReference | None, dict[str, Any]]:
    """Sums for the evidence file, and what the card says: threshold, its false-alarm rate, volumes.

    The threshold is that of held-out organs where there are enough of them (19 for a rate of 5%), else that of each
    case against the others.
    """
    facts: dict[str, Any] = {"volume_ml": _volumes([*training, *held_out], organs)}
    if not training:
        return None, facts
    tables = [case.descriptors for case in training]
    reference = OrganReference.summed(tables)
    distances = _flat(reference.distances(case.descriptors) for case in held_out)
    measured_on = "held-out cases"
    threshold = alarm_threshold(distances, false_alarm_rate=FALSE_ALARM_RATE)
    if threshold is None and len(tables) > 2:
        distances = leave_one_out(tables)
        measured_on = "each training case against the others"
        threshold = alarm_threshold(distances, false_alarm_rate=FALSE_ALARM_RATE)
    facts |= {
        "cases": len(training),
        "measured_on": measured_on,
        "num_organs": len(distances),
        "false_alarm_rate": FALSE_ALARM_RATE,
    }
    if threshold is None:
        return None, {
            **facts,
            "note": f"{len(distances)} organs are too few for a threshold; nothing is called strange",
        }
    return reference, {**facts, "threshold": round(threshold, 5)}


def leave_one_out(tables: Sequence[Descriptors]) -> list[float]:
    """Distances of the organs of every case to the sums of the others."""
    return _flat(
        OrganReference.summed([*tables[:number], *tables[number + 1 :]]).distances(tables[number])
        for number in range(len(tables))
    )


def _flat(rows: Any) -> list[float]:
    return [float(value) for row in rows for value in row if np.isfinite(value)]


def _volumes(cases: Sequence[NormalCase], organs: Sequence[Organ]) -> dict[str, dict[str, float]]:
    sums = {
        organ.name: VolumeSums.of([case.volumes_ml[organ.name] for case in cases if organ.name in case.volumes_ml])
        for organ in organs
    }
    return {
        str(name): {key: round(value, 6) for key, value in dataclasses.asdict(row).items()}
        for name, row in sums.items()
        if row.count
    }
