"""How large, how dense and how sure each organ is, and what a reader should check about it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .catalogue import Organ
from .checks import RULES, Check, CheckRules, Finding, OrganFacts, Place, Rule, compare_organs, confidence_limit
from .errors import GeometryError
from .io.atomic import write_text
from .labels import MAX_LABEL, LabelSpace, OrganName
from .lesions import is_lesion, lesion_of, may_lie_in
from .pieces import Box, large_pieces
from .progress import IsCancelled, check_cancelled, never
from .volume import Affine, Confidence, LabelMap, Volume

LEAST_LESION_MM3 = 10.0
"""Smaller connected lesions are not said to lie in an organ."""

_SLAB_VOXELS = 1 << 20
"""Voxels handled at once; the pass needs some 40 bytes for each, whatever the number of organs."""

COLUMNS = (
    "organ", "voxels", "volume_ml", "mean_hu", "sd_hu", "mean_confidence", "touches_border", "flags",
    "lesion_ml", "reasons", "places_ras_mm",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class OrganStatistics:
    """One line of the table. What cannot be said is None: densities or center of an organ without voxels ...

    Attributes:
        organ: Name of the organ.
        voxels: Voxels of the label map that carry its label.
        volume_ml: Their volume in milliliters.
        mean_hu: Mean of their Hounsfield units.
        sd_hu: Standard deviation of their Hounsfield units, dividing by the number of voxels.
        mean_confidence: Mean of their confidence in [0, 1].
        touches_border: Whether it reaches a face of the image, so that part of it may be missing.
        center_ras_mm: Mean place of its voxels, RAS mm.
        lesion_ml: Volume of the lesions that lie in it; they are segments of their own and not part of ``volume_ml``.
        checks: Reasons to look at it, in the order of ``checks.RULES``.
    """

    organ: OrganName
    voxels: int
    volume_ml: float
    mean_hu: float | None
    sd_hu: float | None
    mean_confidence: float | None
    touches_border: bool
    center_ras_mm: tuple[float, float, float] | None = None
    lesion_ml: float = 0.0
    checks: tuple[Check, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """Short names of ``checks``."""
        return tuple(check.flag for check in self.checks)


def organ_statistics(
    volume: Volume,
    labels: LabelMap,
    confidence: Confidence | None,
    affine: Affine,
    organs: Sequence[Organ],
    *,
    rules: Sequence[Rule] = RULES,
    facts: Mapping[OrganName, OrganFacts] | None = None,
    thresholds: CheckRules = CheckRules(),
    cancelled: IsCancelled = never,
) -> tuple[OrganStatistics, ...]:
    """Measure every organ in one pass over the image; the memory needed does not depend on the number of organs.

    Args:
        volume: The image, (I, J, K).
        labels: (I, J, K) label values; those of no listed organ are ignored.
        confidence: (I, J, K) in [0, 1], or None if there is none.
        affine: (4, 4), ijk to RAS mm, of all three.
        organs: What to measure. An organ without voxels gets a line with 0 voxels and no flags.
        rules: What gets an organ flagged; an empty sequence switches all checks off.
        facts: What else is known of organs.
        thresholds: Of the rules.
        cancelled: Asked between slabs and between organs.

    Returns:
        One line per organ, in the order of ``organs``.

    Raises:
        GeometryError: The arrays have different shapes.
        LabelSpaceError: Two organs share a label value.
        Cancelled: ``cancelled`` said so.
    """
    for what, array in (("labels", labels), ("confidence", confidence)):
        if array is not None and array.shape != volume.shape:
            raise GeometryError(f"{what} must have the shape of the image, {volume.shape}, got {array.shape}")
    LabelSpace({organ.name: organ.label for organ in organs})  # refuses two organs with one label
    sums = _measure(volume, labels, confidence, organs, cancelled)
    rows = [sums.statistics(row, organ, affine, is_ct=volume.modality == "CT") for row, organ in enumerate(organs)]
    _add_lesions(rows, sums, labels, affine, organs)
    if not rules:
        return tuple(rows)
    findings: dict[int, Finding] = {}
    for row, organ in enumerate(organs):
        check_cancelled(cancelled)
        box = sums.boxes[row]
        if box is not None:
            seen = _Seen(labels, confidence, affine, box)
            known = (facts or {}).get(organ.name, OrganFacts())
            findings[row] = seen.finding(organ, rows[row], known, thresholds)
    compared = compare_organs(list(findings.values()))
    for row, finding in findings.items():
        found = [check for check in (rule(finding) for rule in rules) if check is not None]
        rows[row] = replace(rows[row], checks=(*found, *compared.get(finding.organ.name, ())))
    return tuple(rows)


@dataclass(frozen=True, eq=False)
class _Seen:
    """One organ's voxels in their box, and where in it there is something to look at."""

    labels: LabelMap
    confidence: Confidence | None
    affine: Affine
    box: Box

    def finding(self, organ: Organ, row: OrganStatistics, facts: OrganFacts, rules: CheckRules) -> Finding:
        """What the rules look at."""
        smallest = max(rules.min_piece_ml / _voxel_ml(self.affine), rules.min_piece_fraction * row.voxels)
        pieces = large_pieces(self.labels, organ.label, self.box, smallest_voxels=smallest)
        is_unsure = row.mean_confidence is not None and row.mean_confidence < confidence_limit(facts, rules)
        corners = np.array([[s.start, s.stop - 1] for s in self.box])
        top = self.affine[2, :3] @ corners.mean(axis=1) + np.abs(self.affine[2, :3]) @ np.diff(corners)[:, 0] / 2
        return Finding(
            organ=organ,
            volume_ml=row.volume_ml + row.lesion_ml,
            mean_confidence=row.mean_confidence,
            center_ras_mm=row.center_ras_mm or (0.0, 0.0, 0.0),
            top_mm=float(top + self.affine[2, 3]),
            border_ras_mm=self._border(organ.label) if row.touches_border else None,
            unsure_ras_mm=self._unsure(organ.label) if is_unsure else None,
            pieces_ras_mm=tuple(_ras_mm(self.affine, np.asarray(middle)) for middle in pieces),
            facts=facts,
            rules=rules,
        )

    def _border(self, label: int) -> Place | None:
        """Middle of the organ's voxels on the face where it has most of them."""
        best: npt.NDArray[np.intp] = np.zeros((0, 3), np.intp)
        for axis, part in enumerate(self.box):
            for at in {part.start, part.stop - 1} & {0, self.labels.shape[axis] - 1}:
                face = list(self.box)
                face[axis] = slice(at, at + 1)
                found = np.argwhere(self.labels[face[0], face[1], face[2]] == label)
                if len(found) > len(best):
                    best = found + [s.start for s in face]
        return _ras_mm(self.affine, best.mean(axis=0)) if len(best) else None

    def _unsure(self, label: int) -> Place | None:
        """Mean of the organ's voxels, each weighted by the square of its doubt."""
        weight, total = 0.0, np.zeros(3)
        axis = int(np.argmax(self.labels.strides))
        for at in range(self.box[axis].start, self.box[axis].stop):
            plane = list(self.box)
            plane[axis] = slice(at, at + 1)
            mask = self.labels[plane[0], plane[1], plane[2]] == label
            if self.confidence is not None and mask.any():
                doubt = (1 - self.confidence[plane[0], plane[1], plane[2]][mask].astype(np.float64)) ** 2
                weight += float(doubt.sum())
                total += doubt @ (np.argwhere(mask) + [s.start for s in plane])
        return _ras_mm(self.affine, total / weight) if weight > 0 else None


