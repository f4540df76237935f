"""The one image type of the engine: an array and its place in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .errors import GeometryError

Modality = Literal["CT", "MR", "PT"]
Voxels = npt.NDArray[np.float32] | npt.NDArray[np.int16]
LabelMap = npt.NDArray[np.uint16]
Confidence = npt.NDArray[np.float16]
Affine = npt.NDArray[np.float64]
Shape3 = tuple[int, int, int]
Spacing_mm = tuple[float, float, float]

MAX_SHEAR = 1e-3
"""Largest tolerated cosine between two grid axes; more than this is a sheared (gantry-tilted) grid."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A scalar image on a regular grid.

    Attributes:
        voxels: Shape (I, J, K), index order i, j, k, int16 or float32. Hounsfield units when ``modality`` is "CT".
        affine: Shape (4, 4), maps (i, j, k, 1) to RAS+ millimeters. Columns follow the array axes.
        modality: What was measured; decides the intensity normalization.
    """

    voxels: Voxels
    affine: Affine
    modality: Modality = "CT"

    def __post_init__(self) -> None:
        if self.voxels.ndim != 3 or min(self.voxels.shape) < 1:
            raise GeometryError(f"voxels must have shape (I, J, K), none of them 0, got {self.voxels.shape}")
        if self.voxels.dtype not in (np.dtype(np.int16), np.dtype(np.float32)):
            raise GeometryError(f"voxels must be int16 or float32, got {self.voxels.dtype}")
        check_affine(self.affine)

    @property
    def shape(self) -> Shape3:
        """Number of voxels along i, j, k."""
        i, j, k = self.voxels.shape
        return i, j, k

    @property
    def spacing_mm(self) -> Spacing_mm:
        """Distance between neighboring voxels along i, j, k, in millimeters."""
        return spacing_of(self.affine)

    @property
    def size_mm(self) -> tuple[float, float, float]:
        """Extent along i, j, k, in millimeters, voxel edges included."""
        i, j, k = (n * s for n, s in zip(self.shape, self.spacing_mm, strict=True))
        return i, j, k

    def __repr__(self) -> str:
        spacing = "x".join(f"{s:.3g}" for s in self.spacing_mm)
        shape = "x".join(str(n) for n in self.shape)
        return f"Volume({self.modality}, {shape} voxels of {spacing} mm, {self.voxels.nbytes / 2**20:.0f} MiB)"


def spacing_of(affine: Affine) -> Spacing_mm:
    """Length in millimeters of each column of ``affine``."""
    columns: npt.NDArray[Any] = np.linalg.norm(affine[:3, :3], axis=0)
    i, j, k = (float(c) for c in columns)
    return i, j, k


def check_affine(affine: Affine) -> None:
    """Refuse what cannot be a voxel grid: wrong shape, not finite, singular, or axes that are not perpendicular."""
    if affine.shape != (4, 4):
        raise GeometryError(f"affine must be 4x4 (ijk to RAS mm), got {affine.shape}")
    if not np.isfinite(affine).all():
        raise GeometryError(f"affine must be finite, got {affine[:3].tolist()}")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if float(spacing.min()) < 1e-6 or abs(float(np.linalg.det(affine[:3, :3] / spacing))) < 1e-6:
        raise GeometryError(f"affine is singular: {affine[:3, :3].tolist()}")
    axes = affine[:3, :3] / spacing
    shear = float(np.abs(axes.T @ axes - np.eye(3)).max())
    angle_deg = float(np.degrees(np.arcsin(min(shear, 1.0))))
    if shear > MAX_SHEAR:
        raise GeometryError(
            f"grid axes must be perpendicular, got a grid sheared by {angle_deg:.2f} degrees; "
            "resample it to a rectangular grid first"
        )
