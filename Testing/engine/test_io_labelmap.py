"""Label maps come in from every format with their names, and what is no label map is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK

from wbcss.errors import GeometryError, VolumeFileError
from wbcss.io.labelmap import labels_json_path, read_labels


def labels(rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    return rng.integers(0, 5, (5, 4, 3)).astype(np.uint16)


def save(path: Path, array: npt.NDArray[Any], fields: dict[str, str] | None = None, *, layers: bool = False) -> Path:
    """``array``: (I, J, K), or (I, J, K, layers) if ``layers``."""
    turned = np.ascontiguousarray(array.transpose(2, 1, 0, *([3] if layers else [])))
    image = SimpleITK.GetImageFromArray(turned, isVector=layers)
    for key, value in (fields or {}).items():
        image.SetMetaData(key, value)
    SimpleITK.WriteImage(image, str(path))
    return path


def segments(*rows: tuple[str, str, int, int]) -> dict[str, str]:
    """Fields of segments given as (ID, name, label value, layer), as 3D Slicer writes them."""
    fields = {}
    for n, (identity, name, label, layer) in enumerate(rows):
        values = {"ID": identity, "Name": name, "LabelValue": str(label), "Layer": str(layer), "Tags": "Status:|"}
        fields.update({f"Segment{n}_{key}": value for key, value in values.items()})
    return fields


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_whole_numbers_of_any_type_are_labels(
    tmp_path: Path, rng: np.random.Generator, suffix: str, dtype: type
) -> None:
    expected = labels(rng)
    got = read_labels(save(tmp_path / f"a{suffix}", expected.astype(dtype)))
    assert got.labels.dtype == np.uint16
    assert np.array_equal(got.labels, expected)
    assert np.allclose(got.affine, np.diag([-1.0, -1, 1, 1]))
    assert got.names == {}


def test_a_scaled_nifti_of_whole_numbers_is_a_label_map(tmp_path: Path) -> None:
    data = bytearray(nibabel.Nifti1Image(np.array([[[0, 1, 2]]], np.uint8), np.eye(4)).to_bytes())
    data[112:120] = struct.pack("<2f", 10.0, 0.0)
    (tmp_path / "a.nii").write_bytes(data)
    assert read_labels(tmp_path / "a.nii").labels.ravel().tolist() == [0, 10, 20]


@pytest.mark.parametrize(
    ("value", "shown"), [(1.5, r"1\.5"), (-1.0, "-1"), (65536.0, "65536"), (np.nan, "nan"), (np.inf, "inf")]
)
def test_what_is_no_label_is_refused(tmp_path: Path, value: float, shown: str) -> None:
    array = np.zeros((5, 4, 3))
    array[2, 1, 1] = value
    with pytest.raises(VolumeFileError, match=rf"a\.nrrd: labels must be whole numbers in 0\.\.65535, got {shown}; is"):
        read_labels(save(tmp_path / "a.nrrd", array))


def test_a_ct_is_no_label_map(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(VolumeFileError, match=r"whole numbers in 0\.\.65535, got -\d+"):
        read_labels(save(tmp_path / "a.mha", rng.integers(-1000, -1, (3, 3, 3)).astype(np.int16)))


def test_segments_give_their_names(tmp_path: Path, rng: np.random.Generator) -> None:
    expected = labels(rng)
    fields = segments(("Segment_1", "liver", 1, 0), ("S_3Efsr", "Left kidney", 4, 0))
    got = read_labels(save(tmp_path / "a.seg.nrrd", expected, fields))
    assert got.names == {1: "liver", 4: "Left kidney"}
    assert np.array_equal(got.labels, expected)


@pytest.mark.parametrize(
    ("made_by", "name"),
    [("WholeBodyCSS", "liver"), ("WholeBodyCSS 2.0.1", "liver"), ("WholeBodyCSSLike", "Liver (corrected)")],
)
def test_segments_made_here_keep_their_organ_though_renamed_in_slicer(
    tmp_path: Path, rng: np.random.Generator, made_by: str, name: str
) -> None:
    fields = segments(("liver", "Liver (corrected)", 1, 0))
    fields["Segment0_Tags"] = f"DICOM.SegmentAlgorithmName:{made_by}|TerminologyEntry:a~b~c|"
    assert read_labels(save(tmp_path / "a.seg.nrrd", labels(rng), fields)).names == {1: name}


def test_layers_that_do_not_overlap_become_one_map(tmp_path: Path) -> None:
    array = np.zeros((4, 3, 2, 2), np.uint8)
    array[0, :, :, 0] = 1
    array[1, :, :, 0] = 2
    array[2, :, :, 1] = 7
    fields = segments(("a", "liver", 1, 0), ("b", "spleen", 2, 0), ("c", "colon", 7, 1))
    got = read_labels(save(tmp_path / "a.seg.nrrd", array, fields, layers=True))
    assert got.labels[:, 0, 0].tolist() == [1, 2, 7, 0]
    assert got.names == {1: "liver", 2: "spleen", 7: "colon"}


def test_layers_that_number_from_one_again_are_numbered_through(tmp_path: Path) -> None:
    array = np.zeros((4, 3, 2, 2), np.uint8)
    array[0, :, :, 0] = 1
    array[2, :, :, 1] = 1
    fields = segments(("a", "liver", 1, 0), ("b", "spleen", 1, 1))
    got = read_labels(save(tmp_path / "a.seg.nrrd", array, fields, layers=True))
    assert got.labels[:, 0, 0].tolist() == [1, 0, 2, 0]
    assert got.names == {1: "liver", 2: "spleen"}


def test_overlapping_segments_are_refused(tmp_path: Path) -> None:
    array = np.zeros((4, 3, 2, 2), np.uint8)
    array[0, :, :, 0] = 1
    array[:2, :, :, 1] = 2
    fields = segments(("a", "liver", 1, 0), ("b", "tumor", 2, 1))
    with pytest.raises(VolumeFileError, match="segment 'b' shares 6 voxels with other segments"):
        read_labels(save(tmp_path / "a.seg.nrrd", array, fields, layers=True))


def test_a_segment_in_a_layer_that_is_not_there_is_refused(tmp_path: Path) -> None:
    fields = segments(("a", "liver", 1, 5))
    with pytest.raises(VolumeFileError, match="'a' lies in layer 5, but the file has 2"):
        read_labels(save(tmp_path / "a.seg.nrrd", np.zeros((4, 3, 2, 2), np.uint8), fields, layers=True))


def test_a_segment_of_background_is_refused(tmp_path: Path) -> None:
    fields = segments(("a", "liver", 0, 0))
    with pytest.raises(VolumeFileError, match=r"label value of segment 'a' must be in 1\.\.65535, got 0"):
        read_labels(save(tmp_path / "a.seg.nrrd", np.zeros((4, 3, 2, 2), np.uint8), fields, layers=True))


def test_a_label_value_that_is_no_number_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    fields = segments(("a", "liver", 1, 0)) | {"Segment0_LabelValue": "one"}
    with pytest.raises(VolumeFileError, match="layer of segment 'a' must be whole numbers, got 'one' and '0'"):
        read_labels(save(tmp_path / "a.seg.nrrd", labels(rng), fields))


def test_a_color_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VolumeFileError, match="labels must be one number each, got 3"):
        read_labels(save(tmp_path / "a.nrrd", np.zeros((4, 3, 2, 3), np.uint8), layers=True))


def test_a_table_beside_a_nifti_gives_the_names(tmp_path: Path, rng: np.random.Generator) -> None:
    path = save(tmp_path / "a.nii.gz", labels(rng))
    labels_json_path(path).write_text('{"1": {"name": "liver", "code": {}}, "4": {"name": "colon"}}')
    assert read_labels(path).names == {1: "liver", 4: "colon"}


@pytest.mark.parametrize("content", ["not json", '["liver"]', '{"one": {"name": "x"}}', '{"1": "liver"}', '{"1": {}}'])
def test_a_table_that_is_none_is_refused(tmp_path: Path, rng: np.random.Generator, content: str) -> None:
    path = save(tmp_path / "a.nii.gz", labels(rng))
    labels_json_path(path).write_text(content)
    with pytest.raises(VolumeFileError, match=r"a\.labels\.json must map label values to organs"):
        read_labels(path)


def test_a_missing_file_and_an_unknown_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(VolumeFileError, match=r"gone\.nii cannot be read: no such file or directory"):
        read_labels(tmp_path / "gone.nii")
    (tmp_path / "a.png").touch()
    with pytest.raises(VolumeFileError, match=r"a\.png: a label map must be one of \.nii\.gz, \.nii, \.nrrd, \.mha"):
        read_labels(tmp_path / "a.png")


def test_a_sheared_label_map_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    nibabel.save(nibabel.Nifti1Image(labels(rng), sheared), tmp_path / "a.nii")
    with pytest.raises(GeometryError, match=r"a\.nii: grid axes must be perpendicular"):
        read_labels(tmp_path / "a.nii")


@pytest.mark.data
def test_real_labels_come_in_as_nibabel_reads_them(shared_data: Path) -> None:
    path = shared_data / "totalsegmentator" / "example_seg_fast_force_split.nii.gz"
    got, expected = read_labels(path), nibabel.load(path)
    assert np.array_equal(got.labels, np.asarray(expected.dataobj))
    assert np.array_equal(got.affine, expected.affine)
