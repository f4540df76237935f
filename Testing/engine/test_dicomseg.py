"""Organs as a DICOM Segmentation object, read back by highdicom and pydicom."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from dicom_slices import SECRETS, save_series, scan

from wbcss import __version__, dicomseg
from wbcss.catalogue import Organ, find
from wbcss.dicomseg import check_dicom_folder, check_installed, read_source, write_dicom_seg
from wbcss.errors import InputError, OutputError
from wbcss.io.reading import ReadResult, read_volume

# Left, right, midline, and a lesion with its place.
ORGANS = find(("liver", "kidney_left", "kidney_right", "kidney_cyst_left", "spleen"))
FRAME = "1.2.3.9"
PRIVATE = {
    "PatientAge": "076Y",
    "StudyDescription": "secret study",
    "InstitutionName": "secret clinic",
    "OtherPatientIDs": "SECRET-ID",
    "PatientComments": "secret comment",
    "OperatorsName": "SECRET^OP",
}
MODEL = {"encoder": "ab" * 32, "wholebody@1": "cd" * 32}


def _series(folder: Path, rng: np.random.Generator, num: int = 6, **changes: Any) -> ReadResult:
    save_series(folder, scan(rng, num), **{"FrameOfReferenceUID": FRAME, "PatientSex": "F", **PRIVATE, **changes})
    return read_volume(folder)


def _labels(shape: tuple[int, ...], organs: Sequence[Organ], rng: np.random.Generator) -> npt.NDArray[np.uint16]:
    values = [0, *(organ.label for organ in organs)]
    labels = rng.choice(np.array(values, dtype=np.uint16), shape)
    labels[:, :, 0] = 0  # a slice without any organ
    return labels


def _write(read: ReadResult, labels: npt.NDArray[np.uint16], path: Path, organs: Sequence[Organ] = ORGANS) -> Any:
    write_dicom_seg(path, labels, read.volume.affine, organs, read_source(read.source_files), model_sha256=MODEL)
    return highdicom.seg.segread(path)


def _on_grid(segmentation: Any, affine: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Segment numbers at every voxel of a grid (affine to RAS mm); the object need not hold empty outer slices."""
    volume = segmentation.get_volume(combine_segments=True, relabel=False)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    ijk = np.indices(shape).reshape(3, -1)
    places = np.linalg.inv(volume.affine) @ lps @ np.vstack([ijk, np.ones(ijk.shape[1])])
    index = np.rint(places[:3]).astype(int)
    np.testing.assert_allclose(places[:3], index, atol=1e-3)
    inside = ((index >= 0) & (index < np.array(volume.shape)[:, np.newaxis])).all(axis=0)
    result = np.zeros(ijk.shape[1], dtype=int)
    result[inside] = volume.array[tuple(index[:, inside])]
    return result.reshape(shape)


def _code(item: Any) -> tuple[str, str, str]:
    return item.CodingSchemeDesignator, item.CodeValue, item.CodeMeaning


@pytest.mark.parametrize(
    "changes",
    [{}, {"ImageOrientationPatient": [0.8, 0.6, 0, -0.6, 0.8, 0]}, {"ImageOrientationPatient": [-1, 0, 0, 0, 1, 0]}],
    ids=["axial", "rotated", "mirrored rows"],
)
def test_every_voxel_comes_back_as_the_organ_it_was(
    tmp_path: Path, rng: np.random.Generator, changes: Mapping[str, Any]
) -> None:
    read = _series(tmp_path / "ct", rng, **changes)
    labels = _labels(read.volume.shape, ORGANS[:4], rng)
    segmentation = _write(read, labels, tmp_path / "organs.seg.dcm")
    expected = np.zeros(labels.shape, dtype=int)
    found = sorted(ORGANS[:4], key=lambda organ: organ.label)
    for number, organ in enumerate(found, start=1):
        expected[labels == organ.label] = number
    np.testing.assert_array_equal(_on_grid(segmentation, read.volume.affine, labels.shape), expected)
    names = [item.TrackingID for item in segmentation.SegmentSequence]
    assert names == [organ.name for organ in found], "only organs found, in label order"


