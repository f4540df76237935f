"""Slices of one DICOM series put together to a volume on a rectangular, regular grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK

from ..errors import GeometryError, VolumeFileError
from ..volume import Affine, Voxels
from .dicomfile import SliceFile
from .itkfile import LPS_TO_RAS, pixels_of
from .voxels import check_grid, to_voxels

AIR_HU = -1024
"""Fills what no slice covers after shifting."""

MAX_STEP_RATIO = 4.0
"""Irregular slices are resampled unless two neighbors lie further apart than this many times the smallest step."""

MAX_FILLED_FRACTION = 0.1
"""At most this share of a series' slices is filled in between neighbors."""

_POSITION_TOLERANCE = 0.02
_POSITION_ROUNDING_MM = 0.11
_SAME_PLACE_MM = 1e-3
_SHIFT_TOLERANCE_PIXELS = 0.25


@dataclass(frozen=True, eq=False)
class Frame:
    """How the slices of a series lie, ordered along their normal.

    Attributes:
        slices: The slice files, ordered.
        axes_lps: Columns: along a row, along a column, along the normal; perpendicular unit vectors.
        distance_mm: Position of each slice along the normal, ascending.
        shift_mm: Shape (slices, 2): offset of each slice within its plane from the first one, along row and column.
    """

    slices: tuple[SliceFile, ...]
    axes_lps: npt.NDArray[np.float64]
    distance_mm: npt.NDArray[np.float64]
    shift_mm: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spread:
    """A regular grid along the normal, and each of its slices as a blend of two source slices.

    Attributes:
        spacing_mm: Distance between slices.
        lower: Index of the source slice below each grid slice.
        weight: Share of the source slice above it, in [0, 1].
        warning: What had to be done, "" if the sources are regular themselves.
    """

    spacing_mm: float
    lower: npt.NDArray[np.intp]
    weight: npt.NDArray[np.float64]
    warning: str

    @property
    def is_identity(self) -> bool:
        """Whether the grid's slices are the source slices."""
        return not self.warning


def frame_of(slices: Sequence[SliceFile]) -> Frame:
    """Order ``slices``, which share size and orientation, along their common normal. Raises GeometryError."""
    row = np.array(slices[0].row_lps)
    column = np.array(slices[0].column_lps)
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    if min(lengths) < 0.99 or max(lengths) > 1.01 or abs(float(row @ column)) > 1e-2:
        raise GeometryError(
            f"the slices' row and column directions must be perpendicular unit vectors, got {row.tolist()} "
            f"and {column.tolist()}"
        )
    # Decimal strings round the directions; make them exactly perpendicular, the row keeping its own.
    row = row / lengths[0]
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    axes = np.stack([row, column, np.cross(row, column)], axis=1)
    inside = np.array([s.position_lps for s in slices]) @ axes
    order = np.argsort(inside[:, 2], kind="stable")
    inside = inside[order]
    return Frame(tuple(slices[n] for n in order), axes, inside[:, 2], inside[:, :2] - inside[0, :2])


def same_place(frame: Frame) -> npt.NDArray[np.intp]:
    """Indices of slices that lie where the slice before them lies."""
    return np.flatnonzero(np.diff(frame.distance_mm) < _SAME_PLACE_MM) + 1


def spread_of(frame: Frame) -> Spread:
    """The regular grid for ``frame``: as it is, with single missing slices filled, or resampled.

    Filling and resampling are linear between neighbors. Raises GeometryError, which names the gap, when two or more
    slices are missing in a row, too many are missing, or the steps vary too much to be a series with varied spacing.
    """
    distance = frame.distance_mm
    num = len(distance)
    if num == 1:
        return Spread(frame.slices[0].thickness_mm or 1.0, np.array([0]), np.array([0.0]), "")
    steps = np.diff(distance)
    mean = float(distance[-1] - distance[0]) / (num - 1)
    if _fits(distance, np.arange(num), mean):
        return Spread(mean, np.arange(num), np.zeros(num), "")
    step = float(np.median(steps))
    counts = np.rint(steps / step).astype(int)
    index = np.concatenate([[0], np.cumsum(counts)])
    if counts.min() >= 1 and _fits(distance, index, float(distance[-1] - distance[0]) / int(index[-1])):
        return _filled(distance, counts)
    return _resampled(distance, steps)


