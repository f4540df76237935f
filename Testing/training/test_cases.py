"""Annotated scans: lists, checks, crops and augmentation."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle  # noqa: TID251 -- as DataLoader sends sources to its workers
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_training
import torch

from wbcss.errors import CaseError
from wbcss.io.writing import write_volume
from wbcss.labels import OrganName
from wbcss_training.cases import CasePatches, PreparedCase, _crop, prepare_case, read_case_list

LIVER, SPLEEN, COLON = OrganName("liver"), OrganName("spleen"), OrganName("colon")


def one_list(folder: Path, *names: str, **changes: Any) -> Path:
    return tiny_training.write_list(folder, [tiny_training.write_case(folder, name) for name in names], **changes)


def new_source(folder: Path, cache_dir: Path, **changes: Any) -> CasePatches:
    source = CasePatches(
        task=tiny_training.TASK,
        organs=(LIVER, SPLEEN),
        cases=read_case_list(one_list(folder, "patient_smith", "patient_jones")),
        cache_dir=cache_dir,
        encoder=tiny_training.ENCODER,
    )
    return dataclasses.replace(source, **changes)


def test_a_list_is_read_relative_to_itself(tmp_path: Path) -> None:
    (case,) = read_case_list(one_list(tmp_path, "a", absent="unknown"))
    assert case.image_path == tmp_path / "a.nii.gz"
    assert case.labels_path == tmp_path / "a_seg.nii.gz"
    assert case.values == {1: LIVER, 2: SPLEEN}
    assert case.absent == "unknown"


def test_an_nnunet_folder_is_read_in_order(tmp_path: Path) -> None:
    for number in (2, 1):
        names = tiny_training.write_case(tmp_path, f"c{number}")
        for folder, source, target in (
            ("imagesTr", names["image"], f"c{number}_0000.nii.gz"),
            ("labelsTr", names["labels"], f"c{number}.nii.gz"),
        ):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / source).rename(tmp_path / folder / target)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 1, "spleen": 2}}))
    cases = read_case_list(tmp_path)
    assert [case.image_path.name for case in cases] == ["c1_0000.nii.gz", "c2_0000.nii.gz"]
    assert cases[0].values == {1: LIVER, 2: SPLEEN}
    prepared = prepare_case(cases[0], organs=(LIVER, SPLEEN), encoder=tiny_training.ENCODER)
    assert set(np.unique(prepared.channels)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"absent": "missing"}, "'absent' in list.json must be 'unknown' or 'background', got 'missing'"),
        ({"cases": []}, "list.json must list at least one case, got none"),
        ({"cases": [{"image": "a.nii.gz"}]}, "'image' and 'labels', got 'labels'"),
        ({"organs": {}}, "list.json must name at least one organ, got none"),
        ({"organs": {"0": "liver"}}, "list.json must give 'liver' a whole number above 0, got '0'"),
        ({"organs": {"one": "liver"}}, "list.json must give 'liver' a whole number above 0, got 'one'"),
        ({"organs": {"1": "liver", "2": "liver"}}, "may give a value or an organ once, got '2' for 'liver' again"),
        (
            {"cases": [{"image": "a.nii.gz", "labels": "gone.nii.gz"}]},
            "list.json names gone.nii.gz, which is not there; check the paths",
        ),
    ],
)
def test_a_list_that_cannot_be_used_says_what_is_wrong(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(CaseError, match=message):
        read_case_list(one_list(tmp_path, "a", **change))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["liver"], r"dataset.json must map the names of its labels to values, got \['liver'\]"),
        ({"liver": [1, 2]}, r"dataset.json must give 'liver' a whole number above 0, got \[1, 2\]"),
        ({"background": 0}, "dataset.json must name at least one organ, got none"),
        ({"liver": 1}, "an nnU-Net folder must hold imagesTr and labelsTr, got no labelsTr in "),
    ],
)
def test_an_nnunet_folder_that_cannot_be_used_says_what_is_wrong(tmp_path: Path, labels: Any, message: str) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(CaseError, match=message):
        read_case_list(tmp_path)


def test_a_file_that_is_no_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("liver, spleen")
    with pytest.raises(
        CaseError, match=r"expected a JSON list of cases or a folder with dataset.json, got .*list.json"
    ):
        read_case_list(tmp_path / "list.json")


@pytest.mark.parametrize("changes", [{"shape": (18, 16, 15)}, {"shift_mm": 3.0}])
def test_labels_on_another_grid_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    entry = tiny_training.write_case(tmp_path, "a")
    other = tiny_training.write_case(tmp_path / "b", "b", **changes)
    (case,) = read_case_list(
        tiny_training.write_list(tmp_path, [{"image": entry["image"], "labels": f"b/{other['labels']}"}])
    )
    text = r"must share a grid, got .*(\(18, 16, 14\) and \(18, 16, 15\)|differ by 3 mm).*resample the labels"
    with pytest.raises(CaseError, match=text):
        prepare_case(case, organs=(LIVER,), encoder=tiny_training.ENCODER)


def test_more_organs_than_a_patch_can_number_are_refused(tmp_path: Path) -> None:
    (case,) = read_case_list(one_list(tmp_path, "a"))
    organs = tuple(OrganName(f"organ_{number}") for number in range(256))
    with pytest.raises(CaseError, match="a task may have at most 255 organs, got 256"):
        prepare_case(case, organs=organs, encoder=tiny_training.ENCODER)


def test_a_case_on_the_model_grid_is_left_as_it_is(tmp_path: Path) -> None:
    (case,) = read_case_list(one_list(tmp_path, "a"))
    prepared = prepare_case(case, organs=(SPLEEN, LIVER), encoder=tiny_training.ENCODER)
    expected = np.zeros((18, 16, 14), np.uint8)
    expected[2:8, 3:9, 3:9] = 2
    expected[10:15, 3:9, 3:9] = 1
    np.testing.assert_array_equal(prepared.channels, expected)
    np.testing.assert_array_equal(prepared.hu, np.array([-1000, 120, 60])[expected])


@pytest.mark.parametrize(("absent", "colon"), [("background", True), ("unknown", False)])
def test_an_organ_without_a_voxel_is_annotated_only_if_absent_means_background(
    tmp_path: Path, absent: str, colon: bool
) -> None:
    organs = {"1": "liver", "2": "spleen", "9": "colon"}
    (case,) = read_case_list(one_list(tmp_path, "a", organs=organs, absent=absent))
    prepared = prepare_case(case, organs=(LIVER, COLON, OrganName("brain")), encoder=tiny_training.ENCODER)
    assert prepared.annotated.tolist() == [True, True, colon, False]  # nobody asked for the brain here


def test_a_crop_that_leaves_the_scan_is_filled(rng: np.random.Generator) -> None:
    array = rng.integers(0, 100, (4, 5, 6)).astype(np.int16)
    padded = np.pad(array, 10, constant_values=-7)
    for low in ((-2, 1, 3), (3, -4, 5), (-9, -9, -9), (8, 0, 0)):
        expected = padded[tuple(slice(start + 10, start + 13) for start in low)]
        np.testing.assert_array_equal(_crop(array, np.array(low), (3, 3, 3), fill=-7), expected)


def test_a_patch_about_no_organ_is_about_the_body(tmp_path: Path) -> None:
    source = new_source(tmp_path, tmp_path / "cache", foreground_share=0.0)
    hu = np.full((9, 8, 7), -1000, np.int16)
    case = PreparedCase(hu, np.zeros(hu.shape, np.uint8), np.ones(2, bool))
    drawn = {tuple(source._center(case, np.random.default_rng(n)).tolist()) for n in range(300)}
    assert len(drawn) > 150  # no body: anywhere
    body = {(1, 2, 3), (8, 7, 6)}
    for at in body:
        hu[at] = -100
    assert {tuple(source._center(case, np.random.default_rng(n)).tolist()) for n in range(50)} == body


def test_patches_are_decided_by_seed_and_index(tmp_path: Path) -> None:
    first, second = (new_source(tmp_path, tmp_path / f"cache{n}") for n in range(2))
    other = dataclasses.replace(first, seed=1)
    for index in (4, 0, 4):
        one, two = first.patch(index), second.patch(index)
        assert torch.equal(one.image, two.image)
        assert torch.equal(one.labels, two.labels)
    assert not torch.equal(first.patch(4).image, other.patch(4).image)


def test_patches_fit_the_encoder(tmp_path: Path) -> None:
    source = new_source(tmp_path, tmp_path / "cache")
    seen: set[int] = set()
    for index in range(8):
        patch = source.patch(index)
        assert patch.image.shape == (1, 16, 16, 16)
        assert patch.image.dtype == torch.float32
        assert float(patch.image.abs().max()) <= 1
        assert patch.labels.dtype == torch.uint8
        seen |= set(patch.labels.unique().tolist())
    assert seen == {0, 1, 2}


def test_liver_never_changes_sides_with_the_spleen(tmp_path: Path) -> None:
    source = new_source(tmp_path, tmp_path / "cache")
    checked = 0
    for index in range(20):
        labels = source.patch(index).labels
        places = [torch.nonzero(labels == channel)[:, 0].float() for channel in (1, 2)]
        if min(len(place) for place in places) > 20:
            assert float(places[0].mean()) < float(places[1].mean())
            checked += 1
    assert checked > 3


def test_the_cache_names_no_patient_and_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = new_source(tmp_path, tmp_path / "cache", foreground_share=1.0)
    patches = [source.patch(index) for index in range(12)]
    names = [path.name for path in (tmp_path / "cache").iterdir()]
    assert len(names) == 2
    assert all(set(name.removesuffix(".npz")) <= set("0123456789abcdef") for name in names)
    monkeypatch.setattr("wbcss_training.cases.prepare_case", None)
    again = dataclasses.replace(source, _open={})
    assert torch.equal(again.patch(3).image, patches[3].image)


def test_corrected_labels_are_not_taken_from_the_cache(tmp_path: Path) -> None:
    source = new_source(tmp_path, tmp_path / "cache")
    labels_path = source.cases[0].labels_path
    assert set(np.unique(source._case(0).channels)) == {0, 1, 2}
    write_volume(labels_path, np.ones((18, 16, 14), np.uint8), np.diag([4.0, 4.0, 4.0, 1.0]))
    os.utime(labels_path, ns=(0, 0))  # whatever the clock of the file system can tell apart
    assert set(np.unique(dataclasses.replace(source, _open={})._case(0).channels)) == {1}


def test_a_source_travels_to_another_process(tmp_path: Path) -> None:
    source = new_source(tmp_path, tmp_path / "cache")
    expected = source.patch(2)
    copy: CasePatches = pickle.loads(pickle.dumps(source))
    assert torch.equal(copy.patch(2).image, expected.image)
