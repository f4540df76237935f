"""Annotated cases out of the real MRML scene, wherever volume and segmentation lie in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from mrml_nodes import MOVE, OBLIQUE, PLAIN, SHEARED, put_under, volume_node

from wbcss.errors import GeometryError, InputError

pytestmark = pytest.mark.scene

SHAPE = (12, 10, 8)
Array = npt.NDArray[Any]


@pytest.fixture
def export(slicer: Any) -> Any:
    from WholeBodyCSSLib.CaseExport import CaseExport

    return CaseExport()


def ramp() -> Array:
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


def block(i: slice, j: slice, k: slice) -> Array:
    mask = np.zeros(SHAPE, np.uint8)
    mask[i, j, k] = 1
    return mask


def drawn(slicer: Any, masks: dict[str, Array], affine: npt.ArrayLike) -> Any:
    """A segmentation node with a segment of its own for each mask."""
    from vtk.util.numpy_support import numpy_to_vtk

    from WholeBodyCSSLib.OrganSegments import LABELMAP
    from WholeBodyCSSLib.SceneGeometry import matrixOf

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    segmentation = node.GetSegmentation()
    segmentation.SetSourceRepresentationName(LABELMAP)
    for name, mask in masks.items():
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(*mask.shape)
        image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(mask.T).ravel(), deep=True))
        image.SetImageToWorldMatrix(matrixOf(np.asarray(affine, np.float64)))
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.SetLabelValue(1)
        segment.AddRepresentation(LABELMAP, image)
        segmentation.AddSegment(segment)
    return node


TUMOR = block(slice(2, 6), slice(3, 7), slice(1, 5))
LIVER = block(slice(7, 11), slice(2, 9), slice(2, 7))


@pytest.mark.parametrize("affine", [PLAIN, OBLIQUE])
def test_voxels_names_and_place_are_those_of_the_scene(slicer: Any, export: Any, affine: Array) -> None:
    volume = volume_node(slicer, ramp(), affine)
    case = export.read(volume, drawn(slicer, {"My tumor": TUMOR, "Liver": LIVER}, affine))
    np.testing.assert_array_equal(case.voxels, ramp())
    np.testing.assert_allclose(case.affine, affine)
    names = {organ.name: organ.label for organ in case.organs}
    assert list(names) == ["my_tumor", "liver"]
    np.testing.assert_array_equal(case.labels == names["my_tumor"], TUMOR)
    np.testing.assert_array_equal(case.labels == names["liver"], LIVER)
    assert case.numShared == 0


def test_a_moved_pair_lies_where_the_world_shows_it(slicer: Any, export: Any) -> None:
    volume = volume_node(slicer, ramp(), PLAIN)
    segmentation = drawn(slicer, {"Liver": LIVER}, PLAIN)
    transform = put_under(slicer, volume, MOVE)
    segmentation.SetAndObserveTransformNodeID(transform.GetID())
    case = export.read(volume, segmentation)
    np.testing.assert_allclose(case.affine, MOVE @ PLAIN)
    np.testing.assert_array_equal(case.labels != 0, LIVER)


def test_labels_on_another_grid_are_resampled_to_the_volume(slicer: Any, export: Any) -> None:
    """Drawn on a grid twice as fine: every voxel of the volume gets the label of its middle."""
    fine = PLAIN @ np.diag([0.5, 0.5, 0.5, 1.0])
    fine[:3, 3] = -PLAIN[:3, :3] @ np.full(3, 0.25)
    doubled = LIVER.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    case = export.read(volume_node(slicer, ramp(), PLAIN), drawn(slicer, {"Liver": doubled}, fine))
    np.testing.assert_array_equal(case.labels != 0, LIVER)


def test_the_last_of_two_overlapping_segments_is_taken_and_counted(slicer: Any, export: Any) -> None:
    both = block(slice(4, 8), slice(3, 7), slice(1, 5))
    case = export.read(volume_node(slicer, ramp(), PLAIN), drawn(slicer, {"a": TUMOR, "b": both}, PLAIN))
    assert case.numShared == int((TUMOR & both).sum())
    np.testing.assert_array_equal(case.labels == case.organs[1].label, both)


def test_the_scene_is_as_before(slicer: Any, export: Any) -> None:
    volume, segmentation = volume_node(slicer, ramp(), PLAIN), drawn(slicer, {"Liver": LIVER}, PLAIN)
    before = slicer.mrmlScene.GetNumberOfNodes()
    export.read(volume, segmentation)
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_what_cannot_be_learned_from_says_why(slicer: Any, export: Any) -> None:
    volume, liver = volume_node(slicer, ramp(), PLAIN), drawn(slicer, {"Liver": LIVER}, PLAIN)
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    with pytest.raises(GeometryError, match="nothing must hold voxels, got an empty volume"):
        export.read(empty, liver)
    with pytest.raises(InputError, match="drawn must hold at least one segment, got none"):
        export.read(volume, drawn(slicer, {}, PLAIN))
    with pytest.raises(InputError, match="may name an organ once, got 'liver' again"):
        export.read(volume, drawn(slicer, {"Liver": LIVER, "liver": TUMOR}, PLAIN))
    with pytest.raises(InputError, match="must have a name that begins with a letter a-z, got '3'"):
        export.read(volume, drawn(slicer, {"3": LIVER}, PLAIN))
    with pytest.raises(GeometryError, match="ct must have perpendicular axes to be learned from, got one sheared by"):
        export.read(volume_node(slicer, ramp(), SHEARED), liver)
