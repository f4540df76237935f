"""Segmentations and volumes to disk: checked before any work, streamed slab by slab, there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import GeometryError, LabelSpaceError, OutputError
from ..volume import Affine, LabelMap, Shape3, Volume, check_affine
from .atomic import atomic_path, output_error, remove_stale_partials
from .gzipstream import write_gzip
from .labelmap import labels_json_path
from .nifti import header_bytes
from .seg_nrrd import nrrd_header, segment_fields
from .voxels import slabs

if TYPE_CHECKING:
    from ..catalogue import Organ
    from ..terminology import Code

SEGMENTATION_SUFFIXES = (".seg.nrrd", ".nii.gz")
"""Files that a segmentation is written to."""

_CHUNK_VOXELS = 1 << 21
_SAME_GRID_MM = 1e-3


def check_output(path: Path, *, expected_bytes: int = 0) -> None:
    """Make sure that a segmentation can be written to ``path``, before any time is spent on making it.

    Leftovers of killed runs in the folder, older than a day, are removed on the way.

    Args:
        path: A ``.seg.nrrd`` or ``.nii.gz`` file; what is there may be replaced.
        expected_bytes: Room to ask of the disk.

    Raises:
        OutputError: Unknown suffix, no such folder, no permission, or too little space.
    """
    if not path.name.lower().endswith(SEGMENTATION_SUFFIXES):
        raise OutputError(f"the output must end in {' or '.join(SEGMENTATION_SUFFIXES)}, got {path.name!r}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: a folder of that name is there; choose another name")
    if path.exists() and not os.access(path, os.W_OK):
        raise OutputError(f"cannot write {path}: the file there is write-protected; remove it or choose another name")
    _check_folder(path, path.parent, expected_bytes)


def check_output_folder(folder: Path, *, expected_bytes: int = 0) -> None:
    """As ``check_output``, for the folder of a batch, which is made (with those above it) if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise OutputError(f"the output of several inputs must be a folder, but {folder} is a file") from None
    except OSError as error:
        raise output_error(folder, error) from error
    _check_folder(folder, folder, expected_bytes)


def write_segmentation(
    path: Path, labels: LabelMap, affine: Affine, organs: Sequence[Organ], *, reference: Volume | None = None
) -> tuple[Path, ...]:
    """Write ``labels`` as 3D Slicer reads them, and return the files written.

    Args:
        path: ``NAME.seg.nrrd`` (names, colors and codes inside) or ``NAME.nii.gz`` (with ``NAME.labels.json``).
        labels: Shape (I, J, K), uint16, global label values, any memory order.
        affine: (i, j, k, 1) to RAS mm, shape (4, 4).
        organs: The organs to write; voxels of any other label are written as background.
        reference: The volume that was segmented; the labels must lie on its grid.

    Raises:
        OutputError: Unknown suffix, or the disk refused; nothing half-written remains.
        GeometryError: ``labels`` do not lie on the grid of ``reference``, or the grid is unusable.
        LabelSpaceError: Two organs share a label value.
    """
    shape = _checked_grid(labels, affine)
    _check_organs(organs)
    if reference is not None:
        _check_same_grid(shape, affine, reference)
    kept = _only(labels, organs)
    if path.name.lower().endswith(".seg.nrrd"):
        header = nrrd_header(shape, np.dtype("<u2"), affine, segment_fields(organs, shape))
        with atomic_path(path) as temporary:
            _write_stream(temporary, header, kept, np.dtype("<u2"), is_header_packed=False)
        return (path,)
    if not path.name.lower().endswith(".nii.gz"):
        raise OutputError(f"the output must end in {' or '.join(SEGMENTATION_SUFFIXES)}, got {path.name!r}")
    dtype = np.dtype("<u1" if max((organ.label for organ in organs), default=0) <= 255 else "<u2")
    table = labels_json_path(path)
    # Both are written out before either is renamed: a disk that fills up on one leaves both as they were.
    with atomic_path(table) as temporary_table:
        temporary_table.write_text(_labels_json(organs), encoding="utf-8")
        with atomic_path(path) as temporary:
            _write_stream(temporary, header_bytes(shape, dtype, affine), kept, dtype, is_header_packed=True)
    return path, table


