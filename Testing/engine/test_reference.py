"""Dice against reference labels, by a slow count in the test, and references that cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wbcss.catalogue import catalogue
from wbcss.errors import InputError
from wbcss.io.writing import write_segmentation, write_volume
from wbcss.labels import OrganName
from wbcss.reference import Reference, dice_per_organ, read_reference
from wbcss.volume import Volume

AFFINE = np.array([[0, 2, 0, 5], [3, 0, 0, -7], [0, 0, 1.5, 0], [0, 0, 0, 1]], dtype=float)
ORGANS = tuple(catalogue()[OrganName(name)] for name in ("spleen", "kidney_left", "liver", "heart"))
SPLEEN, KIDNEY, LIVER, HEART = ORGANS


@pytest.fixture
def volume() -> Volume:
    return Volume(voxels=np.zeros((6, 7, 8), np.int16), affine=AFFINE)


@pytest.fixture
def labels(rng: np.random.Generator) -> Any:
    return rng.choice(np.array([0, SPLEEN.label, KIDNEY.label, LIVER.label], np.uint16), (6, 7, 8))


def _naive(a: Any, b: Any) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_dice_is_the_overlap_counted_voxel_by_voxel(labels: Any, rng: np.random.Generator) -> None:
    theirs = rng.permutation(labels.ravel()).reshape(labels.shape)
    reference = Reference(theirs, {organ.name: organ.label for organ in ORGANS})
    expected = {o.name: _naive(labels == o.label, theirs == o.label) for o in (SPLEEN, KIDNEY, LIVER)}
    assert dice_per_organ(labels, ORGANS, reference) == pytest.approx(expected)


def test_equal_labels_score_one_and_a_missed_organ_zero(labels: Any) -> None:
    theirs = labels.copy()
    theirs[0, 0, 0] = HEART.label
    reference = Reference(theirs, {organ.name: organ.label for organ in ORGANS})
    scores = dice_per_organ(theirs, ORGANS, reference)
    assert set(scores.values()) == {1.0}
    assert dice_per_organ(labels, ORGANS, reference)[HEART.name] == 0.0


def test_an_organ_that_the_reference_lacks_is_left_out(labels: Any) -> None:
    theirs = np.where(labels == LIVER.label, 0, labels).astype(np.uint16)
    reference = Reference(theirs, {organ.name: organ.label for organ in ORGANS})
    assert LIVER.name not in dice_per_organ(labels, ORGANS, reference)


def test_numbers_of_the_reference_may_be_its_own(labels: Any) -> None:
    renumbered = np.zeros_like(labels)
    for own, organ in ((7, SPLEEN), (300, LIVER)):
        renumbered[labels == organ.label] = own
    reference = Reference(renumbered, {SPLEEN.name: 7, LIVER.name: 300, OrganName("unknown"): 5})
    assert dice_per_organ(labels, ORGANS, reference) == {SPLEEN.name: 1.0, LIVER.name: 1.0}


@pytest.mark.parametrize("name", ["ref.seg.nrrd", "ref.nii.gz"])
def test_organs_are_matched_by_the_names_in_the_file(tmp_path: Path, volume: Volume, labels: Any, name: str) -> None:
    write_segmentation(tmp_path / name, labels, AFFINE, ORGANS)
    reference = read_reference(tmp_path / name, volume)
    assert dice_per_organ(labels, ORGANS, reference) == {SPLEEN.name: 1.0, KIDNEY.name: 1.0, LIVER.name: 1.0}


def test_a_file_without_names_is_numbered_like_the_catalogue(tmp_path: Path, volume: Volume, labels: Any) -> None:
    write_volume(tmp_path / "ref.nii.gz", labels, AFFINE)
    reference = read_reference(tmp_path / "ref.nii.gz", volume)
    assert set(dice_per_organ(labels, ORGANS, reference).values()) == {1.0}


def test_a_reference_on_another_grid_is_refused_with_the_difference(
    tmp_path: Path, volume: Volume, labels: Any
) -> None:
    path = tmp_path / "ref.nii.gz"
    write_volume(path, labels[:-1], AFFINE)
    with pytest.raises(InputError, match=r"shape of the input, \(6, 7, 8\), got \(5, 7, 8\)"):
        read_reference(path, volume)
    shifted = AFFINE.copy()
    shifted[2, 3] += 4.0
    write_volume(path, labels, shifted)
    with pytest.raises(InputError, match=r"its corners are up to 4\.0 mm away"):
        read_reference(path, volume)


def test_rounding_of_the_grid_in_a_file_is_no_difference(tmp_path: Path, volume: Volume, labels: Any) -> None:
    path = tmp_path / "ref.nii.gz"
    write_volume(path, labels, AFFINE + np.array([[0, 0, 0, 0.01]] * 3 + [[0, 0, 0, 0]]))
    assert read_reference(path, volume).labels.shape == volume.shape
