"""A label in a grid of voxels to a smooth closed surface. VTK and arrays only: no scene, no Slicer.

A surface is smoothed voxels, so its triangles need not be finer than the organ asks for. Large organs are sampled on
blocks of voxels whose share of the organ is the value that is contoured: that takes a quarter of the time and of the
triangles at the same look, and is smoother than contouring voxels and decimating afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkFiltersCore import (
    vtkFlyingEdges3D,
    vtkPolyDataNormals,
    vtkReverseSense,
    vtkWindowedSincPolyDataFilter,
)

from wbcss.volume import Affine

MAX_TRIANGLES = 20_000
"""About how many triangles an organ gets at most. Large ones get more, so that no detail is lost that anybody sees."""

MAX_EDGE_MM = 2.5
"""No surface is sampled coarser than this."""

_ITERATIONS = 20
_STRONG, _GENTLE = 0.02, 0.1
"""Pass bands: strong where the steps of plain voxels are to vanish, gentle on blocks and on thin parts."""

_THIN_VOXELS = 4.0
"""Strong smoothing would eat what is thinner than this: a vessel of two voxels would lose 40 % of its volume."""

_FEW_POINTS = 50
"""A surface this small (about ten voxels) has nothing but fine waves and would vanish."""

_TRIANGLES_PER_SIDE = 2.2
"""Triangles of a contour for each side of a voxel that looks outward; measured on balls of any size."""

Box = tuple[slice, ...]
Voxels = npt.NDArray[Any]
Spacing = npt.NDArray[np.float64]


def boxes(labels: Voxels, values: Sequence[int]) -> Iterator[tuple[int, Box]]:
    """Each of ``values`` that has voxels in ``labels`` (I, J, K), with the smallest box (ijk) that holds them."""
    # The memory order of the labels decides which way is fast.
    turned = labels.flags.f_contiguous
    found = ndimage.find_objects(labels.T if turned else labels, max(values, default=0))
    for value in values:
        box = found[value - 1]
        if box is not None:
            yield value, tuple(reversed(box)) if turned else box


def organSurface(labels: Voxels, value: int, box: Box, affine: Affine) -> Any:
    """The closed surface of one label as vtkPolyData with point normals that look outward.

    Args:
        labels: (I, J, K).
        value: The label.
        box: (ijk) holds all its voxels.
        affine: ijk to the mm that the surface is to lie in, (4, 4); may mirror.
    """
    mask = labels[box] == value
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    area_mm2, thickness_mm = _extent(mask, spacing_mm)
    block = blockSize(area_mm2, thickness_mm, spacing_mm)
    share, whole = _blockSums(mask, block)
    # Not exactly half: a vertex on a corner of the grid would belong to triangles without area.
    contour = vtkFlyingEdges3D()
    contour.SetInputData(_image(share))
    contour.SetValue(0, 0.499 * whole)
    contour.ComputeNormalsOff()
    contour.ComputeGradientsOff()
    contour.ComputeScalarsOff()
    contour.Update()
    surface = contour.GetOutput()
    if surface.GetNumberOfPoints() > _FEW_POINTS:
        isThin = thickness_mm < _THIN_VOXELS * spacing_mm.max()
        surface = _smoothed(surface, _GENTLE if isThin or whole > 1 else _STRONG)
    return _placed(surface, box, block, affine)


def _smoothed(surface: Any, passBand: float) -> Any:
    smooth = vtkWindowedSincPolyDataFilter()
    smooth.SetInputData(surface)
    smooth.SetNumberOfIterations(_ITERATIONS)
    smooth.SetPassBand(passBand)
    smooth.BoundarySmoothingOff()
    smooth.FeatureEdgeSmoothingOff()
    smooth.NonManifoldSmoothingOn()
    smooth.NormalizeCoordinatesOn()
    smooth.Update()
    return smooth.GetOutput()


def _extent(mask: Voxels, spacing_mm: Spacing) -> tuple[float, float]:
    """The area of the sides of all voxels that look outward, in mm2, and how thick the organ is on average, in mm."""
    area_mm2 = 0.0
    for axis, side_mm in enumerate(spacing_mm):
        ends = np.count_nonzero(mask.take(0, axis)) + np.count_nonzero(mask.take(-1, axis))
        steps = np.count_nonzero(np.diff(mask.view(np.int8), axis=axis)) + ends
        area_mm2 += steps * math.prod(spacing_mm) / side_mm
    # Twice the volume over the surface is the thickness of a sheet.
    return area_mm2, 2 * np.count_nonzero(mask) * math.prod(spacing_mm) / max(area_mm2, 1e-9)


def blockSize(area_mm2: float, thickness_mm: float, spacing_mm: Spacing) -> tuple[int, int, int]:
    """How many voxels make a block along i, j, k, so that triangles stay few and no thin part is lost."""
    edge_mm = min(math.sqrt(_TRIANGLES_PER_SIDE * area_mm2 / MAX_TRIANGLES), MAX_EDGE_MM)
    i, j, k = (max(1, min(round(edge_mm / side_mm), math.floor(thickness_mm / 2 / side_mm))) for side_mm in spacing_mm)
    return i, j, k


def _blockSums(mask: Voxels, block: tuple[int, int, int]) -> tuple[Voxels, int]:
    """Voxels of the organ in each block, [k, j, i] as VTK has it, in a shell of empty ones; how many fill a block."""
    whole = math.prod(block)
    counts = np.ascontiguousarray(mask.T).view(np.uint8)
    if whole > 1:
        steps = block[::-1]
        counts = np.pad(counts, [(0, -side % step) for side, step in zip(counts.shape, steps, strict=True)])
        split = [part for side, step in zip(counts.shape, steps, strict=True) for part in (side // step, step)]
        counts = counts.reshape(split).sum(axis=(1, 3, 5), dtype=np.uint8 if whole <= 255 else np.uint16)
    return np.pad(counts, 1), whole


def _image(counts: Voxels) -> Any:
    image = vtkImageData()
    image.SetDimensions(*counts.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(counts.ravel(), deep=True))
    return image


def _placed(surface: Any, box: Box, block: tuple[int, int, int], affine: Affine) -> Any:
    """``surface``, made in blocks, at its place in mm, with normals."""
    points = vtk_to_numpy(surface.GetPoints().GetData()) if surface.GetNumberOfPoints() else np.empty((0, 3))
    # The center of the first block, behind the empty one, lies (block - 1) / 2 voxels behind the corner of the box.
    ijk = (points - 1) * block + (np.array(block) - 1) / 2 + [side.start for side in box]
    points_mm = (ijk @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)
    surface.GetPoints().SetData(numpy_to_vtk(points_mm, deep=True))
    normals = vtkPolyDataNormals()
    normals.SplittingOff()
    normals.ConsistencyOff()
    if np.linalg.det(affine[:3, :3]) < 0:
        turn = vtkReverseSense()
        turn.ReverseCellsOn()
        turn.ReverseNormalsOff()
        turn.SetInputData(surface)
        normals.SetInputConnection(turn.GetOutputPort())
    else:
        normals.SetInputData(surface)
    normals.Update()
    return normals.GetOutput()