def test_every_organ_keeps_its_name_codes_and_color_and_says_who_made_it(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    read = _series(tmp_path / "ct", rng)
    segmentation = _write(read, _labels(read.volume.shape, ORGANS, rng), tmp_path / "organs.seg.dcm")
    assert segmentation.SegmentationType == "BINARY"
    described = {item.TrackingID: item for item in segmentation.SegmentSequence}
    assert sorted(described) == sorted(organ.name for organ in ORGANS)
    for organ in ORGANS:
        item = described[organ.name]
        assert item.SegmentLabel == organ.display_name
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        assert item.SegmentAlgorithmName == f"WholeBodyCSS {__version__}"
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("WholeBodyCSS", __version__)
        assert MODEL["encoder"] in algorithm.AlgorithmParameters
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        assert _code(item.SegmentedPropertyCategoryCodeSequence[0]) == tuple(organ.category.to_json().values())
        assert _code(kind) == tuple(organ.type.to_json().values())
        side = kind.get("SegmentedPropertyTypeModifierCodeSequence")
        assert (side is None) == (organ.type_modifier is None)
        if organ.type_modifier is not None:
            assert _code(side[0]) == tuple(organ.type_modifier.to_json().values())
        shown = highdicom.color.CIELabColor.from_dicom_value(item.RecommendedDisplayCIELabValue).to_rgb()
        np.testing.assert_allclose(shown, organ.color_rgb, atol=2)
    cyst = described["kidney_cyst_left"].AnatomicRegionSequence[0]
    assert _code(cyst) == ("SCT", "64033007", "Kidney")
    assert _code(cyst.AnatomicRegionModifierSequence[0]) == ("SCT", "7771000", "Left")
    assert "AnatomicRegionSequence" not in described["liver"]


def test_it_belongs_to_the_series_and_frame_of_its_source(tmp_path: Path, rng: np.random.Generator) -> None:
    read = _series(tmp_path / "ct", rng)
    segmentation = _write(read, _labels(read.volume.shape, ORGANS, rng), tmp_path / "organs.seg.dcm")
    slices = {pydicom.dcmread(path).SOPInstanceUID: pydicom.dcmread(path) for path in read.source_files}
    source = next(iter(slices.values()))
    assert segmentation.FrameOfReferenceUID == FRAME
    assert segmentation.StudyInstanceUID == source.StudyInstanceUID
    assert segmentation.SeriesInstanceUID != source.SeriesInstanceUID
    assert segmentation.SeriesNumber == source.SeriesNumber + 100
    (series,) = segmentation.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == set(slices)
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        (image,) = frame.DerivationImageSequence[0].SourceImageSequence
        position = slices[image.ReferencedSOPInstanceUID].ImagePositionPatient
        np.testing.assert_allclose(frame.PlanePositionSequence[0].ImagePositionPatient, position, atol=1e-3)


def test_only_the_required_attributes_of_the_patient_are_passed_on(tmp_path: Path, rng: np.random.Generator) -> None:
    read = _series(tmp_path / "ct", rng)
    path = tmp_path / "organs.seg.dcm"
    segmentation = _write(read, _labels(read.volume.shape, ORGANS, rng), path)
    name, identifier, birth = SECRETS
    assert (segmentation.PatientName, segmentation.PatientID, segmentation.PatientBirthDate) == (
        name,
        identifier,
        birth,
    )
    content = path.read_bytes()
    for value in PRIVATE.values():
        assert value.encode() not in content, value
    for attribute in PRIVATE:
        assert attribute not in segmentation


def test_slices_without_optional_attributes_of_the_patient_will_do(tmp_path: Path, rng: np.random.Generator) -> None:
    changes = {"PatientName": None, "PatientID": None, "PatientBirthDate": None, "SeriesNumber": None}
    read = _series(tmp_path / "ct", rng, **changes)
    segmentation = _write(read, _labels(read.volume.shape, ORGANS, rng), tmp_path / "organs.seg.dcm")
    assert (str(segmentation.PatientName), segmentation.PatientID, segmentation.SeriesNumber) == ("", "", 100)


def test_a_series_on_a_corrected_grid_keeps_its_frame_of_reference(tmp_path: Path, rng: np.random.Generator) -> None:
    """A tilted gantry is straightened, so the frames of the object lie between the pixels of the slices."""
    read = _series(tmp_path / "ct", rng, shift=(0.0, 0.25))
    assert "gantry tilt" in " ".join(read.warnings)
    labels = _labels(read.volume.shape, ORGANS, rng)
    segmentation = _write(read, labels, tmp_path / "organs.seg.dcm")
    assert segmentation.FrameOfReferenceUID == FRAME
    found = sorted(organ.label for organ in ORGANS)
    numbers = _on_grid(segmentation, read.volume.affine, labels.shape)
    np.testing.assert_array_equal(np.array([0, *found])[numbers], labels)


def test_without_any_organ_there_is_no_object(tmp_path: Path, rng: np.random.Generator) -> None:
    read = _series(tmp_path / "ct", rng)
    path, empty = tmp_path / "organs.seg.dcm", np.zeros(read.volume.shape, dtype=np.uint16)
    source = read_source(read.source_files)
    assert write_dicom_seg(path, empty, read.volume.affine, ORGANS, source, model_sha256=MODEL) == ()
    assert not path.exists()


def test_slices_without_a_frame_of_reference_are_refused_before_the_work(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    save_series(tmp_path / "ct", scan(rng))
    read = read_volume(tmp_path / "ct")
    with pytest.raises(InputError, match="im000 lacks FrameOfReferenceUID; leave --dicom-seg out"):
        read_source(read.source_files)
    (tmp_path / "ct" / "im000").unlink()
    with pytest.raises(InputError, match=r"the slice im000 cannot be read for a DICOM SEG \(FileNotFoundError\)"):
        read_source(read.source_files)


def test_a_source_that_highdicom_refuses_is_told_in_one_line(tmp_path: Path, rng: np.random.Generator) -> None:
    read = _series(tmp_path / "ct", rng)
    source = read_source(read.source_files)
    source.slices[1].SeriesInstanceUID = "1.2.3.5"
    labels = _labels(read.volume.shape, ORGANS, rng)
    with pytest.raises(OutputError, match=r"the series is no basis for a DICOM SEG: .*; leave --dicom-seg out"):
        write_dicom_seg(tmp_path / "o.seg.dcm", labels, read.volume.affine, ORGANS, source, model_sha256=MODEL)
    assert not (tmp_path / "o.seg.dcm").exists()


def test_a_missing_folder_for_the_object_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    read = _series(tmp_path / "ct", rng)
    with pytest.raises(OutputError, match=r"nowhere does not exist"):
        _write(read, _labels(read.volume.shape, ORGANS, rng), tmp_path / "nowhere" / "o.seg.dcm")


def test_what_is_no_folder_or_has_no_highdicom_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    check_dicom_folder(tmp_path)
    with pytest.raises(InputError, match=r"needs a folder of DICOM slices as input, got .*ct\.nii"):
        check_dicom_folder(tmp_path / "ct.nii")
    with pytest.raises(InputError, match="needs a folder of DICOM slices as input, got voxels in memory"):
        check_dicom_folder(None)
    monkeypatch.setattr(dicomseg.importlib.util, "find_spec", lambda name: None)
    assert importlib.util.find_spec("highdicom") is None
    with pytest.raises(InputError, match="needs the package highdicom, which is not installed: run `pip install"):
        check_installed()
