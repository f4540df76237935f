"""Where a volume lies in the world, how a sheared one is straightened, and which ones cannot be segmented."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonMath import vtkMatrix4x4
from vtkmodules.vtkCommonTransforms import vtkGeneralTransform
from vtkmodules.vtkImagingCore import vtkImageReslice

from wbcss.errors import GeometryError
from wbcss.volume import MAX_SHEAR, Affine, Shape3, check_affine

AIR_HU = -1024.0
"""Fills the corners that straightening adds."""

MAX_BEND_VOXELS = 0.1
"""A transform counts as linear if no voxel lies further than this from where the nearest linear one puts it."""

_FIT_POINTS = 5


def localAffine(volumeNode: Any) -> Affine:
    """ijk to mm in the frame of the node, its parent transforms left out, (4, 4)."""
    matrix = vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return affineOf(matrix)


def worldAffine(volumeNode: Any) -> Affine:
    """ijk to RAS mm, parent transforms included, (4, 4); may be sheared.

    A transform that bends nothing is taken as the linear one it equals, such as the grid transform by which Slicer
    corrects a tilted gantry. Raises GeometryError for one that bends.
    """
    transformNode = volumeNode.GetParentTransformNode()
    if transformNode is None:
        return localAffine(volumeNode)
    if transformNode.IsTransformToWorldLinear():
        toWorld: Affine = transformToWorld(transformNode) @ localAffine(volumeNode)
        return toWorld
    return _fitted(volumeNode, transformNode)


def transformToWorld(transformNode: Any) -> Affine:
    """The matrix of a linear transform node with all its parents, (4, 4); the identity for None."""
    matrix = vtkMatrix4x4()
    if transformNode is not None:
        transformNode.GetMatrixTransformToWorld(matrix)
    return affineOf(matrix)


def shearAngle_deg(affine: Affine) -> float:
    """By how much the axes of a grid miss being perpendicular; 0 for what counts as rectangular."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    shear = float(np.abs(axes.T @ axes - np.eye(3)).max())
    return math.degrees(math.asin(min(shear, 1.0))) if shear > MAX_SHEAR else 0.0


def straightGrid(shape: Shape3, affine: Affine) -> tuple[Shape3, Affine]:
    """The smallest rectangular grid that holds every voxel of a sheared one.

    It keeps the first axis, the plane of the first two, and the distance between rows and between slices.
    """
    directions, extent = np.linalg.qr(affine[:3, :3])
    signs = np.sign(np.diag(extent))
    directions, extent = directions * signs, (extent.T * signs).T
    ends = np.array(np.meshgrid(*([0, side - 1] for side in shape))).reshape(3, -1)
    corners_mm = extent @ ends
    spacing_mm, start_mm = np.diag(extent), corners_mm.min(axis=1)
    count = np.ceil((corners_mm.max(axis=1) - start_mm) / spacing_mm - 1e-3).astype(int) + 1
    straight: Affine = np.eye(4)
    straight[:3, :3] = directions * spacing_mm
    straight[:3, 3] = affine[:3, 3] + directions @ start_mm
    return (int(count[0]), int(count[1]), int(count[2])), straight


def straightened(image: Any, affine: Affine) -> tuple[npt.NDArray[Any], Affine]:
    """The voxels of a sheared vtkImageData on a rectangular grid, (I, J, K) with i fastest, and its affine."""
    shape, straight = straightGrid(image.GetDimensions(), affine)
    reslice = vtkImageReslice()
    reslice.SetInputData(image)
    reslice.SetResliceAxes(matrixOf(np.linalg.inv(affine) @ straight))
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputExtent(0, shape[0] - 1, 0, shape[1] - 1, 0, shape[2] - 1)
    reslice.SetInterpolationModeToLinear()
    reslice.SetBackgroundLevel(max(AIR_HU, image.GetScalarTypeMin()))
    reslice.Update()
    voxels = vtk_to_numpy(reslice.GetOutput().GetPointData().GetScalars())
    return voxels.reshape(shape[::-1]).T, straight


def checkGrid(affine: Affine, name: str) -> None:
    """Refuse a grid that is flat or not finite. Raises GeometryError naming the volume."""
    if not np.isfinite(affine).all() or abs(float(np.linalg.det(affine[:3, :3]))) < 1e-9:
        try:
            check_affine(affine)
        except GeometryError as error:
            raise GeometryError(f"{name} cannot be placed in the world: {error}") from error


def affineOf(matrix: Any) -> Affine:
    """A vtkMatrix4x4 as an array."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def matrixOf(affine: Affine) -> Any:
    """An array as a vtkMatrix4x4."""
    matrix = vtkMatrix4x4()
    matrix.DeepCopy([float(value) for value in affine.ravel()])
    return matrix


def _fitted(volumeNode: Any, transformNode: Any) -> Affine:
    """The linear map nearest to a transform over the voxels of a volume. Raises GeometryError if it is not near."""
    local = localAffine(volumeNode)
    toWorld = vtkGeneralTransform()
    transformNode.GetTransformToWorld(toWorld)
    sides = volumeNode.GetImageData().GetDimensions()
    # A single slice is probed at its two faces, so that the fit knows where the third axis points.
    spans = [np.linspace(0, side - 1, _FIT_POINTS) if side > 1 else np.array([-0.5, 0.5]) for side in sides]
    points = [axis.ravel() for axis in np.meshgrid(*spans, indexing="ij")]
    ijk = np.stack([*points, np.ones(len(points[0]))])
    world = np.array([toWorld.TransformPoint(*point) for point in (local @ ijk)[:3].T])
    rows, *_ = np.linalg.lstsq(ijk.T, world, rcond=None)
    affine: Affine = np.vstack([rows.T, [0.0, 0.0, 0.0, 1.0]])
    bend_mm = float(np.linalg.norm((affine @ ijk)[:3].T - world, axis=1).max())
    if bend_mm > MAX_BEND_VOXELS * float(np.linalg.norm(local[:3, :3], axis=0).min()):
        raise GeometryError(
            f"{volumeNode.GetName()} must lie under linear transforms, got the non-linear one "
            f"{transformNode.GetName()}, which bends it by up to {bend_mm:.1f} mm; harden it first"
        )
    return affine