def _add_lesions(
    rows: list[OrganStatistics], sums: _Sums, labels: LabelMap, affine: Affine, organs: Sequence[Organ]
) -> None:
    """Add to each organ the volume of the lesions that lie in it."""
    for number, lesion in enumerate(organs):
        box = sums.boxes[number]
        if box is None or not is_lesion(lesion):
            continue
        hosts = {organ.label: row for row, organ in enumerate(organs) if may_lie_in(lesion, organ)}
        i, j, k = (slice(max(0, s.start - 1), s.stop + 1) for s in box)
        smallest = LEAST_LESION_MM3 / 1000 / _voxel_ml(affine)
        for host, voxels in lesion_of(labels[i, j, k], lesion.label, hosts, smallest_voxels=smallest).items():
            row = rows[hosts[host]]
            rows[hosts[host]] = replace(row, lesion_ml=row.lesion_ml + voxels * _voxel_ml(affine))


def write_statistics_csv(path: Path, rows: Sequence[OrganStatistics]) -> None:
    """Write the table whole or not at all. Raises OutputError.

    Unknown values are empty; flags, reasons and places ("R A S" in mm, empty for none) are joined by ``;`` in the same
    order.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        numbers = (_text(n) for n in (row.volume_ml, row.mean_hu, row.sd_hu, row.mean_confidence))
        border = "true" if row.touches_border else "false"
        reasons = "; ".join(check.reason.replace(";", ",") for check in row.checks)
        places = ";".join(_place_text(check.place_ras_mm) for check in row.checks)
        more = (_text(row.lesion_ml), reasons, places)
        writer.writerow((row.organ, row.voxels, *numbers, border, ";".join(row.flags), *more))
    write_text(path, table.getvalue())


def _text(number: float | None) -> str:
    return "" if number is None else f"{number:.3f}"


def _place_text(place: Place | None) -> str:
    return "" if place is None else " ".join(f"{mm:.1f}" for mm in place)


class _Sums:
    """Sums per organ; row ``n`` is the last one, of everything that is no listed organ, and never read."""

    def __init__(self, num_organs: int) -> None:
        size = num_organs + 1
        self.voxels: npt.NDArray[np.int64] = np.zeros(size, np.int64)
        self.hu, self.hu_squared, self.confidence = np.zeros((3, size))
        self.ijk = np.zeros((3, size))
        self.has_confidence = False
        self.on_border: npt.NDArray[np.bool_] = np.zeros(size, bool)
        self.boxes: list[Box | None] = [None] * size

    def add(self, rows: npt.NDArray[np.intp], hu: npt.NDArray[Any], confidence: npt.NDArray[Any] | None) -> None:
        """Count flat voxels: their organ rows, their intensities and their confidence."""
        size = len(self.voxels)
        values = hu.astype(np.float64)
        self.voxels += np.bincount(rows, minlength=size)
        self.hu += np.bincount(rows, values, size)
        self.hu_squared += np.bincount(rows, values * values, size)
        if confidence is not None:
            self.has_confidence = True
            self.confidence += np.bincount(rows, confidence.astype(np.float64), size)

    def add_places(self, rows: npt.NDArray[np.intp], inside: npt.NDArray[np.bool_], slab: Box) -> None:
        """Add up the indices of voxels, one axis after the other: never three times the memory."""
        for axis, part in enumerate(slab):
            along = [1, 1, 1]
            along[axis] = -1
            index = np.arange(part.start, part.stop, dtype=np.float64).reshape(along)
            self.ijk[axis] += np.bincount(rows, np.broadcast_to(index, inside.shape)[inside], len(self.voxels))

    def widen(self, row: int, box: Box) -> None:
        """Make the bounding box of an organ hold ``box`` too."""
        own = self.boxes[row]
        if own is not None:
            i, j, k = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(own, box, strict=True))
            box = (i, j, k)
        self.boxes[row] = box

    def statistics(self, row: int, organ: Organ, affine: Affine, *, is_ct: bool) -> OrganStatistics:
        """The line of one organ, without flags."""
        count = int(self.voxels[row])
        mean = float(self.hu[row]) / count if count else 0.0
        variance = float(self.hu_squared[row]) / count - mean * mean if count else 0.0
        dense = is_ct and count > 0
        return OrganStatistics(
            organ=organ.name,
            voxels=count,
            volume_ml=count * _voxel_ml(affine),
            mean_hu=mean if dense else None,
            sd_hu=max(variance, 0.0) ** 0.5 if dense else None,
            mean_confidence=float(self.confidence[row]) / count if self.has_confidence and count else None,
            touches_border=bool(self.on_border[row]),
            center_ras_mm=_ras_mm(affine, self.ijk[:, row] / count) if count else None,
        )


def _voxel_ml(affine: Affine) -> float:
    return abs(float(np.linalg.det(affine[:3, :3]))) / 1000.0


def _ras_mm(affine: Affine, ijk: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    r, a, s = (float(mm) for mm in affine[:3, :3] @ ijk + affine[:3, 3])
    return r, a, s


def _measure(
    volume: Volume,
    labels: LabelMap,
    confidence: Confidence | None,
    organs: Sequence[Organ],
    cancelled: IsCancelled,
) -> _Sums:
    row_of = np.full(MAX_LABEL + 1, len(organs), np.intp)
    row_of[[organ.label for organ in organs]] = np.arange(len(organs))
    sums = _Sums(len(organs))
    sums.has_confidence = confidence is not None
    for slab in _slabs(labels):
        check_cancelled(cancelled)
        rows = row_of[labels[slab]]
        inside = rows < len(organs)
        found = rows[inside]
        sums.add(found, volume.voxels[slab][inside], None if confidence is None else confidence[slab][inside])
        sums.add_places(found, inside, slab)
        for row, box in _boxes(rows, slab, len(organs)):
            sums.widen(row, box)
    for row, own in enumerate(sums.boxes):
        if own is not None:
            sums.on_border[row] = any(s.start == 0 or s.stop == n for s, n in zip(own, labels.shape, strict=True))
    return sums


def _slabs(labels: LabelMap) -> Iterator[Box]:
    """Cut the image across its slowest axis in memory, so that every slab is one run of memory."""
    axis = int(np.argmax(labels.strides))
    thickness = max(1, _SLAB_VOXELS // max(1, labels.size // labels.shape[axis]))
    for start in range(0, labels.shape[axis], thickness):
        ranges = [slice(0, n) for n in labels.shape]
        ranges[axis] = slice(start, min(start + thickness, labels.shape[axis]))
        yield ranges[0], ranges[1], ranges[2]


def _boxes(rows: npt.NDArray[np.intp], slab: Box, num_organs: int) -> Iterator[tuple[int, Box]]:
    """Bounding box, in voxels of the image, of every organ row that occurs in a slab."""
    from scipy import ndimage

    found = ndimage.find_objects(rows + 1, num_organs) if num_organs else []
    for row, box in enumerate(found):
        if box is not None:
            i, j, k = (slice(s.start + o.start, s.stop + o.start) for s, o in zip(box, slab, strict=True))
            yield row, (i, j, k)
