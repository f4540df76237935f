"""Segmentations and volumes come back from disk as they were given, on every grid, and never by half."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK
from written_organs import KIDNEY, LIVER, organ

from wbcss import __version__
from wbcss.errors import GeometryError, LabelSpaceError, OutputError
from wbcss.io import writing
from wbcss.io.labelmap import read_labels
from wbcss.io.reading import read_volume
from wbcss.io.writing import write_segmentation, write_volume
from wbcss.volume import Volume

PACKAGE_ROOT = Path(writing.__file__).resolve().parents[2]
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def all_axis_orders() -> Iterator[npt.NDArray[np.float64]]:
    """The 48 ways to name the axes of a box: every order of R, A, S and every choice of directions."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product([1.0, -1.0], repeat=3):
            axes = np.zeros((3, 3))
            for column, row in enumerate(order):
                axes[row, column] = signs[column]
            yield axes


def oblique_axes() -> npt.NDArray[np.float64]:
    """Turned about all three axes by 0.3, -0.4 and 0.5 rad."""
    turned = np.eye(3)
    for (a, b), angle in zip([(0, 1), (1, 2), (0, 2)], [0.3, -0.4, 0.5], strict=True):
        plane = np.eye(3)
        plane[a, a] = plane[b, b] = np.cos(angle)
        plane[a, b], plane[b, a] = -np.sin(angle), np.sin(angle)
        turned = turned @ plane
    return turned


GRIDS = [*all_axis_orders(), oblique_axes(), oblique_axes() @ np.diag([1.0, 1.0, -1.0])]


def grid(axes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = axes * [0.7, 1.25, 3.0]
    affine[:3, 3] = [-123.456, 78.9, -1001.25]
    return affine


def labels_of(rng: np.random.Generator, shape: tuple[int, int, int] = (5, 4, 3)) -> npt.NDArray[np.uint16]:
    return rng.choice(np.array([0, 5, 300], dtype=np.uint16), size=shape)


def itk_affine(image: SimpleITK.Image) -> npt.NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return LPS @ affine


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nii.gz"])
@pytest.mark.parametrize("axes", GRIDS)
def test_labels_return_on_the_same_grid(
    tmp_path: Path, rng: np.random.Generator, axes: npt.NDArray[np.float64], suffix: str
) -> None:
    labels, affine, path = labels_of(rng), grid(axes), tmp_path / f"a{suffix}"
    write_segmentation(path, labels, affine, [LIVER, KIDNEY])
    back = read_labels(path)
    assert np.array_equal(back.labels, labels)
    assert back.labels.dtype == np.uint16
    assert np.abs(back.affine - affine).max() < 1e-4
    assert back.names == {5: "liver", 300: "kidney_left"}


@pytest.mark.parametrize("axes", GRIDS)
def test_simpleitk_and_nibabel_see_the_grid_that_was_written(
    tmp_path: Path, rng: np.random.Generator, axes: npt.NDArray[np.float64]
) -> None:
    labels, affine = labels_of(rng), grid(axes)
    write_segmentation(tmp_path / "a.nii.gz", labels, affine, [LIVER, KIDNEY])
    write_segmentation(tmp_path / "a.seg.nrrd", labels, affine, [LIVER, KIDNEY])
    for name, tolerance in (("a.nii.gz", 1e-4), ("a.seg.nrrd", 1e-10)):
        image = SimpleITK.ReadImage(str(tmp_path / name))
        assert np.abs(itk_affine(image) - affine).max() < tolerance
        assert np.array_equal(SimpleITK.GetArrayFromImage(image).T, labels)
    nifti = nibabel.load(tmp_path / "a.nii.gz")
    assert np.array_equal(np.asarray(nifti.dataobj), labels)
    # Origin near 1001 mm in 32 bits: six digits behind the point are gone, four are not.
    assert np.abs(nifti.get_sform() - affine).max() < 1e-4
    assert np.abs(nifti.get_qform() - affine).max() < 1e-3
    assert (int(nifti.header["sform_code"]), int(nifti.header["qform_code"])) == (1, 1)
    assert nifti.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".nii.gz"])
@pytest.mark.parametrize("shape", [(6, 5, 1), (1, 1, 1), (1, 7, 2)])
def test_thin_grids_return_too(
    tmp_path: Path, rng: np.random.Generator, shape: tuple[int, int, int], suffix: str
) -> None:
    labels = labels_of(rng, shape)
    write_segmentation(tmp_path / f"a{suffix}", labels, grid(np.eye(3)), [LIVER, KIDNEY])
    assert np.array_equal(read_labels(tmp_path / f"a{suffix}").labels, labels)


def test_an_affine_read_from_nifti_is_written_back_bit_for_bit(tmp_path: Path, rng: np.random.Generator) -> None:
    write_volume(tmp_path / "ct.nii.gz", np.zeros((3, 3, 3), np.int16) - 1000, grid(oblique_axes()))
    affine = read_volume(tmp_path / "ct.nii.gz").volume.affine
    write_segmentation(tmp_path / "seg.nii.gz", np.zeros((3, 3, 3), np.uint16), affine, [LIVER])
    assert np.array_equal(read_labels(tmp_path / "seg.nii.gz").affine, affine)


