"""The label map of a segmentation that a person may have edited, on the grid of its volume.

Edited segments may lie on layers of their own, cropped, and with other label values than they were made with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from wbcss.errors import GeometryError
from wbcss.volume import LabelMap

_SAME_GRID_MM = 0.01


def readLabels(segmentationNode: Any, volumeNode: Any, labels: Mapping[str, int]) -> LabelMap:
    """The segments of ``labels`` (segment id to value), (I, J, K); where two overlap, the later one is seen.

    Raises GeometryError if the segmentation was moved to another grid than that of ``volumeNode``.
    """
    result: LabelMap = np.zeros(volumeNode.GetImageData().GetDimensions(), np.uint16)
    for image, values in _layers(segmentationNode, labels):
        _checkGrid(image, volumeNode, segmentationNode)
        # The extent of a cropped layer may begin inside the volume, and of a grown one outside of it.
        spans = list(zip(image.GetExtent()[::2], image.GetExtent()[1::2], result.shape, strict=True))
        first = [max(low, 0) for low, _high, _size in spans]
        last = [min(high + 1, size) for _low, high, size in spans]
        if any(start >= stop for start, stop in zip(first, last, strict=True)):
            continue
        there = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        here = tuple(slice(a - span[0], b - span[0]) for a, b, span in zip(first, last, spans, strict=True))
        found = values[_voxels(image)[here]]
        np.copyto(result[there], found, where=found > 0)
    return result


def _layers(segmentationNode: Any, labels: Mapping[str, int]) -> Iterator[tuple[Any, LabelMap]]:
    """Each label map once, with a table from the values in it to those wanted: segments share their images."""
    segmentation = segmentationNode.GetSegmentation()
    images: dict[Any, dict[int, int]] = {}
    for segmentId, value in labels.items():
        segment = segmentation.GetSegment(segmentId)
        image = None if segment is None else segment.GetRepresentation("Binary labelmap")
        if image is not None and not image.IsEmpty():
            images.setdefault(image, {})[segment.GetLabelValue()] = value
    for image, values in images.items():
        table: LabelMap = np.zeros(int(max(image.GetScalarRange()[1], *values)) + 1, np.uint16)
        table[list(values)] = list(values.values())
        yield image, table


def _voxels(image: Any) -> Any:
    """The voxels of an image, (I, J, K): VTK lets i run fastest."""
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions(), order="F")


def _checkGrid(image: Any, volumeNode: Any, segmentationNode: Any) -> None:
    own, wanted = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(own)
    volumeNode.GetIJKToRASMatrix(wanted)
    apart = max(abs(own.GetElement(i, j) - wanted.GetElement(i, j)) for i in range(4) for j in range(4))
    if apart > _SAME_GRID_MM:
        raise GeometryError(
            f"{segmentationNode.GetName()} must lie on the grid of {volumeNode.GetName()}, got one that differs by "
            f"{apart:.2f} mm; set its source geometry back to that volume"
        )
