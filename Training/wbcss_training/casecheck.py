"""One annotated scan under the magnifier: can it be read, is it a CT in HU, and do its labels make sense?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wbcss.body import BODY_HU, CELL_MM, body_of, cell_means
from wbcss.errors import InputError
from wbcss.io.reading import read_volume
from wbcss.labels import OrganName
from wbcss.preprocess import MAX_SIZE_MM, canonical_orientation
from wbcss.volume import LabelMap, Shape3, Volume

from .annotation import Annotation, Case, annotate, image_hash
from .findings import Finding, Kind, Severity

PLAUSIBLE_SPACING_MM = (0.2, 10.0)
"""Body CT outside of this range is rare enough to be mentioned."""

HIGHEST_AIR_HU = -200
"""A CT of a body without a single voxel below this shows neither air nor lung."""

MIN_VOXELS = 10
MAX_PIECES = 10
MIN_LARGEST_PIECE = 0.8
"""Less of an organ than this in its largest piece means that it was drawn in parts, or that something strayed."""

OUTSIDE_WARNING = 0.2
OUTSIDE_ERROR = 0.9
MIDLINE_MARGIN_MM = 10.0

_TOUCHING = np.ones((3, 3, 3), dtype=bool)
_CT_NAMES = ("ct", "computed tomography", "nonorm", "nonormalization")
_IMAGE_KINDS: tuple[tuple[str, Kind], ...] = (
    ("dimensions", "image_not_3d"),
    ("color", "image_not_3d"),
    ("RGB", "image_not_3d"),
    ("finite number", "image_not_finite"),
    ("spacing", "image_geometry"),
    ("affine", "image_geometry"),
    ("grid axes", "image_geometry"),
)
_LABEL_KINDS: tuple[tuple[str, Kind], ...] = (
    ("share a grid", "labels_geometry"),
    ("whole numbers", "labels_not_whole"),
    ("one other value", "labels_undeclared"),
    ("shares", "labels_overlap"),
)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one case showed.

    Attributes:
        findings: Of this case alone.
        image_hash: Of its voxels, "" if it cannot be read.
        labels_hash: Of its labels with their meaning, "" if they cannot be read.
        annotated: Organs that its labels speak of, whether with a voxel or without.
        volumes_ml: Organs with a voxel.
    """

    findings: tuple[Finding, ...]
    image_hash: str = ""
    labels_hash: str = ""
    annotated: tuple[OrganName, ...] = ()
    volumes_ml: Mapping[OrganName, float]


@dataclass(frozen=True, eq=False)
class _Notes:
    """Collects the findings of one case."""

    number: int
    findings: list[Finding]

    def add(self, kind: Kind, severity: Severity, message: str, organ: OrganName | None = None) -> None:
        self.findings.append(Finding(kind=kind, severity=severity, message=message, case=self.number, organ=organ))


def look_at(case: Case, number: int, wanted: frozenset[OrganName] | None = None) -> Look:
    """Read and judge one case; nothing is raised for what is wrong with it.

    Args:
        case: The case.
        number: Its place in the list, from 1.
        wanted: Organs to judge; all by default.
    """
    notes = _Notes(number, [])
    try:
        volume = read_volume(case.image_path).volume
    except InputError as error:
        notes.add(_kind(error, _IMAGE_KINDS, "image_unreadable"), "error", _plain(error, case))
        return Look(findings=tuple(notes.findings), volumes_ml={})
    digest = image_hash(volume)
    _check_image(case, volume, notes)
    try:
        annotation = annotate(case, volume)
    except InputError as error:
        notes.add(_kind(error, _LABEL_KINDS, "labels_unreadable"), "error", _plain(error, case))
        return Look(findings=tuple(notes.findings), image_hash=digest, volumes_ml={})
    values = {value: organ for value, organ in case.values.items() if wanted is None or organ in wanted}
    counts = _check_values(case, values, annotation, notes)
    _check_organs(values, annotation, notes)
    voxel_ml = float(np.prod(volume.spacing_mm)) / 1000
    return Look(
        findings=tuple(notes.findings),
        image_hash=digest,
        labels_hash=_labels_hash(case, annotation.labels),
        annotated=tuple(o for v, o in sorted(values.items()) if v in counts or case.absent == "background"),
        volumes_ml={organ: counts[value] * voxel_ml for value, organ in sorted(values.items()) if value in counts},
    )