def write_volume(path: Path, array: npt.NDArray[Any], affine: Affine) -> None:
    """Write a scalar volume to ``.nii``, ``.nii.gz`` or ``.nrrd``, whole or not at all.

    Args:
        path: The file; what is there is replaced.
        array: Shape (I, J, K): int16, uint8, uint16, float32, or float16, which is written as float32.
        affine: (i, j, k, 1) to RAS mm, shape (4, 4).

    Raises:
        OutputError: Unknown suffix, or the disk refused.
        GeometryError: The array is not three-dimensional, of another type, or the grid is unusable.
    """
    shape = _checked_grid(array, affine)
    dtype = np.dtype(np.float32) if array.dtype == np.float16 else array.dtype
    if dtype.str[1:] not in ("i2", "u1", "u2", "f4"):
        raise GeometryError(f"a volume must be int16, uint8, uint16, float16 or float32 to be written, got {dtype}")
    dtype = dtype.newbyteorder("<")
    name = path.name.lower()
    if name.endswith(".nrrd") and not name.endswith(".seg.nrrd"):
        with atomic_path(path) as temporary:
            _write_stream(
                temporary, nrrd_header(shape, dtype, affine, {}), _parts(array), dtype, is_header_packed=False
            )
    elif name.endswith((".nii", ".nii.gz")):
        header = header_bytes(shape, dtype, affine)
        with atomic_path(path) as temporary:
            if name.endswith(".gz"):
                _write_stream(temporary, header, _parts(array), dtype, is_header_packed=True)
            else:
                with temporary.open("wb") as file:
                    file.writelines(_chunks(header, _parts(array), dtype))
    else:
        raise OutputError(f"a volume is written to .nii, .nii.gz or .nrrd, got {path.name!r}")


def _write_stream(
    path: Path, header: bytes, parts: Iterator[npt.NDArray[Any]], dtype: np.dtype[Any], *, is_header_packed: bool
) -> None:
    with path.open("wb") as file:
        if not is_header_packed:
            file.write(header)
        write_gzip(file, _chunks(header if is_header_packed else b"", parts, dtype))


def _chunks(header: bytes, parts: Iterator[npt.NDArray[Any]], dtype: np.dtype[Any]) -> Iterator[bytes]:
    """``header`` and then the voxels with i fastest, a slab at a time: no copy of the volume is ever made."""
    if header:
        yield header
    for part in parts:
        yield part.astype(dtype, copy=False).tobytes(order="F")


def _parts(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    for _, slab in slabs(array, voxels=_CHUNK_VOXELS):
        yield slab


def _only(labels: LabelMap, organs: Sequence[Organ]) -> Iterator[npt.NDArray[Any]]:
    """The slabs of ``labels`` with every label that is not of ``organs`` as background."""
    lookup = np.zeros(1 << 16, dtype=np.uint16)
    for organ in organs:
        lookup[organ.label] = organ.label
    for slab in _parts(labels):
        yield lookup[slab]


def _labels_json(organs: Sequence[Organ]) -> str:
    table = {
        str(organ.label): {
            "name": organ.name,
            "display_name": organ.display_name,
            "code": _code(organ.type),
            "category": _code(organ.category),
            "type_modifier": _code(organ.type_modifier),
            "color_rgb": list(organ.color_rgb),
            "side": organ.side,
            "group": organ.group,
        }
        for organ in sorted(organs, key=lambda organ: organ.label)
    }
    return json.dumps(table, indent=1, ensure_ascii=False) + "\n"


def _code(code: Code | None) -> dict[str, str] | None:
    return None if code is None else {"scheme": code.scheme, "value": code.value, "meaning": code.meaning}


def _checked_grid(array: npt.NDArray[Any], affine: Affine) -> Shape3:
    if array.ndim != 3 or min(array.shape) < 1:
        raise GeometryError(f"voxels must have shape (I, J, K), none of them 0, got {array.shape}")
    check_affine(affine)
    i, j, k = array.shape
    return i, j, k


def _check_organs(organs: Sequence[Organ]) -> None:
    owners: dict[int, str] = {}
    for organ in organs:
        if organ.label in owners:
            raise LabelSpaceError(f"organs {owners[organ.label]!r} and {organ.name!r} share the label {organ.label}")
        owners[organ.label] = organ.name


def _check_same_grid(shape: Shape3, affine: Affine, reference: Volume) -> None:
    if shape != reference.shape:
        raise GeometryError(f"labels must have the shape of their volume, {reference.shape}, got {shape}")
    ends = np.array([[0, 0, 0, 1], [*shape, 1]], dtype=np.float64).T
    apart = float(np.abs((affine - reference.affine) @ ends).max())
    if apart > _SAME_GRID_MM:
        raise GeometryError(f"labels must lie on the grid of their volume, got one up to {apart:.3f} mm away")


def _check_folder(path: Path, folder: Path, expected_bytes: int) -> None:
    """Write a byte beside ``path`` for real: permission bits say little to root, in containers, on network disks."""
    remove_stale_partials(folder)
    probe = folder / "probe"
    try:
        with contextlib.suppress(_Probed), atomic_path(probe) as temporary:
            temporary.write_bytes(b"0")
            raise _Probed
        free = shutil.disk_usage(folder).free
    except OutputError as error:
        raise OutputError(str(error).replace(str(probe), str(path), 1)) from error
    except OSError as error:
        raise output_error(path, error) from error
    if free < expected_bytes:
        raise OutputError(
            f"cannot write {path}: {expected_bytes / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free; "
            "free some space or choose another disk"
        )


class _Probed(Exception):
    """Leaves an atomic block without leaving a file."""
