"""Measuring a labeled atlas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_training
from scipy import ndimage

from wbcss.errors import CaseError
from wbcss.io.writing import write_volume
from wbcss_training.atlas import (
    FIELD_UNIT_MM,
    MAP_FILE,
    PAD_VOXELS,
    S1_DEPTH_MM,
    S1_HALF_WIDTH_MM,
    TABLE_FILE,
    AtlasLabel,
    _give_wings_to_sacrum,
    _nearest_muscle,
    _spongy_ends,
    open_atlas,
    prepare_atlas,
    read_table,
)

EXPECTED = np.pad(tiny_training.atlas_boxes(), PAD_VOXELS)


def test_the_table_is_read_by_label(atlas_dir: Path) -> None:
    table = read_table(atlas_dir / TABLE_FILE)
    assert sorted(table) == [row[0] for row in tiny_training.ROWS]
    assert (table[2].name, table[2].hu_mean, table[2].enhancement_portal_hu) == ("spleen", 45.0, 70.0)
    assert [label for label, row in table.items() if row.is_bone] == [3, 4]
    assert [label for label, row in table.items() if row.is_arm] == [4]


def test_labels_are_padded_with_air_and_keep_their_place(atlas_dir: Path, atlas_cache: Path) -> None:
    atlas = open_atlas(atlas_dir, atlas_cache)
    np.testing.assert_array_equal(atlas.labels, EXPECTED)
    assert atlas.spacing_mm == tiny_training.SPACING_MM
    shift = PAD_VOXELS * tiny_training.SPACING_MM
    np.testing.assert_allclose(atlas.origin_mm, np.array(tiny_training.ATLAS_ORIGIN_MM) - shift)


def test_distances_are_exact_and_capped(atlas_dir: Path, atlas_cache: Path) -> None:
    atlas = open_atlas(atlas_dir, atlas_cache)
    for field, mask in ((atlas.outside, EXPECTED == 0), (atlas.bone_depth, np.isin(EXPECTED, (3, 4)))):
        exact = ndimage.distance_transform_edt(mask) * tiny_training.SPACING_MM / FIELD_UNIT_MM
        np.testing.assert_array_equal(field, np.minimum(exact, 255).astype(np.uint8))
    i, j, k = PAD_VOXELS + 24, PAD_VOXELS + 16, PAD_VOXELS + 10  # 4 voxels inside the liver's nearest face
    assert atlas.labels[i, j, k] == 1
    assert atlas.edge[PAD_VOXELS + 20, j, k] == 0
    assert atlas.edge[i, j, k] == round(4 * tiny_training.SPACING_MM / FIELD_UNIT_MM)


def test_skin_over_the_arm_goes_with_the_arm(atlas_dir: Path, atlas_cache: Path) -> None:
    arm = open_atlas(atlas_dir, atlas_cache).arm
    inner = arm[PAD_VOXELS + 40 : PAD_VOXELS + 48, PAD_VOXELS + 14 : PAD_VOXELS + 26, PAD_VOXELS + 4 : PAD_VOXELS + 36]
    assert inner.all()
    assert not arm[PAD_VOXELS + 8 : PAD_VOXELS + 32].any()


def test_every_label_has_sites_of_its_own(atlas_dir: Path, atlas_cache: Path) -> None:
    sites = open_atlas(atlas_dir, atlas_cache).sites
    np.testing.assert_array_equal(EXPECTED[tuple(sites[:, 1:].T)], sites[:, 0])
    assert set(sites[:, 0].tolist()) == set(np.unique(EXPECTED).tolist()) - {0}


def test_an_interrupted_measurement_is_done_again(
    atlas_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("wbcss_training.atlas._arm", fail)
        with pytest.raises(KeyboardInterrupt):
            prepare_atlas(atlas_dir, tmp_path)
    assert prepare_atlas(atlas_dir, tmp_path).arm.any()


def test_a_folder_without_table_or_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"an atlas folder must hold atlas_labels.csv, got none at .*empty"):
        prepare_atlas(tmp_path / "empty", tmp_path / "cache")
    tiny_training.write_atlas(tmp_path / "atlas")
    (tmp_path / "atlas" / MAP_FILE).unlink()
    with pytest.raises(CaseError, match=r"an atlas folder must hold wholebody_atlas_2mm.nii.gz, got none at "):
        prepare_atlas(tmp_path / "atlas", tmp_path / "cache")


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [("label,nam", "1,liver", "cannot be read: 'name'"), ("label,name", "one,liver", "cannot be read: .*'one'")],
)
def test_a_row_that_cannot_be_read_is_quoted(tmp_path: Path, header: str, row: str, message: str) -> None:
    (tmp_path / TABLE_FILE).write_text(f"{header}\n{row}\n")
    with pytest.raises(CaseError, match=message):
        read_table(tmp_path / TABLE_FILE)


def test_an_atlas_that_is_not_isotropic_ras_is_refused(tmp_path: Path) -> None:
    folder = tiny_training.write_atlas(tmp_path)
    write_volume(folder / MAP_FILE, tiny_training.atlas_boxes(), np.diag([-4.0, 4.0, 4.0, 1.0]))
    with pytest.raises(CaseError, match=r"must lie on an isotropic RAS grid, got affine \[\[-4.0"):
        prepare_atlas(folder, tmp_path / "cache")


def rows(*names: str) -> dict[int, AtlasLabel]:
    """A table of labels 1, 2, ..."""
    return {
        label: AtlasLabel(
            label=label,
            name=name,
            kind="organ",
            tasks=(),
            wholebody_class="",
            hu_mean=50.0,
            hu_sd=9.0,
            enhancement_arterial_hu=0.0,
            enhancement_portal_hu=0.0,
        )
        for label, name in enumerate(names, start=1)
    }


def test_the_first_and_last_fifth_of_a_long_bone_are_spongy() -> None:
    """A bar along a diagonal of a plane, in two pieces, and a bone that is not long."""
    labels = np.zeros((40, 12, 40), np.uint16)
    for n in range(30):
        labels[5 + n, 4:6, 5 + n] = 1
    labels[2:12, 10, 1] = 1
    labels[:, 0, 0] = 2
    ends = _spongy_ends(labels, rows("femur_left", "vertebrae_L1"))
    assert not ends[labels != 1].any()
    assert sorted(np.unique(np.argwhere(ends[:, 4])[:, 0]).tolist()) == [*range(5, 11), *range(29, 35)]
    assert np.flatnonzero(ends[:, 10, 1]).tolist() == [2, 3, 10, 11]


def test_the_wings_of_the_first_sacral_vertebra_belong_to_the_sacrum() -> None:
    labels = np.zeros((61, 40, 4), np.uint16)
    labels[5:56, 5:35] = 1
    _give_wings_to_sacrum(labels, rows("vertebrae_S1", "sacrum"), 2.0)
    kept = np.argwhere(labels == 1)
    assert (np.abs(kept[:, 0] - 30) * 2.0 <= S1_HALF_WIDTH_MM).all()
    assert ((34 - kept[:, 1]) * 2.0 <= S1_DEPTH_MM).all()
    assert len(kept) == 27 * 19 * 4
    assert int((labels == 2).sum()) == 51 * 30 * 4 - len(kept)


def test_the_nearest_muscle_is_found_everywhere() -> None:
    """Against every pair of voxels; an atlas without muscles has none within reach."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 3], size=(7, 6, 5), p=[0.5, 0.4, 0.05, 0.05]).astype(np.uint16)
    table = rows("liver", "gluteus_maximus_left", "other_muscle")
    nearest, distance = _nearest_muscle(labels, table, 2.0)
    muscles = np.argwhere(labels >= 2)
    for at in np.ndindex(labels.shape):
        apart = np.linalg.norm(muscles - at, axis=1)
        assert distance[at] == int(apart.min() * 2.0 / FIELD_UNIT_MM)
        assert nearest[at] in {int(labels[tuple(one)]) for one in muscles[np.isclose(apart, apart.min())]}
    assert (_nearest_muscle(labels, {1: table[1]}, 2.0)[1] == 255).all()


def test_a_measurement_of_an_older_kind_is_made_again(atlas_dir: Path, tmp_path: Path) -> None:
    prepare_atlas(atlas_dir, tmp_path)
    (tmp_path / "muscle.npy").unlink()
    assert prepare_atlas(atlas_dir, tmp_path).muscle.shape == prepare_atlas(atlas_dir, tmp_path).labels.shape
