"""Organs as a DICOM Segmentation object that belongs to the series they were found in.

highdicom and pydicom are imported when an object is wanted, not before: nothing else here needs them. Of the source
only what DICOM requires of a new object of the same patient and study is read, so nothing else can be passed on.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import __version__
from .catalogue import Organ
from .errors import InputError, OutputError
from .io.atomic import atomic_path
from .io.itkfile import LPS_TO_RAS
from .terminology import Code
from .volume import Affine, LabelMap

ALGORITHM = "WholeBodyCSS"

_SERIES_NUMBER_STEP = 100
"""Added to the number of the source series, as 3D Slicer does, so that lists show the object after its source."""

# Patient and study: the attributes that every DICOM object must have (type 1 and 2), of identifiers none but these.
_PATIENT_AND_STUDY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
_IMAGE = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Modality", "FrameOfReferenceUID",
    "PositionReferenceIndicator", "SpecificCharacterSet", "Rows", "Columns", "PixelSpacing", "SliceThickness",
    "ImagePositionPatient", "ImageOrientationPatient", "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)  # fmt: skip
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "FrameOfReferenceUID")


@dataclass(frozen=True, eq=False)
class DicomSource:
    """The slices that were segmented, as far as a segmentation object must know them.

    Attributes:
        slices: pydicom datasets without pixels, in the order of the slices.
    """

    slices: tuple[Any, ...]


def check_installed() -> None:
    """Refuse to begin without highdicom. Raises InputError."""
    if importlib.util.find_spec("highdicom") is None:
        raise InputError(
            "--dicom-seg needs the package highdicom, which is not installed: run `pip install highdicom`, "
            "or leave --dicom-seg out"
        )


def check_dicom_folder(path: Path | None) -> None:
    """Refuse an input that can have no DICOM SEG; None means that it is no file. Raises InputError."""
    if path is None or not path.is_dir():
        given = "voxels in memory" if path is None else str(path)
        raise InputError(f"--dicom-seg needs a folder of DICOM slices as input, got {given}; leave --dicom-seg out")


def read_source(files: Sequence[Path]) -> DicomSource:
    """Read what an object must know of its source. Raises InputError naming what the slices lack."""
    import pydicom

    wanted = [*_PATIENT_AND_STUDY, *_IMAGE]
    slices = []
    for file in files:
        try:
            item = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=wanted, force=True)
            # Some scanners leave required but possibly empty attributes out.
            for name in _PATIENT_AND_STUDY:
                if name not in item and name not in _NEEDED:
                    setattr(item, name, "")
            lacking = [name for name in _NEEDED if not item.get(name)]
        except Exception as error:
            raise InputError(
                f"the header of the slice {file.name} cannot be read for a DICOM SEG ({type(error).__name__}); "
                "leave --dicom-seg out"
            ) from error
        if lacking:
            raise InputError(
                f"a DICOM SEG needs slices with {', '.join(_NEEDED)}, {file.name} lacks {', '.join(lacking)}; "
                "leave --dicom-seg out"
            )
        slices.append(item)
    return DicomSource(tuple(slices))


def write_dicom_seg(
    path: Path,
    labels: LabelMap,
    affine: Affine,
    organs: Sequence[Organ],
    source: DicomSource,
    *,
    model_sha256: Mapping[str, str],
) -> tuple[Organ, ...]:
    """Write the organs that have voxels as segments 1, 2 ... in label order, and return them.

    Nothing is written if there are none: the object cannot be empty.

    Args:
        path: The file, whole or not at all; by custom ``NAME.seg.dcm``.
        labels: Shape (I, J, K), label values.
        affine: (i, j, k, 1) to RAS mm, shape (4, 4).
        organs: What may be in ``labels``.
        source: The slices that were segmented, in their order along k.
        model_sha256: Names and hashes of the weights, for the description of the algorithm.

    Raises:
        OutputError: The disk refuses, or the source series is no basis for an object.
    """
    counts = np.bincount(labels.ravel(order="K"), minlength=1)
    found = [organ for organ in organs if organ.label < counts.size and counts[organ.label]]
    found = sorted(found, key=lambda organ: organ.label)
    if not found:
        return ()
    try:
        segmentation = _build(labels, affine, found, source, model_sha256)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OutputError(f"the series is no basis for a DICOM SEG: {error}; leave --dicom-seg out") from error
    with atomic_path(path) as temporary:
        segmentation.save_as(temporary)
    return tuple(found)


def _build(
    labels: LabelMap,
    affine: Affine,
    found: Sequence[Organ],
    source: DicomSource,
    model_sha256: Mapping[str, str],
) -> Any:
    import highdicom

    # Its messages name instances of the source.
    logging.getLogger("highdicom").setLevel(logging.WARNING)
    first = source.slices[0]
    return highdicom.seg.Segmentation(
        source_images=list(source.slices),
        pixel_array=highdicom.Volume(
            _segment_numbers(labels, found),
            _affine_lps(affine),
            coordinate_system="PATIENT",
            frame_of_reference_uid=first.FrameOfReferenceUID,
        ),
        segmentation_type="BINARY",
        segment_descriptions=_descriptions(found, model_sha256),
        series_instance_uid=highdicom.UID(),
        series_number=int(first.get("SeriesNumber") or 0) + _SERIES_NUMBER_STEP,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=ALGORITHM,
        manufacturer_model_name=ALGORITHM,
        software_versions=__version__,
        device_serial_number="none",
        content_label="ORGANS",
        content_description=f"Organs by {ALGORITHM} {__version__}",
        series_description=f"Organs by {ALGORITHM}",
    )


def _segment_numbers(labels: LabelMap, found: Sequence[Organ]) -> npt.NDArray[Any]:
    """Number of the segment at each voxel, [k, j, i] = [slice, row, column], 0 where there is none."""
    dtype = np.uint8 if len(found) <= 255 else np.uint16
    numbers = np.zeros(1 << 16, dtype=dtype)
    for number, organ in enumerate(found, start=1):
        numbers[organ.label] = number
    return np.ascontiguousarray(numbers[labels.T])


def _affine_lps(affine: Affine) -> Affine:
    """(k, j, i, 1) to DICOM's LPS mm."""
    lps: Affine = LPS_TO_RAS @ affine[:, [2, 1, 0, 3]]
    return lps


