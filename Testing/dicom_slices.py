"""Small CT slices as DICOM files, for tests of what reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, generate_uid

ROWS, COLUMNS = 10, 12
SPACING_ROWS, SPACING_COLUMNS = 0.8, 0.6
SECRETS = ("DOE^JANE", "PID-4711", "19500102")


def dataset(hu: npt.NDArray[Any], position: tuple[float, float, float], **changes: Any) -> Dataset:
    """One CT slice; ``hu`` has shape (rows, columns). Keyword changes replace fields, None removes them."""
    item = Dataset()
    item.PatientName, item.PatientID, item.PatientBirthDate = SECRETS
    item.SOPClassUID = CTImageStorage
    item.SOPInstanceUID = generate_uid()
    item.StudyInstanceUID = "1.2.3"
    item.SeriesInstanceUID = "1.2.3.4"
    item.SeriesNumber = 3
    item.AcquisitionNumber = 1
    item.Modality = "CT"
    item.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    item.ImagePositionPatient = [f"{p:.6g}" for p in position]
    item.PixelSpacing = [SPACING_ROWS, SPACING_COLUMNS]
    item.SliceThickness = 2.5
    item.Rows, item.Columns = hu.shape[:2]
    item.SamplesPerPixel = 1
    item.PhotometricInterpretation = "MONOCHROME2"
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 0
    item.RescaleSlope, item.RescaleIntercept = 1, -1024
    for name, value in changes.items():
        if value is None:
            delattr(item, name)
        else:
            setattr(item, name, value)
    stored = (hu - float(item.RescaleIntercept)) / float(item.RescaleSlope)
    item.PixelData = np.rint(stored).astype("<u2").tobytes()
    return item


def save(item: Dataset, path: Path, syntax: pydicom.uid.UID = ExplicitVRLittleEndian) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = item.SOPClassUID
    meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
    meta.TransferSyntaxUID = syntax if not syntax.is_compressed or syntax.is_deflated else ExplicitVRLittleEndian
    item.file_meta = meta
    if syntax.is_compressed and not syntax.is_deflated:
        item.compress(syntax, generate_instance_uid=False)
    if syntax == ExplicitVRBigEndian:
        item.PixelData = np.frombuffer(item.PixelData, "<u2").astype(">u2").tobytes()
        item["PixelData"].VR = "OW"
    path.parent.mkdir(parents=True, exist_ok=True)
    item.save_as(path, enforce_file_format=True)
    return path


def scan(rng: np.random.Generator, num: int = 6) -> npt.NDArray[np.int16]:
    """HU of shape (slices, rows, columns)."""
    return rng.integers(-1024, 2000, (num, ROWS, COLUMNS)).astype(np.int16)


def save_series(
    folder: Path,
    hu: npt.NDArray[np.int16],
    *,
    z: npt.ArrayLike | None = None,
    prefix: str = "im",
    shift: tuple[float, float] = (0.0, 0.0),
    syntax: pydicom.uid.UID = ExplicitVRLittleEndian,
    **changes: Any,
) -> None:
    """Slices at (-20 + shift, 30 + shift, z), every 2.5 mm unless ``z`` is given; ``shift`` grows per mm of z."""
    heights = np.arange(len(hu)) * 2.5 - 100.0 if z is None else np.asarray(z, dtype=float)
    for n, (plane, height) in enumerate(zip(hu, heights, strict=True)):
        along = height - heights[0]
        position = (-20.0 + shift[0] * along, 30.0 + shift[1] * along, float(height))
        save(dataset(plane, position, **changes), folder / f"{prefix}{n:03d}", syntax)


EXPECTED_AFFINE = np.array([[-0.6, 0, 0, 20], [0, -0.8, 0, -30], [0, 0, 2.5, -100], [0, 0, 0, 1]])