def test_memory_order_does_not_matter(tmp_path: Path, rng: np.random.Generator) -> None:
    labels = labels_of(rng, (7, 6, 5))
    for order in "CF":
        write_segmentation(
            tmp_path / f"{order}.seg.nrrd", np.array(labels, order=order), grid(np.eye(3)), [LIVER, KIDNEY]
        )
    assert (tmp_path / "C.seg.nrrd").read_bytes() == (tmp_path / "F.seg.nrrd").read_bytes()


def test_many_slabs_join_to_one_volume(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_CHUNK_VOXELS", 40)
    labels = labels_of(rng, (5, 4, 29))
    for suffix in (".seg.nrrd", ".nii.gz"):
        write_segmentation(tmp_path / f"a{suffix}", labels, grid(np.eye(3)), [LIVER, KIDNEY])
        assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / f"a{suffix}"))).T, labels)


def test_only_the_organs_asked_for_are_written(tmp_path: Path, rng: np.random.Generator) -> None:
    labels = labels_of(rng)
    write_segmentation(tmp_path / "a.seg.nrrd", labels, grid(np.eye(3)), [KIDNEY])
    back = read_labels(tmp_path / "a.seg.nrrd")
    assert np.array_equal(back.labels, np.where(labels == 300, 300, 0))
    assert back.names == {300: "kidney_left"}


def test_a_segmentation_without_organs_is_empty(tmp_path: Path, rng: np.random.Generator) -> None:
    for suffix in (".seg.nrrd", ".nii.gz"):
        write_segmentation(tmp_path / f"a{suffix}", labels_of(rng), grid(np.eye(3)), [])
        back = read_labels(tmp_path / f"a{suffix}")
        assert not back.labels.any()
        assert back.names == {}


def test_the_segment_fields_are_those_3d_slicer_reads(tmp_path: Path, rng: np.random.Generator) -> None:
    write_segmentation(tmp_path / "a.seg.nrrd", labels_of(rng), grid(np.eye(3)), [LIVER, KIDNEY])
    image = SimpleITK.ReadImage(str(tmp_path / "a.seg.nrrd"))
    assert image.GetPixelID() == SimpleITK.sitkUInt16
    fields = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if key.startswith("Segment")}
    assert fields == {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_ConversionParameters": "",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
        "Segment0_ID": "liver",
        "Segment0_Name": "Liver",
        "Segment0_NameAutoGenerated": "0",
        "Segment0_Color": "0.866667 0.509804 0.396078",
        "Segment0_ColorAutoGenerated": "0",
        "Segment0_Extent": "0 4 0 3 0 2",
        "Segment0_LabelValue": "5",
        "Segment0_Layer": "0",
        "Segment0_Tags": f"DICOM.SegmentAlgorithmName:WholeBodyCSS {__version__}|DICOM.SegmentAlgorithmType:AUTOMATIC|"
        f"TerminologyEntry:{LIVER.terminology}|",
        "Segment1_ID": "kidney_left",
        "Segment1_Name": "Left kidney",
        "Segment1_NameAutoGenerated": "0",
        "Segment1_Color": "0.000000 1.000000 0.200000",
        "Segment1_ColorAutoGenerated": "0",
        "Segment1_Extent": "0 4 0 3 0 2",
        "Segment1_LabelValue": "300",
        "Segment1_Layer": "0",
        "Segment1_Tags": f"DICOM.SegmentAlgorithmName:WholeBodyCSS {__version__}|DICOM.SegmentAlgorithmType:AUTOMATIC|"
        f"TerminologyEntry:{KIDNEY.terminology}|",
    }
    assert "SCT^64033007^Kidney~SCT^7771000^Left" in fields["Segment1_Tags"]


def test_the_header_of_a_segmentation_is_plain_nrrd_text(tmp_path: Path) -> None:
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = [10, 20, 30]
    write_segmentation(tmp_path / "a.seg.nrrd", np.zeros((4, 3, 2), np.uint16), affine, [])
    header = (tmp_path / "a.seg.nrrd").read_bytes().split(b"\n\n")[0].decode().split("\n")
    assert header[:10] == [
        "NRRD0004",
        "type: unsigned short",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: 4 3 2",
        "space directions: (-1.0,0.0,0.0) (0.0,-2.0,0.0) (0.0,0.0,3.0)",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        "space origin: (-10.0,-20.0,30.0)",
    ]


