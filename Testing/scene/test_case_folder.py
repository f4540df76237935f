"""Corrections kept as cases: an enrolment reads them, and nothing tells whose they are."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from tiny_scan import AFFINE, scan_voxels

from wbcss.catalogue import catalogue, find
from wbcss.errors import InputError, OutputError
from wbcss.io.labelmap import read_labels
from wbcss.io.reading import read_volume
from wbcss.protocol import OrganItem
from wbcss_training.layouts import read_case_list
from WholeBodyCSSLib import CaseFolder as case_folder
from WholeBodyCSSLib.CaseFolder import CaseFolder, Keeping, organOf

LIVER, SPLEEN = find(["liver", "spleen"])


def labels(**boxes: int) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint16]]:
    made = np.zeros((12, 12, 12), np.uint16)
    for number, value in enumerate(boxes.values()):
        made[2 + number, 3:6, 4:8] = value
    return made


def test_a_kept_case_is_read_by_an_enrolment(tmp_path: Path) -> None:
    folder = CaseFolder(tmp_path / "my cases")
    voxels = scan_voxels()
    drawn = labels(liver=LIVER.label)
    path = folder.keep(voxels, AFFINE, drawn, [LIVER, SPLEEN])
    (case,) = read_case_list(folder.folder)
    assert set(case.values.values()) == {"liver"}
    np.testing.assert_array_equal(read_volume(case.image_path).volume.voxels, voxels)
    found = read_labels(path)
    np.testing.assert_array_equal(found.labels == LIVER.label, drawn == LIVER.label)
    np.testing.assert_allclose(found.affine, AFFINE)


def test_cases_are_numbered_and_named_after_nothing_else(tmp_path: Path) -> None:
    folder = CaseFolder(tmp_path)
    (tmp_path / "notes.txt").write_text("theirs")
    for _ in range(2):
        folder.keep(scan_voxels(), AFFINE, labels(liver=LIVER.label), [LIVER])
    assert folder.numCases == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "case_0001.nrrd",
        "case_0001.seg.nrrd",
        "case_0002.nrrd",
        "case_0002.seg.nrrd",
        "notes.txt",
    ]


def test_a_case_without_a_voxel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one organ with voxels, got none"):
        CaseFolder(tmp_path / "new").keep(scan_voxels(), AFFINE, labels(), [LIVER])
    assert not (tmp_path / "new").exists()


def test_a_full_disk_leaves_no_half_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(case_folder, "write_segmentation", full)
    with pytest.raises(OutputError, match="the disk is full"):
        CaseFolder(tmp_path).keep(scan_voxels(), AFFINE, labels(liver=LIVER.label), [LIVER])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"folder of cases must be readable, got .*file: Not a directory"):
        _ = CaseFolder(tmp_path / "file").numCases


def test_keeping_goes_on_in_the_background_and_says_what_went_wrong(tmp_path: Path) -> None:
    good = Keeping(CaseFolder(tmp_path), scan_voxels(), AFFINE, labels(liver=LIVER.label), [LIVER])
    bad = Keeping(CaseFolder(tmp_path / "bad"), scan_voxels(), AFFINE, labels(), [LIVER])
    deadline = time.monotonic() + 20
    while not (good.isDone and bad.isDone) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert good.path is not None
    assert good.path.is_file()
    assert bad.path is None
    assert "got none" in bad.message


ENROLLED = OrganItem(
    name="my_cyst",
    label=10007,
    display_name="My cyst",
    group="lesion",
    color_rgb=(9, 8, 7),
    terminology="",
    tasks=("t",),
)


@pytest.mark.parametrize(
    ("segment", "name", "expected", "label"),
    [
        ("liver", "renamed by the user", "liver", catalogue()[LIVER.name].label),
        ("my_cyst", "My cyst", "my_cyst", 10007),
        ("Segment_1", "Spleen", "spleen", SPLEEN.label),
        ("Segment_1", "Kidney-Cyst (2)", "kidney_cyst_2", 30000),
    ],
)
def test_a_segment_becomes_the_organ_it_is_called(segment: str, name: str, expected: str, label: int) -> None:
    known = [
        ENROLLED,
        OrganItem(
            name="liver", label=5, display_name="Liver", group="g", color_rgb=(1, 2, 3), terminology="", tasks=()
        ),
    ]
    organ = organOf(segment, name, (1, 2, 3), known, freeLabel=30000)
    assert (organ.name, organ.label) == (expected, label)


def test_a_segment_without_letters_must_be_renamed() -> None:
    with pytest.raises(InputError, match="begins with a letter a-z, got '肝'"):
        organOf("Segment_1", "肝", (1, 2, 3), [], freeLabel=30000)
