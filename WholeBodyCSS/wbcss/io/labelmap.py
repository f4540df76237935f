"""Label maps from disk, with the names that their file gives to the labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import GeometryError, VolumeFileError
from ..labels import MAX_LABEL
from ..volume import Affine, LabelMap
from .itkfile import read_itk
from .nifti import read_nifti
from .seg_nrrd import Segment, parse_segments
from .voxels import check_grid, slabs

LABEL_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")


class Labels(NamedTuple):
    """A label map as read.

    Attributes:
        labels: Shape (I, J, K), 0 is background; any memory order.
        affine: (i, j, k, 1) to RAS mm, shape (4, 4).
        names: Label value to the name its file gives it; empty if it gives none.
    """

    labels: LabelMap
    affine: Affine
    names: dict[int, str]


def labels_json_path(path: Path) -> Path:
    """Where the names of a ``.nii.gz`` label map lie: ``NAME.labels.json`` beside ``NAME.nii.gz``."""
    name = path.name
    for suffix in (".nii.gz", ".nii"):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    return path.with_name(name + ".labels.json")


def read_labels(path: Path) -> Labels:
    """Read a label map from ``.nii .nii.gz .nrrd .seg.nrrd .mha``.

    Floating-point files are taken when every value is a whole number. Names come from the segments of a ``.seg.nrrd``
    or the ``.labels.json`` beside a NIfTI. A ``.seg.nrrd`` with several layers becomes one map when each
    segment has a label value of its own and no two segments share a voxel.

    Raises:
        VolumeFileError: ``path`` is missing, unreadable, of an unknown kind, holds fractions, NaN, infinity or values
            outside 0..65535, or overlapping segments, which one map cannot hold.
        GeometryError: The grid is sheared or otherwise unusable.
    """
    try:
        with path.open("rb"):
            pass
        stored, affine, names = _read(path)
        return Labels(_whole_numbers(stored), affine, names)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise VolumeFileError(f"the label map {path} cannot be read: {reason}") from error
    except (VolumeFileError, GeometryError) as error:
        raise type(error)(f"{path}: {error}") from error


def _read(path: Path) -> tuple[npt.NDArray[Any], Affine, dict[int, str]]:
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        header, stored = read_nifti(path)
        check_grid(header.affine)
        if (header.slope, header.intercept) != (1.0, 0.0):
            stored = stored * header.slope + header.intercept
        return stored, header.affine, _names_beside(path)
    if not name.endswith(LABEL_SUFFIXES):
        raise VolumeFileError(f"a label map must be one of {', '.join(LABEL_SUFFIXES)}, .seg.nrrd")
    is_nrrd = name.endswith(".nrrd")
    image = read_itk(path, image_io="NrrdImageIO" if is_nrrd else "MetaImageIO")
    segments = parse_segments(image.fields) if is_nrrd else ()
    names = {segment.label: segment.organ for segment in segments}
    if image.array.shape[3] == 1:
        return image.array[:, :, :, 0], image.affine, names
    if not segments:
        raise VolumeFileError(f"labels must be one number each, got {image.array.shape[3]} (color or vector image)")
    merged, names = _one_layer(image.array, segments)
    return merged, image.affine, names


def _one_layer(
    layers: npt.NDArray[Any], segments: tuple[Segment, ...]
) -> tuple[npt.NDArray[np.uint16], dict[int, str]]:
    """One map from a segmentation in layers, whose label values count within each layer only."""
    values = [segment.label for segment in segments]
    # 3D Slicer numbers each layer from 1 again; then the order of the segments is the numbering.
    is_shared = len(set(values)) < len(values)
    merged: npt.NDArray[np.uint16] = np.zeros(layers.shape[:3], dtype=np.uint16)
    names: dict[int, str] = {}
    for number, segment in enumerate(segments, start=1):
        if segment.layer >= layers.shape[3]:
            raise VolumeFileError(
                f"segment {segment.id!r} lies in layer {segment.layer}, but the file has {layers.shape[3]}"
            )
        label = number if is_shared else segment.label
        if not 1 <= label <= MAX_LABEL:
            raise VolumeFileError(f"label value of segment {segment.id!r} must be in 1..{MAX_LABEL}, got {label}")
        inside = layers[:, :, :, segment.layer] == segment.label
        taken = int(np.count_nonzero(merged[inside]))
        if taken:
            raise VolumeFileError(
                f"segment {segment.id!r} shares {taken} voxels with other segments, which one label map cannot hold; "
                "save it without overlap"
            )
        merged[inside] = label
        names[label] = segment.organ
    return merged, names


def _whole_numbers(stored: npt.NDArray[Any]) -> LabelMap:
    """``stored`` as uint16. Raises VolumeFileError if a value is not a whole number in 0..65535."""
    if stored.dtype.kind not in "buif":
        raise VolumeFileError(f"labels must be real numbers, got {stored.dtype}")
    for _, slab in slabs(stored):
        wrong = ~((slab >= 0) & (slab <= MAX_LABEL))
        if stored.dtype.kind == "f":
            wrong |= np.rint(slab) != slab
        if wrong.any():
            raise VolumeFileError(
                f"labels must be whole numbers in 0..{MAX_LABEL}, got {slab[wrong][0]:g}; is this a label map?"
            )
    return stored.astype(np.uint16, copy=False)


def _names_beside(path: Path) -> dict[int, str]:
    """Names from the ``.labels.json`` of ``path``, if it is there. Raises VolumeFileError if it is something else."""
    table = labels_json_path(path)
    if not table.exists():
        return {}
    try:
        rows = json.loads(table.read_text(encoding="utf-8"))
        return {int(label): str(row["name"]) for label, row in rows.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise VolumeFileError(
            f'{table.name} must map label values to organs, as in {{"5": {{"name": "liver"}}}}; correct or remove it'
        ) from None