def _check_image(case: Case, volume: Volume, notes: _Notes) -> None:
    if case.modality and not case.modality.strip().lower().startswith(_CT_NAMES):
        notes.add(
            "image_not_ct",
            "error",
            f"the dataset must hold CT, got the channel {case.modality!r}; only CT can be learned",
        )
    low_mm, high_mm = PLAUSIBLE_SPACING_MM
    spacing = "x".join(f"{side:.3g}" for side in volume.spacing_mm)
    if max(volume.size_mm) > MAX_SIZE_MM:
        notes.add(
            "image_geometry",
            "error",
            f"a scan must measure at most {MAX_SIZE_MM:.0f} mm along every axis, got {max(volume.size_mm):.0f} mm "
            f"with voxels of {spacing} mm; check the spacing",
        )
    elif min(volume.spacing_mm) < low_mm or max(volume.spacing_mm) > high_mm:
        notes.add(
            "image_geometry",
            "warning",
            f"voxels are usually {low_mm:g} to {high_mm:g} mm wide, got {spacing} mm; check the spacing",
        )
    _check_hounsfield(volume, notes)


def _check_hounsfield(volume: Volume, notes: _Notes) -> None:
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    found = f"got values from {low:g} to {high:g}"
    if low == high:
        notes.add("image_not_hu", "error", f"an image must show something, got {low:g} in every voxel; export it again")
    elif high - low <= 2:
        notes.add("image_not_hu", "error", f"voxels must be Hounsfield units, {found}; undo the scaling to [0, 1]")
    elif low >= 0:
        hint = "this is an 8-bit picture" if high <= 255 else "this is an MR, or the intercept of -1024 was lost"
        notes.add(
            "image_not_hu",
            "error",
            f"voxels must be Hounsfield units, where fat and air lie below 0, {found}; {hint}: export the CT again",
        )
    elif high < BODY_HU:
        notes.add(
            "image_without_body", "error", f"a CT must show a body, {found}, which is air alone; leave the case out"
        )
    elif low > HIGHEST_AIR_HU:
        notes.add(
            "image_not_hu",
            "warning",
            f"a CT in Hounsfield units shows air near -1000, {found}; check that the image was not rescaled",
        )


def _check_values(case: Case, values: Mapping[int, OrganName], annotation: Annotation, notes: _Notes) -> dict[int, int]:
    """Voxels of every value of ``values`` that occurs."""
    bins = np.bincount(annotation.labels.ravel(order="K"))
    found = {int(value): int(bins[value]) for value in np.flatnonzero(bins) if value > 0}
    strange = {value: n for value, n in found.items() if value not in case.values and value not in case.ignored}
    if strange:
        told = ", ".join(f"{value} ({n} voxels)" for value, n in list(strange.items())[:5])
        known = ", ".join(str(value) for value in sorted({*case.values, *case.ignored})[:10])
        notes.add(
            "labels_undeclared",
            "error",
            f"labels may hold the declared values {known} only, got {told}; declare what they mean or remove them",
        )
    for loser, winner, n in annotation.shared:
        notes.add(
            "labels_overlap",
            "warning",
            f"a voxel belongs to one organ, got {n} of {loser} that are {winner} too; {winner} is taken",
            winner,
        )
    counts = {value: n for value, n in found.items() if value in values}
    if not counts and (case.absent == "unknown" or not values):
        notes.add(
            "nothing_annotated",
            "error",
            "a case must have a voxel of an organ that is learned, got none, and absent organs count as unknown; "
            "leave the case out",
        )
    elif not counts:
        notes.add(
            "nothing_annotated",
            "warning",
            "the labels hold no voxel of an organ that is learned, so all of them are taken as not there; if they were "
            "not drawn, leave the case out",
        )
    return counts


def _check_organs(values: Mapping[int, OrganName], annotation: Annotation, notes: _Notes) -> None:
    orientation = canonical_orientation(annotation.volume.affine)
    labels: LabelMap = orientation.view(annotation.labels)
    spacing = annotation.volume.spacing_mm
    r_mm, a_mm, s_mm = (spacing[axis] for axis in orientation.permutation)
    body = _Body.of(orientation.view(annotation.volume.voxels), (r_mm, a_mm, s_mm))
    boxes = ndimage.find_objects(labels)
    places_mm: dict[OrganName, float] = {}
    for value, organ in sorted(values.items()):
        box = boxes[value - 1] if value <= len(boxes) else None
        if box is None:
            continue
        mask = labels[box] == value
        _check_shape(organ, mask, notes)
        index = np.argwhere(mask) + [side.start for side in box]
        outside = body.share_outside(index)
        if outside > OUTSIDE_WARNING:
            notes.add(
                "organ_outside_body",
                "error" if outside > OUTSIDE_ERROR else "warning",
                f"{organ} must lie in the body, got {outside:.0%} of its voxels in the air around it; "
                "check that the labels belong to this image",
                organ,
            )
        places_mm[organ] = float(index[:, 0].mean()) * r_mm
        _check_midline(organ, values, places_mm[organ], body.midline_mm(box[2], r_mm), notes)
    _check_sides(places_mm, notes)


