"""How good the body-part check is on annotated scans: levels against organs of known level, and cropped scans."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wbcss.bodypart import BodyPartReport
from wbcss.errors import SpecError
from wbcss.labels import OrganName
from wbcss.levels import LevelRange, fit_curve, meet
from wbcss.loading import LoadedModel
from wbcss.preprocess import canonical_orientation
from wbcss.progress import IsCancelled, Progress, check_cancelled, never, silent
from wbcss.segment import Segmentation, SegmentOptions, segment
from wbcss.volume import LabelMap, Volume

from .annotation import Case, read_case


@dataclass(frozen=True, kw_only=True)
class LevelError:
    """An organ of known level in one scan: where it lies and where the scan's curve says that it lies, in cm."""

    case: int
    organ: OrganName
    known_cm: float
    told_cm: float

    @property
    def error_cm(self) -> float:
        """How far off."""
        return abs(self.told_cm - self.known_cm)


@dataclass(frozen=True, kw_only=True)
class CropResult:
    """A part of a scan, segmented without and with the check.

    Attributes:
        case, part: Which scan, and which part of it, 1 being at the feet.
        absent: Annotated organs of the scan of which the part holds no voxel.
        false_before, false_after: Voxels of absent organs without and with the check.
        true_before, true_after: Voxels of organs found where the reference has them.
        foreign_before, foreign_after: Voxels of organs that cannot be there, annotated or not: by the levels that the
            reference tells, the part shows nothing of their range on the head's card. 0 where it tells none.
        skipped: Share of decoder runs that the check left out, 0 to 1.
        seconds_before, seconds_after: Wall time.
    """

    case: int
    part: int
    absent: tuple[OrganName, ...]
    false_before: int
    false_after: int
    true_before: int
    true_after: int
    foreign_before: int
    foreign_after: int
    skipped: float
    seconds_before: float
    seconds_after: float


