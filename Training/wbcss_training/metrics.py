"""How well a segmented organ agrees with a reference: overlap and surface distance, by MONAI."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.surface_dice import compute_surface_dice

from wbcss.errors import GeometryError
from wbcss.volume import Spacing_mm

TOLERANCE_MM = 3.0
"""Surface points this close count as right in the surface Dice."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Metrics of one organ in one case.

    Attributes:
        dice: Overlap in [0, 1].
        hd95_mm: The larger of the two directed 95th percentiles of the surface distance; None where nothing was
            segmented, because there is no distance to nothing.
        surface_dice: Share of both surfaces within TOLERANCE_MM of the other, in [0, 1].
        reference_ml, segmented_ml: Volumes.
    """

    dice: float
    hd95_mm: float | None
    surface_dice: float
    reference_ml: float
    segmented_ml: float


def agreement(segmented: Mask, reference: Mask, *, spacing_mm: Spacing_mm) -> Agreement:
    """Compare two masks (I, J, K) on one grid.

    Raises:
        GeometryError: the shapes differ, or the reference is empty: an organ is scored where the reference has it.
    """
    if segmented.shape != reference.shape:
        raise GeometryError(f"masks to compare must have one shape, got {segmented.shape} and {reference.shape}")
    if not reference.any():
        raise GeometryError("an organ is scored where the reference has it, got a reference without a voxel")
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    volumes = {"reference_ml": voxel_ml * int(reference.sum()), "segmented_ml": voxel_ml * int(segmented.sum())}
    if not segmented.any():
        return Agreement(dice=0.0, hd95_mm=None, surface_dice=0.0, **volumes)
    one, other = (_cropped(mask, segmented | reference) for mask in (segmented, reference))
    spacing = list(spacing_mm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 calls itself with an argument it has deprecated
        hd95 = compute_hausdorff_distance(one, other, include_background=True, percentile=95, spacing=spacing)
        surface = compute_surface_dice(
            one, other, class_thresholds=[TOLERANCE_MM], include_background=True, spacing=spacing
        )
    return Agreement(
        dice=float(compute_dice(one, other, include_background=True)),
        hd95_mm=float(hd95),
        surface_dice=float(surface),
        **volumes,
    )


def _cropped(mask: Mask, union: Mask) -> torch.Tensor:
    """(1, 1, I', J', K') float32: the box of ``union`` with a rim of background, so that every face is a surface."""
    box = []
    for axis in range(3):
        inside = np.flatnonzero(union.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return torch.from_numpy(np.pad(mask[tuple(box)], 1).astype(np.float32))[None, None]
