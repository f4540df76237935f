"""Metrics against closed forms: boxes shifted by known distances."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from wbcss.errors import GeometryError
from wbcss_training.metrics import TOLERANCE_MM, Agreement, agreement

SPACING_MM = (2.0, 1.0, 3.0)
Mask = npt.NDArray[np.bool_]


def box(*shift: int) -> Mask:
    mask = np.zeros((30, 30, 20), bool)
    i, j, k = shift
    mask[4 + i : 12 + i, 5 + j : 15 + j, 6 + k : 12 + k] = True
    return mask


def test_equal_masks_agree_fully() -> None:
    volume_ml = 8 * 10 * 6 * 6 / 1000
    assert agreement(box(0, 0, 0), box(0, 0, 0), spacing_mm=SPACING_MM) == Agreement(
        dice=1.0, hd95_mm=0.0, surface_dice=1.0, reference_ml=volume_ml, segmented_ml=volume_ml
    )


@pytest.mark.parametrize(
    ("shift", "dice", "distance_mm"),
    [((1, 0, 0), 7 / 8, 2.0), ((0, 3, 0), 7 / 10, 3.0), ((0, 0, 2), 4 / 6, 6.0), ((5, 0, 0), 3 / 8, 10.0)],
)
def test_a_shifted_box_has_the_dice_of_its_overlap_and_the_distance_of_its_shift(
    shift: tuple[int, int, int], dice: float, distance_mm: float
) -> None:
    found = agreement(box(*shift), box(0, 0, 0), spacing_mm=SPACING_MM)
    assert found.dice == pytest.approx(dice)
    assert found.hd95_mm == pytest.approx(distance_mm)
    assert (found.surface_dice == pytest.approx(1.0)) == (distance_mm <= TOLERANCE_MM)


@pytest.mark.parametrize("shift", [(3, 0, 0), (2, 4, 1), (0, 12, 0)])
def test_surface_dice_equals_counting_surface_voxels(shift: tuple[int, int, int]) -> None:
    one, other = box(*shift), box(0, 0, 0)
    points = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * np.array(SPACING_MM) for mask in (one, other)]
    apart = cdist(*points)
    close = (apart.min(axis=1) <= TOLERANCE_MM).sum() + (apart.min(axis=0) <= TOLERANCE_MM).sum()
    found = agreement(one, other, spacing_mm=SPACING_MM)
    assert found.surface_dice == pytest.approx(close / sum(apart.shape))
    hd95 = max(np.percentile(apart.min(axis=1), 95), np.percentile(apart.min(axis=0), 95))
    assert found.hd95_mm == pytest.approx(hd95)


def test_a_missed_organ_has_no_distance() -> None:
    found = agreement(np.zeros((30, 30, 20), bool), box(0, 0, 0), spacing_mm=SPACING_MM)
    assert (found.dice, found.hd95_mm, found.surface_dice, found.segmented_ml) == (0.0, None, 0.0, 0.0)


def test_an_organ_at_the_border_of_the_scan_is_measured_like_any_other() -> None:
    inner, one = np.pad(np.ones((4, 5, 6), bool), 3), np.ones((4, 5, 6), bool)
    moved, shifted = np.roll(inner, 1, axis=0), one.copy()
    shifted[0] = False
    inside = inner & moved
    assert agreement(shifted, one, spacing_mm=SPACING_MM) == agreement(inside, inner, spacing_mm=SPACING_MM)


def test_masks_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(
        GeometryError, match=r"masks to compare must have one shape, got \(30, 30, 20\) and \(2, 2, 2\)"
    ):
        agreement(box(0, 0, 0), np.ones((2, 2, 2), bool), spacing_mm=SPACING_MM)
    with pytest.raises(GeometryError, match="got a reference without a voxel"):
        agreement(box(0, 0, 0), np.zeros((30, 30, 20), bool), spacing_mm=SPACING_MM)
