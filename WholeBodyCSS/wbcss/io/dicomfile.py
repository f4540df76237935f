"""What a DICOM file says about the slice it holds: geometry and kind of image, and nothing about the patient."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import SimpleITK

from ..errors import VolumeFileError

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
"""SOP class of a CT slice."""

_ENHANCED_CT = (f"{CT_IMAGE}.1", f"{CT_IMAGE}.2")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_NOT_SLICES = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SCREEN SAVE", "DOSE_INFO"}


@dataclass(frozen=True, kw_only=True)
class SliceFile:
    """One DICOM image file. Lengths in mm, directions and positions in DICOM's patient axes (LPS).

    Attributes:
        path: Where it lies.
        instance_uid: Its own identity, to find copies.
        series_uid: Identity of its series.
        series_number: Number of its series as the scanner's list shows it, "" if it has none.
        acquisition: Number of the acquisition within the series, "" if it has none.
        modality: "CT", "MR", ...
        is_slice: False for localizers, screen captures, color images and images without a place in the patient.
        is_enhanced: Many frames in one file.
        shape: (columns, rows).
        spacing_mm: Distance between columns and between rows.
        row_lps: Unit vector along a row (in the direction of growing column number).
        column_lps: Unit vector along a column.
        position_lps: Center of the first pixel.
        thickness_mm: Distance to the next slice as the header tells it; 0 if it does not.
    """

    path: Path
    instance_uid: str
    series_uid: str
    series_number: str
    acquisition: str
    modality: str
    is_slice: bool
    is_enhanced: bool
    shape: tuple[int, int]
    spacing_mm: tuple[float, float]
    row_lps: tuple[float, float, float]
    column_lps: tuple[float, float, float]
    position_lps: tuple[float, float, float]
    thickness_mm: float


def is_dicom(path: Path) -> bool:
    """Whether ``path`` starts as a DICOM file does. Raises OSError: an unreadable slice must not just be missing."""
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:132] == b"DICM" or _starts_with_dataset(start)


def read_slice_file(path: Path) -> SliceFile | None:
    """The facts of the image in ``path``, or None if the file holds no image (a report, a structure set, an index).

    Raises VolumeFileError if it says it is a CT slice and cannot be read.
    """
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("GDCMImageIO")
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        if _claims_ct(path):
            raise VolumeFileError(
                f"the CT slice {path.name} is truncated or damaged; copy the series again or remove that file"
            ) from None
        return None
    return _facts(path, reader)


def _facts(path: Path, reader: SimpleITK.ImageFileReader) -> SliceFile:
    def text(tag: str) -> str:
        # The fields read here are ASCII by the standard; one that is not is as good as missing.
        with contextlib.suppress(UnicodeDecodeError, RuntimeError):
            if reader.HasMetaDataKey(tag):
                return str(reader.GetMetaData(tag)).strip(" \0")
        return ""

    orientation = _numbers(text("0020|0037"), 6)
    position = _numbers(text("0020|0032"), 3)
    spacing = _numbers(text("0028|0030"), 2)
    rows, columns = _numbers(text("0028|0010"), 1), _numbers(text("0028|0011"), 1)
    sop_class = text("0008|0016")
    image_type = {part.strip().upper() for part in text("0008|0008").split("\\")}
    thickness = _numbers(text("0018|0088"), 1) or _numbers(text("0018|0050"), 1) or (0.0,)
    is_enhanced = sop_class in _ENHANCED_CT or int((_numbers(text("0028|0008"), 1) or (1.0,))[0]) > 1
    has_place = bool(orientation and position and spacing and rows and columns)
    is_slice = (
        has_place
        and not sop_class.startswith(_SECONDARY_CAPTURE)
        and not image_type & _NOT_SLICES
        and text("0028|0002") in ("", "1")
    )
    return SliceFile(
        path=path,
        instance_uid=text("0008|0018"),
        series_uid=text("0020|000e"),
        series_number=text("0020|0011"),
        acquisition=text("0020|0012"),
        modality=text("0008|0060"),
        is_slice=is_slice,
        is_enhanced=is_enhanced,
        shape=(int(columns[0]), int(rows[0])) if rows and columns else (0, 0),
        # DICOM gives the distance between rows first.
        spacing_mm=(spacing[1], spacing[0]) if spacing else (0.0, 0.0),
        row_lps=_triple(orientation[:3]),
        column_lps=_triple(orientation[3:]),
        position_lps=_triple(position),
        thickness_mm=abs(thickness[0]),
    )


def _numbers(text: str, count: int) -> tuple[float, ...]:
    """The ``count`` numbers in a backslash-separated field, or () if it holds something else."""
    parts = text.split("\\")
    if len(parts) != count:
        return ()
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        return ()


def _triple(numbers: Iterable[float]) -> tuple[float, float, float]:
    x, y, z = tuple(numbers) or (0.0, 0.0, 0.0)
    return x, y, z


def _starts_with_dataset(start: bytes) -> bool:
    """Old files lack the preamble and begin at once with an element of group 0002 or 0008, explicit or implicit."""
    if len(start) < 8 or start[:2] not in (b"\x02\x00", b"\x08\x00") or start[3] != 0:
        return False
    is_explicit = start[4:6].isalpha() and start[4:6].isupper()
    return is_explicit or int.from_bytes(start[4:8], "little") < 256


def _claims_ct(path: Path) -> bool:
    """Whether the file's own preface, always in plain explicit form, names the CT slice class."""
    with path.open("rb") as file:
        preface = file.read(1024)
    tag = preface.find(b"\x02\x00\x02\x00UI")
    if tag < 0:
        return False
    length = int.from_bytes(preface[tag + 6 : tag + 8], "little")
    return preface[tag + 8 : tag + 8 + length].rstrip(b"\0 ").decode("ascii", "replace") == CT_IMAGE
