"""Planted faults, voxel by voxel in closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from analytic_model import ras_affine

from wbcss.volume import Affine, Volume
from wbcss_training.faults import (
    KINDS,
    METAL_HU,
    MR_KNOTS,
    PET_KNOTS,
    deep_voxel,
    like_mr,
    like_pet,
    plant,
    plant_lesion,
    plant_metal,
    truncate,
)

SHAPE = (20, 18, 24)
SPACING_MM = (2.0, 3.0, 4.0)
Mask = npt.NDArray[np.bool_]


def flipped() -> Affine:
    """Axes along L, P, S."""
    affine = ras_affine(SPACING_MM, (40.0, 50.0, -30.0))
    affine[0, 0], affine[1, 1] = -SPACING_MM[0], -SPACING_MM[1]
    return affine


def a_scan(hu: float = 40.0, affine: Affine | None = None) -> Volume:
    return Volume(np.full(SHAPE, hu, np.int16), flipped() if affine is None else affine)


def a_box() -> Mask:
    """10 x 8 x 12 voxels, in the upper half of the scan."""
    organ = np.zeros(SHAPE, bool)
    organ[5:15, 5:13, 10:22] = True
    return organ


def index_of(volume: Volume, place_ras_mm: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    solved: npt.NDArray[np.float64] = np.linalg.solve(volume.affine, np.array([*place_ras_mm, 1.0]))[:3]
    return solved


@pytest.mark.parametrize("seed", range(4))
def test_a_lesion_is_a_soft_ball_of_the_drawn_contrast_deep_in_the_organ(seed: int) -> None:
    scan, organ = a_scan(), a_box()
    fault = plant_lesion(scan, organ, np.random.default_rng(seed))
    center = index_of(scan, fault.place_ras_mm)
    assert organ[tuple(np.rint(center).astype(int))]
    radius_mm, contrast_hu = fault.facts["radius_mm"], fault.facts["contrast_hu"]
    assert 6.0 <= radius_mm <= 12.0  # 1.5 voxels of 4 mm at least; the box is 5 voxels of 2 mm deep
    assert 60 <= abs(contrast_hu) <= 160
    for at in itertools.product(*(range(0, n, 3) for n in SHAPE)):
        away_mm = math.dist(np.multiply(at, SPACING_MM), np.multiply(center, SPACING_MM))
        share = min(1.0, max(0.0, 0.5 + (radius_mm - away_mm) / 4.0))
        assert fault.volume.voxels[at] == pytest.approx(40 + contrast_hu * share, abs=0.51)
    assert fault.volume.voxels.dtype == np.int16
    again = plant_lesion(scan, organ, np.random.default_rng(seed))
    np.testing.assert_array_equal(again.volume.voxels, fault.volume.voxels)
    assert (scan.voxels == 40).all()


def test_lesions_differ_by_seed() -> None:
    drawn = {plant_lesion(a_scan(), a_box(), np.random.default_rng(seed)).facts["contrast_hu"] for seed in range(6)}
    assert len(drawn) == 6
    assert min(drawn) < 0 < max(drawn)


def test_the_deepest_voxel_of_a_box_is_as_deep_as_half_its_narrowest_side() -> None:
    organ = np.zeros((15, 15, 15), bool)
    organ[2:13, 4:11, 3:12] = True  # 7 voxels of 1 mm across: the middle one is the 4th from outside
    at, depth_mm = deep_voxel(organ, (1.0, 1.0, 1.0), np.random.default_rng(0))
    assert depth_mm >= 0.75 * 4
    assert depth_mm == min(at[0] - 1, 13 - at[0], at[1] - 3, 11 - at[1], at[2] - 2, 12 - at[2])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("is_flipped", [False, True])
def test_a_cut_loses_a_third_to_two_thirds_and_stays_in_its_place(seed: int, is_flipped: bool) -> None:
    affine = ras_affine(SPACING_MM)
    if is_flipped:
        affine[2, 2] = -SPACING_MM[2]
    rng = np.random.default_rng(seed)
    scan = Volume(rng.integers(-100, 100, SHAPE).astype(np.int16), affine)
    organ = a_box()
    fault = truncate(scan, organ, rng)
    assert fault is not None
    planes = fault.volume.shape[2]
    np.testing.assert_array_equal(fault.volume.voxels, scan.voxels[:, :, :planes])  # the organ's far half is cut off
    np.testing.assert_array_equal(fault.volume.affine, scan.affine)
    lost = int(organ[:, :, planes:].sum()) / int(organ.sum())
    assert fault.facts["lost_share"] == pytest.approx(lost)
    assert 0.3 - 1 / 24 <= lost <= 0.6 + 1 / 24
    # An organ in the other half loses its other end, and the affine moves with the first plane that is left.
    low = truncate(scan, organ[:, :, ::-1], np.random.default_rng(seed))
    assert low is not None
    first = SHAPE[2] - low.volume.shape[2]
    assert first > 0
    np.testing.assert_array_equal(low.volume.voxels, scan.voxels[:, :, first:])
    np.testing.assert_allclose(low.volume.affine @ [0, 0, 0, 1], scan.affine @ [0, 0, first, 1])


def test_an_organ_on_three_planes_is_not_cut() -> None:
    organ = np.zeros(SHAPE, bool)
    organ[5:9, 5:9, 4:7] = True
    assert truncate(a_scan(), organ, np.random.default_rng(0)) is None


@pytest.mark.parametrize("seed", range(3))
def test_metal_is_a_rod_with_rays_that_fade(seed: int) -> None:
    scan = a_scan()
    fault = plant_metal(scan, a_box(), np.random.default_rng(seed))
    facts = fault.facts
    i0, j0, k0 = index_of(scan, fault.place_ras_mm)
    assert 3 <= facts["rays"] <= 9
    for i, j, k in itertools.product(range(0, 20, 2), range(0, 18, 2), range(24)):
        right, front, up = (i - i0) * 2.0, (j - j0) * 3.0, (k - k0) * 4.0
        away_mm = math.hypot(right, front)
        expected = 40.0
        if abs(up) <= facts["half_length_mm"] + 1e-9:
            angle = math.atan2(front, right)
            fade = math.exp(-(away_mm - facts["radius_mm"]) / 40)
            expected += facts["streak_hu"] * math.cos(facts["rays"] * angle + facts["phase"]) * fade
            if away_mm <= facts["radius_mm"]:
                expected = METAL_HU
        assert fault.volume.voxels[i, j, k] == pytest.approx(expected, abs=0.51)
    assert fault.volume.voxels.max() == METAL_HU


def test_mr_turns_fat_muscle_and_bone_around() -> None:
    hu = np.array([knot for knot, _ in MR_KNOTS], np.int16)
    voxels = np.resize(hu, SHAPE)
    fault = like_mr(Volume(voxels, ras_affine(SPACING_MM)), a_box(), np.random.default_rng(2))
    gain = fault.facts["gain"]
    assert 0.7 <= gain <= 1.3
    signal = dict(zip(hu.tolist(), fault.volume.voxels.ravel()[: len(hu)].tolist(), strict=True))
    assert signal == pytest.approx({knot: gain * value for knot, value in MR_KNOTS}, rel=1e-6)
    assert signal[-120] > signal[40] > signal[300] > signal[1000] > signal[-1024] == 0
    assert fault.volume.voxels.dtype == np.float32
    assert fault.volume.modality == "CT"  # by its label: nobody was told


@pytest.mark.parametrize(("hu", "uptake"), [*PET_KNOTS, (-10, 0.3 + 0.9 * 90 / 140)])
def test_uptake_of_an_even_scan_is_even(hu: float, uptake: float) -> None:
    fault = like_pet(a_scan(hu), a_box(), np.random.default_rng(0))
    np.testing.assert_allclose(fault.volume.voxels, fault.facts["gain"] * uptake, rtol=1e-5)


def test_blurring_moves_uptake_and_makes_none() -> None:
    scan = Volume(np.full((31, 31, 31), -1024, np.int16), ras_affine((2.0, 2.0, 2.0)))
    scan.voxels[15, 15, 15] = 70
    fault = like_pet(scan, scan.voxels > 0, np.random.default_rng(0))
    found = fault.volume.voxels.astype(float)
    assert found.sum() == pytest.approx(fault.facts["gain"] * 2.2, rel=1e-4)
    # Half of the peak is reached at half of 6 mm; between 2 and 4 mm a Gaussian is known in closed form.
    assert found[16, 15, 15] / found[15, 15, 15] == pytest.approx(0.5 ** ((2 / 3) ** 2), rel=1e-3)


def test_every_kind_can_be_planted_and_leaves_the_scan_alone() -> None:
    scan = a_scan()
    for kind in KINDS:
        fault = plant(kind, scan, a_box(), np.random.default_rng(0))
        assert fault is not None
        assert fault.kind == kind
        assert fault.volume.shape[2] < SHAPE[2] if kind == "truncation" else fault.volume.shape == SHAPE
    assert (scan.voxels == 40).all()
