"""Small nodes in the MRML scene of slicer-core, for tests of what reads and writes them."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wbcss.protocol import OrganItem

LIVER = (
    "Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~Anatomic codes - DICOM master list~^^~^^"
)

PLAIN = np.diag([2.0, 2.0, 3.0, 1.0])
OBLIQUE = np.array([[0.0, -1.8, 0.0, 7.0], [1.2, 0.0, 0.6, -3.0], [0.9, 0.0, -0.8, 11.0], [0.0, 0.0, 0.0, 1.0]])
LEFT_HANDED = np.array([[-1.5, 0.0, 0.0, 40.0], [0.0, 1.5, 0.0, -20.0], [0.0, 0.0, 2.0, 5.0], [0.0, 0.0, 0.0, 1.0]])
SHEARED = np.array([[2.0, 0.0, 0.0, 10.0], [0.0, 2.0, 0.6, -5.0], [0.0, 0.0, 3.0, 7.0], [0.0, 0.0, 0.0, 1.0]])
MOVE = np.array([[0.0, -1.0, 0.0, 100.0], [1.0, 0.0, 0.0, -30.0], [0.0, 0.0, 1.0, 4.0], [0.0, 0.0, 0.0, 1.0]])


def new_scene() -> Any:
    """The slicer package over a new scene, with what the room uses of the application."""
    import slicer  # only in the scene tier: the wheel is not everywhere
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


def organ_item(name: str, label: int) -> OrganItem:
    """An organ as the worker tells of it."""
    return OrganItem(
        name=name,
        label=label,
        display_name=name.title(),
        group="abdomen",
        color_rgb=(51, 102, 255),
        terminology=LIVER,
        tasks=("wholebody",),
    )


def matrix_of(rows: npt.ArrayLike) -> Any:
    """A vtkMatrix4x4."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy([float(value) for value in np.asarray(rows).ravel()])
    return matrix


def volume_node(slicer: Any, voxels_ijk: npt.NDArray[Any], affine: npt.ArrayLike | None = None) -> Any:
    """A scalar volume node in the scene."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ct")
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(voxels_ijk.T))
    if affine is not None:
        node.SetIJKToRASMatrix(matrix_of(affine))
    return node


def put_under(slicer: Any, node: Any, rows: npt.ArrayLike) -> Any:
    """Put ``node`` under a new linear transform and return the transform node."""
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    transform.SetMatrixTransformToParent(matrix_of(rows))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def grid_transform(slicer: Any, displacement_ras_mm: Sequence[npt.NDArray[Any]], box_mm: float) -> Any:
    """A non-linear transform node: a grid of displacements over the cube from -``box_mm`` to ``box_mm``."""
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk

    side = displacement_ras_mm[0].shape[0]
    image = vtk.vtkImageData()
    image.SetDimensions(side, side, side)
    image.SetOrigin(-box_mm, -box_mm, -box_mm)
    image.SetSpacing(*[2 * box_mm / (side - 1)] * 3)
    flat = np.stack([part.T.ravel() for part in displacement_ras_mm], axis=1)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(flat), deep=True))
    grid = slicer.vtkOrientedGridTransform()
    grid.SetDisplacementGridData(image)
    grid.SetInterpolationModeToLinear()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "warp")
    node.SetAndObserveTransformToParent(grid)
    return node


def tag_of(segment: Any, name: str) -> str:
    """A tag of a segment."""
    import vtk

    value = vtk.reference("")
    assert segment.GetTag(name, value), f"no tag {name}"
    return str(value)
