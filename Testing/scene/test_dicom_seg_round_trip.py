"""DICOM in, organs out as DICOM SEG and .seg.nrrd: read by highdicom and by slicer-core, they are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import numpy.typing as npt
import pytest
from dicom_slices import save_series, scan
from mrml_nodes import tag_of, volume_node

from wbcss.arrayfile import write_array
from wbcss.catalogue import find
from wbcss.dicomseg import read_source, write_dicom_seg
from wbcss.io.reading import read_volume
from wbcss.io.writing import write_segmentation
from wbcss.protocol import OrganItem
from wbcss.terminology import Code, Terminology
from wbcss.volume import Affine

pytestmark = pytest.mark.scene

ORGANS = find(("liver", "kidney_left", "kidney_right", "kidney_cyst_left", "vertebrae_L1", "spleen"))
TAGS = ("DICOM.SegmentAlgorithmType", "DICOM.SegmentAlgorithmName")


@pytest.fixture
def outputs(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder with a series ``ct`` and the two results of it, ``organs.seg.nrrd`` and ``organs.seg.dcm``.

    The labels are drawn here, so that left, right and midline organs are among them, and some are not found.
    """
    orientation = [0.8, 0.6, 0, -0.6, 0.8, 0]
    hu = scan(rng, 8)
    save_series(tmp_path / "ct", hu, FrameOfReferenceUID="1.2.3.9", PatientSex="F", ImageOrientationPatient=orientation)
    read = read_volume(tmp_path / "ct")
    labels = rng.choice(np.array([0, *(organ.label for organ in ORGANS[:-1])], dtype=np.uint16), read.volume.shape)
    write_segmentation(tmp_path / "organs.seg.nrrd", labels, read.volume.affine, ORGANS, reference=read.volume)
    source, affine = read_source(read.source_files), read.volume.affine
    write_dicom_seg(tmp_path / "organs.seg.dcm", labels, affine, ORGANS, source, model_sha256={})
    return tmp_path


def _code(items: Any) -> Code | None:
    if not items:
        return None
    return Code(scheme=items[0].CodingSchemeDesignator, value=items[0].CodeValue, meaning=items[0].CodeMeaning)


def _item(segment: Any) -> OrganItem:
    """A segment of the object as the scene bridge takes it."""
    kind = segment.SegmentedPropertyTypeCodeSequence
    category, type_code = _code(segment.SegmentedPropertyCategoryCodeSequence), _code(kind)
    assert category is not None
    assert type_code is not None
    modifier = _code(kind[0].get("SegmentedPropertyTypeModifierCodeSequence"))
    region = segment.get("AnatomicRegionSequence")
    region_modifier = _code(region[0].get("AnatomicRegionModifierSequence")) if region else None
    terminology = Terminology(
        category=category,
        type=type_code,
        type_modifier=modifier,
        region=_code(region),
        region_modifier=region_modifier,
    )
    color = highdicom.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue).to_rgb()
    return OrganItem(
        name=segment.TrackingID,
        label=segment.SegmentNumber,
        display_name=segment.SegmentLabel,
        group="",
        color_rgb=tuple(int(channel) for channel in color),
        terminology=str(terminology),
        tasks=(),
    )


def _voxels(slicer: Any, node: Any, name: str, volume: Any) -> npt.NDArray[np.bool_]:
    voxels: npt.NDArray[Any] = slicer.util.arrayFromSegmentBinaryLabelmap(node, name, volume)
    return voxels.astype(bool)


def test_the_object_and_the_segmentation_file_are_the_same_to_slicer(slicer: Any, outputs: Path) -> None:
    from WholeBodyCSSLib.SceneBridge import SceneBridge

    read = read_volume(outputs / "ct")
    volume = volume_node(slicer, np.asarray(read.volume.voxels), read.volume.affine)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(outputs / "organs.seg.nrrd"))
    of_file = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "file")
    assert storage.ReadData(of_file)

    segmentation = highdicom.seg.segread(outputs / "organs.seg.dcm")
    numbers = segmentation.get_volume(combine_segments=True, relabel=False)
    affine: Affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ numbers.affine
    labels = write_array(outputs / "numbers.npy", numbers.array.astype(np.uint16), affine)
    of_object = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "object")
    frame = volume_node(slicer, np.zeros(numbers.array.shape, dtype=np.int16), affine)
    items = [_item(segment) for segment in segmentation.SegmentSequence]
    SceneBridge().showOrgans(labels, items, frame, of_object)

    written = of_file.GetSegmentation()
    found = {name for name in written.GetSegmentIDs() if _voxels(slicer, of_file, name, volume).any()}
    assert set(of_object.GetSegmentation().GetSegmentIDs()) == found
    assert found == {organ.name for organ in ORGANS[:-1]}
    for item, segment in zip(items, segmentation.SegmentSequence, strict=True):
        other = written.GetSegment(item.name)
        np.testing.assert_array_equal(
            _voxels(slicer, of_object, item.name, volume), _voxels(slicer, of_file, item.name, volume)
        )
        assert item.display_name == other.GetName()
        assert item.terminology == other.GetTerminology()
        np.testing.assert_allclose(np.array(item.color_rgb) / 255, other.GetColor(), atol=2 / 255)
        assert [segment.SegmentAlgorithmType, segment.SegmentAlgorithmName] == [tag_of(other, tag) for tag in TAGS]
