"""From whatever number type a file holds to int16 or float32, checked for values that no scan has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import GeometryError, VolumeFileError
from ..volume import Affine, Voxels, check_affine, spacing_of

SLAB_VOXELS = 1 << 23
"""Voxels looked at in one go: temporaries stay at tens of megabytes whatever the size of the volume."""

_INT16 = np.iinfo(np.int16)
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_SPACING_RANGE_MM = (0.01, 100.0)


def to_voxels(array: npt.NDArray[Any], *, slope: float = 1.0, intercept: float = 0.0) -> Voxels:
    """``slope * array + intercept`` as int16 where that loses nothing, else float32.

    Args:
        array: Shape (I, J, K), any integer or floating type and byte order. Given away: the result may be the same
            memory.
        slope: Stored value to HU.
        intercept: HU of the stored value 0.

    Returns:
        Shape (I, J, K), in the memory order of ``array``.

    Raises:
        VolumeFileError: Values are not numbers (told with their count), or the type is not a real number.
    """
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise VolumeFileError(f"voxels must be real numbers of at most 64 bits, got {array.dtype}")
    if (slope, intercept) == (1.0, 0.0) and array.dtype == np.dtype(np.int16):
        return array.astype(np.int16, copy=False)
    if _is_int16(array, slope, intercept):
        return _converted(array, slope, intercept, np.dtype(np.int16))
    if (slope, intercept) == (1.0, 0.0) and array.dtype == np.dtype(np.float32):
        return array.astype(np.float32, copy=False)
    return _converted(array, slope, intercept, np.dtype(np.float32))


def check_grid(affine: Affine) -> None:
    """Refuse what is no voxel grid of a body scan. Raises GeometryError."""
    spacing = spacing_of(affine)
    if min(spacing) == 0:
        raise GeometryError(f"voxel spacing must be above 0 mm, got {_by(spacing)} mm")
    check_affine(affine)
    low, high = _SPACING_RANGE_MM
    if min(spacing) < low or max(spacing) > high:
        raise GeometryError(
            f"voxel spacing must be {low:g} to {high:g} mm, got {_by(spacing)} mm; is the file's unit right?"
        )


def slabs(array: npt.NDArray[Any], *, voxels: int = SLAB_VOXELS) -> Iterator[tuple[slice, npt.NDArray[Any]]]:
    """Views of ``array`` along k, each about ``voxels`` large, with the range of k that each covers."""
    step = max(1, voxels // max(1, array.shape[0] * array.shape[1]))
    for start in range(0, array.shape[2], step):
        part = slice(start, min(start + step, array.shape[2]))
        yield part, array[:, :, part]


def _is_int16(array: npt.NDArray[Any], slope: float, intercept: float) -> bool:
    """Whether every scaled value is a whole number of int16's range. Raises VolumeFileError for NaN and infinity."""
    if array.dtype.kind != "f":
        ends = (float(array.min()) * slope + intercept, float(array.max()) * slope + intercept)
        whole = float(slope).is_integer() and float(intercept).is_integer()
        return whole and _INT16.min <= min(ends) and max(ends) <= _INT16.max
    bad = 0
    fits = True
    for _, slab in slabs(array):
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = slab * slope + intercept if (slope, intercept) != (1.0, 0.0) else slab
            finite = np.abs(scaled) <= _FLOAT32_MAX
        bad += scaled.size - int(np.count_nonzero(finite))
        if fits and not bad:
            fits = bool(scaled.min() >= _INT16.min and scaled.max() <= _INT16.max and (np.rint(scaled) == scaled).all())
    if bad:
        raise VolumeFileError(
            f"every voxel must be a finite number, got {bad} of {array.size} that are NaN or infinite; "
            "replace them (air is -1024 HU) and try again"
        )
    return fits


def _converted(array: npt.NDArray[Any], slope: float, intercept: float, dtype: np.dtype[Any]) -> Voxels:
    if (slope, intercept) == (1.0, 0.0):
        plain: Voxels = array.astype(dtype)
        return plain
    result: Voxels = np.empty_like(array, dtype=dtype)
    for part, slab in slabs(array):
        result[:, :, part] = slab.astype(np.float64) * slope + intercept
    return result


def _by(spacing: tuple[float, float, float]) -> str:
    return "x".join(f"{s:g}" for s in spacing)
