"""What users give that cannot work: at least twenty ways, each with the exit code and what the one line must say."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tiny_registry import new_registry
from tiny_scan import AFFINE, make_registry, scan_voxels, write_scan

from wbcss.io.writing import write_volume

Arguments = list["str | Path"]


@dataclass(frozen=True)
class Place:
    """A fresh folder with a registry (``registry``), a good scan (``ct.nii.gz``) and an empty folder ``out``."""

    root: Path

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    @classmethod
    def furnish(cls, root: Path) -> Place:
        """Make the three."""
        make_registry(root / "registry")
        write_scan(root / "ct.nii.gz")
        (root / "out").mkdir()
        return cls(root)


@dataclass(frozen=True)
class BadInput:
    """One wrong use of ``wbcss segment``.

    Attributes:
        what: The mistake in words.
        make: Makes the mistake in a place and returns the arguments after ``wbcss segment``.
        code: Exit code.
        says: A regular expression that the one line must match; it quotes the offending value.
        as_root: Whether it is a mistake for root too, whom no permission stops.
    """

    what: str
    make: Callable[[Place], Arguments]
    code: int
    says: str
    as_root: bool = True


def _with_input(name: str, fill: Callable[[Path], object]) -> Callable[[Place], Arguments]:
    """The mistake is the input file."""

    def make(place: Place) -> Arguments:
        fill(place / name)
        return [place / name, "-o", place / "out/a.nii.gz"]

    return make


def _with_options(*options: str) -> Callable[[Place], Arguments]:
    """The mistake is an option; ``{}`` in it is the place."""

    def make(place: Place) -> Arguments:
        return [place / "ct.nii.gz", "-o", place / "out/a.nii.gz", *(o.replace("{}", str(place.root)) for o in options)]

    return make


def _with_output(name: str, prepare: Callable[[Place], object] = lambda place: None) -> Callable[[Place], Arguments]:
    """The mistake is the output."""

    def make(place: Place) -> Arguments:
        prepare(place)
        return [place / "ct.nii.gz", "-o", place / name if not name.startswith("/") else name, "--preview"]

    return make


def _text(path: Path) -> None:
    path.write_text("Dear colleague, please find enclosed the CT.\n")


def _cut(path: Path) -> None:
    whole = write_scan(path.with_name("whole-" + path.name)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _cut_nrrd(path: Path) -> None:
    write_volume(path, scan_voxels(), AFFINE)
    path.write_bytes(path.read_bytes()[:-200])


def _nifti(path: Path, *, dims: tuple[int, ...] = (3, 12, 12, 12), datatype: int = 4, shear: float = 0.0) -> None:
    """A NIfTI-1 header written by hand, followed by zeros enough for its dimensions."""
    header = bytearray(352)
    sizes = {2: 8, 4: 16, 16: 32, 128: 24, 32: 64}
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, *dims, *([1] * (8 - len(dims))))
    struct.pack_into("<hh", header, 70, datatype, sizes[datatype])
    struct.pack_into("<8f", header, 76, 1, 1.5, 1.5, 1.5, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    struct.pack_into("<f", header, 112, 1)
    struct.pack_into("<hh", header, 252, 0, 1)
    struct.pack_into("<12f", header, 280, 1.5, shear, 0, 0, 0, 1.5, 0, 0, 0, 0, 1.5, 0)
    header[344:348] = b"n+1\0"
    voxels = int(np.prod(dims[1:], dtype=np.int64)) * sizes[datatype] // 8
    path.write_bytes(gzip.compress(bytes(header) + bytes(voxels)))


def _values(value: float) -> Callable[[Path], None]:
    def fill(path: Path) -> None:
        voxels = scan_voxels().astype(np.float32)
        voxels[3, 4, 5] = value
        write_volume(path, voxels, AFFINE)

    return fill


def _color(path: Path) -> None:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.zeros((4, 4, 4, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(image, str(path))


def _dicom_file(path: Path) -> None:
    path.write_bytes(bytes(128) + b"DICM" + bytes(64))


def _corrupt_registry(place: Place) -> Arguments:
    weights = place / "registry/tasks/head/1/decoder.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    return _with_options("--registry", "{}/registry")(place)


def _empty_registry(place: Place) -> Arguments:
    new_registry(place / "empty")
    return _with_options("--registry", "{}/empty")(place)


def _reference(fill: Callable[[Path], object]) -> Callable[[Place], Arguments]:
    def make(place: Place) -> Arguments:
        fill(place / "ref.nii.gz")
        return _with_options("--reference", "{}/ref.nii.gz")(place)

    return make


def _other_labels(path: Path) -> None:
    write_volume(path, np.ones((5, 6, 7), np.uint16), AFFINE)


def _two_to_one(place: Place) -> Arguments:
    shutil.copy(place / "ct.nii.gz", place / "ct2.nii.gz")
    return [place / "ct.nii.gz", place / "ct2.nii.gz", "-o", place / "out/a.nii.gz"]


def _two_with(option: str, value: str) -> Callable[[Place], Arguments]:
    def make(place: Place) -> Arguments:
        shutil.copy(place / "ct.nii.gz", place / "ct2.nii.gz")
        return [place / "ct.nii.gz", place / "ct2.nii.gz", "-o", place / "out", option, value]

    return make


def _two_to_a_file_without_suffix(place: Place) -> Arguments:
    _text(place / "notes")
    return [*_two_to_one(place)[:2], "-o", place / "notes"]


def _wrong_type_of_slices(path: Path) -> None:
    path.mkdir()
    for number in range(3):
        _text(path / f"slice{number}.txt")


def _unreadable(path: Path) -> None:
    write_scan(path)
    path.chmod(0)


def _protected_folder(place: Place) -> None:
    (place / "locked").mkdir()
    (place / "locked").chmod(0o500)


BAD_INPUTS = (
    BadInput("no such file", _with_input("gone.nii.gz", lambda path: None), 2, r"gone\.nii\.gz does not exist"),
    BadInput("unknown kind of file", _with_input("ct.png", _text), 2, r"ct\.png is of an unknown kind; expected"),
    BadInput("text renamed to .nii", _with_input("a.nii", _text), 2, r"a\.nii"),
    BadInput("text renamed to .nii.gz", _with_input("a.nii.gz", _text), 2, r"a\.nii\.gz"),
    BadInput("text renamed to .nrrd", _with_input("a.nrrd", _text), 2, r"a\.nrrd"),
    BadInput("text renamed to .mha", _with_input("a.mha", _text), 2, r"a\.mha"),
    BadInput("empty file", _with_input("a.nii.gz", Path.touch), 2, r"a\.nii\.gz"),
    BadInput("truncated .nii.gz", _with_input("a.nii.gz", _cut), 2, r"a\.nii\.gz"),
    BadInput("truncated .nrrd", _with_input("a.nrrd", _cut_nrrd), 2, r"a\.nrrd"),
    BadInput("four dimensions", _with_input("a.nii.gz", lambda p: _nifti(p, dims=(4, 8, 8, 8, 5))), 2, "5"),
    BadInput("colors (.nii.gz)", _with_input("a.nii.gz", lambda p: _nifti(p, datatype=128)), 2, "RGB|color|128"),
    BadInput("colors (.nrrd)", _with_input("a.nrrd", _color), 2, "got 3 .color or vector"),
    BadInput("complex numbers", _with_input("a.nii.gz", lambda p: _nifti(p, datatype=32)), 2, "complex|32"),
    BadInput("sheared grid", _with_input("a.nii.gz", lambda p: _nifti(p, shear=0.5)), 2, "sheared by 18"),
    BadInput("no voxels", _with_input("a.nii.gz", lambda p: _nifti(p, dims=(3, 12, 0, 12))), 2, r"\b0\b"),
    BadInput("NaN voxel", _with_input("a.nii.gz", _values(float("nan"))), 2, "finite|NaN"),
    BadInput("infinite voxel", _with_input("a.nii.gz", _values(float("inf"))), 2, "finite|inf"),
    BadInput("empty folder", _with_input("dicom", Path.mkdir), 2, "folder .*dicom holds no volumes"),
    BadInput("folder of texts", _with_input("dicom", _wrong_type_of_slices), 2, "folder .*dicom holds no volumes"),
    BadInput("single DICOM file", _with_input("slice1", _dicom_file), 2, "slice1 is a single DICOM file"),
    BadInput("file not readable", _with_input("a.nii.gz", _unreadable), 2, "permission", as_root=False),
    BadInput("output of unknown kind", _with_output("out/a.mha"), 2, r"got 'a\.mha'"),
    BadInput("output without a name", _with_output("out/.seg.nrrd"), 2, r"got '\.seg\.nrrd'"),
    BadInput("output in a missing folder", _with_output("gone/a.nii.gz"), 2, "the folder .*gone does not exist"),
    BadInput("output where nothing is written", _with_output("/proc/a.nii.gz"), 2, r"cannot write /proc/a\.nii\.gz"),
    BadInput(
        "output folder write-protected", _with_output("locked/a.nii.gz", _protected_folder), 2, "locked", as_root=False
    ),
    BadInput("output name too long", _with_output("out/" + "x" * 300 + ".nii.gz"), 2, "too long"),
    BadInput(
        "preview name taken by a folder",
        _with_output("out/a.nii.gz", lambda place: (place / "out/a.preview.png").mkdir()),
        2,
        r"a\.preview\.png must be a file, but is a folder",
    ),
    BadInput("several inputs to one file", _two_to_one, 2, r"-o must be a folder for 2 inputs, got .*'a\.nii\.gz'"),
    BadInput("several inputs to an existing file", _two_to_a_file_without_suffix, 2, "must be a folder, but .*notes"),
    BadInput("--series with several inputs", _two_with("--series", "1.2.3"), 2, "--series goes with one input, got 2"),
    BadInput("--series with a file", _with_options("--series", "1.2.3"), 2, "series can be chosen only in a folder"),
    BadInput("unknown organ", _with_options("--organs", "livr"), 2, "unknown organ 'livr'.*liver"),
    BadInput("organ left out between commas", _with_options("--organs", "liver,,spleen"), 2, "got 'liver,,spleen'"),
    BadInput("unknown task", _with_options("--tasks", "feet"), 2, "unknown task 'feet'"),
    BadInput("organs and tasks", _with_options("--organs", "liver", "--tasks", "trunk"), 2, "--tasks: not allowed"),
    BadInput("unknown quality", _with_options("--quality", "superb"), 2, "'superb'.*fast"),
    BadInput("no threads", _with_options("--threads", "0"), 2, "threads must be at least 1, got 0"),
    BadInput("threads in words", _with_options("--threads", "two"), 2, "--threads: invalid int value: 'two'"),
    BadInput("unknown device", _with_options("--device", "tpu"), 2, "device must be .* got 'tpu'"),
    BadInput("device that is not there", _with_options("--device", "cuda:99"), 3, "device 'cuda:99' is not on this"),
    BadInput("no such registry", _with_options("--registry", "{}/gone"), 2, "no registry at .*gone"),
    BadInput("registry without tasks", _empty_registry, 2, "must hold at least one task, got none"),
    BadInput("registry with changed weights", _corrupt_registry, 2, r"decoder\.safetensors was changed"),
    BadInput("reference is missing", _with_options("--reference", "{}/gone.nii.gz"), 2, r"gone\.nii\.gz"),
    BadInput("reference is a text", _reference(_text), 2, r"ref\.nii\.gz"),
    BadInput("reference is no label map", _reference(write_scan), 2, "whole numbers in 0..65535, got -1000"),
    BadInput("reference on another grid", _reference(_other_labels), 2, r"\(12, 12, 12\), got \(5, 6, 7\)"),
    BadInput("no output", lambda place: [place / "ct.nii.gz"], 2, "required: -o"),
    BadInput("unknown option", _with_options("--fast"), 2, "unrecognized arguments: --fast"),
)


def applies(bad: BadInput) -> bool:
    """Whether the mistake can be made by this user on this system."""
    return bad.as_root or (hasattr(os, "geteuid") and os.geteuid() != 0)
