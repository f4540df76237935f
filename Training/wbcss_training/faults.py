"""Plant a fault in a scan whose organs are known: a lesion, a cut, metal, or intensities of another modality.

For trials of the checks only. Everything is drawn from the generator that is given, so equal seeds give equal faults.
The looks are ours and simple on purpose: what is added is known in closed form, voxel by voxel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wbcss.preprocess import canonical_orientation
from wbcss.volume import Affine, Volume

FaultKind = Literal["lesion", "truncation", "metal", "mr", "pet"]
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
WHOLE_SCAN: frozenset[FaultKind] = frozenset({"mr", "pet"})
"""Faults of every organ of the scan."""

AIR_HU, METAL_HU = -1024.0, 3071.0
"""The ends of what 12 bits hold, as most scanners write it."""

LEAST_PLANES = 4
"""An organ on fewer planes across the body is not cut."""

_LESION_HU = (60.0, 160.0)
_LESION_OF_DEPTH, _LARGEST_LESION_MM = (0.5, 1.0), 25.0
_CUT_SHARE = (0.3, 0.6)
_ROD_RADIUS_MM, _ROD_HALF_MM = (2.0, 5.0), (10.0, 25.0)
_STREAK_HU, _STREAK_RAYS, _STREAK_REACH_MM = (200.0, 500.0), (4, 9), 40.0
_DEEP = 0.75

MR_KNOTS = (
    (-1024.0, 0.0),
    (-500.0, 0.0),
    (-120.0, 800.0),
    (40.0, 450.0),
    (100.0, 350.0),
    (300.0, 150.0),
    (1000.0, 20.0),
    (3071.0, 0.0),
)
"""HU to signal, arbitrary units: dark air, and from fat to bone the denser the darker, as in a spin-echo image."""

PET_KNOTS = ((-1024.0, 0.0), (-800.0, 0.4), (-100.0, 0.3), (40.0, 1.2), (70.0, 2.2), (300.0, 0.9), (3071.0, 0.5))
"""HU to standardized uptake value: little in fat and lung, most in well-perfused soft tissue."""

PET_FWHM_MM = 6.0
_MR_GAIN, _PET_GAIN = (0.7, 1.3), (0.8, 1.5)

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fault:
    """A scan with something wrong.

    Attributes:
        kind: What.
        volume: The scan with it; CT by its label whatever it shows.
        place_ras_mm: The middle of it, or of the organ.
        facts: What was drawn, in the units of the names. Nothing about the patient.
    """

    kind: FaultKind
    volume: Volume
    place_ras_mm: tuple[float, float, float]
    facts: Mapping[str, float]


def plant(kind: FaultKind, volume: Volume, organ: Mask, rng: np.random.Generator) -> Fault | None:
    """Plant a fault where ``organ`` (I, J, K), which has a voxel, lies; None if it is too small to be cut."""
    makers: Mapping[FaultKind, Callable[[Volume, Mask, np.random.Generator], Fault | None]] = {
        "lesion": plant_lesion,
        "truncation": truncate,
        "metal": plant_metal,
        "mr": like_mr,
        "pet": like_pet,
    }
    return makers[kind](volume, organ, rng)


def plant_lesion(volume: Volume, organ: Mask, rng: np.random.Generator) -> Fault:
    """A ball deep in the organ, darker or brighter by 60 to 160 HU, half to all as wide as the organ is deep there."""
    ijk, depth_mm = deep_voxel(organ, volume.spacing_mm, rng)
    coarsest_mm = max(volume.spacing_mm)
    radius_mm = min(_LARGEST_LESION_MM, max(1.5 * coarsest_mm, depth_mm * rng.uniform(*_LESION_OF_DEPTH)))
    contrast_hu = float(rng.choice((-1, 1)) * rng.uniform(*_LESION_HU))
    weight = soft_ball(volume, ijk, radius_mm=radius_mm, edge_mm=coarsest_mm)
    facts = {"radius_mm": radius_mm, "edge_mm": coarsest_mm, "contrast_hu": contrast_hu}
    return Fault(
        kind="lesion",
        volume=_with_hu(volume, volume.voxels + contrast_hu * weight),
        place_ras_mm=_ras_mm(volume.affine, ijk),
        facts=facts,
    )


def deep_voxel(
    organ: Mask, spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], float]:
    """A voxel (3,) of the organ at three quarters of its greatest depth or more, and how deep it lies, in mm.

    Depth is the distance to the middle of the nearest voxel outside; the edge of the image counts as outside.
    """
    (box,) = ndimage.find_objects(organ.astype(np.uint8))
    depth: Floats = ndimage.distance_transform_edt(np.pad(organ[box], 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    deep = np.argwhere(depth >= _DEEP * depth.max())
    at = deep[int(rng.integers(len(deep)))]
    return at + np.array([part.start for part in box]), float(depth[tuple(at)])


def soft_ball(volume: Volume, center_ijk: npt.NDArray[Any], *, radius_mm: float, edge_mm: float) -> Floats:
    """Weight (I, J, K): 1 inside, 0 outside, half at ``radius_mm``, falling linearly over ``edge_mm``."""
    squared = np.zeros((1, 1, 1))
    for axis, (size, side_mm) in enumerate(zip(volume.shape, volume.spacing_mm, strict=True)):
        squared = squared + _along(axis, ((np.arange(size) - center_ijk[axis]) * side_mm) ** 2)
    weight: Floats = np.clip(0.5 + (radius_mm - np.sqrt(squared)) / edge_mm, 0, 1)
    return weight


def truncate(volume: Volume, organ: Mask, rng: np.random.Generator) -> Fault | None:
    """Cut the field of view across the body so that 30 to 60% of the organ's voxels are lost; the longer rest stays.

    None if the organ lies on fewer than 4 planes.
    """
    axis = canonical_orientation(volume.affine).permutation[2]
    counts = organ.sum(axis=tuple(other for other in range(3) if other != axis))
    planes = np.flatnonzero(counts)
    if len(planes) < LEAST_PLANES:
        return None
    first, last = int(planes[0]), int(planes[-1])
    keeps_low = first + last >= len(counts) - 1  # an organ in the upper half loses its upper part
    share = rng.uniform(*_CUT_SHARE)
    lost = _lost(counts, keeps_low)
    inner = slice(first + 1, last + 1)  # an edge before one of these planes leaves at least a plane on either side
    edge = first + 1 + int(np.argmin(np.abs(lost[inner] / counts.sum() - share)))
    kept = slice(0, edge) if keeps_low else slice(edge, len(counts))
    return Fault(
        kind="truncation",
        volume=_cropped(volume, axis, kept),
        place_ras_mm=_ras_mm(volume.affine, np.argwhere(organ).mean(axis=0)),
        facts={"lost_share": float(lost[edge] / counts.sum())},
    )


def _lost(counts: npt.NDArray[np.int64], keeps_low: bool) -> npt.NDArray[np.int64]:
    """Voxels lost when the cut lies before plane 0, 1, ... of the organ's ``counts`` per plane."""
    below = np.concatenate([[0], np.cumsum(counts)[:-1]])
    lost: npt.NDArray[np.int64] = counts.sum() - below if keeps_low else below
    return lost


