"""Volume files of every kind come in right, and every bad one is refused with one clear line."""

from __future__ import annotations

import gzip
import itertools
import os
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK

from wbcss.errors import EXIT_INPUT, GeometryError, InputError, VolumeFileError
from wbcss.io import reading
from wbcss.io.nifti import affine_from_quaternion, read_nifti
from wbcss.io.reading import list_inputs, read_volume
from wbcss.io.voxels import to_voxels

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE = np.array([[-0.7, 0, 0, 90.5], [0, 0.9, 0, -120], [0, 0, 2.5, -300], [0, 0, 0, 1]])


def ct(rng: np.random.Generator, shape: tuple[int, ...] = (5, 4, 3)) -> npt.NDArray[np.int16]:
    return rng.integers(-1024, 2000, shape).astype(np.int16)


def save_nifti(path: Path, array: npt.NDArray[np.generic], affine: npt.NDArray[np.float64] = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def save_itk(path: Path, array: npt.NDArray[np.generic], affine: npt.NDArray[np.float64] = AFFINE) -> Path:
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path), path.name.startswith("packed"))
    return path


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


# --- what is refused -----------------------------------------------------------------------------------------------


def nifti_bytes(rng: np.random.Generator) -> bytearray:
    return bytearray(nibabel.Nifti1Image(ct(rng, (40, 30, 20)), AFFINE).to_bytes())


def with_field(rng: np.random.Generator, offset: int, code: str, *values: float) -> bytes:
    data = nifti_bytes(rng)
    struct.pack_into("<" + code, data, offset, *values)
    return bytes(data)


def saved(path: Path, array: npt.NDArray[np.generic], *, vector: bool = False) -> bytes:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=vector), str(path))
    return path.read_bytes()


