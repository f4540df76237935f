"""Volumes out of, and organs into, the real MRML scene of the slicer-core wheel."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wbcss import __version__
from wbcss.arrayfile import read_array, write_array
from wbcss.errors import GeometryError
from wbcss.protocol import OrganItem

pytestmark = pytest.mark.scene

LIVER = (
    "Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~Anatomic codes - DICOM master list~^^~^^"
)


@pytest.fixture
def slicer() -> Any:
    """The slicer package over a new scene, with what the bridge uses of the application."""
    import slicer  # only in this tier: the wheel is not everywhere
    import slicer.util

    scene = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetMRMLScene(scene)
    segmentations = slicer.vtkSlicerSegmentationsModuleLogic()
    segmentations.SetMRMLScene(scene)
    segmentations.SetMRMLApplicationLogic(application)
    application.SetModuleLogic("Segmentations", segmentations)
    slicer.mrmlScene = scene
    slicer.modules = types.SimpleNamespace(segmentations=types.SimpleNamespace(logic=lambda: segmentations))
    return slicer


@pytest.fixture
def bridge(slicer: Any) -> Any:
    from WholeBodyCSSLib.SceneBridge import SceneBridge

    return SceneBridge()


def _organ(name: str, label: int) -> OrganItem:
    return OrganItem(
        name=name,
        label=label,
        display_name=name.title(),
        group="abdomen",
        color_rgb=(51, 102, 255),
        terminology=LIVER,
        tasks=("wholebody",),
    )


def _volume(slicer: Any, voxels_ijk: np.ndarray[Any, Any]) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ct")
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(voxels_ijk.T))
    return node


def _matrix(slicer: Any, rows: list[list[float]]) -> Any:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            matrix.SetElement(row, column, rows[row][column])
    return matrix


def _tag(segment: Any, name: str) -> str:
    import vtk

    value = vtk.reference("")
    assert segment.GetTag(name, value), f"no tag {name}"
    return str(value)


OBLIQUE = [[0.0, -1.8, 0.0, 7.0], [1.2, 0.0, 0.6, -3.0], [0.9, 0.0, -0.8, 11.0], [0.0, 0.0, 0.0, 1.0]]
MIRROR_AND_SHIFT = [[-1.0, 0.0, 0.0, 100.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]


def test_voxels_leave_in_ijk_order_at_their_place_in_the_world(slicer: Any, bridge: Any, tmp_path: Path) -> None:
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    node = _volume(slicer, voxels)
    node.SetIJKToRASMatrix(_matrix(slicer, OBLIQUE))
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(_matrix(slicer, MIRROR_AND_SHIFT))
    node.SetAndObserveTransformNodeID(transform.GetID())
    handed = bridge.writeVolume(node, tmp_path / "ct.npy")
    np.testing.assert_array_equal(read_array(handed), voxels)
    np.testing.assert_allclose(handed.affine_ras_mm, np.array(MIRROR_AND_SHIFT) @ np.array(OBLIQUE), atol=1e-12)


@pytest.mark.parametrize(
    ("stored", "values", "handed"),
    [
        ("uint8", (0, 255), "int16"),
        ("uint16", (0, 4095), "int16"),
        ("uint16", (0, 65535), "float32"),
        ("int32", (-1024, 3071), "int16"),
        ("int32", (-1024, 70000), "float32"),
        ("float32", (-1000.5, 0.25), "float32"),
        ("float64", (-1000.5, 0.25), "float32"),
    ],
)
def test_voxels_keep_their_values_in_a_type_the_engine_takes(
    slicer: Any, bridge: Any, tmp_path: Path, stored: str, values: tuple[float, float], handed: str
) -> None:
    voxels = np.full((2, 3, 4), values[0], dtype=stored)
    voxels[1, 2, 3] = values[1]
    array = read_array(bridge.writeVolume(_volume(slicer, voxels), tmp_path / "ct.npy"))
    assert array.dtype == np.dtype(handed)
    np.testing.assert_array_equal(array, voxels)


def test_organs_return_to_their_voxels_with_name_color_code_and_origin(
    slicer: Any, bridge: Any, tmp_path: Path
) -> None:
    node = _volume(slicer, np.zeros((3, 4, 5), dtype=np.int16))
    node.SetIJKToRASMatrix(_matrix(slicer, OBLIQUE))
    labels = np.zeros((3, 4, 5), dtype=np.uint16)
    labels[1, 2, 3] = 5
    labels[0, 0, :2] = 10001
    file = write_array(tmp_path / "labels.npy", labels, np.array(OBLIQUE))
    organs = (_organ("spleen", 1), _organ("liver", 5), _organ("custom", 10001))
    segmentationNode = bridge.showOrgans(file, organs, node)
    segmentation = segmentationNode.GetSegmentation()
    assert list(segmentation.GetSegmentIDs()) == ["liver", "custom"], "the spleen was not found"
    for organ in organs[1:]:
        segment = segmentation.GetSegment(organ.name)
        shown_kji = slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, organ.name, node)
        np.testing.assert_array_equal(shown_kji.T, labels == organ.label)
        assert segment.GetName() == organ.display_name
        assert segment.GetTerminology() == organ.terminology
        assert segment.GetColor() == pytest.approx((0.2, 0.4, 1.0))
        assert _tag(segment, "DICOM.SegmentAlgorithmType") == "AUTOMATIC"
        assert _tag(segment, "DICOM.SegmentAlgorithmName") == f"WholeBodyCSS {__version__}"
    assert segmentation.GetNumberOfLayers() == 1
    assert segmentationNode.GetNodeReferenceID("referenceImageGeometryRef") == node.GetID()


def test_organs_follow_the_transform_of_their_volume(slicer: Any, bridge: Any, tmp_path: Path) -> None:
    node = _volume(slicer, np.zeros((3, 4, 5), dtype=np.int16))
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(_matrix(slicer, MIRROR_AND_SHIFT))
    node.SetAndObserveTransformNodeID(transform.GetID())
    labels = np.ones((3, 4, 5), dtype=np.uint16)
    file = write_array(tmp_path / "labels.npy", labels, np.array(MIRROR_AND_SHIFT))
    segmentationNode = bridge.showOrgans(file, (_organ("spleen", 1),), node)
    assert segmentationNode.GetParentTransformNode() is transform
    bounds, expected = np.zeros(6), np.zeros(6)
    segmentationNode.GetRASBounds(bounds)
    node.GetRASBounds(expected)
    np.testing.assert_allclose(bounds, expected)


def test_a_volume_that_cannot_be_segmented_is_refused_by_name(slicer: Any, bridge: Any, tmp_path: Path) -> None:
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    with pytest.raises(GeometryError, match="nothing must hold voxels, got an empty volume"):
        bridge.writeVolume(empty, tmp_path / "ct.npy")
    color = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    slicer.util.updateVolumeFromArray(color, np.zeros((2, 2, 2, 3), dtype=np.uint8))
    with pytest.raises(GeometryError, match="photo must hold one number per voxel, got 3 components"):
        bridge.writeVolume(color, tmp_path / "ct.npy")
    bent = _volume(slicer, np.zeros((2, 2, 2), dtype=np.int16))
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    warp.SetAndObserveTransformFromParent(slicer.vtkOrientedBSplineTransform())
    bent.SetAndObserveTransformNodeID(warp.GetID())
    with pytest.raises(GeometryError, match="linear transforms, got the non-linear one warp"):
        bridge.writeVolume(bent, tmp_path / "ct.npy")
    assert list(tmp_path.iterdir()) == []


def test_a_removed_volume_is_not_in_the_scene(slicer: Any, bridge: Any) -> None:
    node = _volume(slicer, np.zeros((2, 2, 2), dtype=np.int16))
    assert bridge.isInScene(node)
    slicer.mrmlScene.RemoveNode(node)
    assert not bridge.isInScene(node)
    assert not bridge.isInScene(None)
