"""Who is held out: whole patients, the same ones in any order, and never one image on both sides."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny_cases
from hypothesis import given
from hypothesis import strategies as st

from wbcss.errors import CaseError
from wbcss.volume import Volume
from wbcss_training.annotation import Case, image_hash
from wbcss_training.cases import read_case_list
from wbcss_training.check import check_cases
from wbcss_training.splits import Split, check_leaks, fold_cases, read_split, split_cases, write_split


def new_cases(patients: Sequence[int]) -> list[Case]:
    return [
        Case(image_path=Path(f"{n}.nii.gz"), labels_path=Path(f"{n}_seg.nii.gz"), values={}, patient=f"patient {who}")
        for n, who in enumerate(patients)
    ]


def hashes(images: Sequence[int]) -> list[str]:
    return [hashlib.sha256(str(image).encode()).hexdigest() for image in images]


def sides(split: Split) -> tuple[set[str], set[str]]:
    return {case.patient for case in split.train}, {case.patient for case in split.validation}


MANY = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=20)


@given(drawn=MANY, fraction=st.floats(0, 0.99), seed=st.integers(0, 5))
def test_no_patient_and_no_image_is_on_both_sides(drawn: list[tuple[int, int]], fraction: float, seed: int) -> None:
    cases, ids = new_cases([who for who, _ in drawn]), hashes([image for _, image in drawn])
    split = split_cases(cases, validation_fraction=fraction, seed=seed, image_hashes=ids)
    train, validation = sides(split)
    assert not train & validation
    assert not set(split.train_ids) & set(split.validation_ids)
    assert split.train
    assert sorted([*map(cases.index, split.train), *map(cases.index, split.validation)]) == list(range(len(cases)))


@given(count=st.integers(3, 40), fraction=st.floats(0.01, 0.9), seed=st.integers(0, 3))
def test_the_share_of_patients_is_kept(count: int, fraction: float, seed: int) -> None:
    split = split_cases(
        new_cases(range(count)), validation_fraction=fraction, seed=seed, image_hashes=hashes(range(count))
    )
    assert len(split.validation) == min(count - 1, max(1, round(fraction * count)))
    assert split.findings == ()


@given(order=st.permutations(range(10)))
def test_the_order_of_the_list_does_not_matter(order: list[int]) -> None:
    cases, ids = new_cases(range(10)), hashes(range(10))
    shuffled = split_cases([cases[n] for n in order], seed=3, image_hashes=[ids[n] for n in order])
    assert sides(shuffled) == sides(split_cases(cases, seed=3, image_hashes=ids))


def test_another_seed_holds_out_others() -> None:
    cases, ids = new_cases(range(10)), hashes(range(10))
    drawn = {frozenset(sides(split_cases(cases, seed=seed, image_hashes=ids))[1]) for seed in range(20)}
    assert len(drawn) > 10


def test_a_case_that_joins_moves_at_most_one_patient() -> None:
    ids = hashes(range(11))
    before = sides(split_cases(new_cases(range(10)), image_hashes=ids[:10]))[1]
    after = sides(split_cases(new_cases(range(11)), image_hashes=ids))[1]
    assert len(before - after) <= 1


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_patients_are_all_trained_on_and_it_is_said(count: int) -> None:
    split = split_cases(new_cases(range(count)), image_hashes=hashes(range(count)))
    assert (len(split.train), len(split.validation)) == (count, 0)
    (finding,) = split.findings
    assert f"at least 3 patients are needed to hold one out for validation, got {count}" in finding.message
    asked = split_cases(new_cases(range(count)), validation_fraction=0, image_hashes=hashes(range(count)))
    assert asked.findings == ()


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_hold_out_every_patient_once(folds: int) -> None:
    patients = [0, 1, 2, 3, 4, 5, 6, 6, 0]
    splits = fold_cases(new_cases(patients), folds=folds, image_hashes=hashes(range(len(patients))))
    assert len(splits) == folds
    held_out = [who for split in splits for who in sides(split)[1]]
    assert sorted(held_out) == sorted(f"patient {who}" for who in range(7))
    assert sum(len(split.validation) for split in splits) == len(patients)
    assert all(not set.intersection(*sides(split)) for split in splits)
    sizes = [len(sides(split)[1]) for split in splits]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("folds", [1, 4])
def test_folds_must_fit_the_patients(folds: int) -> None:
    with pytest.raises(CaseError, match=rf"at least 2 and at most the 3 patient\(s\), got {folds}"):
        fold_cases(new_cases([0, 1, 2]), folds=folds, image_hashes=hashes(range(3)))


def test_one_image_under_two_names_is_one_patient() -> None:
    cases = new_cases(range(6))
    for seed in range(10):
        split = split_cases(cases, seed=seed, image_hashes=hashes([0, 1, 2, 3, 4, 0]))
        assert (cases[0] in split.train) == (cases[5] in split.train)


def test_leaks_of_hand_made_splits_are_refused() -> None:
    one, other, again = new_cases([0, 1, 0])
    ids = hashes([0, 1])
    with pytest.raises(CaseError, match="a patient may be trained on or validated on, got 1 on both sides"):
        check_leaks(Split(train=(one,), validation=(again,), train_ids=(ids[0],), validation_ids=(ids[1],)))
    with pytest.raises(CaseError, match="an image may be trained on or validated on, got 1 on both sides") as told:
        check_leaks(Split(train=(one,), validation=(other,), train_ids=(ids[0],), validation_ids=(ids[0],)))
    assert "patient 0" not in str(told.value)


def test_an_image_is_known_by_its_voxels_however_they_are_stored(rng: np.random.Generator) -> None:
    voxels = rng.integers(-1000, 1000, (130, 5, 4)).astype(np.int16)
    expected = hashlib.sha256(b"(130, 5, 4)" + voxels.astype(np.float32).tobytes()).hexdigest()
    for stored in (voxels, np.asfortranarray(voxels), voxels.astype(np.float32), voxels[::-1].copy()[::-1]):
        assert image_hash(Volume(voxels=stored, affine=np.eye(4))) == expected
    assert image_hash(Volume(voxels=voxels.reshape(130, 4, 5), affine=np.eye(4))) != expected


def test_a_split_file_names_nobody_and_finds_the_images_elsewhere(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    cases = read_case_list(tiny_cases.write_list(here))
    split = split_cases(cases)  # reads the images itself
    assert split == split_cases(cases, image_hashes=check_cases(cases).image_hashes)
    path = tmp_path / "split.json"
    write_split(path, split)
    assert not [word for word in ("smith", str(tmp_path), "nii") if word in path.read_text()]
    tiny_cases.write_list(there)
    moved = [dataclasses.replace(case, image_path=there / case.image_path.name) for case in reversed(cases)]
    again = read_split(path, moved)
    assert sides(again) == sides(split)
    assert again.train[0].image_path.parent == there


def write_facts(path: Path, **changes: object) -> Path:
    facts = {"format": "wbcss-split", "format_version": 1, "train": hashes([0, 1]), "validation": hashes([2])}
    path.write_text(json.dumps({**facts, **changes}))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "expected a split file of format wbcss-split 1, got other 1 in split.json"),
        ({"train": 5}, "expected a split file, got split.json: 'int' object is not iterable"),
        ({"train": hashes([0])}, r"the 3 case\(s\), got 1 that it does not name and 0 that are gone; split again"),
        ({"train": hashes([0, 1, 9])}, "got 0 that it does not name and 1 that are gone"),
        ({"train": hashes([0, 1, 2])}, "an image may be trained on or validated on, got 1 on both sides|a patient"),
    ],
)
def test_a_split_file_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = write_facts(tmp_path / "split.json", **changes)
    with pytest.raises(CaseError, match=message):
        read_split(path, new_cases(range(3)), image_hashes=hashes(range(3)))


def test_a_split_file_that_tears_a_patient_is_refused(tmp_path: Path) -> None:
    path = write_facts(tmp_path / "split.json")
    with pytest.raises(CaseError, match="a patient may be trained on or validated on, got 1 on both sides"):
        read_split(path, new_cases([0, 1, 0]), image_hashes=hashes(range(3)))


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(CaseError, match=f"must be at least 0 and below 1, got {fraction:g}"):
        split_cases(new_cases([0]), validation_fraction=fraction, image_hashes=hashes([0]))


def test_what_cannot_be_split_says_so() -> None:
    with pytest.raises(CaseError, match="expected at least one case to split, got none"):
        split_cases([])
    with pytest.raises(CaseError, match=r"expected the hash of every image, got 1 for 2 case\(s\)"):
        split_cases(new_cases([0, 1]), image_hashes=["a", ""])