def _cropped(volume: Volume, axis: int, kept: slice) -> Volume:
    """The planes ``kept`` along ``axis``, in their place in the patient."""
    at = [slice(None)] * 3
    at[axis] = kept
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, axis] * kept.start
    voxels: npt.NDArray[Any] = np.ascontiguousarray(volume.voxels[tuple(at)])
    return replace(volume, voxels=voxels, affine=affine)


def plant_metal(volume: Volume, organ: Mask, rng: np.random.Generator) -> Fault:
    """A rod of metal along the body through the organ, with bright and dark rays across the body that fade outwards.

    Rays change the HU by A cos(n a + b) exp(-(r - R) / 40 mm) at the distance r and angle a from a rod of radius R.
    """
    ijk, _ = deep_voxel(organ, volume.spacing_mm, rng)
    radius_mm, half_mm = rng.uniform(*_ROD_RADIUS_MM), rng.uniform(*_ROD_HALF_MM)
    streak_hu, phase = rng.uniform(*_STREAK_HU), rng.uniform(0, 2 * np.pi)
    rays = int(rng.integers(_STREAK_RAYS[0], _STREAK_RAYS[1] + 1))
    radius_mm = max(radius_mm, max(volume.spacing_mm) / 2)  # at least one voxel of it is seen
    right, front, up = canonical_orientation(volume.affine).permutation
    offset_mm = [
        _along(axis, (np.arange(size) - ijk[axis]) * side_mm)
        for axis, (size, side_mm) in enumerate(zip(volume.shape, volume.spacing_mm, strict=True))
    ]
    away_mm = np.hypot(offset_mm[right], offset_mm[front])
    angle = np.arctan2(offset_mm[front], offset_mm[right])
    streaks = streak_hu * np.cos(rays * angle + phase) * np.exp(-(away_mm - radius_mm) / _STREAK_REACH_MM)
    beside = np.abs(offset_mm[up]) <= half_mm
    hu = np.where(beside, np.where(away_mm <= radius_mm, METAL_HU, volume.voxels + streaks), volume.voxels)
    facts = {"radius_mm": radius_mm, "half_length_mm": half_mm, "streak_hu": streak_hu, "rays": rays, "phase": phase}
    return Fault(kind="metal", volume=_with_hu(volume, hu), place_ras_mm=_ras_mm(volume.affine, ijk), facts=facts)