def _fits(distance: npt.NDArray[np.float64], index: npt.NDArray[Any], step: float) -> bool:
    # Some scanners write positions with one decimal: the slice and an end that it is measured by err by 0.05 each.
    tolerance = max(_POSITION_ROUNDING_MM, _POSITION_TOLERANCE * step)
    return bool(np.abs(distance - distance[0] - index * step).max() <= tolerance)


def _filled(distance: npt.NDArray[np.float64], counts: npt.NDArray[Any]) -> Spread:
    missing = int((counts - 1).sum())
    worst = int(np.argmax(counts))
    if counts[worst] > 2:
        raise GeometryError(
            f"{counts[worst] - 1} slices are missing in a row, between {distance[worst]:.1f} and "
            f"{distance[worst + 1]:.1f} mm along the slice direction; fetch the whole series again"
        )
    if missing > max(1.0, MAX_FILLED_FRACTION * len(distance)):
        raise GeometryError(
            f"{missing} slices are missing beside the {len(distance)} that are there; fetch the whole series again"
        )
    total = int(counts.sum())
    places = ", ".join(f"{distance[n]:.1f} and {distance[n + 1]:.1f} mm" for n in np.flatnonzero(counts == 2)[:5])
    step = float(distance[-1] - distance[0]) / total
    lower, weight = _blend(distance, distance[0] + step * np.arange(total + 1))
    return Spread(
        step, lower, weight, f"{missing} missing slice(s) filled in from both neighbors (between {places}); check there"
    )


def _resampled(distance: npt.NDArray[np.float64], steps: npt.NDArray[np.float64]) -> Spread:
    smallest, worst = float(steps.min()), int(np.argmax(steps))
    if steps[worst] > MAX_STEP_RATIO * smallest:
        raise GeometryError(
            f"slices are missing or misplaced: {steps[worst]:.2f} mm lie between the slices at {distance[worst]:.1f} "
            f"and {distance[worst + 1]:.1f} mm, elsewhere {smallest:.2f} mm; fetch the whole series again"
        )
    total = max(1, round(float(distance[-1] - distance[0]) / smallest))
    step = float(distance[-1] - distance[0]) / total
    lower, weight = _blend(distance, distance[0] + step * np.arange(total + 1))
    return Spread(
        step,
        lower,
        weight,
        f"the distance between slices varies from {smallest:.2f} to {steps[worst]:.2f} mm; resampled every "
        f"{step:.2f} mm: the result lies on this regular grid",
    )


