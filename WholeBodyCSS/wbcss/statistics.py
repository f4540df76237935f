"""How large, how dense and how sure each organ is, and what a reader should check about it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .catalogue import Organ
from .errors import GeometryError
from .io.atomic import write_text
from .labels import MAX_LABEL, LabelSpace, OrganName
from .pieces import Box, count_large_pieces
from .progress import IsCancelled, check_cancelled, never
from .volume import Affine, Confidence, LabelMap, Volume

LOW_CONFIDENCE = 0.6
"""An organ whose voxels are less sure than this on average is flagged; 0.5 is a toss-up with the background."""

MIN_PIECE_ML = 1.0
MIN_PIECE_FRACTION = 0.05
"""A piece counts when it has at least 1 ml and 5 % of the organ: smaller crumbs are noise, not a second organ."""

MANY_BY_NATURE = frozenset(
    {
        "carpal", "coronary_arteries", "costal_cartilages", "extraocular_muscles", "infrahyoid_muscles",
        "intercostal_muscles", "intervertebral_discs", "metacarpal", "metatarsal", "phalanges_feet", "phalanges_hand",
        "prevertebral_muscles", "pulmonary_vein", "scalenus", "tarsal", "teeth_lower", "teeth_upper",
    }
)  # fmt: skip
"""Organs, without their side, that are several pieces in everybody. So are lesions, by their group."""

_SLAB_VOXELS = 1 << 20
"""Voxels handled at once; the pass needs some 40 bytes for each, whatever the number of organs."""

COLUMNS = ("organ", "voxels", "volume_ml", "mean_hu", "sd_hu", "mean_confidence", "touches_border", "flags")


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
        flags: Reasons to look at it, in the order of ``RULES``.
    """

    organ: OrganName
    voxels: int
    volume_ml: float
    mean_hu: float | None
    sd_hu: float | None
    mean_confidence: float | None
    touches_border: bool
    center_ras_mm: tuple[float, float, float] | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a rule may look at: an organ that has voxels, its statistics so far, and how many large pieces it has."""

    organ: Organ
    statistics: OrganStatistics
    num_large_pieces: int


Rule = Callable[[Finding], str | None]
"""Gives a short reason to check an organ, or None."""


def touches_border(finding: Finding) -> str | None:
    """The organ is cut by the edge of the image: its volume is a lower bound."""
    return "touches_border" if finding.statistics.touches_border else None


def low_confidence(finding: Finding) -> str | None:
    """The mean confidence is below ``LOW_CONFIDENCE``."""
    mean = finding.statistics.mean_confidence
    return "low_confidence" if mean is not None and mean < LOW_CONFIDENCE else None


def several_pieces(finding: Finding) -> str | None:
    """The organ lies in several large pieces although in everybody it is one."""
    name = "_".join(part for part in finding.organ.name.split("_") if part != finding.organ.side)
    if finding.organ.group == "lesion" or name in MANY_BY_NATURE:
        return None
    return "several_pieces" if finding.num_large_pieces > 1 else None


RULES: tuple[Rule, ...] = (touches_border, low_confidence, several_pieces)


def organ_statistics(
    volume: Volume,
    labels: LabelMap,
    confidence: Confidence | None,
    affine: Affine,
    organs: Sequence[Organ],
    *,
    rules: Sequence[Rule] = RULES,
    cancelled: IsCancelled = never,
) -> tuple[OrganStatistics, ...]:
    """Measure every organ in one pass over the image; the memory needed does not depend on the number of organs.

    Args:
        volume: The image, (I, J, K).
        labels: (I, J, K) label values; those of no listed organ are ignored.
        confidence: (I, J, K) in [0, 1], or None if there is none.
        affine: (4, 4), ijk to RAS mm, of all three.
        organs: What to measure. An organ without voxels gets a line with 0 voxels and no flags.
        rules: What gets an organ flagged.
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
    voxel_ml = _voxel_ml(affine)
    rows = []
    for row, organ in enumerate(organs):
        check_cancelled(cancelled)
        statistics = sums.statistics(row, organ, affine, is_ct=volume.modality == "CT")
        box = sums.boxes[row]
        if box is not None:
            smallest = max(MIN_PIECE_ML / voxel_ml, MIN_PIECE_FRACTION * statistics.voxels)
            pieces = count_large_pieces(labels, organ.label, box, smallest_voxels=smallest)
            finding = Finding(organ=organ, statistics=statistics, num_large_pieces=pieces)
            reasons = (rule(finding) for rule in rules)
            statistics = _flagged(statistics, tuple(reason for reason in reasons if reason is not None))
        rows.append(statistics)
    return tuple(rows)


def write_statistics_csv(path: Path, rows: Sequence[OrganStatistics]) -> None:
    """Write the table whole or not at all; unknown values are empty, flags joined by ``;``. Raises OutputError."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        numbers = (_text(n) for n in (row.volume_ml, row.mean_hu, row.sd_hu, row.mean_confidence))
        border = "true" if row.touches_border else "false"
        writer.writerow((row.organ, row.voxels, *numbers, border, ";".join(row.flags)))
    write_text(path, table.getvalue())


def _text(number: float | None) -> str:
    return "" if number is None else f"{number:.3f}"


def _flagged(row: OrganStatistics, flags: tuple[str, ...]) -> OrganStatistics:
    return OrganStatistics(**{**vars(row), "flags": flags})


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