BAD_FILES: list[tuple[str, Callable[[Path, np.random.Generator], bytes], type[InputError], str]] = [
    ("empty.nii", lambda p, r: b"", VolumeFileError, r"0 bytes are too few for its header"),
    ("text.nii", lambda p, r: b"Dear colleague, " * 60, VolumeFileError, r"its first bytes are no NIfTI header"),
    ("text.nii.gz", lambda p, r: b"Dear colleague, " * 60, VolumeFileError, r"its first bytes are no NIfTI header"),
    ("text.nrrd", lambda p, r: b"Dear colleague, " * 60, VolumeFileError, r"not a readable NRRD file"),
    ("text.mha", lambda p, r: b"Dear colleague, " * 60, VolumeFileError, r"not a readable MetaImage file"),
    ("empty.mha", lambda p, r: b"", VolumeFileError, r"not a readable MetaImage file"),
    (
        "short.nii",
        lambda p, r: bytes(nifti_bytes(r)[:20000]),
        VolumeFileError,
        r"truncated: its header promises 48000 bytes of voxels, 19648 are there",
    ),
    ("header.nii", lambda p, r: bytes(nifti_bytes(r)[:300]), VolumeFileError, r"300 bytes are too few"),
    (
        "short.nii.gz",
        lambda p, r: gzip.compress(nifti_bytes(r))[:-3000],
        VolumeFileError,
        r"truncated: its compressed data ends too early",
    ),
    (
        "cut.nii.gz",
        lambda p, r: gzip.compress(nifti_bytes(r)[:20000]),
        VolumeFileError,
        r"truncated: its header promises 48000 bytes of voxels, 19648 are there",
    ),
    (
        "bit.nii.gz",
        lambda p, r: gzip.compress(nifti_bytes(r))[:-8] + b"\1\2\3\4" + struct.pack("<I", 48352),
        VolumeFileError,
        r"damaged: CRC check failed",
    ),
    ("pair.nii", lambda p, r: with_field(r, 344, "4s", b"ni1\0"), VolumeFileError, r"second file \(\.img\)"),  # type: ignore[arg-type]
    (
        "huge.nii",
        lambda p, r: with_field(r, 42, "3h", 32767, 32767, 32767),
        VolumeFileError,
        r"promises 70362\d+ bytes",
    ),
    ("zero.nii", lambda p, r: with_field(r, 46, "h", 0), VolumeFileError, r"sizes are damaged"),
    ("rgb.nii", lambda p, r: with_field(r, 70, "h", 128), VolumeFileError, r"one real number each, got RGB"),
    ("complex.nii", lambda p, r: with_field(r, 70, "h", 32), VolumeFileError, r"got complex"),
    ("type.nii", lambda p, r: with_field(r, 70, "h", 99), VolumeFileError, r"got type code 99"),
    ("offset.nii", lambda p, r: with_field(r, 108, "f", 10), VolumeFileError, r"first voxel at byte 10"),
    ("nan.nii", lambda p, r: with_field(r, 280, "f", np.nan), GeometryError, r"affine must be finite"),
    ("flat.nii", lambda p, r: with_field(r, 280, "12f", *[0.0] * 12), GeometryError, r"affine is singular"),
    (
        "far.nii",
        lambda p, r: with_field(r, 123, "B", 1),
        GeometryError,
        r"must be 0\.01 to 100 mm, got 700x900x2500 mm",
    ),
    (
        "spacing.nii",
        lambda p, r: (
            with_field(r, 252, "2h9f", 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)[:80]
            + struct.pack("<3f", 0, 1, 1)
            + with_field(r, 252, "2h", 1, 0)[92:]
        ),
        GeometryError,
        r"spacing must be above 0 mm, got 0x1x1 mm",
    ),
    (
        "2d.nii",
        lambda p, r: bytes(nibabel.Nifti1Image(ct(r, (5, 4)), AFFINE).to_bytes()),
        VolumeFileError,
        r"must have 3 dimensions, got a 2D image of 5x4",
    ),
    (
        "4d.nii",
        lambda p, r: bytes(nibabel.Nifti1Image(ct(r, (5, 4, 3, 2)), AFFINE).to_bytes()),
        VolumeFileError,
        r"got a 4D image of 5x4x3x2; extract one volume first",
    ),
    ("2d.nrrd", lambda p, r: saved(p, ct(r, (5, 4))), VolumeFileError, r"got a 2D image of 4x5"),
    ("4d.nrrd", lambda p, r: saved(p, ct(r, (2, 3, 4, 5))), VolumeFileError, r"got a 4D image of 5x4x3x2"),
    ("4d.mha", lambda p, r: saved(p, ct(r, (2, 3, 4, 5))), VolumeFileError, r"got a 4D image of 5x4x3x2"),
    (
        "rgb.nrrd",
        lambda p, r: saved(p, np.zeros((3, 4, 5, 3), np.uint8), vector=True),
        VolumeFileError,
        r"one number each, got 3 \(color or vector image\)",
    ),
    (
        "rgb.mha",
        lambda p, r: saved(p, np.zeros((3, 4, 5, 3), np.uint8), vector=True),
        VolumeFileError,
        r"got 3 \(color",
    ),
    ("short.nrrd", lambda p, r: saved(p, ct(r, (9, 9, 9)))[:-200], VolumeFileError, r"9x9x9 voxels cannot be read"),
    ("short.mha", lambda p, r: saved(p, ct(r, (9, 9, 9)))[:-200], VolumeFileError, r"9x9x9 voxels cannot be read"),
    (
        "zero.nrrd",
        lambda p, r: saved(p, ct(r, (9, 9, 9))).replace(b"(1,0,0)", b"(0,0,0)"),
        GeometryError,
        r"spacing must be above 0 mm, got 0x1x1 mm",
    ),
    (
        "zero.mha",
        lambda p, r: saved(p, ct(r, (9, 9, 9))).replace(b"ElementSpacing = 1", b"ElementSpacing = 0"),
        GeometryError,
        r"spacing must be above 0 mm, got 0x1x1 mm",
    ),
    (
        "huge.mha",
        lambda p, r: saved(p, ct(r, (9, 9, 9))).replace(b"DimSize = 9 9 9", b"DimSize = 99999 9999 9999"),
        VolumeFileError,
        r"99999x9999x9999 voxels, more than fit in memory",
    ),
]


