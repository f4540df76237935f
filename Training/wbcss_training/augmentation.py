"""Random changes that make many patches of one annotated scan: how a body lies, its shape, how it was scanned."""

from __future__ import annotations

from typing import Any, Literal, get_args

from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import CenterSpatialCropd
from monai.transforms.intensity.dictionary import (
    RandAdjustContrastd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from monai.transforms.spatial.dictionary import RandAffined, RandGridDistortiond, RandSimulateLowResolutiond

from wbcss.errors import SpecError
from wbcss.volume import Shape3

Strength = Literal["none", "normal", "strong"]
"""``strong`` is for a handful of cases, where a network would otherwise learn these bodies by heart."""


def augmentation(strength: Strength, patch: Shape3) -> Compose:
    """Transforms of a dictionary with ``hu`` (1, I, J, K), HU above air, and ``labels`` (1, I, J, K).

    The result has the shape ``patch``; the input should be about 1.3 times as large. Nothing is mirrored: left and
    right are different organs. HU keep their meaning: shifts stay small.

    Raises SpecError for another strength.
    """
    if strength not in get_args(Strength):
        raise SpecError(f"augmentation must be {', '.join(get_args(Strength))}, got {strength!r}")
    if strength == "none":
        return Compose([CenterSpatialCropd(["hu", "labels"], roi_size=patch)])
    return Compose(_normal(patch) if strength == "normal" else _strong(patch))


def _normal(patch: Shape3) -> list[Any]:
    return [
        RandAffined(
            ["hu", "labels"],
            spatial_size=patch,
            prob=0.7,
            rotate_range=(0.2, 0.2, 0.2),
            scale_range=(0.2, 0.2, 0.2),
            mode=("bilinear", "nearest"),
            padding_mode="zeros",
        ),
        RandGaussianSmoothd(["hu"], prob=0.2, sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0), sigma_z=(0.3, 1.0)),
        RandGaussianNoised(["hu"], prob=0.3, std=20.0, sample_std=True),
        RandScaleIntensityd(["hu"], prob=0.3, factors=0.05),
        RandShiftIntensityd(["hu"], prob=0.3, offsets=15.0),
    ]


def _strong(patch: Shape3) -> list[Any]:
    """More of everything, and bodies of another shape, thicker slices and another contrast."""
    return [
        RandAffined(
            ["hu", "labels"],
            spatial_size=patch,
            prob=1.0,
            rotate_range=(0.35, 0.35, 0.35),
            shear_range=(0.1,) * 6,
            scale_range=(0.3, 0.3, 0.3),
            mode=("bilinear", "nearest"),
            padding_mode="zeros",
        ),
        RandGridDistortiond(
            ["hu", "labels"],
            num_cells=4,
            prob=0.5,
            distort_limit=(-0.15, 0.15),
            mode=("bilinear", "nearest"),  # type: ignore[arg-type]  # MONAI takes one for each key
            padding_mode="zeros",
        ),
        RandSimulateLowResolutiond(["hu"], prob=0.2, zoom_range=(0.5, 1.0)),
        RandGaussianSmoothd(["hu"], prob=0.3, sigma_x=(0.3, 1.2), sigma_y=(0.3, 1.2), sigma_z=(0.3, 1.2)),
        RandAdjustContrastd(["hu"], prob=0.3, gamma=(0.9, 1.1)),
        RandGaussianNoised(["hu"], prob=0.4, std=30.0, sample_std=True),
        RandScaleIntensityd(["hu"], prob=0.4, factors=0.08),
        RandShiftIntensityd(["hu"], prob=0.4, offsets=25.0),
    ]
