"""A DICOM folder as hospitals leave it: shuffled, mixed, with gaps, tilted, packed; and the CT that comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import SimpleITK
from dicom_slices import (
    COLUMNS,
    EXPECTED_AFFINE,
    ROWS,
    SECRETS,
    SPACING_COLUMNS,
    SPACING_ROWS,
    dataset,
    save,
    save_series,
    scan,
)
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from wbcss.errors import EXIT_INPUT, GeometryError, InputError, VolumeFileError
from wbcss.io.reading import list_inputs, read_volume


def test_a_series_comes_in_in_hounsfield_units_on_its_grid(tmp_path: Path, rng: np.random.Generator) -> None:
    hu = scan(rng)
    save_series(tmp_path, hu)
    result = read_volume(tmp_path)
    assert result.volume.voxels.dtype == np.int16
    assert np.array_equal(result.volume.voxels, hu.T)
    assert np.allclose(result.volume.affine, EXPECTED_AFFINE)
    assert result.kind == "dicom"
    assert result.warnings == ()
    assert [path.name for path in result.source_files] == [f"im{n:03d}" for n in range(6)]


def test_slices_are_ordered_by_place_and_not_by_name_or_number(tmp_path: Path, rng: np.random.Generator) -> None:
    hu = scan(rng)
    for n, name in enumerate(rng.permutation(6)):
        save(dataset(hu[n], (-20, 30, -100 + 2.5 * n), InstanceNumber=int(10 - name)), tmp_path / f"f{name}")
    result = read_volume(tmp_path)
    assert np.array_equal(result.volume.voxels, hu.T)
    assert np.allclose(result.volume.affine, EXPECTED_AFFINE)


def test_junk_beside_the_slices_does_not_matter(tmp_path: Path, rng: np.random.Generator) -> None:
    hu = scan(rng)
    save_series(tmp_path, hu)
    (tmp_path / "README").write_text("burned by the archive")
    (tmp_path / "empty").touch()
    (tmp_path / "fake").write_bytes(bytes(128) + b"DICM" + b"\xff" * 300)
    (tmp_path / "viewer").mkdir()
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.11", generate_uid(), "SR"
    save(report, tmp_path / "report.dcm")
    result = read_volume(tmp_path)
    assert np.array_equal(result.volume.voxels, hu.T)
    assert result.warnings == ()


def test_a_file_without_preamble_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    hu = scan(rng, 2)
    save_series(tmp_path, hu, syntax=ImplicitVRLittleEndian)
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        # The data set begins where group 0008 does, after preamble and file meta.
        path.write_bytes(content[content.index(b"\x08\x00\x08\x00") :])
    assert np.array_equal(read_volume(tmp_path).volume.voxels, hu.T)


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
    ],
    ids=lambda syntax: syntax.name,
)
def test_transfer_syntaxes_are_decoded(tmp_path: Path, rng: np.random.Generator, syntax: pydicom.uid.UID) -> None:
    hu = scan(rng, 3)
    save_series(tmp_path, hu, syntax=syntax)
    assert np.array_equal(read_volume(tmp_path).volume.voxels, hu.T)


@pytest.mark.parametrize(
    ("compressor", "syntax"), [("JPEG2000", "1.2.840.10008.1.2.4.90"), ("JPEG", "1.2.840.10008.1.2.4.70")]
)
def test_jpeg2000_and_lossless_jpeg_are_decoded(
    tmp_path: Path, rng: np.random.Generator, compressor: str, syntax: str
) -> None:
    # pydicom writes neither here; SimpleITK does, and pydicom puts the place of the slice back in.
    hu = np.abs(scan(rng, 3))
    for n, plane in enumerate(hu):
        writer = SimpleITK.ImageFileWriter()
        writer.SetFileName(str(tmp_path / f"{n}.dcm"))
        writer.SetImageIO("GDCMImageIO")
        writer.SetUseCompression(True)
        writer.SetCompressor(compressor)
        writer.Execute(SimpleITK.GetImageFromArray(plane[np.newaxis].astype(np.uint16)))
        item = pydicom.dcmread(tmp_path / f"{n}.dcm")
        assert item.file_meta.TransferSyntaxUID == syntax
        item.SOPClassUID = item.file_meta.MediaStorageSOPClassUID = CTImageStorage
        item.SeriesInstanceUID, item.Modality, item.ImageType = "1.2.3.4", "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        item.ImageOrientationPatient, item.PixelSpacing = [1, 0, 0, 0, 1, 0], [SPACING_ROWS, SPACING_COLUMNS]
        item.ImagePositionPatient = [-20, 30, -100 + 2.5 * n]
        item.RescaleSlope, item.RescaleIntercept = 1, -1024
        item.save_as(tmp_path / f"{n}.dcm")
    result = read_volume(tmp_path)
    assert np.array_equal(result.volume.voxels, hu.T - 1024)
    assert np.allclose(result.volume.affine, EXPECTED_AFFINE)


def test_a_fractional_slope_gives_float32(tmp_path: Path, rng: np.random.Generator) -> None:
    stored = rng.integers(0, 4000, (3, ROWS, COLUMNS))
    save_series(tmp_path, stored * 0.5 - 1000, RescaleSlope="0.5", RescaleIntercept="-1000")
    voxels = read_volume(tmp_path).volume.voxels
    assert voxels.dtype == np.float32
    assert np.allclose(voxels, (stored * 0.5 - 1000).T)


def test_slices_with_slopes_of_their_own_are_scaled_one_by_one(tmp_path: Path) -> None:
    for n, (slope, intercept) in enumerate([("1", "-1024"), ("0.25", "-1000"), ("2", "-1024")]):
        plane = np.full((ROWS, COLUMNS), [-300.0, -299.75, -100.0][n])
        item = dataset(plane, (-20, 30, -100 + 2.5 * n), RescaleSlope=slope, RescaleIntercept=intercept)
        save(item, tmp_path / str(n))
    voxels = read_volume(tmp_path).volume.voxels
    assert voxels[0, 0].tolist() == [-300.0, -299.75, -100.0]


# --- which series --------------------------------------------------------------------------------------------------


def two_series(folder: Path, rng: np.random.Generator) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]:
    thick, thin = scan(rng, 3), scan(rng, 7)
    save_series(folder, thick, prefix="a")
    save_series(folder, thin, prefix="b", SeriesInstanceUID="1.2.3.5", SeriesNumber=4)
    return thick, thin


def test_the_series_with_most_slices_is_chosen_and_the_other_named(tmp_path: Path, rng: np.random.Generator) -> None:
    _, thin = two_series(tmp_path, rng)
    result = read_volume(tmp_path)
    assert np.array_equal(result.volume.voxels, thin.T)
    assert result.warnings == (
        "the folder holds several CT series; used series 4 (7 slices), left out series 3 (CT, 3 images); "
        "another one can be asked for by its number",
    )


@pytest.mark.parametrize("series", ["3", "1.2.3.4"])
def test_a_series_can_be_asked_for(tmp_path: Path, rng: np.random.Generator, series: str) -> None:
    thick, _ = two_series(tmp_path, rng)
    result = read_volume(tmp_path, series=series)
    assert np.array_equal(result.volume.voxels, thick.T)
    assert result.warnings == ()


def test_a_series_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path, rng: np.random.Generator) -> None:
    two_series(tmp_path, rng)
    expected = r"no series '9' in the folder; it holds series 4 \(CT, 7 images\), series 3 \(CT, 3 images\)"
    with pytest.raises(VolumeFileError, match=expected):
        read_volume(tmp_path, series="9")


def test_a_series_number_used_twice_is_answered_with_the_uids(tmp_path: Path, rng: np.random.Generator) -> None:
    save_series(tmp_path, scan(rng, 2), prefix="a")
    save_series(tmp_path, scan(rng, 3), prefix="b", SeriesInstanceUID="1.2.3.5")
    with pytest.raises(VolumeFileError, match=r"2 series of the folder have the number 3; .* 1\.2\.3\.4 \(2 slices\)"):
        read_volume(tmp_path, series="3")
    assert read_volume(tmp_path, series="1.2.3.5").volume.shape[2] == 3


def test_an_axial_series_is_preferred_to_a_longer_coronal_one(tmp_path: Path, rng: np.random.Generator) -> None:
    axial = scan(rng, 3)
    save_series(tmp_path, axial, prefix="a")
    coronal = {"SeriesInstanceUID": "1.9", "SeriesNumber": 9, "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    for n, plane in enumerate(scan(rng, 8)):
        save(dataset(plane, (-20, 30 + 2.0 * n, 50), **coronal), tmp_path / f"c{n}")
    assert np.array_equal(read_volume(tmp_path).volume.voxels, axial.T)
    chosen = read_volume(tmp_path, series="9").volume
    # Rows run to the feet, slices from front to back: columns of the affine are left, inferior, and posterior or its
    # opposite, whichever makes row, column and normal right-handed.
    assert np.allclose(np.abs(chosen.affine[:3, :3]), [[0.6, 0, 0], [0, 0, 2.0], [0, 0.8, 0]])
    assert np.linalg.det((np.diag([-1.0, -1, 1, 1]) @ chosen.affine)[:3, :3]) > 0


def test_a_coronal_series_alone_is_used_with_a_warning(tmp_path: Path, rng: np.random.Generator) -> None:
    hu = scan(rng, 4)
    for n, plane in enumerate(hu):
        save(dataset(plane, (-20, 30 + 2.0 * n, 50), ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), tmp_path / f"c{n}")
    result = read_volume(tmp_path)
    assert result.warnings == ("no axial CT series in the folder; a coronal or sagittal one is used",)
    assert sorted(result.volume.voxels.ravel()) == sorted(hu.ravel())


def test_oblique_slices_lie_as_simpleitk_puts_them(tmp_path: Path, rng: np.random.Generator) -> None:
    c, s = np.cos(0.3), np.sin(0.3)
    row, column = np.array([c, s, 0]), np.array([-s * c, c * c, s])
    normal = np.cross(row, column)
    hu = scan(rng, 4)
    for n, plane in enumerate(hu):
        position = np.array([-20.0, 30, -100]) + 2.5 * n * normal
        item = dataset(plane, (0, 0, 0), ImageOrientationPatient=[f"{v:.8f}" for v in (*row, *column)])
        item.ImagePositionPatient = [f"{v:.8f}" for v in position]
        save(item, tmp_path / f"{n}.dcm")
    result = read_volume(tmp_path)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(tmp_path / f"{n}.dcm") for n in range(4)])
    itk = reader.Execute()
    axes = np.reshape(itk.GetDirection(), (3, 3)) * itk.GetSpacing()
    assert np.allclose((np.diag([-1.0, -1, 1, 1]) @ result.volume.affine)[:3, :3], axes, atol=1e-5)
    assert np.array_equal(result.volume.voxels, SimpleITK.GetArrayFromImage(itk).T)
    assert result.warnings == ()


def test_localizers_and_screen_captures_are_passed_over(tmp_path: Path, rng: np.random.Generator) -> None:
    hu = scan(rng, 3)
    save_series(tmp_path, hu)
    save_series(tmp_path, scan(rng, 2), prefix="loc", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    save_series(tmp_path, scan(rng, 9), prefix="cap", SOPClassUID=SecondaryCaptureImageStorage, SeriesInstanceUID="1.8")
    result = read_volume(tmp_path)
    assert np.array_equal(result.volume.voxels, hu.T)
    assert result.warnings == ()


def test_a_folder_of_localizers_only_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    save_series(tmp_path, scan(rng, 2), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.raises(VolumeFileError, match="holds 2 images but no CT slice with a place in the patient"):
        read_volume(tmp_path)


def test_another_modality_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    save_series(tmp_path, scan(rng, 3), SOPClassUID=MRImageStorage, Modality="MR")
    with pytest.raises(InputError, match=r"expected a CT series, got modality MR \(3 images\)") as caught:
        read_volume(tmp_path)
    assert caught.value.exit_code == EXIT_INPUT
    with pytest.raises(InputError, match="got modality MR"):
        read_volume(tmp_path, series="3")


def test_ct_is_found_beside_a_larger_mr(tmp_path: Path, rng: np.random.Generator) -> None:
    hu = scan(rng, 3)
    save_series(tmp_path, hu)
    save_series(tmp_path, scan(rng, 6), prefix="mr", SOPClassUID=MRImageStorage, Modality="MR", SeriesInstanceUID="1.7")
    assert np.array_equal(read_volume(tmp_path).volume.voxels, hu.T)


def test_a_multi_frame_file_is_refused_with_a_way_out(tmp_path: Path, rng: np.random.Generator) -> None:
    item = dataset(scan(rng, 1)[0], (-20, 30, -100), NumberOfFrames=2)
    item.PixelData = item.PixelData * 2
    save(item, tmp_path / "a.dcm")
    with pytest.raises(VolumeFileError, match=r"many slices in one file .* convert it to NIfTI"):
        read_volume(tmp_path)


def test_slices_of_another_size_are_left_out_with_a_warning(tmp_path: Path, rng: np.random.Generator) -> None:
    hu = scan(rng, 4)
    save_series(tmp_path, hu)
    save(dataset(np.zeros((5, 6)), (-20, 30, 500)), tmp_path / "odd")
    result = read_volume(tmp_path)
    assert np.array_equal(result.volume.voxels, hu.T)
    assert result.warnings == ("left out 1 slice(s) of another size, spacing or orientation than the other 4",)


# --- what cannot be read -------------------------------------------------------------------------------------------


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:420])


def cut_in_the_pixels(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [cut_in_the_header, cut_in_the_pixels])
def test_a_damaged_slice_is_an_error_and_not_a_gap(
    tmp_path: Path, rng: np.random.Generator, capfd: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    save_series(tmp_path, scan(rng, 5))
    damage(tmp_path / "im002")
    with pytest.raises(VolumeFileError, match=r"the CT slice im002 .*damaged"):
        read_volume(tmp_path)
    assert capfd.readouterr().err == ""


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(
        VolumeFileError, match=r"no DICOM images in the folder .*; give the folder that holds the slices"
    ):
        read_volume(tmp_path)


def test_slices_without_a_place_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    save_series(tmp_path, scan(rng, 2), ImagePositionPatient=None)
    with pytest.raises(VolumeFileError, match="no CT slice with a place in the patient"):
        read_volume(tmp_path)


def test_nothing_about_the_patient_is_kept_told_or_logged(
    tmp_path: Path, rng: np.random.Generator, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    two_series(tmp_path / "scan", rng)
    save(dataset(scan(rng, 1)[0], (-20, 30, 900), SeriesInstanceUID="1.2.3.5"), tmp_path / "scan" / "stray")
    with pytest.raises(GeometryError) as caught:
        read_volume(tmp_path / "scan")
    result = read_volume(tmp_path / "scan", series="3")
    caught_out = capfd.readouterr()
    told = f"{caught.value}{result.warnings}{result.volume!r}{caplog.text}{caught_out.out}{caught_out.err}"
    assert not [secret for secret in SECRETS if secret in told]
    assert "1.2.3" not in told


def test_dicom_folders_of_a_batch_are_found_at_any_depth(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("study 1/series A", "study 2/series A"):
        save_series(tmp_path / name, scan(rng, 2))
    assert [item.name for item in list_inputs([tmp_path])] == ["series_A", "series_A_2"]


@pytest.mark.data
def test_a_real_series_lies_as_simpleitk_puts_it(shared_data: Path) -> None:
    folder = shared_data / "tcia_ct" / "dicom_C3L-00189"
    result = read_volume(folder)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    itk = reader.Execute()
    assert np.array_equal(result.volume.voxels, SimpleITK.GetArrayFromImage(itk).T)
    lps = np.diag([-1.0, -1, 1, 1]) @ result.volume.affine
    assert np.allclose(lps[:3, :3], np.reshape(itk.GetDirection(), (3, 3)) * itk.GetSpacing(), atol=1e-5)
    assert np.allclose(lps[:3, 3], itk.GetOrigin(), atol=1e-3)
    assert result.volume.voxels.dtype == np.int16
    assert (result.warnings, len(result.source_files)) == ((), 35)
