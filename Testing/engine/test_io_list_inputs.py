"""What a batch expands to, under which names, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from wbcss.errors import VolumeFileError
from wbcss.io.reading import list_inputs


def touch(path: Path, content: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


DICOM_START = bytes(128) + b"DICM"


def test_a_folder_expands_to_its_volumes_in_natural_order(tmp_path: Path) -> None:
    for name in ("case_10.nii.gz", "case_2.nii.gz", "notes.txt", ".hidden.nii", "deep/x.nrrd"):
        touch(tmp_path / name)
    touch(tmp_path / "series 7" / "IM0001", DICOM_START)
    assert [(item.path.relative_to(tmp_path).as_posix(), item.name) for item in list_inputs([tmp_path])] == [
        ("case_2.nii.gz", "case_2"),
        ("case_10.nii.gz", "case_10"),
        ("deep/x.nrrd", "x"),
        ("series 7", "series_7"),
    ]


def test_segmentations_in_a_folder_are_no_inputs(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "a.seg.nrrd", "b.nii.gz", "b.labels.json"):
        touch(tmp_path / name)
    assert [item.path.name for item in list_inputs([tmp_path])] == ["a.nii.gz"]


def test_names_of_a_batch_are_safe_and_unique(tmp_path: Path) -> None:
    paths = [
        touch(tmp_path / name)
        for name in ("1/ct.nii.gz", "2/CT.nii", "3/ct.mha", "4/a b:c*d.nrrd", "5/...nii", "6/" + "x" * 200 + ".nii")
    ]
    names = [item.name for item in list_inputs(paths)]
    assert names == ["ct", "CT_2", "ct_3", "a_b_c_d", "volume", "x" * 80]


def test_a_path_given_twice_counts_once(tmp_path: Path) -> None:
    path = touch(tmp_path / "a.nii")
    assert len(list_inputs([path, tmp_path, tmp_path / "." / "a.nii"])) == 1


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    touch(tmp_path / "a.nii")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert len(list_inputs([tmp_path])) == 1


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "deep" / "notes.txt")
    with pytest.raises(
        VolumeFileError, match=r"holds no volumes; expected DICOM files or \.nii\.gz, \.nii, \.nrrd, \.mha"
    ):
        list_inputs([tmp_path])


def test_a_folder_of_slices_and_volumes_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "a.nii")
    touch(tmp_path / "IM1", DICOM_START)
    with pytest.raises(VolumeFileError, match=r"both DICOM files and volumes such as a\.nii"):
        list_inputs([tmp_path])


def test_a_batch_names_what_is_missing_or_unknown(tmp_path: Path) -> None:
    with pytest.raises(VolumeFileError, match=r"gone\.nii does not exist"):
        list_inputs([tmp_path / "gone.nii"])
    with pytest.raises(VolumeFileError, match=r"a\.txt is of an unknown kind"):
        list_inputs([touch(tmp_path / "a.txt")])
