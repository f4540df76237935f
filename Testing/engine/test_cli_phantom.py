"""`wbcss phantom` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from wbcss.cli.main import main
from wbcss.cli.phantom import REGIONS, labels_path_of, parse_spacing
from wbcss.errors import InputError, OutputError
from wbcss.io.labelmap import read_labels
from wbcss.phantom import Region, make_phantom

SMALL = ["--region", "head_neck", "--spacing", "10", "--seed", "3"]


@pytest.mark.parametrize("name", ["Müller ct.nii.gz", "ct.nii", "ct.NRRD", "ct.mha"])
def test_the_ct_and_its_labels_lie_side_by_side_on_one_grid(name: str, tmp_path: Path) -> None:
    assert main(["phantom", str(tmp_path / name), *SMALL]) == 0
    expected = make_phantom("head_neck", seed=3, spacing_mm=(10.0, 10.0, 10.0))
    image = sitk.ReadImage(str(tmp_path / name))
    assert np.array_equal(sitk.GetArrayFromImage(image).transpose(2, 1, 0), expected.volume.voxels)
    flip = np.diag([-1.0, -1.0, 1.0])
    assert np.allclose(flip @ np.reshape(image.GetDirection(), (3, 3)), np.eye(3))
    assert np.allclose(flip @ image.GetOrigin(), expected.volume.affine[:3, 3])
    labels, affine, names = read_labels(labels_path_of(tmp_path / name))
    assert np.array_equal(labels, expected.labels)
    assert np.allclose(affine, expected.volume.affine)
    assert len(names) == len(expected.organs)


def test_the_same_command_writes_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        assert main(["phantom", str(tmp_path / folder / "ct.nii.gz"), *SMALL]) == 0
    for name in ("ct.nii.gz", "ct-labels.nii.gz", "ct-labels.labels.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_json_says_what_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["phantom", str(tmp_path / "ct.nii.gz"), *SMALL, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["seed"] == 3
    assert facts["region"] == "head_neck"
    assert facts["shape"] == list(nib.load(facts["volume"]).shape)
    assert Path(facts["labels"]).is_file()
    assert "brain" in facts["organs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.png"], "must be named NAME.nii.gz, NAME.nii, NAME.nrrd or NAME.mha, got 'x.png'"),
        (["x.seg.nrrd"], "got 'x.seg.nrrd'"),
        ([".nii.gz"], "got '.nii.gz'"),
        (["missing/x.nii.gz"], "missing"),
        (["x.nrrd", "--seed", "-1"], "seed must be 0.*got -1"),
        (["x.nrrd", "--seed", "one"], "one"),
        (["x.nrrd", "--spacing", "0"], "spacing must be 0.5 to 20 mm"),
        (["x.nrrd", "--spacing", "3,3"], "one number of millimeters or three as 0.8,0.8,3, got '3,3'"),
        (["x.nrrd", "--region", "knee"], "knee"),
    ],
)
def test_bad_requests_end_with_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    output, *rest = arguments
    assert main(["phantom", str(tmp_path / output), *rest]) == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert re.search(message, complaint)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ct.nii.gz").mkdir()
    assert main(["phantom", str(tmp_path / "ct.nii.gz"), *SMALL]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["ct.nii.gz"]


def test_regions_of_the_command_are_those_of_the_phantom() -> None:
    assert get_args(Region) == REGIONS


def test_spacing_is_one_number_or_three() -> None:
    assert parse_spacing("2.5") == (2.5, 2.5, 2.5)
    assert parse_spacing("0.8,0.9,3") == (0.8, 0.9, 3.0)
    with pytest.raises(InputError, match="got 'a,b,c'"):
        parse_spacing("a,b,c")


def test_labels_are_named_after_the_ct() -> None:
    assert labels_path_of(Path("/x/ct.mha")) == Path("/x/ct-labels.seg.nrrd")
    assert labels_path_of(Path("/x/ct.nii")) == Path("/x/ct-labels.nii.gz")
    with pytest.raises(OutputError, match="got 'ct'"):
        labels_path_of(Path("/x/ct"))
