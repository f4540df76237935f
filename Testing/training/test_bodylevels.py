from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from tiny_training import ENCODER

from wbcss.io.reading import read_labels
from wbcss.labels import OrganName, parse_task_id
from wbcss_training.atlas import FIRST_TISSUE, MAP_FILE, PAD_VOXELS, TABLE_FILE, open_atlas, read_table
from wbcss_training.bodylevels import (
    ANCHORS_CM,
    REGIONS_CM,
    atlas_ranges,
    curve_of_case,
    levels_of_voxels,
    vertex_voxel,
)
from wbcss_training.deformation import DeformationSpec
from wbcss_training.levelsamples import AtlasLevels
from wbcss_training.synthesis import SyntheticPatches, atlas_classes

L1, L3, LIVER = OrganName("vertebrae_L1"), OrganName("vertebrae_L3"), OrganName("liver")


def test_levels_count_from_the_top_of_the_head(atlas_dir: Path, atlas_cache: Path) -> None:
    atlas = open_atlas(atlas_dir, atlas_cache)
    top = vertex_voxel(atlas)
    assert top == 39 + PAD_VOXELS
    np.testing.assert_allclose(levels_of_voxels([top, top - 1, top - 25], atlas), [0.0, 0.4, 10.0])


def test_an_undeformed_patch_has_the_levels_of_its_planes(atlas_dir: Path, atlas_cache: Path) -> None:
    still = DeformationSpec(
        max_rotation_deg=0, log_scale_mean=0, log_scale_sd=0, log_axis_scale_sd=0, coarse_sd_mm=0, fine_sd_mm=0,
        num_zooms=0,
    )  # fmt: skip
    patches = SyntheticPatches(
        task=parse_task_id("levels"),
        organs=(LIVER,),
        atlas_dir=atlas_dir,
        cache_dir=atlas_cache,
        encoder=ENCODER,
        deformation=still,
    )
    patch = AtlasLevels(source=patches).patch(3)
    planes = patch.levels_cm.mean(dim=(0, 1)).numpy()
    np.testing.assert_allclose(np.diff(planes), -0.4, atol=1e-4)
    assert patch.body.any()
    np.testing.assert_allclose(np.diff(patch.heights_mm.numpy()), 4.0)


def test_arms_and_what_moves_with_them_have_no_range(atlas_dir: Path, atlas_cache: Path) -> None:
    atlas = open_atlas(atlas_dir, atlas_cache)
    ranges = atlas_ranges(atlas, [atlas_classes(atlas.table)])
    assert "humerus_left" not in ranges
    # The liver of boxes lies in planes 4 to 19 of 40, 4 mm each.
    first, last = ranges[LIVER]
    assert first < 0.4 * (39 - 19) - 3
    assert last > 0.4 * (39 - 4) + 3
    assert last - first < 1.5 * 0.4 * 15 + 8


def test_a_scan_is_placed_by_the_organs_that_it_shows_whole() -> None:
    channels = np.zeros((4, 4, 60), np.uint8)
    channels[1, 1, 20:31] = 1  # L1, about plane 25
    channels[1, 2, 12:17] = 2  # L3, about plane 14
    channels[2, 2, 40:] = 3  # cut off at the top, so it says nothing
    curve = curve_of_case(channels, (L1, L3, OrganName("vertebrae_T1")), spacing_mm=5.0)
    assert curve is not None
    np.testing.assert_allclose(curve.at([25 * 5.0, 14 * 5.0]), [ANCHORS_CM[L1], ANCHORS_CM[L3]], atol=0.3)
    assert curve_of_case(channels, (LIVER, LIVER, OrganName("vertebrae_T1")), spacing_mm=5.0) is None


def test_regions_follow_each_other_without_a_gap() -> None:
    ends = list(REGIONS_CM.values())
    assert ends[0][0] == 0
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ends))


@pytest.mark.data
def test_the_constants_are_those_of_the_atlas(shared_data: Path) -> None:
    labels, _, _ = read_labels(shared_data / "atlas" / MAP_FILE)
    planes = np.flatnonzero(labels.any(axis=(0, 1)))
    top = planes[-1]
    assert REGIONS_CM["legs"][1] == pytest.approx((top - planes[0]) * 0.2, abs=0.3)
    found = set()
    for label, row in read_table(shared_data / "atlas" / TABLE_FILE).items():
        name = OrganName(row.name)
        if label < FIRST_TISSUE and name in ANCHORS_CM:
            where = np.flatnonzero((labels == label).any(axis=(0, 1)))
            middle = (top - (where[0] + where[-1]) / 2) * 0.2
            assert ANCHORS_CM[name] == pytest.approx(middle, abs=0.2), name
            found.add(name)
    assert len(found) > 30
