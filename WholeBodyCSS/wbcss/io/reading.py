"""What a user names on the command line, read as volumes and label maps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import GeometryError, InputError, VolumeFileError
from ..volume import Volume
from .dicom import dicom_files, read_dicom_folder
from .dicomfile import is_dicom
from .itkfile import read_itk
from .labelmap import Labels, labels_json_path, read_labels
from .nifti import read_nifti
from .voxels import check_grid, to_voxels

__all__ = ["InputItem", "Labels", "ReadResult", "list_inputs", "read_labels", "read_volume"]

VOLUME_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Files read as volumes; upper case is the same."""

_UNSAFE = re.compile(r"[^\w.-]+")
_MAX_NAME = 80


@dataclass(frozen=True, eq=False)
class ReadResult:
    """A volume and how it came about.

    Attributes:
        volume: In HU, on the grid that results are given on.
        warnings: One sentence each, without file names, UIDs or other identifiers.
        kind: Whether it came from one file or a DICOM folder.
        source_files: The files it was read from; DICOM slices in their order along the patient.
    """

    volume: Volume
    warnings: tuple[str, ...]
    kind: Literal["file", "dicom"]
    source_files: tuple[Path, ...]


@dataclass(frozen=True)
class InputItem:
    """One volume to process.

    Attributes:
        path: A volume file or a folder of DICOM slices.
        name: Stem for its outputs: safe as a file name on every system and unique in its batch.
    """

    path: Path
    name: str


def read_volume(path: Path, *, series: str | None = None) -> ReadResult:
    """Read a CT volume from ``path``: ``.nii .nii.gz .nrrd .mha`` or a folder that holds DICOM slices.

    Voxels are int16 when the file's values fit without loss, else float32. The array may be a transposed view of what
    the library read: any memory order, values never copied without need.

    Args:
        path: The file or folder.
        series: For a DICOM folder, the number or instance UID of the series to read.

    Raises:
        VolumeFileError: ``path`` is missing, unreadable, of an unknown kind, or does not hold one scalar 3D volume of
            finite values.
        GeometryError: The grid is sheared or otherwise unusable, or DICOM slices are missing.
    """
    try:
        if path.is_dir():
            volume, warnings, files = read_dicom_folder(path, series=series)
            return ReadResult(volume, warnings, "dicom", files)
        if series is not None:
            raise InputError(f"a series can be chosen only in a folder of DICOM files, {path} is a file")
        volume, warnings = _read_file(path)
        return ReadResult(volume, warnings, "file", (path,))
    except OSError as error:
        raise _cannot_open(path, error) from error
    except (VolumeFileError, GeometryError) as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error


def list_inputs(paths: Sequence[Path]) -> tuple[InputItem, ...]:
    """Expand ``paths`` to single volumes, in order: files, DICOM folders, and folders that hold such at any depth.

    Left out of a folder: hidden entries, segmentations (``.seg.nrrd``, and ``.nii.gz`` beside its ``.labels.json``)
    and their ``.confidence.nii.gz``, and files of other kinds. A path given twice counts once.

    Raises:
        VolumeFileError: A path is missing or of an unknown kind, or a folder holds no volume, or both DICOM slices and
            volume files.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        try:
            for item in _expanded(path):
                found.setdefault(item.resolve(), item)
        except OSError as error:
            raise _cannot_open(path, error) from error
    items: list[InputItem] = []
    taken: set[str] = set()
    for item in found.values():
        name = _unique(_safe_name(item), taken)
        # Compared without case: two names that differ in case only are one file on Windows and macOS.
        taken.add(name.casefold())
        items.append(InputItem(item, name))
    return tuple(items)


def volume_suffix(path: Path) -> str:
    """The suffix of ``path`` in lower case, of those in ``VOLUME_SUFFIXES``; "" for any other file."""
    name = path.name.lower()
    return next((suffix for suffix in VOLUME_SUFFIXES if name.endswith(suffix)), "")


def _read_file(path: Path) -> tuple[Volume, tuple[str, ...]]:
    suffix = _checked_suffix(path)
    if suffix in (".nii", ".nii.gz"):
        header, stored = read_nifti(path)
        check_grid(header.affine)
        voxels = to_voxels(stored, slope=header.slope, intercept=header.intercept)
        return Volume(voxels=voxels, affine=header.affine), header.warnings
    # ITK's own messages do not tell a missing permission from a damaged file; the system does.
    with path.open("rb"):
        pass
    image = read_itk(path, image_io="NrrdImageIO" if suffix == ".nrrd" else "MetaImageIO")
    num_values = image.array.shape[3]
    if num_values != 1:
        raise VolumeFileError(f"voxels must be one number each, got {num_values} (color or vector image)")
    return Volume(voxels=to_voxels(image.array[:, :, :, 0]), affine=image.affine), ()


def _checked_suffix(path: Path) -> str:
    suffix = volume_suffix(path)
    if not path.exists():
        raise VolumeFileError(f"{path} does not exist")
    if suffix:
        return suffix
    if is_dicom(path):
        raise VolumeFileError(f"{path} is a single DICOM file; give the folder that holds its series")
    raise VolumeFileError(
        f"{path} is of an unknown kind; expected {', '.join(VOLUME_SUFFIXES)} or a folder of DICOM files"
    )


def _expanded(path: Path) -> list[Path]:
    if not path.is_dir():
        _checked_suffix(path)
        return [path]
    items = _in_folder(path)
    if not items:
        raise VolumeFileError(
            f"the folder {path} holds no volumes; expected DICOM files or {', '.join(VOLUME_SUFFIXES)} in it"
        )
    return items


def _in_folder(folder: Path) -> list[Path]:
    entries = sorted((e for e in folder.iterdir() if not e.name.startswith(".")), key=_natural)
    volumes = [e for e in entries if e.is_file() and volume_suffix(e) and not _is_segmentation(e)]
    has_dicom = bool(dicom_files(folder))
    if has_dicom and volumes:
        raise VolumeFileError(
            f"the folder {folder} holds both DICOM files and volumes such as {volumes[0].name}; give them one by one"
        )
    if has_dicom:
        return [folder]
    # Links to folders are not followed: they may lead in a circle.
    deeper = [item for e in entries if e.is_dir() and not e.is_symlink() for item in _in_folder(e)]
    return volumes + deeper


def _is_segmentation(path: Path) -> bool:
    """Whether it is an output of our own: a batch may be written beside its inputs and run again."""
    return path.name.lower().endswith((".seg.nrrd", ".confidence.nii.gz")) or labels_json_path(path).exists()


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts case_2 before case_10."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return [(int(part), "") if part.isdigit() and part.isascii() else (-1, part) for part in parts]


def _safe_name(path: Path) -> str:
    path = path.absolute()
    suffix = volume_suffix(path)
    stem = path.name[: len(path.name) - len(suffix)] if suffix else path.name
    return _UNSAFE.sub("_", stem).strip("._")[:_MAX_NAME].rstrip("._") or "volume"


def _unique(name: str, taken: set[str]) -> str:
    number, candidate = 2, name
    while candidate.casefold() in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def _cannot_open(path: Path, error: OSError) -> VolumeFileError:
    path = Path(error.filename) if isinstance(error.filename, str) else path
    if isinstance(error, FileNotFoundError):
        return VolumeFileError(f"{path} does not exist")
    if isinstance(error, PermissionError):
        return VolumeFileError(f"{path} cannot be opened: permission denied; ask its owner for access")
    return VolumeFileError(f"{path} cannot be read: {error.strerror or type(error).__name__}")