def _blend(
    distance: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    lower = np.clip(np.searchsorted(distance, wanted, side="right") - 1, 0, len(distance) - 2)
    weight = (wanted - distance[lower]) / (distance[lower + 1] - distance[lower])
    weight = np.clip(weight, 0.0, 1.0)
    # A grid slice on a source slice is that slice, bit for bit.
    weight[weight < 1e-3] = 0.0
    weight[weight > 1 - 1e-3] = 1.0
    return lower, weight


def stack(frame: Frame) -> tuple[Voxels, Affine, tuple[str, ...]]:
    """Read the slices of ``frame`` into one volume.

    Returns:
        Voxels in HU, shape (columns, rows, slices); the affine to RAS mm; warnings about everything that was resampled.

    Raises:
        VolumeFileError: A slice cannot be decoded, or has another size than its header says.
        GeometryError: Slices are missing, see ``spread_of``.
    """
    spread = spread_of(frame)
    spacing = frame.slices[0].spacing_mm
    is_shifted = bool((np.abs(frame.shift_mm).max(axis=0) > _SHIFT_TOLERANCE_PIXELS * np.array(spacing)).any())
    warnings = [_shift_warning(frame)] if is_shifted else []
    start = frame.shift_mm.min(axis=0) if is_shifted else np.zeros(2)
    offsets = (frame.shift_mm - start) / spacing if is_shifted else np.zeros_like(frame.shift_mm)
    affine = _affine(frame, spread, start)
    check_grid(affine)
    voxels = _read_slices(frame, offsets)
    if not spread.is_identity:
        warnings.append(spread.warning)
        voxels = _blended(voxels, spread)
    if len(frame.slices) == 1:
        warnings.append(f"a single slice, taken as {spread.spacing_mm:g} mm thick")
    return to_voxels(voxels.transpose(2, 1, 0)), affine, tuple(warnings)


def _affine(frame: Frame, spread: Spread, start: npt.NDArray[np.float64]) -> Affine:
    affine: Affine = np.eye(4)
    affine[:3, :3] = frame.axes_lps * [*frame.slices[0].spacing_mm, spread.spacing_mm]
    affine[:3, 3] = np.array(frame.slices[0].position_lps) + frame.axes_lps[:, :2] @ start
    return LPS_TO_RAS @ affine


def _shift_warning(frame: Frame) -> str:
    """Tell a tilted gantry, whose shift grows with the distance, from slices that are displaced singly."""
    distance = frame.distance_mm - frame.distance_mm[0]
    slope = distance @ frame.shift_mm / float(distance @ distance)
    rest = np.abs(frame.shift_mm - np.outer(distance, slope)).max()
    after = "every slice was shifted in its plane onto a rectangular grid, and the result lies on that corrected grid"
    if rest <= max(frame.slices[0].spacing_mm):
        return f"gantry tilt of {np.degrees(np.arctan(np.linalg.norm(slope))):.1f} degrees corrected: {after}"
    return f"slices are displaced sideways by up to {np.abs(frame.shift_mm).max():.1f} mm: {after}"


def _read_slices(frame: Frame, offsets: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """All slices, shape (slices, rows, columns), each moved by its offset in pixels; int16 unless one does not fit."""
    columns, rows = frame.slices[0].shape
    extra = np.ceil(offsets.max(axis=0) - 1e-6).astype(int)
    shape = (len(frame.slices), rows + int(extra[1]), columns + int(extra[0]))
    result: npt.NDArray[Any] = np.empty(shape, dtype=np.int16)
    for n, item in enumerate(frame.slices):
        pixels: npt.NDArray[Any] = to_voxels(_read_pixels(item)[:, :, np.newaxis])[:, :, 0].T
        if pixels.dtype != np.int16 and result.dtype == np.int16:
            result = result.astype(np.float32)
        result[n] = _shifted(pixels, shape[1:], offsets[n], result.dtype)
    return result


def _read_pixels(item: SliceFile) -> npt.NDArray[Any]:
    """HU of one slice, shape (columns, rows). Raises VolumeFileError."""
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(item.path))
    reader.SetImageIO("GDCMImageIO")
    try:
        image = reader.Execute()
    except RuntimeError:
        raise VolumeFileError(
            f"the pixels of the CT slice {item.path.name} cannot be decoded: it is damaged or packed in a way that is "
            "not supported; copy the series again or convert it to an uncompressed one"
        ) from None
    if image.GetDimension() == 2:
        image = SimpleITK.JoinSeries(image)
    pixels = pixels_of(image)
    if pixels.shape != (*item.shape, 1, 1):
        raise VolumeFileError(f"the CT slice {item.path.name} must hold {item.shape} pixels, got {pixels.shape}")
    return pixels[:, :, 0, 0]


def _shifted(
    pixels: npt.NDArray[Any], shape: tuple[int, ...], offset: npt.NDArray[np.float64], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """``pixels`` (rows, columns) on a larger plane, moved by ``offset`` (columns, rows) with linear interpolation."""
    if pixels.shape == shape and not offset.any():
        return pixels
    plane = np.full(shape, AIR_HU, dtype=np.float32)
    whole = np.floor(offset + 1e-6).astype(int)
    parts = np.clip(offset - whole, 0.0, None)
    plane[whole[1] : whole[1] + pixels.shape[0], whole[0] : whole[0] + pixels.shape[1]] = pixels
    for axis, part in ((1, parts[0]), (0, parts[1])):
        if part > 1e-6:
            before = np.roll(plane, 1, axis=axis)
            before[(slice(None), 0) if axis else (0, slice(None))] = AIR_HU
            plane = np.float32(1 - part) * plane + np.float32(part) * before
    return np.rint(plane).astype(dtype) if dtype == np.int16 else plane


def _blended(voxels: npt.NDArray[Any], spread: Spread) -> npt.NDArray[Any]:
    """The grid slices of ``spread`` from the source slices ``voxels``, shape (slices, rows, columns)."""
    result: npt.NDArray[Any] = np.empty((len(spread.lower), *voxels.shape[1:]), dtype=voxels.dtype)
    for n, (lower, weight) in enumerate(zip(spread.lower, spread.weight, strict=True)):
        if weight in (0.0, 1.0):
            result[n] = voxels[lower + int(weight)]
            continue
        mixed = np.float32(1 - weight) * voxels[lower] + np.float32(weight) * voxels[lower + 1]
        result[n] = np.rint(mixed) if voxels.dtype == np.int16 else mixed
    return result
