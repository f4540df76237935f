"""The layouts of annotated scans: every one gives the same cases, and nothing outside of a dataset is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_cases
import tiny_training
from tiny_cases import AFFINE, hu, labels, masks, save_segmentation

from wbcss.errors import CaseError
from wbcss.io.writing import write_volume
from wbcss.labels import OrganName
from wbcss_training.annotation import patient_of
from wbcss_training.cases import prepare_case, read_case, read_case_list
from wbcss_training.mapping import parse_choice

LEFT, RIGHT, LIVER = (OrganName(name) for name in tiny_cases.ORGANS)


def organ_map(path: Path, number: int = 0) -> dict[OrganName, Any]:
    """Mask of every organ of a case, whatever its values are."""
    case = read_case_list(path)[number]
    volume, values = read_case(case)
    np.testing.assert_array_equal(volume.voxels, hu(number))
    return {organ: values == value for value, organ in case.values.items()}


@pytest.mark.parametrize(
    "write",
    [
        tiny_cases.write_list,
        tiny_cases.write_nnunet,
        tiny_cases.write_decathlon,
        tiny_cases.write_totalsegmentator,
        tiny_cases.write_segmentations,
    ],
)
def test_every_layout_gives_the_same_cases(write: Callable[[Path], Path], tmp_path: Path) -> None:
    path = write(tmp_path)
    cases = read_case_list(path)
    assert len(cases) == len({case.patient for case in cases}) == 3
    for number in (0, 2):
        found = organ_map(path, number)
        assert set(found) == {LEFT, RIGHT, LIVER}
        for value, organ in enumerate((LEFT, RIGHT, LIVER), start=1):
            np.testing.assert_array_equal(found[organ], labels() == value)
    prepared = prepare_case(cases[0], organs=(LIVER, LEFT), encoder=tiny_training.ENCODER)
    assert set(np.unique(prepared.channels)) == {0, 1, 2}
    assert prepared.annotated.all()


def test_nothing_of_a_patient_is_in_the_repr_of_a_case_but_its_paths(tmp_path: Path) -> None:
    entries = [{**entry, "patient": "Smith, John"} for entry in tiny_cases.write_pairs(tmp_path, count=1)]
    (case,) = read_case_list(tiny_cases.write_list(tmp_path, entries))
    assert case.patient == "Smith, John"
    assert "John" not in repr(case)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("pt_1_ct.nii.gz", "pt_1"),
        ("liver_12_0000.nii.gz", "liver_12"),
        ("a/s0007/ct.nii.gz", "s0007"),
        ("a/Jones/image.nrrd", "Jones"),
        ("case7.mha", "case7"),
    ],
)
def test_a_patient_is_told_by_the_file_or_its_folder(name: str, patient: str) -> None:
    assert patient_of(Path(name)) == patient


def test_dataset_json_itself_may_be_named(tmp_path: Path) -> None:
    folder = tiny_cases.write_decathlon(tmp_path)
    assert read_case_list(folder / "dataset.json") == read_case_list(folder)


def test_the_first_nnunet_listed_its_files_without_channels(tmp_path: Path) -> None:
    folder = tiny_cases.write_nnunet(tmp_path, count=1)
    entries = [{"image": "./imagesTr/c_0.nii.gz", "label": "./labelsTr/c_0.nii.gz"}]
    (folder / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "3": "liver"}, "training": entries}))
    (case,) = read_case_list(folder)
    assert case.image_path.name == "c_0_0000.nii.gz"
    assert case.patient == "c_0"


def test_hidden_files_that_archives_bring_are_no_cases(tmp_path: Path) -> None:
    folder = tiny_cases.write_nnunet(tmp_path)
    (folder / "labelsTr/._c_0.nii.gz").write_bytes(b"Mac OS X")
    assert len(read_case_list(folder)) == 3


def test_labels_that_nobody_asked_for_are_background(tmp_path: Path) -> None:
    names = {"0": "background", "1": "kidney_left", "2": "a thing", "3": "liver"}
    folder = tiny_cases.write_decathlon(tmp_path, labels=names)
    cases = read_case_list(folder, organs=parse_choice("liver"))
    assert cases[0].values == {3: "liver"}
    assert cases[0].ignored == {1, 2}
    with pytest.raises(CaseError, match=r"dataset.json names 1 .* lacks: 'a thing'"):
        read_case_list(folder)


def test_a_new_organ_is_taken_when_it_is_declared(tmp_path: Path) -> None:
    entries = tiny_cases.write_pairs(tmp_path, count=1)
    path = tiny_cases.write_list(tmp_path, entries, organs={"1": "left_wing"}, new_organs=["left_wing"])
    assert read_case_list(path)[0].new_organs == {"left_wing"}
    folder = tiny_cases.write_totalsegmentator(tmp_path / "t", count=1)
    (folder / "s0000/segmentations/liver.nii.gz").rename(folder / "s0000/segmentations/Blob.nii.gz")
    (case,) = read_case_list(folder, organs=parse_choice("all,Blob=new:my_blob"))
    assert case.values == {3: "kidney_left", 2: "kidney_right", 10000: "my_blob"}
    _, values = read_case(case)
    np.testing.assert_array_equal(values == 10000, labels() == 3)


def test_a_missing_mask_is_unknown_and_an_empty_one_is_background(tmp_path: Path) -> None:
    folder = tiny_cases.write_totalsegmentator(tmp_path, count=2)
    (folder / "s0000/segmentations/liver.nii.gz").unlink()
    write_volume(folder / "s0001/segmentations/liver.nii.gz", np.zeros_like(labels()), AFFINE)
    for case, is_annotated in zip(read_case_list(folder), (False, True), strict=True):
        prepared = prepare_case(case, organs=(LIVER,), encoder=tiny_training.ENCODER)
        assert prepared.annotated.tolist() == [True, is_annotated]


def test_one_totalsegmentator_folder_is_one_case(tmp_path: Path) -> None:
    tiny_cases.write_totalsegmentator(tmp_path, count=2)
    assert len(read_case_list(tmp_path / "s0001")) == 1


def test_masks_may_be_of_255(tmp_path: Path) -> None:
    folder = tiny_cases.write_totalsegmentator(tmp_path, count=1)
    write_volume(folder / "s0000/segmentations/liver.nii.gz", (labels() == 3).astype(np.uint8) * 255, AFFINE)
    np.testing.assert_array_equal(organ_map(folder)[LIVER], labels() == 3)


def test_a_list_of_segmentations_needs_no_values(tmp_path: Path) -> None:
    tiny_cases.write_segmentations(tmp_path, count=1)
    (tmp_path / "list.json").write_text(json.dumps({"cases": [{"image": "c_0.nii.gz", "labels": "c_0.seg.nrrd"}]}))
    np.testing.assert_array_equal(organ_map(tmp_path / "list.json")[LIVER], labels() == 3)


def test_a_segment_without_a_voxel_was_not_contoured(tmp_path: Path) -> None:
    tiny_cases.write_segmentations(tmp_path, count=1)
    save_segmentation(tmp_path / "c_0.seg.nrrd", {**masks(), "Spleen": np.zeros(labels().shape, bool)})
    (case,) = read_case_list(tmp_path)
    prepared = prepare_case(case, organs=(LIVER, OrganName("spleen")), encoder=tiny_training.ENCODER)
    assert prepared.annotated.tolist() == [True, True, False]


def test_segments_in_layers_become_one_map(tmp_path: Path) -> None:
    tiny_cases.write_segmentations(tmp_path, count=1)
    save_segmentation(tmp_path / "c_0.seg.nrrd", masks(), in_layers=True)
    for value, organ in enumerate((LEFT, RIGHT, LIVER), start=1):
        np.testing.assert_array_equal(organ_map(tmp_path)[organ], labels() == value)


def test_a_segmentation_cropped_to_its_segments_is_put_in_its_place(tmp_path: Path) -> None:
    tiny_cases.write_segmentations(tmp_path, count=1)
    affine = AFFINE.copy()
    affine[:3, 3] = (AFFINE @ [4, 5, 3, 1])[:3]
    cropped = {name: mask[4:20, 5:15, 3:14] for name, mask in masks().items()}
    save_segmentation(tmp_path / "c_0.seg.nrrd", cropped, affine=affine)
    for value, organ in enumerate((LEFT, RIGHT, LIVER), start=1):
        np.testing.assert_array_equal(organ_map(tmp_path)[organ], labels() == value)


@pytest.mark.parametrize("shift_voxels", [0.5, -6.0])
def test_a_cropped_segmentation_off_the_image_is_refused(tmp_path: Path, shift_voxels: float) -> None:
    tiny_cases.write_segmentations(tmp_path, count=1)
    affine = AFFINE.copy()
    affine[:3, 3] = (AFFINE @ [4 + shift_voxels, 5, 3, 1])[:3]
    cropped = {name: mask[4:20, 5:15, 3:14] for name, mask in masks().items()}
    save_segmentation(tmp_path / "c_0.seg.nrrd", cropped, affine=affine)
    (case,) = read_case_list(tmp_path)
    with pytest.raises(CaseError, match=r"must share a grid, got \(24, 18, 14\) and \(16, 10, 11\) voxels"):
        read_case(case)


def test_a_segmentation_finds_its_image(tmp_path: Path) -> None:
    for folder, image, segmentation in (
        ("a", "Scan.nii.gz", "Segmentation.seg.nrrd"),
        ("b", "x.nii.gz", "x_liver.seg.nrrd"),
    ):
        (tmp_path / folder).mkdir()
        write_volume(tmp_path / folder / image, hu(), AFFINE)
        save_segmentation(tmp_path / folder / segmentation, masks())
    assert [case.image_path.name for case in read_case_list(tmp_path)] == ["Scan.nii.gz", "x.nii.gz"]
    write_volume(tmp_path / "a/other.nii.gz", hu(), AFFINE)
    with pytest.raises(
        CaseError, match=r"Segmentation.seg.nrrd must lie beside its image, such as Segmentation.nii.gz"
    ):
        read_case_list(tmp_path)


@pytest.mark.parametrize(
    "name", ["../x.nii.gz", "a/../../x.nii.gz", "/etc/x.nii.gz", "..\\x.nii.gz", "C:\\x.nii.gz", "C:x.nii.gz", "..", 7]
)
def test_a_dataset_names_nothing_outside_of_its_folder(tmp_path: Path, name: Any) -> None:
    folder = tiny_cases.write_decathlon(tmp_path / "data", count=1)
    write_volume(tmp_path / "x.nii.gz", hu(), AFFINE)
    facts = json.loads((folder / "dataset.json").read_text())
    for key in ("image", "label"):
        entry = {**facts["training"][0], key: name}
        (folder / "dataset.json").write_text(json.dumps({**facts, "training": [entry]}))
        with pytest.raises(CaseError, match="may only name files inside its folder, got "):
            read_case_list(folder)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["c_0.nii.gz"], r"'training' in dataset.json must list objects with 'image' and 'label', got 'c_0.nii.gz'"),
        ([{"image": "imagesTr/c_0.nii.gz"}], "must list objects with 'image' and 'label', got {'image'"),
        ([{"image": "gone.nii.gz", "label": "too.nii.gz"}], r"names gone.nii.gz, which is not there \(and 1 more\)"),
    ],
)
def test_a_decathlon_list_that_cannot_be_used_says_what_is_wrong(tmp_path: Path, entries: Any, message: str) -> None:
    folder = tiny_cases.write_decathlon(tmp_path, count=1, training=entries)
    with pytest.raises(CaseError, match=message):
        read_case_list(folder)


def test_a_folder_without_its_table_says_so(tmp_path: Path) -> None:
    folder = tiny_cases.write_nnunet(tmp_path)
    (folder / "dataset.json").unlink()
    with pytest.raises(CaseError, match=r"must hold .*; got imagesTr without dataset.json in "):
        read_case_list(folder)


def test_a_damaged_segmentation_is_told_by_its_header(tmp_path: Path) -> None:
    tiny_cases.write_segmentations(tmp_path, count=1)
    (tmp_path / "c_0.seg.nrrd").write_text("Dear colleague")
    with pytest.raises(CaseError, match=r"c_0.seg.nrrd is not a readable .seg.nrrd: its header is missing or damaged"):
        read_case_list(tmp_path)
