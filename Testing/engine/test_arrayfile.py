"""Voxels in shared files: bits survive, and nothing that is not plain voxels is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wbcss.arrayfile import ArrayFile, describe_array, read_array, read_array_volume, write_array
from wbcss.errors import GeometryError, OutputError, ProtocolError, VolumeFileError

AFFINE = np.array([[0, 2, 0, 5], [3, 0, 0, -7], [0, 0, 1.5, 0], [0, 0, 0, 1]], dtype=float)


@pytest.fixture
def voxels(rng: np.random.Generator) -> Any:
    return rng.integers(-1000, 1000, (3, 4, 5)).astype(np.int16)


@pytest.mark.parametrize("dtype", ["int16", "float32", "uint16", "float16"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_written_array_comes_back_bit_for_bit(
    tmp_path: Path, rng: np.random.Generator, dtype: Any, order: Any
) -> None:
    array = np.asarray(rng.integers(0, 100, (3, 4, 5)).astype(dtype), order=order)
    file = write_array(tmp_path / "扫描.npy", array, AFFINE)
    back = read_array(file)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    np.testing.assert_array_equal(file.affine_ras_mm, AFFINE)


def test_raw_voxels_are_read_in_c_order(tmp_path: Path, voxels: Any) -> None:
    path = tmp_path / "ct.raw"
    path.write_bytes(voxels.tobytes("C"))
    volume = read_array_volume(dataclasses.replace(describe_array(tmp_path / "x.npy", voxels, AFFINE), path=str(path)))
    np.testing.assert_array_equal(volume.voxels, voxels)
    assert volume.spacing_mm == (3.0, 2.0, 1.5)


def test_the_voxels_outlive_their_file(tmp_path: Path, voxels: Any) -> None:
    file = write_array(tmp_path / "ct.npy", voxels, AFFINE)
    back = read_array(file)
    Path(file.path).write_bytes(b"")
    np.testing.assert_array_equal(back, voxels)


def _file(path: Path, **changes: Any) -> ArrayFile:
    template = describe_array(path, np.zeros((3, 4, 5), np.int16), AFFINE)
    return dataclasses.replace(template, **changes)


def test_a_raw_file_of_another_length_is_refused_with_both_lengths(tmp_path: Path) -> None:
    path = tmp_path / "ct.raw"
    path.write_bytes(b"\0" * 119)
    with pytest.raises(VolumeFileError, match=r"must hold 120 bytes \(int16, shape \(3, 4, 5\)\), got 119"):
        read_array(_file(path))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"shape": (5, 4, 3)}, r"int16 of shape \(5, 4, 3\), got int16 of shape \(3, 4, 5\)"),
        ({"dtype": "float32"}, "must hold float32 of shape .* got int16"),
        ({"path": "/nowhere/ct.npy"}, "/nowhere/ct.npy must be a readable array file"),
        ({"path": "/nowhere/ct.raw"}, "/nowhere/ct.raw must be a readable array file"),
    ],
)
def test_a_file_that_differs_from_its_description_is_refused(
    tmp_path: Path, voxels: Any, changes: Any, complaint: str
) -> None:
    file = write_array(tmp_path / "ct.npy", voxels, AFFINE)
    with pytest.raises(VolumeFileError, match=complaint):
        read_array(dataclasses.replace(file, **changes))


def test_a_pickled_array_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "evil.npy"
    np.save(path, np.array([[[{"run": "me"}]]], dtype=object), allow_pickle=True)
    with pytest.raises(VolumeFileError, match=r"evil\.npy must be a readable array file"):
        read_array(_file(path, shape=(1, 1, 1)))


def test_text_and_truncated_files_are_refused(tmp_path: Path, voxels: Any) -> None:
    text = tmp_path / "text.npy"
    text.write_text("liver")
    whole = write_array(tmp_path / "whole.npy", voxels, AFFINE)
    cut = tmp_path / "cut.npy"
    cut.write_bytes(Path(whole.path).read_bytes()[:-1])
    for path in (text, cut):
        with pytest.raises(VolumeFileError, match=f"{path.name} must be a readable array file"):
            read_array(_file(path))


def test_an_input_with_nan_or_of_labels_is_refused(tmp_path: Path) -> None:
    holes = np.full((2, 2, 2), np.nan, np.float32)
    with pytest.raises(VolumeFileError, match="finite Hounsfield units, got NaN"):
        read_array_volume(write_array(tmp_path / "nan.npy", holes, AFFINE))
    with pytest.raises(VolumeFileError, match="must be int16 or float32, got uint16"):
        read_array_volume(write_array(tmp_path / "labels.npy", np.zeros((2, 2, 2), np.uint16), AFFINE))


def test_a_sheared_input_is_refused_as_from_any_file(tmp_path: Path, voxels: Any) -> None:
    sheared = AFFINE.copy()
    sheared[0, 2] = 1.0
    with pytest.raises(GeometryError, match="sheared by"):
        read_array_volume(write_array(tmp_path / "ct.npy", voxels, sheared))


def test_only_three_dimensional_voxel_types_are_shared(tmp_path: Path) -> None:
    for array in (np.zeros((2, 2), np.int16), np.zeros((2, 2, 2), np.float64)):
        with pytest.raises(ProtocolError, match=f"got {array.ndim}D {array.dtype.name}"):
            describe_array(tmp_path / "x.npy", array, AFFINE)
    with pytest.raises(OutputError, match=r"must end in .npy, got x.nii"):
        write_array(tmp_path / "x.nii", np.zeros((2, 2, 2), np.int16), AFFINE)
