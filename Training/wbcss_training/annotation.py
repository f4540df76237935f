"""One annotated scan: where its image and its labels lie, and how both become one label map on the image's grid."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from wbcss.errors import CaseError
from wbcss.io.reading import Labels, read_labels, read_volume
from wbcss.labels import OrganName
from wbcss.volume import Affine, LabelMap, Volume

IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
SEGMENTATION_SUFFIX = ".seg.nrrd"

AFFINE_TOLERANCE_MM = 1e-2
"""Two affines nearer than this are one grid: float32 headers and a trip through LPS lose about a thousandth of it."""

SHIFT_TOLERANCE_VOXELS = 0.5
"""Grids of one shape whose corners lie nearer than this may be meant as one; a person has to say so."""

_OFFSET_TOLERANCE_VOXELS = 1e-2
_HASHED_PLANES = 64
_GENERIC_STEMS = frozenset({"ct", "image", "img", "volume", "scan", "data", "imaging"})
_IMAGE_ENDINGS = ("_0000", "_ct", "_image", "_img", "-ct", "-image")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One annotated scan. Its labels are one file of values, one mask for each organ, or named segments.

    Attributes:
        image_path: The CT.
        labels_path: Label map or ``.seg.nrrd`` on the grid of the CT; with ``masks`` the folder they lie in.
        values: Label value to organ, of the map that ``read_case`` gives.
        absent: What an organ without a voxel means: ``unknown`` (not contoured) or ``background`` (not there).
        ignored: Further values that the labels may hold, of organs that nobody asked for; they are background.
        masks: For one file an organ: organ to its mask, whose voxels are 0 and one other value.
        segments: For a ``.seg.nrrd``: name of a segment to its organ.
        new_organs: Organs declared on purpose although the catalogue lacks them.
        modality: What the dataset says the images are, as it writes it; "" where it says nothing.
        same_grid: Labels whose grid differs from the image's by less than half a voxel are taken as lying on it.
        patient: Whose scan it is, for splits only; made from the file name where the list does not say. Private: it
            is left out of ``repr`` and never written.
    """

    image_path: Path
    labels_path: Path
    values: Mapping[int, OrganName]
    absent: Literal["unknown", "background"] = "background"
    ignored: frozenset[int] = frozenset()
    masks: Mapping[OrganName, Path] = field(default_factory=dict)
    segments: Mapping[str, OrganName] = field(default_factory=dict)
    new_organs: frozenset[OrganName] = frozenset()
    modality: str = ""
    same_grid: bool = field(default=False, repr=False)  # caches are named by the repr; it changes no readable case
    patient: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", patient_of(self.image_path))

    @property
    def organs(self) -> tuple[OrganName, ...]:
        """The organs that the labels can hold, in the order of their values."""
        return tuple(self.values[value] for value in sorted(self.values))

    @property
    def title(self) -> str:
        """What to call the case on the user's own terminal, and nowhere else."""
        name = self.image_path.name
        return f"{self.image_path.absolute().parent.name}/{name}" if _is_generic(name) else name

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file the case is read from."""
        return (self.image_path, *(self.masks.values() if self.masks else (self.labels_path,)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotation:
    """A case in memory.

    Attributes:
        volume: The CT, (I, J, K).
        labels: Values of ``Case.values`` on its grid, (I, J, K) uint16.
        shared: For masks that overlap: the organ that lost voxels, the organ that got them, and how many.
    """

    volume: Volume
    labels: LabelMap
    shared: tuple[tuple[OrganName, OrganName, int], ...] = ()


def patient_of(image_path: Path) -> str:
    """The patient that a file name suggests: its stem without a channel or kind, or its folder if it says only "ct"."""
    stem = _stem(image_path.name)
    if _is_generic(image_path.name):
        return image_path.absolute().parent.name
    for ending in _IMAGE_ENDINGS:
        stem = stem.removesuffix(ending)
    return stem


def _stem(name: str) -> str:
    for suffix in IMAGE_SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _is_generic(name: str) -> bool:
    return _stem(name).lower() in _GENERIC_STEMS


def read_case(case: Case) -> tuple[Volume, LabelMap]:
    """Image and label map (I, J, K) of a case. Raises CaseError unless they lie on the same grid."""
    annotation = read_annotation(case)
    return annotation.volume, annotation.labels


def read_annotation(case: Case) -> Annotation:
    """Read one case.

    Raises:
        VolumeFileError, GeometryError: A file cannot be read; see ``read_volume`` and ``read_labels``.
        CaseError: Image and labels lie on different grids, or a mask holds more than one value.
    """
    return annotate(case, read_volume(case.image_path).volume)


def annotate(case: Case, volume: Volume) -> Annotation:
    """Read the labels of ``case`` onto the grid of its image. Raises as ``read_annotation``."""
    if case.masks:
        return _from_masks(case, volume)
    labels = read_labels(case.labels_path)
    if case.segments:
        return Annotation(volume=volume, labels=_from_segments(case, labels, volume))
    _check_grid(labels, volume, case.labels_path, case.same_grid)
    return Annotation(volume=volume, labels=labels.labels)


def image_hash(volume: Volume) -> str:
    """SHA-256 of the voxels and the shape, the same for every file format and place that they are kept in."""
    digest = hashlib.sha256(repr(volume.shape).encode())
    for start in range(0, volume.shape[0], _HASHED_PLANES):
        # Whole HU may lie in a float file and in an integer one; as float32 both are the same.
        digest.update(np.ascontiguousarray(volume.voxels[start : start + _HASHED_PLANES], dtype=np.float32).data)
    return digest.hexdigest()


def _from_masks(case: Case, volume: Volume) -> Annotation:
    """One map of all masks; where two overlap, the later organ gets the voxel."""
    merged: LabelMap = np.zeros(volume.shape, np.uint16)
    shared = []
    values = {organ: value for value, organ in case.values.items()}
    for organ, path in case.masks.items():
        mask = read_labels(path)
        _check_grid(mask, volume, path, case.same_grid)
        if mask.labels.max() > 1:  # 255 is as good as 1, but two values would be two things
            found = np.unique(mask.labels)
            if len(found) > 2 or found[0] != 0:
                told = _listed(found.tolist())
                raise CaseError(f"the mask of an organ must hold 0 and one other value, got {told} in {path.name}")
        inside = mask.labels != 0
        lost = np.bincount(merged[inside])
        shared += [(case.values[int(v)], organ, int(lost[v])) for v in np.flatnonzero(lost) if v > 0]
        merged[inside] = values[organ]
    return Annotation(volume=volume, labels=merged, shared=tuple(shared))


def _from_segments(case: Case, labels: Labels, volume: Volume) -> LabelMap:
    """The segments that ``case`` names, with its own values. A file cropped to its segments is put in its place."""
    lookup = np.zeros(int(labels.labels.max()) + 1, np.uint16)
    values = {organ: value for value, organ in case.values.items()}
    for value, name in labels.names.items():
        if name in case.segments and value < len(lookup):
            lookup[value] = values[case.segments[name]]
    place = _place(labels, volume)
    if place is None:
        _check_grid(labels, volume, case.labels_path, case.same_grid)
    mapped: LabelMap = lookup[labels.labels]
    if place is None or mapped.shape == volume.shape:
        return mapped
    whole: LabelMap = np.zeros(volume.shape, np.uint16)
    whole[place] = mapped
    return whole


def _place(labels: Labels, volume: Volume) -> tuple[slice, slice, slice] | None:
    """Where a smaller grid of the same axes lies in the image, or None if it does not lie on its voxels."""
    if np.abs(labels.affine[:3, :3] - volume.affine[:3, :3]).max() > 1e-4:
        return None
    offset = np.linalg.solve(volume.affine[:3, :3], labels.affine[:3, 3] - volume.affine[:3, 3])
    low = np.rint(offset).astype(int)
    high = low + labels.labels.shape
    if np.abs(offset - low).max() > _OFFSET_TOLERANCE_VOXELS or low.min() < 0 or (high > volume.shape).any():
        return None
    i, j, k = (slice(int(first), int(last)) for first, last in zip(low, high, strict=True))
    return i, j, k


def _check_grid(labels: Labels, volume: Volume, path: Path, same_grid: bool) -> None:
    if labels.labels.shape != volume.shape:
        raise CaseError(
            f"image and labels of a case must share a grid, got {volume.shape} and {labels.labels.shape} voxels "
            f"({path.name}); resample the labels to the image"
        )
    apart_mm = distance_mm(labels.affine, volume.affine)
    if apart_mm <= AFFINE_TOLERANCE_MM:
        return
    apart_voxels = _corner_shift_voxels(labels.affine, volume)
    if apart_voxels >= SHIFT_TOLERANCE_VOXELS:
        raise CaseError(
            f"image and labels of a case must share a grid, got affines that differ by {apart_mm:.3g} mm "
            f"({path.name}); resample the labels to the image"
        )
    if not same_grid:
        raise CaseError(
            f"image and labels of a case must share a grid, got corners {apart_voxels:.2g} voxels apart "
            f"({path.name}), which is less than half a voxel; join them (--same-grid) or resample the labels"
        )


def _corner_shift_voxels(affine: Affine, volume: Volume) -> float:
    """How far a corner of the image lies from where ``affine`` puts it, in voxels of the image."""
    i, j, k = (side - 1 for side in volume.shape)
    corners = np.array([[x, y, z, 1] for x in (0, i) for y in (0, j) for z in (0, k)], np.float64)
    moved = np.linalg.solve(volume.affine, affine @ corners.T).T
    return float(np.abs(moved - corners).max())


def distance_mm(one: Affine, other: Affine) -> float:
    """Largest difference of two affines' entries."""
    return float(np.abs(one - other).max())


def _listed(values: list[int], limit: int = 5) -> str:
    shown = ", ".join(str(value) for value in values[:limit])
    return f"{shown}, ..." if len(values) > limit else shown


def organs_named(cases: Iterable[Case], *, known: Set[OrganName]) -> frozenset[OrganName]:
    """Every organ that ``cases`` name. Raises CaseError if none of them is ``known``."""
    named = list(dict.fromkeys(name for case in cases for name in case.values.values()))
    if not known & set(named):
        raise CaseError(
            f"the cases name no organ that the model knows, got {', '.join(named)}; `wbcss organs` lists the known ones"
        )
    return frozenset(named)


def in_model_values(reference: LabelMap, wanted: Mapping[int, OrganName], numbers: Mapping[OrganName, int]) -> LabelMap:
    """``reference`` in the model's label values; what the model does not know is background.

    A scan need not show every value of ``wanted``.
    """
    lookup = np.zeros(max(int(reference.max()), *wanted, 0) + 1, np.uint16)
    for value, name in wanted.items():
        lookup[value] = numbers[name]
    translated: LabelMap = lookup[reference]
    return translated
