"""What the labels of a dataset are called, and what a person may do about it: leave cases out, join grids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_cases

from wbcss.errors import CaseError
from wbcss.io.writing import write_volume
from wbcss_training.annotation import read_case
from wbcss_training.cases import read_case_list
from wbcss_training.check import check_cases
from wbcss_training.cli.main import main
from wbcss_training.survey import Inventory, UsedName, take_inventory

Capture = pytest.CaptureFixture[str]


def used(inventory: Inventory) -> dict[str, UsedName]:
    return {row.name: row for row in inventory.names}


def test_clear_names_have_an_organ_and_others_have_neighbors(tmp_path: Path) -> None:
    tiny_cases.write_segmentations(tmp_path, count=2)
    tiny_cases.save_segmentation(
        tmp_path / "c_1.seg.nrrd", {"Livr": tiny_cases.labels() == 3, "Liver": tiny_cases.labels() == 1}
    )
    inventory = take_inventory(tmp_path)
    assert inventory.titles == ("c_0.nii.gz", "c_1.nii.gz")
    names = used(inventory)
    assert {name: row.num_cases for name, row in names.items()} == {
        "Left kidney": 1,
        "Kidney_R": 1,
        "Liver": 2,
        "Livr": 1,
    }
    assert (names["Left kidney"].organ, names["Kidney_R"].organ) == ("kidney_left", "kidney_right")
    assert names["Livr"].organ is None
    assert names["Livr"].near[0] == "liver"


@pytest.mark.parametrize(
    "write", [tiny_cases.write_nnunet, tiny_cases.write_decathlon, tiny_cases.write_totalsegmentator]
)
def test_every_layout_is_surveyed_without_opening_an_image(write: object, tmp_path: Path) -> None:
    write(tmp_path)  # type: ignore[operator]
    for path in tmp_path.rglob("*.nii.gz"):
        path.write_bytes(b"")
    assert {row.name: (row.num_cases, row.organ) for row in take_inventory(tmp_path).names} == {
        "kidney_left": (3, "kidney_left"),
        "kidney_right": (3, "kidney_right"),
        "liver": (3, "liver"),
    }


def test_a_name_that_the_list_declares_as_new_stays_new(tmp_path: Path) -> None:
    path = tiny_cases.write_list(tmp_path, organs={"1": "my_tumor", "2": "tumour x"}, new_organs=["my_tumor"])
    names = used(take_inventory(path))
    assert (names["my_tumor"].organ, names["my_tumor"].is_new) == ("my_tumor", True)
    assert (names["tumour x"].organ, names["tumour x"].is_new) == (None, False)


def test_the_names_come_as_json_and_as_a_table(tmp_path: Path, capsys: Capture) -> None:
    path = tiny_cases.write_list(tmp_path, organs={"1": "Kidney_L", "3": "Livr"})
    assert main(["check", "--cases", str(path), "--names", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["format"], facts["cases"]) == ("wbcss-case-names", [f"smith_{n}.nii.gz" for n in range(3)])
    assert facts["names"][0] == {"name": "Kidney_L", "cases": 3, "organ": "kidney_left", "near": [], "new": False}
    assert main(["check", "--cases", str(path), "--names"]) == 0
    shown = capsys.readouterr().out
    assert "Kidney_L" in shown
    assert "? liver" in shown


def test_the_check_says_who_would_be_held_out(tmp_path: Path, capsys: Capture) -> None:
    path = tiny_cases.write_list(tmp_path)
    assert main(["check", "--cases", str(path), "--json"]) == 0
    *_, cases, report = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [case["title"] for case in cases["cases"]] == [f"smith_{n}.nii.gz" for n in range(3)]
    assert [case["held_out"] for case in cases["cases"]].count(True) == 1
    assert "smith" not in json.dumps(report)
    assert main(["check", "--cases", str(path), "--json", "--validation-fraction", "0"]) == 0
    cases = json.loads(capsys.readouterr().out.splitlines()[-2])
    assert [case["held_out"] for case in cases["cases"]] == [False] * 3


def test_with_a_case_that_cannot_be_read_nobody_is_split_yet(tmp_path: Path, capsys: Capture) -> None:
    path = tiny_cases.write_list(tmp_path)
    (tmp_path / "smith_1.nii.gz").write_bytes(b"")
    assert main(["check", "--cases", str(path), "--json"]) == 2
    *_, cases, report = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [case["held_out"] for case in cases["cases"]] == [None] * 3
    assert [error["case"] for error in report["errors"]] == [2]


def test_cases_can_be_left_out(tmp_path: Path, capsys: Capture) -> None:
    path = tiny_cases.write_list(tmp_path)
    (tmp_path / "smith_1.nii.gz").write_bytes(b"")
    assert [case.image_path.name for case in read_case_list(path, leave_out={2})] == [
        "smith_0.nii.gz",
        "smith_2.nii.gz",
    ]
    assert main(["check", "--cases", str(path), "--leave-out", "2"]) == 0
    with pytest.raises(CaseError, match="cases to leave out must be numbers from 1 to 3, got 4"):
        read_case_list(path, leave_out={2, 4})
    with pytest.raises(CaseError, match=r"list\.json must list at least one case, got none"):
        read_case_list(path, leave_out={1, 2, 3})
    capsys.readouterr()
    for text in ("0", "1,,2", "two"):
        assert main(["check", "--cases", str(path), "--leave-out", text]) == 2
        assert f"must be whole numbers above 0, separated by commas, got '{text}'" in capsys.readouterr().err


def shifted(folder: Path, *, voxels: float) -> Path:
    """Three cases; the labels of the first begin a part of a voxel beside their image."""
    path = tiny_cases.write_list(folder)
    affine = tiny_cases.AFFINE.copy()
    affine[0, 3] += voxels * 6.0
    write_volume(folder / "smith_0_seg.nii.gz", tiny_cases.labels(), affine)
    return path


def test_grids_that_differ_by_less_than_half_a_voxel_can_be_joined(tmp_path: Path) -> None:
    path = shifted(tmp_path, voxels=0.4)
    (error,) = check_cases(read_case_list(path)).errors
    assert (error.kind, error.case) == ("labels_shifted", 1)
    assert "got corners 0.4 voxels apart (the labels), which is less than half a voxel; join them" in error.message
    cases = read_case_list(path, same_grid=True)
    assert check_cases(cases).errors == ()
    np.testing.assert_array_equal(read_case(cases[0])[1], tiny_cases.labels())


def test_grids_that_differ_by_more_are_never_joined(tmp_path: Path) -> None:
    (error,) = check_cases(read_case_list(shifted(tmp_path, voxels=0.6), same_grid=True)).errors
    assert error.kind == "labels_geometry"
    assert "affines that differ by 3.6 mm" in error.message


def test_a_turn_counts_by_what_it_does_at_the_far_corner(tmp_path: Path) -> None:
    """A small angle moves the voxel at the origin not at all and the last ones by many millimeters."""
    path = tiny_cases.write_list(tmp_path)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.05), -np.sin(0.05)], [np.sin(0.05), np.cos(0.05)]]
    affine = tiny_cases.AFFINE.copy()
    affine[:3, :3] = turn[:3, :3] @ affine[:3, :3]
    write_volume(tmp_path / "smith_0_seg.nii.gz", tiny_cases.labels(), affine)
    (error,) = check_cases(read_case_list(path, same_grid=True)).errors
    assert error.kind == "labels_geometry"
