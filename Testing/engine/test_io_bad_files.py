"""Every file that holds no usable volume is refused with one clear line, and ITK stays silent."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK
from volume_files import AFFINE, ct, save_itk, save_nifti

from wbcss.errors import EXIT_INPUT, GeometryError, InputError, VolumeFileError
from wbcss.io import reading
from wbcss.io.nifti import read_nifti
from wbcss.io.reading import read_volume
from wbcss.io.voxels import to_voxels


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


def test_the_header_alone_tells_what_read_nifti_returns(tmp_path: Path, rng: np.random.Generator) -> None:
    voxels = ct(rng)
    header, stored = read_nifti(save_nifti(tmp_path / "a.nii.gz", voxels))
    assert header.shape == (5, 4, 3)
    assert np.array_equal(stored, voxels)
    assert stored.flags.f_contiguous