def test_a_nifti_comes_with_a_table_of_its_labels(tmp_path: Path, rng: np.random.Generator) -> None:
    written = write_segmentation(tmp_path / "a.nii.gz", labels_of(rng), grid(np.eye(3)), [KIDNEY, LIVER])
    assert written == (tmp_path / "a.nii.gz", tmp_path / "a.labels.json")
    table = json.loads((tmp_path / "a.labels.json").read_text(encoding="utf-8"))
    assert list(table) == ["5", "300"]
    assert table["300"] == {
        "name": "kidney_left",
        "display_name": "Left kidney",
        "code": {"scheme": "SCT", "value": "64033007", "meaning": "Kidney"},
        "category": {"scheme": "SCT", "value": "123037004", "meaning": "Anatomical Structure"},
        "type_modifier": {"scheme": "SCT", "value": "7771000", "meaning": "Left"},
        "color_rgb": [0, 255, 51],
        "side": "left",
        "group": "abdomen",
    }
    assert table["5"]["type_modifier"] is None


@pytest.mark.parametrize(("label", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_a_nifti_uses_the_smallest_type_that_holds_its_labels(tmp_path: Path, label: int, dtype: type) -> None:
    labels = np.full((3, 3, 3), label, np.uint16)
    write_segmentation(tmp_path / "a.nii.gz", labels, grid(np.eye(3)), [organ("liver", label)])
    assert nibabel.load(tmp_path / "a.nii.gz").get_data_dtype() == np.dtype(dtype)
    assert np.array_equal(read_labels(tmp_path / "a.nii.gz").labels, labels)


def test_the_same_segmentation_gives_the_same_bytes(tmp_path: Path, rng: np.random.Generator) -> None:
    labels = labels_of(rng, (40, 30, 20))
    for name in ("a.nii.gz", "b.nii.gz"):
        write_segmentation(tmp_path / name, labels, grid(np.eye(3)), [LIVER, KIDNEY])
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint8, np.uint16])
def test_a_volume_returns_as_written(tmp_path: Path, rng: np.random.Generator, suffix: str, dtype: type) -> None:
    array = (rng.normal(size=(5, 4, 3)) * 100 + 150).clip(0, 255).astype(dtype)
    write_volume(tmp_path / f"a{suffix}", array, grid(oblique_axes()))
    image = SimpleITK.ReadImage(str(tmp_path / f"a{suffix}"))
    back = SimpleITK.GetArrayFromImage(image).T
    assert back.dtype == np.dtype(dtype)
    assert np.array_equal(back, array)
    assert np.abs(itk_affine(image) - grid(oblique_axes())).max() < 1e-4


def test_a_confidence_in_half_precision_is_written_as_float32(tmp_path: Path, rng: np.random.Generator) -> None:
    confidence = rng.random((5, 4, 3)).astype(np.float16)
    write_volume(tmp_path / "a.nii.gz", confidence, grid(np.eye(3)))
    back = nibabel.load(tmp_path / "a.nii.gz")
    assert back.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(back.dataobj), confidence.astype(np.float32))


@pytest.mark.parametrize("name", ["a.png", "a.seg.nrrd", "a.nrrd.gz", "a"])
def test_a_volume_goes_to_known_kinds_only(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=rf"\.nii, \.nii\.gz or \.nrrd, got '{name}'"):
        write_volume(tmp_path / name, np.zeros((2, 2, 2), np.int16), np.eye(4))


def test_a_type_that_no_format_here_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="to be written, got complex64"):
        write_volume(tmp_path / "a.nii", np.zeros((2, 2, 2), np.complex64), np.eye(4))


def test_a_side_longer_than_nifti_can_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match=r"at most 32767 voxels along an axis, got 40000x1x1"):
        write_volume(tmp_path / "a.nii.gz", np.zeros((40000, 1, 1), np.int16), np.eye(4))
    assert list(tmp_path.iterdir()) == []


def test_labels_off_the_grid_of_their_volume_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    reference = Volume(voxels=np.zeros((5, 4, 3), np.int16), affine=grid(np.eye(3)))
    path = tmp_path / "a.seg.nrrd"
    with pytest.raises(GeometryError, match=r"shape of their volume, \(5, 4, 3\), got \(4, 5, 3\)"):
        write_segmentation(path, labels_of(rng, (4, 5, 3)), grid(np.eye(3)), [LIVER], reference=reference)
    moved = grid(np.eye(3))
    moved[2, 3] += 0.5
    with pytest.raises(GeometryError, match=r"one up to 0\.500 mm away"):
        write_segmentation(path, labels_of(rng), moved, [LIVER], reference=reference)
    write_segmentation(path, labels_of(rng), grid(np.eye(3)), [LIVER], reference=reference)
    assert path.exists()


def test_a_sheared_grid_is_refused(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[0, 2] = 0.2
    with pytest.raises(GeometryError, match=r"sheared by 11\.31 degrees"):
        write_segmentation(tmp_path / "a.seg.nrrd", np.zeros((2, 2, 2), np.uint16), affine, [LIVER])


def test_two_organs_may_not_share_a_label(tmp_path: Path) -> None:
    with pytest.raises(LabelSpaceError, match="'liver' and 'spleen' share the label 5"):
        write_segmentation(
            tmp_path / "a.nii.gz", np.zeros((2, 2, 2), np.uint16), np.eye(4), [LIVER, organ("spleen", 5)]
        )
