"""Random placement and deformation of a patch in the atlas: where every patch voxel comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from wbcss.volume import Shape3


@dataclass(frozen=True, kw_only=True)
class DeformationSpec:
    """How far a synthetic body may differ from the atlas.

    Attributes:
        max_rotation_deg: Largest rotation about each axis.
        log_scale_mean, log_scale_sd: Mean and standard deviation of the log of the common size factor. The atlas man
            is small: his lumbar spine is shorter by a tenth than that of a man of 178 cm.
        log_axis_scale_sd: Standard deviation of the log of each axis's own factor.
        coarse_mm, coarse_sd_mm: Correlation length and amplitude of the slow displacement.
        fine_mm, fine_sd_mm: The same for the quick displacement.
        num_zooms: Spots in a patch that swell or shrink, as a full bladder or a small kidney does.
        max_log_zoom: Largest magnitude of the log of the size factor at the middle of such a spot.
    """

    max_rotation_deg: float = 10.0
    log_scale_mean: float = 0.07
    log_scale_sd: float = 0.10
    log_axis_scale_sd: float = 0.09
    coarse_mm: float = 90.0
    coarse_sd_mm: float = 8.0
    fine_mm: float = 36.0
    fine_sd_mm: float = 2.0
    num_zooms: int = 4
    max_log_zoom: float = 0.4


@dataclass(frozen=True, kw_only=True)
class Swelling:
    """One place of the atlas that is larger or smaller than there.

    Attributes:
        center_voxel: (3,) atlas voxel.
        sigma_mm: How far it reaches.
        log_size: Log of the size factor in the middle; above 0 swells. The map stays one-to-one below about 1.1.
    """

    center_voxel: npt.NDArray[np.float64]
    sigma_mm: float
    log_size: float


def smooth_field(shape: Shape3, *, knots_every: float, rng: np.random.Generator, channels: int = 1) -> torch.Tensor:
    """Smooth random field (channels, I, J, K) of unit standard deviation at its knots, one knot per ``knots_every``
    voxels."""
    knots = [max(2, int(np.ceil(n / knots_every)) + 1) for n in shape]
    coarse = torch.from_numpy(rng.standard_normal((1, channels, *knots)).astype(np.float32))
    return F.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)[0]


def rotation(angles_rad: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rotation by ``angles_rad`` about the three axes, first axis first."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles_rad), np.sin(angles_rad)
    about_i = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_j = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_k = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    product: npt.NDArray[np.float64] = about_k @ about_j @ about_i
    return product


def patch_coordinates(
    shape: Shape3,
    *,
    spacing_mm: float,
    center_voxel: npt.NDArray[np.float64],
    atlas_spacing_mm: float,
    spec: DeformationSpec,
    rng: np.random.Generator,
    swelling: Swelling | None = None,
) -> torch.Tensor:
    """Atlas voxel coordinates (3, I, J, K) float32 of every voxel of a patch centered on ``center_voxel``.

    ``swelling`` is one more zoom about a known place of the atlas.
    """
    angles = np.deg2rad(rng.uniform(-1, 1, 3) * spec.max_rotation_deg)
    scale = np.exp(rng.normal(spec.log_scale_mean, spec.log_scale_sd) + rng.normal(0, spec.log_axis_scale_sd, 3))
    matrix = torch.from_numpy(rotation(angles) / scale * (spacing_mm / atlas_spacing_mm)).float()
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in shape]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    coordinates = (matrix @ offsets).reshape(3, *shape)
    for length_mm, sd_mm in ((spec.coarse_mm, spec.coarse_sd_mm), (spec.fine_mm, spec.fine_sd_mm)):
        amplitude = sd_mm / atlas_spacing_mm * rng.uniform(0.3, 1.3)
        coordinates += amplitude * smooth_field(shape, knots_every=length_mm / spacing_mm, rng=rng, channels=3)
    for _ in range(spec.num_zooms):
        _zoom(coordinates, spacing_mm=atlas_spacing_mm, max_log_zoom=spec.max_log_zoom, rng=rng)
    coordinates += torch.from_numpy(center_voxel).float()[:, None, None, None]
    if swelling is not None:
        spot = torch.from_numpy(swelling.center_voxel).float()
        _zoom_about(coordinates, spot, sigma=swelling.sigma_mm / atlas_spacing_mm, log_zoom=-swelling.log_size)
    return coordinates


def _zoom(coordinates: torch.Tensor, *, spacing_mm: float, max_log_zoom: float, rng: np.random.Generator) -> None:
    """Magnify or shrink, in place, what lies about a random spot of a patch (coordinates in atlas voxels)."""
    i, j, k = (int(rng.integers(n)) for n in coordinates.shape[1:])
    spot = coordinates[:, i, j, k].clone()
    sigma = float(rng.uniform(15, 45)) / spacing_mm
    _zoom_about(coordinates, spot, sigma=sigma, log_zoom=float(rng.uniform(-max_log_zoom, max_log_zoom)))


def _zoom_about(coordinates: torch.Tensor, spot: torch.Tensor, *, sigma: float, log_zoom: float) -> None:
    """Scale, in place, the offsets from ``spot`` by exp(``log_zoom``) there, fading out over ``sigma`` (all voxels)."""
    offset = coordinates - spot[:, None, None, None]
    near = torch.exp(offset.square().sum(dim=0) / (-2 * sigma**2))
    coordinates += offset * (float(np.exp(log_zoom)) - 1) * near