def _descriptions(found: Sequence[Organ], model_sha256: Mapping[str, str]) -> list[Any]:
    import highdicom
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=ALGORITHM,
        family=codes.cid7162.ArtificialIntelligence,
        version=__version__,
        parameters=dict(model_sha256),
    )
    return [_description(number, organ, algorithm) for number, organ in enumerate(found, start=1)]


def _description(number: int, organ: Organ, algorithm: Any) -> Any:
    import highdicom

    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=organ.display_name[:64],
        segmented_property_category=_concept(organ.category),
        segmented_property_type=_concept(organ.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        # The organ's own name comes back as the id of the segment.
        tracking_id=organ.name,
        tracking_uid=highdicom.UID(),
        anatomic_regions=None if organ.region is None else [_concept(organ.region)],
        display_color=highdicom.color.CIELabColor.from_rgb(*organ.color_rgb),
    )
    description.SegmentAlgorithmName = f"{ALGORITHM} {__version__}"  # as in a scene and in a .seg.nrrd
    # highdicom knows no modifiers: left and right would be lost.
    if organ.type_modifier is not None:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [_concept(organ.type_modifier)]
    if organ.region is not None and organ.region_modifier is not None:
        region = description.AnatomicRegionSequence[0]
        region.AnatomicRegionModifierSequence = [_concept(organ.region_modifier)]
    return description


def _concept(code: Code) -> Any:
    import highdicom

    return highdicom.sr.CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)