def _check_shape(organ: OrganName, mask: npt.NDArray[np.bool_], notes: _Notes) -> None:
    voxels = int(np.count_nonzero(mask))
    if voxels < MIN_VOXELS:
        notes.add(
            "organ_tiny",
            "warning",
            f"{organ} should have at least {MIN_VOXELS} voxels, got {voxels}; check that it is no slip of the pen",
            organ,
        )
        return
    pieces, count = ndimage.label(mask, _TOUCHING)
    largest = int(np.bincount(pieces.ravel())[1:].max()) / voxels
    if count > MAX_PIECES or largest < MIN_LARGEST_PIECE:
        notes.add(
            "organ_in_pieces",
            "warning",
            f"{organ} should be in one piece, got {count} pieces, the largest with {largest:.0%} of its voxels; "
            "check for strayed voxels",
            organ,
        )


def _check_sides(places_mm: Mapping[OrganName, float], notes: _Notes) -> None:
    """Along the axis that runs to the patient's right, what is called left must come first."""
    for left, place_mm in places_mm.items():
        right = _twin(left)
        if right is None or not _is_left(left) or right not in places_mm:
            continue
        if place_mm > places_mm[right]:
            notes.add(
                "sides_swapped",
                "error",
                f"{left} must lie to the left of {right}, got it {place_mm - places_mm[right]:.1f} mm to the right; "
                "swap the two names or correct the image's orientation",
                left,
            )


def _check_midline(
    organ: OrganName,
    values: Mapping[int, OrganName],
    place_mm: float,
    midline_mm: float | None,
    notes: _Notes,
) -> None:
    """For an organ of one side whose twin is not learned: is it on its side of the body?"""
    twin = _twin(organ)
    if twin is None or twin in values.values() or midline_mm is None:
        return
    wrong_mm = place_mm - midline_mm if _is_left(organ) else midline_mm - place_mm
    if wrong_mm > MIDLINE_MARGIN_MM:
        other = "right" if _is_left(organ) else "left"
        notes.add(
            "side_doubtful",
            "warning",
            f"{organ} should lie on its side of the body, got it {wrong_mm:.0f} mm to the {other} of the middle; "
            "check its name and the image's orientation",
            organ,
        )


def _is_left(organ: OrganName) -> bool:
    return "left" in organ.split("_")


def _twin(organ: OrganName) -> OrganName | None:
    """The organ of the other side, if the name tells a side."""
    swap = {"left": "right", "right": "left"}
    words = organ.split("_")
    return OrganName("_".join(swap.get(word, word) for word in words)) if set(words) & set(swap) else None


@dataclass(frozen=True, eq=False)
class _Body:
    """Where the patient is, in cells of a few millimeters along R, A, S."""

    cells: npt.NDArray[np.bool_]
    size: Shape3

    @classmethod
    def of(cls, voxels: npt.NDArray[np.generic], spacing_mm: tuple[float, float, float]) -> _Body:
        i, j, k = (min(n, max(1, round(CELL_MM / s))) for n, s in zip(voxels.shape, spacing_mm, strict=True))
        cell_mm = (i * spacing_mm[0], j * spacing_mm[1], k * spacing_mm[2])
        return cls(body_of(cell_means(voxels, (i, j, k)) > BODY_HU, cell_mm), (i, j, k))

    def share_outside(self, index: npt.NDArray[np.int64]) -> float:
        """Fraction of the voxels ``index`` (N, 3) that lie in the air around the patient."""
        i, j, k = (index // self.size).T
        return float(np.mean(~self.cells[i, j, k]))

    def midline_mm(self, planes: slice, r_mm: float) -> float | None:
        """Middle of the body along R within the planes, from the first voxel's middle; None where there is none."""
        layers = self.cells[:, :, planes.start // self.size[2] : -(-planes.stop // self.size[2])]
        share = layers.sum(axis=(1, 2))
        if not share.any():
            return None
        cell = float((np.arange(len(share)) * share).sum() / share.sum())
        return ((cell + 0.5) * self.size[0] - 0.5) * r_mm


def _kind(error: InputError, kinds: tuple[tuple[str, Kind], ...], otherwise: Kind) -> Kind:
    return next((kind for part, kind in kinds if part in str(error)), otherwise)


def _plain(error: InputError, case: Case) -> str:
    """What ``error`` says, without the names of the case's files: they may hold a patient's name."""
    text = str(error)
    spoken: list[tuple[Path, str]] = [(case.image_path, "the image"), (case.labels_path, "the labels")]
    spoken = [(path, f"the mask of {organ}") for organ, path in case.masks.items()] + spoken
    for path, words in spoken:
        for name in (str(path), str(path.absolute()), path.name):
            text = text.replace(f" ({name})", f" ({words})").replace(name, words)
    return " ".join(text.split())


def _labels_hash(case: Case, labels: LabelMap) -> str:
    digest = hashlib.sha256(repr(sorted(case.values.items())).encode())
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()
