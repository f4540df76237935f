"""Volume files of every kind come in right, and every bad one is refused with one clear line."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK
from volume_files import AFFINE, LPS, ct, save_itk, save_nifti

from wbcss.errors import GeometryError
from wbcss.io.nifti import affine_from_quaternion
from wbcss.io.reading import read_volume
from wbcss.io.voxels import to_voxels


def turned(angle_rad: float = 0.4) -> npt.NDArray[np.float64]:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def all_affines() -> list[npt.NDArray[np.float64]]:
    """Every order and direction of the axes (48), and oblique right- and left-handed ones."""
    result = []
    for order, signs in itertools.product(itertools.permutations(range(3)), itertools.product([1, -1], repeat=3)):
        result.append(np.eye(3)[:, order] * signs)
    result += [turned(), turned() * [1, 1, -1], turned(-1.1)[:, [2, 0, 1]]]
    affines = []
    for axes in result:
        affine = np.eye(4)
        affine[:3, :3] = axes * [0.7, 0.9, 2.5]
        affine[:3, 3] = [12.5, -77.25, 400.0]
        affines.append(affine)
    return affines


# --- what comes in right -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", all_affines())
@pytest.mark.parametrize("form", ["sform", "qform", "both"])
def test_nifti_lies_where_nibabel_says(
    tmp_path: Path, rng: np.random.Generator, affine: npt.NDArray[np.float64], form: str
) -> None:
    image = nibabel.Nifti1Image(ct(rng), affine)
    image.set_sform(affine if form != "qform" else None, 1 if form != "qform" else 0)
    image.set_qform(affine if form != "sform" else None, 1 if form != "sform" else 0)
    nibabel.save(image, tmp_path / "a.nii.gz")
    expected = nibabel.load(tmp_path / "a.nii.gz")
    got = read_volume(tmp_path / "a.nii.gz")
    assert np.allclose(got.volume.affine, expected.affine, atol=1e-5)
    assert np.array_equal(got.volume.voxels, np.asarray(expected.dataobj))
    assert got.warnings == ()


@pytest.mark.parametrize("affine", all_affines())
def test_nrrd_and_mha_lie_where_they_were_put(
    tmp_path: Path, rng: np.random.Generator, affine: npt.NDArray[np.float64]
) -> None:
    voxels = ct(rng)
    for name in ("a.nrrd", "a.mha"):
        got = read_volume(save_itk(tmp_path / name, voxels, affine)).volume
        assert np.allclose(got.affine, affine, atol=1e-9)
        assert np.array_equal(got.voxels, voxels)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.NII", "a.Nii.GZ"])
def test_nifti_voxels_come_in_as_int16(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    voxels = ct(rng)
    save_nifti(tmp_path / name.lower(), voxels).rename(tmp_path / name)
    result = read_volume(tmp_path / name)
    assert result.volume.voxels.dtype == np.int16
    assert np.array_equal(result.volume.voxels, voxels)
    assert (result.kind, result.source_files) == ("file", (tmp_path / name,))


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "packed.nrrd", "packed.mha", "a.MHA"])
def test_itk_voxels_come_in_as_int16_and_outlive_the_reader(
    tmp_path: Path, rng: np.random.Generator, name: str
) -> None:
    voxels = ct(rng, (40, 30, 20))
    save_itk(tmp_path / name.lower(), voxels).rename(tmp_path / name)
    volumes = [read_volume(tmp_path / name).volume for _ in range(3)]
    for volume in volumes:
        assert np.array_equal(volume.voxels, voxels)
        assert volume.voxels.flags.writeable


def test_one_slice_is_a_volume(tmp_path: Path, rng: np.random.Generator) -> None:
    voxels = ct(rng, (5, 4, 1))
    for path in (save_nifti(tmp_path / "a.nii.gz", voxels), save_itk(tmp_path / "a.nrrd", voxels)):
        got = read_volume(path).volume
        assert np.array_equal(got.voxels, voxels)
        assert np.allclose(got.affine, AFFINE, atol=1e-5)


def test_a_fourth_dimension_of_one_is_dropped(tmp_path: Path, rng: np.random.Generator) -> None:
    voxels = ct(rng, (5, 4, 3))
    assert np.array_equal(read_volume(save_nifti(tmp_path / "a.nii.gz", voxels[..., None])).volume.voxels, voxels)
    image = SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.T))])
    SimpleITK.WriteImage(image, str(tmp_path / "a.nrrd"))
    assert np.array_equal(read_volume(tmp_path / "a.nrrd").volume.voxels, voxels)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64])
def test_whole_numbers_of_any_type_become_int16(tmp_path: Path, rng: np.random.Generator, dtype: type) -> None:
    stored = rng.integers(0, 100, (5, 4, 3)).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(stored, AFFINE, dtype=dtype), tmp_path / "a.nii.gz")
    voxels = read_volume(tmp_path / "a.nii.gz").volume.voxels
    assert voxels.dtype == np.int16
    assert np.array_equal(voxels, stored)


@pytest.mark.parametrize("value", [32768, -32769, 0.5])
def test_what_int16_cannot_hold_stays_float32(tmp_path: Path, value: float) -> None:
    stored = np.full((5, 4, 3), -1000.0)
    stored[1, 2, 1] = value
    voxels = read_volume(save_nifti(tmp_path / "a.nii.gz", stored)).volume.voxels
    assert voxels.dtype == np.float32
    assert np.array_equal(voxels, stored)


def test_large_integers_that_do_not_fit_become_float32() -> None:
    voxels = to_voxels(np.array([[[0, 40000]]], dtype=np.uint16))
    assert voxels.dtype == np.float32
    assert voxels.tolist() == [[[0.0, 40000.0]]]


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(1, -1024, np.int16), (2, 7, np.int16), (0.5, 0, np.float32)]
)
def test_slope_and_intercept_are_applied(
    tmp_path: Path, rng: np.random.Generator, slope: float, intercept: float, dtype: type
) -> None:
    stored = rng.integers(0, 4000, (5, 4, 3)).astype(np.uint16)
    stored[0, 0, 0] = 1
    image = nibabel.Nifti1Image(stored, AFFINE)
    image.header.set_slope_inter(slope, intercept)
    nibabel.save(image, tmp_path / "a.nii")
    # nibabel refits the scaling when it saves; put ours back into the stored header.
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[112:120] = struct.pack("<2f", slope, intercept)
    data[352:] = stored.tobytes(order="F")
    (tmp_path / "a.nii").write_bytes(data)
    voxels = read_volume(tmp_path / "a.nii").volume.voxels
    assert voxels.dtype == dtype
    assert np.array_equal(voxels, stored * np.float64(slope) + intercept)


def test_slabs_are_checked_and_scaled_alike(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = rng.normal(size=(6, 5, 17))
    whole = to_voxels(stored.copy(), slope=3.0, intercept=-1.0)
    monkeypatch.setattr("wbcss.io.voxels.SLAB_VOXELS", 60)
    assert np.array_equal(to_voxels(stored.copy(), slope=3.0, intercept=-1.0), whole)


def test_big_endian_and_nifti2_files_are_read(tmp_path: Path, rng: np.random.Generator) -> None:
    voxels = ct(rng)
    swapped = nibabel.Nifti1Image(voxels, AFFINE, header=nibabel.Nifti1Header(endianness=">"))
    nibabel.save(swapped, tmp_path / "big.nii.gz")
    nibabel.save(nibabel.Nifti2Image(voxels, AFFINE), tmp_path / "two.nii.gz")
    for name in ("big.nii.gz", "two.nii.gz"):
        got = read_volume(tmp_path / name).volume
        assert np.array_equal(got.voxels, voxels)
        assert got.voxels.dtype == np.dtype("=i2")
        assert np.allclose(got.affine, AFFINE, atol=1e-5)


def test_a_packed_file_with_the_suffix_of_an_unpacked_one_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    voxels = ct(rng)
    save_nifti(tmp_path / "a.nii.gz", voxels).rename(tmp_path / "a.nii")
    assert np.array_equal(read_volume(tmp_path / "a.nii").volume.voxels, voxels)


def test_header_extensions_are_skipped(tmp_path: Path, rng: np.random.Generator) -> None:
    voxels = ct(rng)
    image = nibabel.Nifti1Image(voxels, AFFINE)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a note " * 20))
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "a.nii.gz").volume.voxels, voxels)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0), ("unknown", 1.0)])
def test_units_are_turned_into_millimeters(tmp_path: Path, rng: np.random.Generator, unit: str, factor: float) -> None:
    affine = AFFINE.copy()
    affine[:3] /= factor
    image = nibabel.Nifti1Image(ct(rng), affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    assert np.allclose(read_volume(tmp_path / "a.nii").volume.affine, AFFINE, rtol=1e-5)


def test_paths_with_spaces_and_foreign_letters_are_read(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = tmp_path / "Größe 体 data"
    folder.mkdir()
    voxels = ct(rng)
    for path in (save_nifti(folder / "ä b.nii.gz", voxels), save_itk(folder / "ä b.nrrd", voxels)):
        assert np.array_equal(read_volume(path).volume.voxels, voxels)


# --- sform and qform -----------------------------------------------------------------------------------------------


def moved(shift: float) -> npt.NDArray[np.float64]:
    affine = AFFINE.copy()
    affine[0, 3] += shift
    return affine


@pytest.mark.parametrize(("sform_code", "qform_code", "used"), [(1, 1, "sform"), (2, 1, "qform"), (4, 2, "qform")])
def test_forms_that_disagree_are_settled_as_simpleitk_does_and_told(
    tmp_path: Path, rng: np.random.Generator, sform_code: int, qform_code: int, used: str
) -> None:
    image = nibabel.Nifti1Image(ct(rng), AFFINE)
    image.set_sform(moved(30.0), sform_code)
    image.set_qform(AFFINE, qform_code)
    nibabel.save(image, tmp_path / "a.nii")
    got = read_volume(tmp_path / "a.nii")
    assert got.warnings == (f"the file's sform and qform differ by up to 30.0 mm; the {used} is used, as by 3D Slicer",)
    itk_origin = np.array(SimpleITK.ReadImage(str(tmp_path / "a.nii")).GetOrigin())
    assert np.allclose(got.volume.affine[:3, 3] * [-1, -1, 1], itk_origin, atol=1e-4)


def test_a_file_that_states_no_orientation_is_taken_as_simpleitk_takes_it_and_told(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    image = nibabel.Nifti1Image(ct(rng), np.diag([0.7, 0.9, 2.5, 1.0]))
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "a.nii")
    got = read_volume(tmp_path / "a.nii")
    itk = SimpleITK.ReadImage(str(tmp_path / "a.nii"))
    axes = np.reshape(itk.GetDirection(), (3, 3)) * itk.GetSpacing()
    assert np.allclose((LPS @ got.volume.affine)[:3, :3], axes, atol=1e-5)
    assert "left and right may be swapped" in got.warnings[0]


def test_rounding_of_an_sform_is_no_shear(tmp_path: Path, rng: np.random.Generator) -> None:
    # SimpleITK refuses this file.
    affine = AFFINE.copy()
    affine[0, 2] = 0.0009
    assert np.allclose(read_volume(save_nifti(tmp_path / "a.nii", ct(rng), affine)).volume.affine, affine, atol=1e-6)


@pytest.mark.parametrize("qform_code", [0, 1])
def test_a_sheared_nifti_is_refused_even_if_its_qform_hides_it(
    tmp_path: Path, rng: np.random.Generator, qform_code: int
) -> None:
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.3
    image = nibabel.Nifti1Image(ct(rng), sheared)
    image.set_qform(sheared, qform_code, strip_shears=True)
    nibabel.save(image, tmp_path / "a.nii.gz")
    with pytest.raises(
        GeometryError, match=r"a\.nii\.gz: grid axes must be perpendicular, got a grid sheared by 6\.84"
    ):
        read_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("field", ["space directions: (1,0,0) (0,2,0) (0,0,3)", "TransformMatrix = 1 0 0 0 1 0 0 0 1"])
def test_a_sheared_nrrd_or_mha_is_refused(tmp_path: Path, rng: np.random.Generator, field: str) -> None:
    path = tmp_path / ("a.nrrd" if field.startswith("space") else "a.mha")
    save_itk(path, ct(rng), np.diag([-1.0, -2.0, 3.0, 1.0]))
    content = path.read_bytes()
    assert field.encode() in content
    sheared = field.replace("(0,2,0)", "(1,2,0)").replace("1 0 0 0 1", "1 0 0 0.5 1")
    path.write_bytes(content.replace(field.encode(), sheared.encode()))
    with pytest.raises(GeometryError, match="got a grid sheared by"):
        read_volume(path)


def test_a_quaternion_longer_than_one_is_refused() -> None:
    with pytest.raises(GeometryError, match=r"length 1 at most, got \[1\.0, 1\.0, 0\.0\]"):
        affine_from_quaternion((1.0, 1.0, 0.0, 0, 0, 0), (1.0, 1, 1, 1))


# --- real scans ----------------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    [
        "totalsegmentator/example_ct.nii.gz",
        "totalsegmentator/example_ct_sm.nii.gz",
        "tcia_ct/CPTAC-PDA_C3N-00249_chest.nii.gz",
        "openkbp/train/pt_17_ct.nii.gz",
        "sts/STS_019_ct.nii.gz",
    ],
)
def test_real_scans_come_in_as_nibabel_and_simpleitk_read_them(shared_data: Path, name: str) -> None:
    path = shared_data / name
    got = read_volume(path)
    expected = nibabel.load(path)
    assert got.volume.voxels.dtype == np.int16
    assert np.array_equal(got.volume.voxels, np.asarray(expected.dataobj))
    assert np.array_equal(got.volume.affine, expected.affine)
    itk = SimpleITK.ReadImage(str(path))
    assert np.allclose((LPS @ got.volume.affine)[:3, 3], itk.GetOrigin(), atol=1e-3)
    assert got.warnings == ()
