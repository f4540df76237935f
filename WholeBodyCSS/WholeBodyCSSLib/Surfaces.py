"""Surfaces made elsewhere, attached to the segments of a node without any conversion in the GUI."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonMath import vtkMatrix4x4

from wbcss.arrayfile import AffineRows, ArrayFile, map_array

from .OrganSegments import LABELMAP, SURFACE
from .SceneGeometry import affineOf
from .SurfaceFiles import readSurface

Stamp = tuple[Any, int]
"""The label map of a segment and its modification time."""


class Surfaces:
    """Reads where surfaces belong from a segmentation node, and attaches them to it."""

    def isInScene(self, node: Any) -> bool:
        """Whether ``node`` is still part of the scene."""
        return node is not None and node.GetID() is not None and slicer.mrmlScene.GetNodeByID(node.GetID()) is node

    def frameOf(self, segmentationNode: Any, segmentId: str) -> AffineRows:
        """Rows of the matrix that maps ijk of a segment's label map to the node's own frame, in mm."""
        matrix = vtkMatrix4x4()
        _labelmap(segmentationNode, segmentId).GetImageToWorldMatrix(matrix)
        return tuple(tuple(float(value) for value in row) for row in affineOf(matrix))

    def stampOf(self, segmentationNode: Any, segmentId: str) -> Stamp:
        """Changes as soon as anybody edits the segment, or another one that shares its label map."""
        image = _labelmap(segmentationNode, segmentId)
        return image, image.GetMTime()

    def attach(
        self,
        segmentationNode: Any,
        files: Mapping[str, Path],
        labels: ArrayFile,
        values: Mapping[str, int],
        stamp: Stamp,
    ) -> int:
        """Give segments their surfaces, show them in 3D, and return how many there are.

        Left out are segments that are gone, that were edited since ``stamp`` was taken, or that have a surface already.

        Args:
            segmentationNode: What the surfaces were made for.
            files: Segment id to file.
            labels: What the surfaces were made from.
            values: Segment id to label value.
            stamp: Of one of the segments, taken when the making of the surfaces began.

        Raises VolumeFileError if a surface cannot be read; those before it stay.
        """
        segmentation = segmentationNode.GetSegmentation()
        edited = _editedLabels(labels, stamp)
        attached = 0
        with slicer.util.NodeModify(segmentationNode):
            for segmentId, path in files.items():
                segment = segmentation.GetSegment(segmentId)
                if segment is None or segment.GetRepresentation(LABELMAP) is not stamp[0]:
                    continue
                if values[segmentId] in edited or segment.GetRepresentation(SURFACE) is not None:
                    continue
                segment.AddRepresentation(SURFACE, readSurface(path))
                attached += 1
            if attached:
                _show3D(segmentationNode)
        return attached


def _labelmap(segmentationNode: Any, segmentId: str) -> Any:
    return segmentationNode.GetSegmentation().GetSegment(segmentId).GetRepresentation(LABELMAP)


def _editedLabels(labels: ArrayFile, stamp: Stamp) -> set[int]:
    """Label values whose voxels are others now than in ``labels``. Nothing is compared if nobody touched the image."""
    image, time = stamp
    if image.GetMTime() == time:
        return set()
    before = map_array(labels)
    now = np.zeros(labels.shape, dtype=before.dtype, order="F")
    # An edit may crop the image to what is not empty; its extent still counts from the same corner.
    extent = image.GetExtent()
    first, last = extent[::2], extent[1::2]
    if min(first) < 0 or any(end >= side for end, side in zip(last, labels.shape, strict=True)):
        return set(range(1 << 16))
    scalars = image.GetPointData().GetScalars()
    if scalars is not None:
        box = tuple(slice(start, end + 1) for start, end in zip(first, last, strict=True))
        now[box] = vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1]).T
    differs = now != before
    return set(np.unique(now[differs]).tolist()) | set(np.unique(before[differs]).tolist())


def _show3D(segmentationNode: Any) -> None:
    display = segmentationNode.GetDisplayNode()
    if display is None:
        segmentationNode.CreateDefaultDisplayNodes()
        display = segmentationNode.GetDisplayNode()
    display.SetPreferredDisplayRepresentationName3D(SURFACE)
    display.SetPreferredDisplayRepresentationName2D(LABELMAP)  # slices keep the voxels, not their smooth outline
    display.SetVisibility3D(True)