@pytest.mark.parametrize(("name", "content", "error", "message"), BAD_FILES, ids=[row[0] for row in BAD_FILES])
def test_a_bad_file_gets_one_clear_line_and_itk_stays_silent(
    tmp_path: Path,
    rng: np.random.Generator,
    capfd: pytest.CaptureFixture[str],
    name: str,
    content: Callable[[Path, np.random.Generator], bytes],
    error: type[InputError],
    message: str,
) -> None:
    path = tmp_path / name
    path.write_bytes(content(path, rng))
    with pytest.raises(error, match=message) as caught:
        read_volume(path)
    assert caught.value.exit_code == EXIT_INPUT
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("damage", [bytes(100), b"\xff" * 100])
def test_packed_mha_with_damaged_voxels_is_refused_although_itk_reads_on(
    tmp_path: Path, rng: np.random.Generator, capfd: pytest.CaptureFixture[str], damage: bytes
) -> None:
    path = save_itk(tmp_path / "packed.mha", ct(rng, (30, 30, 30)))
    content = bytearray(path.read_bytes())
    content[-2000:-1900] = damage
    path.write_bytes(content)
    with pytest.raises(VolumeFileError, match=r"truncated or damaged: its 30x30x30 voxels cannot be read"):
        read_volume(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_values_that_are_not_numbers_are_counted(tmp_path: Path, suffix: str) -> None:
    voxels = np.full((5, 4, 3), -1000.5, np.float32)
    voxels[0, 0, 0] = np.nan
    voxels[1, 2, 0] = np.inf
    voxels[4, 3, 2] = -np.inf
    save: Callable[..., Path] = save_nifti if suffix == ".nii.gz" else save_itk
    with pytest.raises(VolumeFileError, match="got 3 of 60 that are NaN or infinite"):
        read_volume(save(tmp_path / f"a{suffix}", voxels))


def test_numbers_too_large_for_float32_count_as_infinite() -> None:
    with pytest.raises(VolumeFileError, match="got 1 of 2 that are NaN or infinite"):
        to_voxels(np.array([[[1e300, 0.0]]]))


def test_numbers_that_are_not_real_are_refused() -> None:
    with pytest.raises(VolumeFileError, match="at most 64 bits, got complex128"):
        to_voxels(np.zeros((1, 1, 1), np.complex128))


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    for name in ("gone.nii.gz", "gone", "gone/deeper.nrrd"):
        with pytest.raises(VolumeFileError, match=rf"{name} does not exist"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["a.png", "a.nii.zip", "a", "a.nhdr"])
def test_an_unknown_kind_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(200))
    with pytest.raises(
        VolumeFileError, match=rf"{name} is of an unknown kind; expected \.nii\.gz, \.nii, \.nrrd, \.mha"
    ):
        read_volume(tmp_path / name)


def test_a_single_dicom_file_is_answered_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "slice").write_bytes(bytes(128) + b"DICM" + bytes(10))
    with pytest.raises(VolumeFileError, match="is a single DICOM file; give the folder"):
        read_volume(tmp_path / "slice")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
def test_a_file_without_permission_is_told_as_such(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (save_nifti if name.endswith("gz") else save_itk)(tmp_path / name, ct(rng))

    # Simulated: tests may run as root, whom permission bits do not stop.
    def refuse(self: Path, *args: object, **kwargs: object) -> object:
        raise PermissionError(13, os.strerror(13), str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(VolumeFileError, match=rf"{name} cannot be opened: permission denied"):
        read_volume(tmp_path / name)


def test_a_failing_disk_is_told_as_such(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_nifti(tmp_path / "a.nii", ct(rng))

    def fail(path: Path) -> object:
        raise OSError(5, os.strerror(5), str(path))

    monkeypatch.setattr(reading, "read_nifti", fail)
    with pytest.raises(VolumeFileError, match=r"a\.nii cannot be read: Input/output error"):
        read_volume(path)


def test_a_series_cannot_be_chosen_in_a_file(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match=r"only in a folder of DICOM files, .*a\.nii is a file"):
        read_volume(save_nifti(tmp_path / "a.nii", ct(rng)), series="3")


def test_values_without_air_are_doubted(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii", np.arange(60, dtype=np.uint8).reshape(5, 4, 3))
    (warning,) = read_volume(path).warnings
    assert warning.startswith("values run from 0 to 59, but a CT in Hounsfield units has air near -1000")


def test_the_header_alone_tells_what_read_nifti_returns(tmp_path: Path, rng: np.random.Generator) -> None:
    voxels = ct(rng)
    header, stored = read_nifti(save_nifti(tmp_path / "a.nii.gz", voxels))
    assert header.shape == (5, 4, 3)
    assert np.array_equal(stored, voxels)
    assert stored.flags.f_contiguous


# --- batches -------------------------------------------------------------------------------------------------------


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
