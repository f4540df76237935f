"""Synthetic scans of the atlas of boxes."""

from __future__ import annotations

import pickle  # noqa: TID251 -- as DataLoader sends sources to its workers
from pathlib import Path

import numpy as np
import pytest
import tiny_training
import torch

from wbcss.errors import CaseError
from wbcss.labels import OrganName
from wbcss_training.appearance import AIR_HU
from wbcss_training.atlas import TABLE_FILE, AtlasLabel, read_table
from wbcss_training.patches import patch_rng
from wbcss_training.synthesis import SyntheticPatches, _cut_field_of_view, atlas_classes

COUNT = 12


@pytest.fixture(scope="module")
def source(atlas_dir: Path, atlas_cache: Path) -> SyntheticPatches:
    return new_source(atlas_dir, atlas_cache)


def new_source(atlas_dir: Path, atlas_cache: Path, seed: int = 1) -> SyntheticPatches:
    return SyntheticPatches(
        task=tiny_training.TASK,
        organs=tiny_training.ORGANS,
        atlas_dir=atlas_dir,
        cache_dir=atlas_cache,
        encoder=tiny_training.ENCODER,
        seed=seed,
    )


def test_seed_and_index_decide_a_patch(source: SyntheticPatches, atlas_dir: Path, atlas_cache: Path) -> None:
    again, other = new_source(atlas_dir, atlas_cache), new_source(atlas_dir, atlas_cache, seed=2)
    for index in (0, 3):
        first, second = source.patch(index), again.patch(index)
        assert torch.equal(first.image, second.image)
        assert torch.equal(first.labels, second.labels)
        assert not torch.equal(first.image, other.patch(index).image)
    assert not torch.equal(source.patch(0).image, source.patch(3).image)


def test_a_source_travels_to_another_process(source: SyntheticPatches) -> None:
    expected = source.patch(5)  # everything is open now
    copy: SyntheticPatches = pickle.loads(pickle.dumps(source))
    assert torch.equal(copy.patch(5).image, expected.image)


def test_patches_fit_the_encoder_and_hold_the_task_s_organs_only(source: SyntheticPatches) -> None:
    seen: set[int] = set()
    for index in range(COUNT):
        patch = source.patch(index)
        assert patch.image.shape == (1, *tiny_training.ENCODER.tile)
        assert patch.image.dtype == torch.float32
        assert bool(torch.isfinite(patch.image).all())
        assert float(patch.image.abs().max()) <= 1
        assert patch.labels.shape == tiny_training.ENCODER.tile
        assert patch.annotated.tolist() == [True] * 4
        seen |= set(patch.labels.unique().tolist())
    assert seen == {0, 1, 2, 3}


def test_left_stays_left(source: SyntheticPatches) -> None:
    """The spleen of the boxes lies at lower R than the liver; it must in every patch that shows enough of both."""
    checked = 0
    for index in range(60):
        labels = source.patch(index).labels
        places = [torch.nonzero(labels == channel)[:, 0].float() for channel in (1, 2)]
        if min(len(place) for place in places) > 30:
            assert float(places[1].mean()) < float(places[0].mean())
            checked += 1
    assert checked > 3


def test_organs_have_about_the_hounsfield_units_of_the_table(source: SyntheticPatches) -> None:
    found: dict[int, list[float]] = {1: [], 2: [], 5: []}
    for index in range(45):
        hu, labels = source.draw(patch_rng(source.seed, index))
        for label, values in found.items():
            if int((labels == label).sum()) > 200:
                values.append(float(hu[labels == label].median()))
    assert min(len(values) for values in found.values()) > 3
    assert -20 < np.median(found[1]) < 130
    assert -20 < np.median(found[2]) < 150
    assert np.median(found[5]) < -500


def test_muscles_fill_only_the_fat_near_them(source: SyntheticPatches) -> None:
    """Fat that is near becomes the muscle named there; far fat, organs and air stay."""
    fat = next(label for label, row in source._atlas.table.items() if row.name == "intermuscular_fat")
    before = torch.full((8, 8, 8), fat)
    before[:2], before[:, :2] = 1, 0
    muscle = np.full((8, 8, 8), 77, np.uint16)
    distance = np.full((8, 8, 8), 255, np.uint8)
    distance[:, :, :4] = 0
    grew = 0
    for seed in range(20):
        labels = before.clone()
        source._grow_muscles(labels, muscle, distance, np.random.default_rng(seed))
        changed = labels != before
        assert not bool(changed[:, :, 4:].any())
        assert bool((before[changed] == fat).all())
        assert set(labels[changed].tolist()) <= {77}
        grew += bool(changed.any())
    assert 10 < grew < 20  # now and then a body stays as the atlas is


def test_beyond_the_field_of_view_there_is_air_and_no_organ() -> None:
    cut = 0
    for seed in range(60):
        hu, labels = torch.zeros(12, 12, 12), torch.ones(12, 12, 12, dtype=torch.int64)
        _cut_field_of_view(hu, labels, np.random.default_rng(seed))
        assert torch.equal(labels == 0, hu == AIR_HU - 24)
        assert int((labels > 0).sum()) > 0
        cut += bool((labels == 0).any())
    assert 8 < cut < 40


def test_an_organ_that_the_atlas_lacks_is_named(atlas_dir: Path, atlas_cache: Path) -> None:
    source = SyntheticPatches(
        task=tiny_training.TASK,
        organs=(OrganName("liver"), OrganName("brain")),
        atlas_dir=atlas_dir,
        cache_dir=atlas_cache,
        encoder=tiny_training.ENCODER,
    )
    with pytest.raises(CaseError, match="the atlas has no organ brain"):
        source.patch(0)


def test_parts_of_an_organ_are_merged_into_it(atlas_dir: Path) -> None:
    classes = atlas_classes(read_table(atlas_dir / TABLE_FILE))
    assert classes == {
        1: "liver",
        2: "spleen",
        3: "vertebrae_L1",
        4: "humerus_left",
        5: "lung_upper_lobe_left",
        6: "colon",
        7: "colon",
    }


def test_other_tasks_of_the_atlas_keep_the_organs_that_the_whole_body_merges() -> None:
    def row(label: int, name: str, tasks: tuple[str, ...], merged: str, kind: str = "organ") -> AtlasLabel:
        return AtlasLabel(
            label=label,
            name=name,
            kind=kind,
            tasks=tasks,
            wholebody_class=merged,
            hu_mean=0,
            hu_sd=0,
            enhancement_arterial_hu=0,
            enhancement_portal_hu=0,
        )

    rows = [
        row(10, "lung_upper_lobe_left", ("wholebody", "chest"), "lung_upper_lobe_left"),
        row(51, "heart", ("wholebody",), "heart"),
        row(126, "heart_ventricle_left", ("chest",), "heart"),
        row(121, "thymus", ("chest",), ""),
        row(233, "heart_vessels_and_fat", (), "heart", "tissue"),
        row(240, "lung_vessels_upper_lobe_left", (), "lung_upper_lobe_left", "tissue"),
    ]
    table = {item.label: item for item in rows}
    lobe = "lung_upper_lobe_left"
    assert atlas_classes(table, "chest") == {10: lobe, 126: "heart_ventricle_left", 121: "thymus", 240: lobe}
    assert atlas_classes(table) == {10: lobe, 51: "heart", 126: "heart", 233: "heart", 240: lobe}
    with pytest.raises(CaseError, match="the atlas has no organ of task 'feet'; its tasks are chest, wholebody"):
        atlas_classes(table, "feet")