def like_mr(volume: Volume, organ: Mask, rng: np.random.Generator) -> Fault:
    """The scan with the intensities of an MR, by ``MR_KNOTS`` and a gain of 0.7 to 1.3; every organ is affected."""
    gain = rng.uniform(*_MR_GAIN)
    return _other_modality("mr", volume, organ, gain * _mapped(volume, MR_KNOTS), gain)


def like_pet(volume: Volume, organ: Mask, rng: np.random.Generator) -> Fault:
    """The scan as uptake, by ``PET_KNOTS`` and a gain of 0.8 to 1.5, blurred to 6 mm; every organ is affected."""
    gain = rng.uniform(*_PET_GAIN)
    uptake = gain * _mapped(volume, PET_KNOTS)
    sigma_mm = PET_FWHM_MM / (8 * np.log(2)) ** 0.5
    blurred = ndimage.gaussian_filter(uptake, [sigma_mm / side for side in volume.spacing_mm], mode="nearest")
    return _other_modality("pet", volume, organ, blurred, gain)


def _mapped(volume: Volume, knots: Sequence[tuple[float, float]]) -> Floats:
    """Intensities by straight lines between ``knots`` of HU and value, constant beyond the ends."""
    hu, value = np.array(knots).T
    mapped: Floats = np.asarray(np.interp(volume.voxels.astype(np.float64), hu, value), np.float64)
    return mapped


def _other_modality(kind: FaultKind, volume: Volume, organ: Mask, signal: Floats, gain: float) -> Fault:
    return Fault(
        kind=kind,
        volume=replace(volume, voxels=signal.astype(np.float32)),
        place_ras_mm=_ras_mm(volume.affine, np.argwhere(organ).mean(axis=0)),
        facts={"gain": float(gain)},
    )


def _with_hu(volume: Volume, hu: npt.NDArray[Any]) -> Volume:
    """``volume`` with ``hu`` in its own number type, within what 12 bits hold or the scan itself does."""
    low, high = min(AIR_HU, float(volume.voxels.min())), max(METAL_HU, float(volume.voxels.max()))
    clipped = np.clip(hu, low, high)
    is_whole = volume.voxels.dtype == np.int16
    return replace(volume, voxels=(np.rint(clipped) if is_whole else clipped).astype(volume.voxels.dtype))


def _along(axis: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N,) values as an array that varies along ``axis`` of three only."""
    shape = [1, 1, 1]
    shape[axis] = -1
    return values.reshape(shape)


def _ras_mm(affine: Affine, ijk: npt.NDArray[Any]) -> tuple[float, float, float]:
    r, a, s = (float(mm) for mm in affine[:3, :3] @ ijk + affine[:3, 3])
    return r, a, s
