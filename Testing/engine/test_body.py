from __future__ import annotations

import numpy as np

from wbcss.body import BodyExtent, cell_means, find_body
from wbcss.preprocess import ModelGrid
from wbcss.volume import Spacing_mm, Volume


def extent_of(voxels: np.ndarray, spacing_mm: Spacing_mm = (3.0, 3.0, 3.0)) -> BodyExtent:
    volume = Volume(voxels.astype(np.int16), np.diag([*spacing_mm, 1.0]))
    return find_body(volume.voxels, spacing_mm, ModelGrid.of(volume, (3.0, 3.0, 3.0)))


def a_trunk(shape: tuple[int, int, int] = (100, 80, 40)) -> np.ndarray:
    """An elliptic cylinder of soft tissue with two lungs, in air, at 3 mm."""
    i, j = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    voxels = np.full(shape, -1000)
    voxels[((i - 50) / 30) ** 2 + ((j - 45) / 20) ** 2 < 1] = 40
    for center in (38, 62):
        voxels[((i - center) / 9) ** 2 + ((j - 45) / 12) ** 2 < 1] = -850
    return voxels


def test_the_box_holds_the_trunk_with_a_small_margin() -> None:
    extent = extent_of(a_trunk())
    box = extent.box((0, 40))
    assert box is not None
    for (first, last), (low, high) in zip(box, ((20, 80), (25, 65)), strict=True):
        assert low - 6 <= first <= low
        assert high <= last <= high + 6
    assert extent.depth() == (0, 40)


def test_lungs_belong_to_the_body() -> None:
    extent = extent_of(a_trunk())
    assert extent.touches((36, 40), (43, 47), (0, 4))
    assert not extent.touches((0, 10), (0, 10), (0, 40))


def test_a_couch_below_the_patient_is_left_out() -> None:
    voxels = a_trunk()
    voxels[5:95, 8:13] = -200
    box = extent_of(voxels).box((0, 40))
    assert box is not None
    assert box[1][0] > 13


def test_arms_beside_the_trunk_are_kept() -> None:
    voxels = a_trunk()
    for center in (8, 92):
        voxels[center - 5 : center + 5, 40:50] = 30
    box = extent_of(voxels).box((0, 40))
    assert box is not None
    assert box[0][0] <= 3
    assert box[0][1] >= 97


def test_an_arm_in_some_slices_only_widens_only_those() -> None:
    voxels = a_trunk((100, 80, 80))
    voxels[3:13, 40:50, 50:] = 30
    extent = extent_of(voxels)
    low, high = extent.box((0, 30)), extent.box((50, 80))
    assert low is not None
    assert high is not None
    assert low[0][0] > 12
    assert high[0][0] <= 3


def test_a_scan_without_air_is_body_everywhere() -> None:
    extent = extent_of(np.full((30, 20, 10), 50))
    assert extent.depth() == (0, 10)
    assert extent.box((0, 10)) == ((0, 30), (0, 20))


def test_a_scan_of_air_has_no_body() -> None:
    extent = extent_of(np.full((30, 20, 10), -1000))
    assert extent.depth() is None
    assert extent.box((0, 10)) is None
    assert not extent.touches((0, 30), (0, 20), (0, 10))


def test_noise_in_the_air_does_not_widen_the_box() -> None:
    voxels = a_trunk()
    voxels[2, 2, ::7] = 3000
    box = extent_of(voxels).box((0, 40))
    assert box is not None
    assert min(box[0][0], box[1][0]) > 10


def test_one_slice_and_one_voxel_are_found() -> None:
    extent = extent_of(a_trunk()[:, :, :1])
    assert extent.depth() == (0, 1)
    assert extent_of(np.full((1, 1, 1), 40)).box((0, 1)) == ((0, 1), (0, 1))


def test_a_single_small_thing_is_found_even_if_opening_removes_it() -> None:
    voxels = np.full((30, 30, 30), -1000)
    voxels[14:16, 14:16, 14:16] = 100
    box = extent_of(voxels).box((0, 30))
    assert box is not None
    assert box[0][0] <= 14
    assert box[0][1] >= 16


def test_cells_average_what_they_hold_also_when_cut_at_the_border(rng: np.random.Generator) -> None:
    voxels = rng.normal(size=(5, 4, 7))
    means = cell_means(voxels, (2, 3, 3))
    assert means.shape == (3, 2, 3)
    assert np.isclose(means[0, 0, 0], voxels[:2, :3, :3].mean(), atol=1e-5)
    assert np.isclose(means[2, 1, 2], voxels[4:, 3:, 6:].mean(), atol=1e-5)


def test_a_native_grid_finer_than_a_cell_maps_to_the_model_grid() -> None:
    fine = np.repeat(np.repeat(a_trunk(), 3, axis=0), 3, axis=1)
    box = extent_of(fine, (1.0, 1.0, 3.0)).box((0, 40))
    assert box is not None
    assert 14 <= box[0][0] <= 20
    assert 80 <= box[0][1] <= 86