@dataclass(frozen=True, kw_only=True)
class LevelMeasurement:
    """Everything that was measured. Cases are known by their number in the list only."""

    levels: tuple[LevelError, ...]
    crops: tuple[CropResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the summary, then every row."""
        return {
            "summary": self.summary(),
            "levels": [{**_facts(row), "error_cm": round(row.error_cm, 2)} for row in self.levels],
            "crops": [_facts(row) for row in self.crops],
        }

    def summary(self) -> dict[str, float | int | None]:
        """Means and sums over all rows; None where there are none."""
        errors = [row.error_cm for row in self.levels]
        return {
            "organs": len(errors),
            "mean_absolute_error_cm": round(float(np.mean(errors)), 2) if errors else None,
            "largest_error_cm": round(max(errors), 2) if errors else None,
            "crops": len(self.crops),
            "false_voxels_before": sum(row.false_before for row in self.crops),
            "false_voxels_after": sum(row.false_after for row in self.crops),
            "true_voxels_before": sum(row.true_before for row in self.crops),
            "true_voxels_after": sum(row.true_after for row in self.crops),
            "foreign_voxels_before": sum(row.foreign_before for row in self.crops),
            "foreign_voxels_after": sum(row.foreign_after for row in self.crops),
            "skipped_share": round(float(np.mean([row.skipped for row in self.crops])), 3) if self.crops else None,
            "seconds_before": round(sum(row.seconds_before for row in self.crops), 1),
            "seconds_after": round(sum(row.seconds_after for row in self.crops), 1),
        }


def _facts(row: LevelError | CropResult) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in row.__dataclass_fields__}
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}


def measure_levels(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    parts: int = 3,
    options: SegmentOptions = SegmentOptions(),
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> LevelMeasurement:
    """Segment every case as a whole for its levels, and cut into ``parts`` along the body with and without the check.

    Raises SpecError if the model has no level head or ``parts`` is below 0, CaseError, Cancelled.
    """
    if model.levels is None:
        raise SpecError("the registry must have a level head to measure; train one with `wbcss-train bodypart`")
    if parts < 0:
        raise SpecError(f"the number of parts must not be negative, got {parts}")
    levels: list[LevelError] = []
    crops: list[CropResult] = []
    for number, case in enumerate(cases, start=1):
        check_cancelled(cancelled)
        progress((number - 1) / len(cases), f"case {number} of {len(cases)}")
        volume, labels = read_case(case)
        checked = replace(options, body_part=True)
        whole = segment(volume, model, tasks=list(model.cards), options=checked, cancelled=cancelled)
        known = _known_levels(labels, volume, case.values, model.levels.card.anchors_cm)
        levels += _level_errors(number, whole, known)
        for part in range(parts):
            foreign = _foreign(known, volume, part, parts, model.levels.card.ranges_cm)
            crops.append(_cropped(number, part, parts, volume, labels, case.values, foreign, model, options, cancelled))
    progress(1.0, "done")
    return LevelMeasurement(levels=tuple(levels), crops=tuple(crops))


def _known_levels(
    labels: LabelMap, volume: Volume, values: Mapping[int, OrganName], anchors_cm: Mapping[OrganName, float]
) -> dict[OrganName, tuple[float, float]]:
    """Height in mm above the scan's lower end, and level in cm, of the organs of known level that it shows whole."""
    orientation = canonical_orientation(volume.affine)
    upright = orientation.view(labels)
    spacing_mm = volume.spacing_mm[orientation.permutation[2]]
    found = {}
    for value, organ in values.items():
        planes = np.flatnonzero((upright == value).any(axis=(0, 1))) if organ in anchors_cm else np.zeros(0)
        if len(planes) and planes[0] > 0 and planes[-1] < upright.shape[2] - 1:
            found[organ] = (float(planes[0] + planes[-1] + 1) / 2 * spacing_mm, anchors_cm[organ])
    return found


def _level_errors(number: int, whole: Segmentation, known: Mapping[OrganName, tuple[float, float]]) -> list[LevelError]:
    """A row per organ of known level that the scan shows as a whole; none if there is no curve."""
    report = whole.report.body_part
    if report is None or not report.curve:
        return []
    return [
        LevelError(case=number, organ=organ, known_cm=level_cm, told_cm=_level_at(report, height_mm))
        for organ, (height_mm, level_cm) in known.items()
    ]


def _foreign(
    known: Mapping[OrganName, tuple[float, float]],
    volume: Volume,
    part: int,
    parts: int,
    ranges_cm: Mapping[OrganName, LevelRange],
) -> frozenset[OrganName]:
    """Organs whose range does not meet the levels of a part by the reference; none where that tells no level."""
    heights = [height_mm for height_mm, _ in known.values()]
    curve = fit_curve(heights, [level_cm for _, level_cm in known.values()], np.ones(len(heights)))
    if curve is None:
        return frozenset()
    axis = canonical_orientation(volume.affine).permutation[2]
    length_mm = volume.shape[axis] * volume.spacing_mm[axis]
    shown = curve.range_of(np.array([part, part + 1]) / parts * length_mm)
    return frozenset(organ for organ, usual in ranges_cm.items() if not meet(usual, shown))


def _level_at(report: BodyPartReport, height_mm: float) -> float:
    heights, levels = np.array(report.curve).T
    return float(np.interp(height_mm, heights, levels))


def _cropped(
    number: int,
    part: int,
    parts: int,
    volume: Volume,
    labels: LabelMap,
    values: Mapping[int, OrganName],
    foreign: frozenset[OrganName],
    model: LoadedModel,
    options: SegmentOptions,
    cancelled: IsCancelled,
) -> CropResult:
    piece, reference = crop(volume, labels, part, parts)
    there = set(np.unique(reference).tolist())
    absent = tuple(sorted({organ for value, organ in values.items()} - {values[v] for v in there if v in values}))
    found, seconds = {}, {}
    for with_check in (False, True):
        started = time.perf_counter()
        changed = replace(options, body_part=with_check)
        found[with_check] = segment(piece, model, tasks=list(model.cards), options=changed, cancelled=cancelled)
        seconds[with_check] = time.perf_counter() - started
    numbers = {organ.name: organ.label for organ in found[True].organs}
    known = {numbers[organ]: value for value, organ in values.items() if organ in numbers}
    false = {numbers[organ] for organ in absent if organ in numbers}
    strange = {numbers[organ] for organ in foreign if organ in numbers}
    report = found[True].report
    skipped = sum((report.body_part.skipped_tiles if report.body_part else {}).values())
    return CropResult(
        case=number,
        part=part + 1,
        absent=absent,
        false_before=_count(found[False].labels, false),
        false_after=_count(found[True].labels, false),
        true_before=_agreeing(found[False].labels, reference, known),
        true_after=_agreeing(found[True].labels, reference, known),
        foreign_before=_count(found[False].labels, strange),
        foreign_after=_count(found[True].labels, strange),
        skipped=skipped / max(1, report.num_tiles * len(model.cards)),
        seconds_before=seconds[False],
        seconds_after=seconds[True],
    )


def crop(volume: Volume, labels: LabelMap, part: int, parts: int) -> tuple[Volume, LabelMap]:
    """Part ``part`` (0 at the feet) of ``parts`` equal ones along the body, in place in the patient."""
    orientation = canonical_orientation(volume.affine)
    axis, flipped = orientation.permutation[2], orientation.flips[2]
    edges = np.linspace(0, volume.shape[axis], parts + 1).astype(int)
    index = parts - 1 - part if flipped else part
    at = [slice(None)] * 3
    at[axis] = slice(int(edges[index]), int(edges[index + 1]))
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, axis] * edges[index]
    voxels: npt.NDArray[Any] = np.ascontiguousarray(volume.voxels[tuple(at)])
    return replace(volume, voxels=voxels, affine=affine), labels[tuple(at)]


def _count(found: LabelMap, wanted: set[int]) -> int:
    return int(np.isin(found, sorted(wanted)).sum())


def _agreeing(found: LabelMap, reference: npt.NDArray[Any], known: Mapping[int, int]) -> int:
    return int(sum(((found == ours) & (reference == theirs)).sum() for ours, theirs in known.items()))
