"""One annotated scan under the magnifier: can it be read, is it a CT in HU, and do its labels make sense?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wbcss.body import BODY_HU, CELL_MM, body_of, cell_means
from wbcss.errors import InputError
from wbcss.io.labelmap import labels_json_path
from wbcss.io.reading import read_volume
from wbcss.io.voxels import slabs
from wbcss.labels import MAX_LABEL, OrganName
from wbcss.preprocess import canonical_orientation
from wbcss.volume import LabelMap, Shape3

from .annotation import IMAGE_SUFFIXES, Annotation, Case, annotate, image_hash
from .findings import Finding, Kind, Notes
from .imagecheck import check_image

MIN_VOXELS = 10
MAX_PIECES = 10
MIN_LARGEST_PIECE = 0.8
"""Less of an organ than this in its largest piece means that it was drawn in parts, or that something strayed."""

OUTSIDE_WARNING = 0.2
OUTSIDE_ERROR = 0.9
SLIVER_MM3 = 5000.0
MIDLINE_MARGIN_MM = 10.0

_MANY = {
    *(
        "cartilages",
        "discs",
        "arteries",
        "teeth",
        "carpal",
        "metacarpal",
        "tarsal",
        "metatarsal",
        "phalanges",
        "muscles",
    ),
    *("ganglia", "tumor", "metastasis", "sarcoma", "cyst", "nodule", "lesion", "effusion", "hematoma"),
}
"""Words of organs that are several pieces by nature."""

_TOUCHING = np.ones((3, 3, 3), dtype=bool)
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
    ("less than half a voxel", "labels_shifted"),
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


def look_at(case: Case, number: int, wanted: frozenset[OrganName] | None = None) -> Look:
    """Read and judge one case; nothing is raised for what is wrong with it.

    Args:
        case: The case.
        number: Its place in the list, from 1.
        wanted: Organs to judge; all by default.
    """
    notes = Notes(case=number)
    try:
        volume = read_volume(case.image_path).volume
    except InputError as error:
        notes.add(_kind(error, _IMAGE_KINDS, "image_unreadable"), "error", _plain(error, case))
        return Look(findings=tuple(notes.findings), volumes_ml={})
    digest = image_hash(volume)
    check_image(volume, case.modality, notes)
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


def _check_values(case: Case, values: Mapping[int, OrganName], annotation: Annotation, notes: Notes) -> dict[int, int]:
    """Voxels of every value of ``values`` that occurs."""
    parts = [np.bincount(slab.ravel(order="K"), minlength=MAX_LABEL + 1) for _, slab in slabs(annotation.labels)]
    bins = np.sum(parts, axis=0)
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


def _check_organs(values: Mapping[int, OrganName], annotation: Annotation, notes: Notes) -> None:
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
        outside = body.share_outside(mask, box)
        if outside > OUTSIDE_WARNING:
            # What the field of view leaves of an arm may be too thin a sliver to be seen as body.
            is_cut = any(cut.start == 0 or cut.stop == n for cut, n in zip(box, labels.shape, strict=True))
            is_sliver = is_cut and np.count_nonzero(mask) * r_mm * a_mm * s_mm < SLIVER_MM3
            notes.add(
                "organ_outside_body",
                "error" if outside > OUTSIDE_ERROR and not is_sliver else "warning",
                f"{organ} must lie in the body, got {outside:.0%} of its voxels in the air around it; "
                "check that the labels belong to this image",
                organ,
            )
        planes = mask.sum(axis=(1, 2))
        places_mm[organ] = float(np.average(np.arange(box[0].start, box[0].stop), weights=planes)) * r_mm
        _check_midline(organ, values, places_mm[organ], body.midline_mm(box[2], r_mm), notes)
    _check_sides(places_mm, notes)


def _check_shape(organ: OrganName, mask: npt.NDArray[np.bool_], notes: Notes) -> None:
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
    if (count > MAX_PIECES or largest < MIN_LARGEST_PIECE) and not may_be_many(organ):
        notes.add(
            "organ_in_pieces",
            "warning",
            f"{organ} should be in one piece, got {count} pieces, the largest with {largest:.0%} of its voxels; "
            "check for strayed voxels",
            organ,
        )


def _check_sides(places_mm: Mapping[OrganName, float], notes: Notes) -> None:
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
    notes: Notes,
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


def may_be_many(organ: OrganName) -> bool:
    """Whether ``organ`` is several pieces, or of any size, by nature."""
    return not _MANY.isdisjoint(organ.split("_"))


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

    def share_outside(self, mask: npt.NDArray[np.bool_], box: tuple[slice, ...]) -> float:
        """Fraction of ``mask``, which fills ``box``, in the air around the patient; 0 where no patient is seen."""
        if not self.cells.any():
            return 0.0
        places = [np.arange(side.start, side.stop) // n for side, n in zip(box, self.size, strict=True)]
        inside = np.count_nonzero(mask & self.cells[np.ix_(*places)])
        return 1 - float(inside / np.count_nonzero(mask))

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
    names: list[tuple[str, str]] = []
    masks = [(path, f"the mask of {organ}") for organ, path in case.masks.items()]
    for path, words in (*masks, (case.image_path, "the image"), (case.labels_path, "the labels")):
        names += [(str(path), words), (labels_json_path(path).name, f"the names beside {words}")]
        if path.name.endswith(IMAGE_SUFFIXES):
            names += [(f" ({path.name})", f" ({words})"), (path.name, words)]
    for name, words in names:
        text = text.replace(name, words)
    return " ".join(text.split())


def _labels_hash(case: Case, labels: LabelMap) -> str:
    digest = hashlib.sha256(repr(sorted(case.values.items())).encode())
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()
