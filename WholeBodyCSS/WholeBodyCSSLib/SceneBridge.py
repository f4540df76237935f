"""MRML nodes to arrays and back. The only place that knows Slicer's KJI order, VTK matrices and segments.

Slicer shows a volume as ``[k, j, i]``; everywhere else arrays are ``[i, j, k]`` with an affine ijk to RAS mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from wbcss import __version__
from wbcss.arrayfile import ArrayFile, read_array, write_array
from wbcss.errors import GeometryError
from wbcss.protocol import OrganItem
from wbcss.volume import Affine

_INT16 = np.iinfo(np.int16)


class SceneBridge:
    """Reads volumes from, and shows organs in, ``slicer.mrmlScene``."""

    def isInScene(self, node: Any) -> bool:
        """Whether ``node`` is still part of the scene."""
        return node is not None and node.GetID() is not None and slicer.mrmlScene.GetNodeByID(node.GetID()) is node

    def writeVolume(self, volumeNode: Any, path: Path) -> ArrayFile:
        """Write the voxels of ``volumeNode`` to ``path`` (.npy), placed in the world as the scene shows them.

        Raises GeometryError for a volume that is empty, not scalar, or bent by a non-linear transform.
        """
        if volumeNode.GetImageData() is None:
            raise GeometryError(f"{volumeNode.GetName()} must hold voxels, got an empty volume")
        voxels_kji = slicer.util.arrayFromVolume(volumeNode)
        if voxels_kji.ndim != 3:
            raise GeometryError(
                f"{volumeNode.GetName()} must hold one number per voxel, got {voxels_kji.shape[-1]} components"
            )
        return write_array(path, _hounsfield(voxels_kji.T), _worldAffine(volumeNode))

    def showOrgans(self, labels: ArrayFile, organs: Sequence[OrganItem], volumeNode: Any) -> Any:
        """Make a segmentation node beside ``volumeNode`` with one named, colored, coded segment per organ found.

        All segments share one label map, so that a hundred organs take no more time or memory than one.
        """
        array = read_array(labels)
        image = _orientedImage(array, _localMatrix(volumeNode))
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{volumeNode.GetName()} organs")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)  # without it DICOM SEG cannot be exported
        node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
        segmentation = node.GetSegmentation()
        segmentation.SetSourceRepresentationName("Binary labelmap")
        present = np.bincount(array.ravel(), minlength=1)
        for organ in organs:
            if organ.label < present.size and present[organ.label]:
                segmentation.AddSegment(_segment(organ, image), organ.name)
        _placeBeside(node, volumeNode)
        return node


def _hounsfield(voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``voxels`` in a type the engine takes: int16 where nothing is lost, else float32."""
    if voxels.dtype == np.int16 or voxels.dtype == np.float32:
        return voxels
    if np.issubdtype(voxels.dtype, np.integer) and _INT16.min <= voxels.min() and voxels.max() <= _INT16.max:
        return voxels.astype(np.int16)
    return voxels.astype(np.float32)


def _localMatrix(volumeNode: Any) -> Any:
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return matrix


def _worldAffine(volumeNode: Any) -> Affine:
    """ijk to RAS mm, parent transforms included, (4, 4). Raises GeometryError for one that is not linear."""
    matrix = _localMatrix(volumeNode)
    transformNode = volumeNode.GetParentTransformNode()
    if transformNode is not None:
        if not transformNode.IsTransformToWorldLinear():
            raise GeometryError(
                f"{volumeNode.GetName()} must lie under linear transforms, got the non-linear one "
                f"{transformNode.GetName()}; harden it first"
            )
        toWorld = vtk.vtkMatrix4x4()
        transformNode.GetMatrixTransformToWorld(toWorld)
        vtk.vtkMatrix4x4.Multiply4x4(toWorld, matrix, matrix)
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def _orientedImage(labels: npt.NDArray[Any], matrix: Any) -> Any:
    """``labels`` (I, J, K) as an image that the segments share. VTK lets i run fastest."""
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*labels.shape)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(labels.T).ravel(), deep=True))
    image.SetImageToWorldMatrix(matrix)
    return image


def _segment(organ: OrganItem, image: Any) -> Any:
    segment = slicer.vtkSegment()
    segment.SetName(organ.display_name)
    segment.SetColor(*(channel / 255 for channel in organ.color_rgb))
    segment.SetTerminology(organ.terminology)
    segment.SetLabelValue(organ.label)
    # Without these two tags a DICOM SEG would say that a person drew the organ.
    segment.SetTag("DICOM.SegmentAlgorithmType", "AUTOMATIC")
    segment.SetTag("DICOM.SegmentAlgorithmName", f"WholeBodyCSS {__version__}")
    segment.AddRepresentation("Binary labelmap", image)
    return segment


def _placeBeside(node: Any, volumeNode: Any) -> None:
    """Put ``node`` under the study of ``volumeNode`` in the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return
    item, volumeItem = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(volumeNode)
    if item and volumeItem:  # without the application's plugins nodes have no item
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(volumeItem))
