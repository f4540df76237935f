"""Surfaces attached to the segments of a real segmentation node, also while people edit it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mrml_nodes import LEFT_HANDED, MOVE, matrix_of, organ_item, put_under, volume_node

from wbcss.arrayfile import ArrayFile, write_array
from wbcss.errors import VolumeFileError
from WholeBodyCSSLib.SurfaceMessages import SurfaceRequest
from WholeBodyCSSLib.SurfaceWorker import makeSurfaces

pytestmark = pytest.mark.scene

ORGANS = (organ_item("liver", 5), organ_item("custom", 10001))
VALUES = {organ.name: organ.label for organ in ORGANS}
SURFACE = "Closed surface"


class Case:
    """Two cubes shown as organs, and what their surfaces need."""

    def __init__(self, slicer: Any, folder: Path) -> None:
        from WholeBodyCSSLib.SceneBridge import SceneBridge
        from WholeBodyCSSLib.Surfaces import Surfaces

        self.surfaces, self.folder = Surfaces(), folder
        self.volume = volume_node(slicer, np.zeros((20, 10, 10), dtype=np.int16), LEFT_HANDED)
        put_under(slicer, self.volume, MOVE)
        array = np.zeros((20, 10, 10), dtype=np.uint16)
        array[2:8, 2:8, 2:8], array[12:18, 2:8, 2:8] = 5, 10001
        self.labels: ArrayFile = write_array(folder / "labels.npy", array, MOVE @ LEFT_HANDED)
        self.node = SceneBridge().showOrgans(self.labels, ORGANS, self.volume)
        self.segmentation = self.node.GetSegmentation()
        self.stamp = self.surfaces.stampOf(self.node, "liver")
        self.frame = self.surfaces.frameOf(self.node, "liver")

    def attach(self) -> int:
        request = SurfaceRequest(
            labels=self.labels, values=tuple(VALUES.values()), affine=self.frame, folder=str(self.folder)
        )
        files = makeSurfaces(request, report=lambda fraction: None, cancelled=lambda: False)
        byName = {name: files[value] for name, value in VALUES.items()}
        return self.surfaces.attach(self.node, byName, self.labels, VALUES, self.stamp)

    def edit(self, slicer: Any, name: str, box: tuple[slice, slice, slice]) -> None:
        """Replace an organ by a box, as the effects of the Segment Editor do."""
        from vtk.util.numpy_support import numpy_to_vtk

        array = np.zeros((20, 10, 10), dtype=np.uint8)
        array[box] = 1
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(*array.shape)
        image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array.T).ravel(), deep=True))
        image.SetImageToWorldMatrix(matrix_of(self.frame))
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        assert logic.SetBinaryLabelmapToSegment(image, self.node, name, logic.MODE_REPLACE, image.GetExtent())

    def surface(self, name: str) -> Any:
        return self.segmentation.GetSegment(name).GetRepresentation(SURFACE)


@pytest.fixture
def case(slicer: Any, tmp_path: Path) -> Case:
    return Case(slicer, tmp_path)


def test_every_organ_gets_its_surface_where_its_voxels_are(case: Case) -> None:
    assert case.attach() == 2
    for name, first in (("liver", 2), ("custom", 12)):
        # Outer sides of the cube's voxels in the frame of the node: the transform above it is not part of that.
        ends = LEFT_HANDED @ np.array([[first - 0.5, 1.5, 1.5, 1], [first + 5.5, 7.5, 7.5, 1]]).T
        expected = np.sort(ends[:3], axis=1).ravel()
        np.testing.assert_allclose(case.surface(name).GetBounds(), expected, atol=1.6)
        assert case.surface(name).GetPointData().GetScalars() is None, "scalars would hide the segment's color"
        assert case.surface(name).GetPointData().GetNormals() is not None


def test_slicer_shows_them_in_3d_without_converting_anything(case: Case) -> None:
    case.attach()
    display = case.node.GetDisplayNode()
    assert display.GetDisplayRepresentationName3D() == SURFACE
    assert display.GetDisplayRepresentationName2D() == "Binary labelmap"
    assert display.GetVisibility3D()
    before = [case.surface(name) for name in VALUES]
    assert case.node.CreateClosedSurfaceRepresentation(), "what Show 3D calls"
    assert [case.surface(name) for name in VALUES] == before
    assert case.segmentation.GetSourceRepresentationName() == "Binary labelmap"
    for name in VALUES:
        assert display.GetSegmentOpacity3D(name) == 1.0
        assert case.segmentation.GetSegment(name).GetColor() == pytest.approx((0.2, 0.4, 1.0))


def test_an_organ_edited_meanwhile_keeps_its_edit_and_gets_no_outdated_surface(slicer: Any, case: Case) -> None:
    case.edit(slicer, "liver", np.s_[4:6, 4:6, 4:6])
    assert case.attach() == 1
    assert case.surface("liver") is None
    assert case.surface("custom") is not None


def test_voxels_painted_into_the_shared_label_map_count_as_an_edit(case: Case) -> None:
    from vtk.util.numpy_support import vtk_to_numpy

    scalars = case.stamp[0].GetPointData().GetScalars()
    vtk_to_numpy(scalars).reshape(10, 10, 20)[3, 3, 3] = 0
    scalars.Modified()
    case.stamp[0].Modified()
    assert case.attach() == 1
    assert case.surface("liver") is None


def test_an_organ_removed_meanwhile_is_passed_over(case: Case) -> None:
    case.segmentation.RemoveSegment("liver")
    assert case.attach() == 1
    assert case.surface("custom") is not None


def test_an_edit_afterwards_renews_the_surface(slicer: Any, case: Case) -> None:
    case.attach()
    outdated = case.surface("liver").GetBounds()
    case.edit(slicer, "liver", np.s_[4:6, 4:6, 4:6])
    case.node.CreateClosedSurfaceRepresentation()
    assert case.surface("liver").GetBounds() != outdated


def test_a_surface_that_is_gone_is_an_error(case: Case) -> None:
    files = {"liver": case.folder / "5.vtp"}
    with pytest.raises(VolumeFileError, match=r"5\.vtp must be a surface, got no file"):
        case.surfaces.attach(case.node, files, case.labels, VALUES, case.stamp)
    assert not case.node.GetDisplayNode().GetVisibility3D() or case.surface("liver") is None
