"""MRML nodes to arrays and back: volumes for the engine, organs for the user.

Slicer shows a volume as ``[k, j, i]``; everywhere else arrays are ``[i, j, k]`` with an affine ijk to RAS mm.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer

from wbcss.arrayfile import ArrayFile, write_array
from wbcss.errors import GeometryError
from wbcss.protocol import OrganItem
from wbcss.volume import Affine

from .OrganSegments import LABELMAP, labelImage, organSegment, organsFound
from .SceneGeometry import checkGrid, localAffine, shearAngle_deg, straightened, transformToWorld, worldAffine

_INT16 = np.iinfo(np.int16)


class SceneBridge:
    """Reads volumes from, and shows organs in, ``slicer.mrmlScene``.

    A volume under linear transforms is segmented where they put it, and its organs come to lie under the same
    transforms. A sheared one (tilted gantry) is straightened first, and its organs lie on the straight grid, in the
    world. Transforms that bend are refused.
    """

    def isInScene(self, node: Any) -> bool:
        """Whether ``node`` is still part of the scene."""
        return node is not None and node.GetID() is not None and slicer.mrmlScene.GetNodeByID(node.GetID()) is node

    def writeVolume(self, volumeNode: Any, path: Path) -> ArrayFile:
        """Write the voxels of ``volumeNode`` to ``path`` (.npy), placed in the world as the scene shows them.

        Raises GeometryError for a volume that is empty, no scalar image, not finite, or bent by a transform, and
        OutputError if the disk refuses.
        """
        voxels_kji = _checkedVoxels(volumeNode)
        affine = worldAffine(volumeNode)
        checkGrid(affine, volumeNode.GetName())
        if shearAngle_deg(affine):
            voxels, affine = straightened(volumeNode.GetImageData(), affine)
        else:
            voxels = voxels_kji.T
        return write_array(path, _hounsfield(voxels), affine, durable=False)

    def placementNote(self, volumeNode: Any) -> str:
        """Where the organs of ``volumeNode`` lie, in one sentence, if it is not simply on it; else "".

        Raises GeometryError for a volume that is bent.
        """
        angle_deg = shearAngle_deg(worldAffine(volumeNode))
        transformNode = volumeNode.GetParentTransformNode()
        if angle_deg:
            return (
                f"the volume is sheared by {angle_deg:.1f} degrees (tilted gantry or a shearing transform): it was "
                "straightened, and the organs lie on the straight grid, under no transform"
            )
        if transformNode is not None and transformNode.IsTransformToWorldLinear():
            return f"the organs lie under the transform {transformNode.GetName()}, as their volume does"
        if transformNode is not None:
            return f"the organs lie where {transformNode.GetName()} puts their volume now, but under no transform"
        return ""

    def showOrgans(
        self,
        labels: ArrayFile,
        organs: Sequence[OrganItem],
        volumeNode: Any,
        segmentationNode: Any = None,
        found: Collection[str] | None = None,
    ) -> Any:
        """Show a named, colored, coded segment for every organ found, and return the segmentation node.

        All segments share one label map, so that a hundred organs take no more time or memory than one. A segment's id
        is the name of its organ.

        Args:
            labels: Label values of the organs on the grid that ``writeVolume`` wrote.
            organs: What may be in them.
            volumeNode: What was segmented.
            segmentationNode: Add the organs to this one: an organ that it has already is replaced, all other segments
                stay as they are. None makes a new node beside the volume.
            found: Names of the organs that have voxels, where that is known; else the labels are searched.

        Raises GeometryError if the organs cannot be placed in ``segmentationNode``, VolumeFileError if ``labels``
        cannot be read. The scene is unchanged then.
        """
        transformNode, affine = _placement(labels, volumeNode)
        if segmentationNode is not None:
            affine = _placedUnder(segmentationNode, transformNode, affine)
        image = labelImage(labels, affine)
        present = organsFound(image, organs, found)
        if segmentationNode is not None:
            _addSegments(segmentationNode, present, image)
            return segmentationNode
        return _newNode(volumeNode, transformNode, present, image)


def _checkedVoxels(volumeNode: Any) -> npt.NDArray[Any]:
    """The voxels of a volume node as Slicer holds them, [k, j, i]. Raises GeometryError."""
    name = volumeNode.GetName()
    if volumeNode.IsA("vtkMRMLLabelMapVolumeNode"):
        raise GeometryError(f"{name} must be a CT image, got a label map")
    if volumeNode.GetImageData() is None:
        raise GeometryError(f"{name} must hold voxels, got an empty volume")
    voxels: npt.NDArray[Any] = slicer.util.arrayFromVolume(volumeNode)
    if voxels.ndim != 3:
        raise GeometryError(
            f"{name} must hold one number per voxel, got {voxels.shape[-1]} components (color or 4D image); "
            "segment one scalar volume at a time"
        )
    # The sum is not finite if one voxel is not, and needs no second array.
    if voxels.dtype.kind == "f" and not np.isfinite(voxels.sum(dtype=np.float64)):
        raise GeometryError(f"{name} must hold finite Hounsfield units, got NaN or infinite voxels")
    return voxels


def _hounsfield(voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``voxels`` in a type the engine takes: int16 where nothing is lost, else float32."""
    if voxels.dtype == np.int16 or voxels.dtype == np.float32:
        return voxels
    if np.issubdtype(voxels.dtype, np.integer) and _INT16.min <= voxels.min() and voxels.max() <= _INT16.max:
        return voxels.astype(np.int16)
    return voxels.astype(np.float32)


def _placement(labels: ArrayFile, volumeNode: Any) -> tuple[Any, Affine]:
    """The transform node that labels lie under (or None), and their affine in its frame.

    As long as they lie on the grid of their volume they follow it, also if it was moved meanwhile. Otherwise it was
    straightened, and they lie in the world.
    """
    transformNode = volumeNode.GetParentTransformNode()
    isLinear = transformNode is None or transformNode.IsTransformToWorldLinear()
    image = volumeNode.GetImageData()
    sameShape = image is not None and tuple(image.GetDimensions()) == labels.shape
    if isLinear and sameShape and not shearAngle_deg(worldAffine(volumeNode)):
        return transformNode, localAffine(volumeNode)
    return None, labels.affine_ras_mm


def _placedUnder(segmentationNode: Any, transformNode: Any, affine: Affine) -> Affine:
    """``affine`` of the frame of ``transformNode`` in the frame of a segmentation node. Raises GeometryError."""
    own = segmentationNode.GetParentTransformNode()
    if own is transformNode:
        return affine
    if own is not None and not own.IsTransformToWorldLinear():
        raise GeometryError(
            f"{segmentationNode.GetName()} must lie under linear transforms to take more organs, got the non-linear "
            f"one {own.GetName()}; harden it first"
        )
    placed: Affine = np.linalg.inv(transformToWorld(own)) @ transformToWorld(transformNode) @ affine
    return placed


def _newNode(volumeNode: Any, transformNode: Any, organs: Sequence[OrganItem], image: Any) -> Any:
    """A segmentation node beside ``volumeNode``. It is filled before the scene sees it: one event, not hundreds."""
    node = slicer.vtkMRMLSegmentationNode()
    node.SetName(slicer.mrmlScene.GenerateUniqueName(f"{volumeNode.GetName()} organs"))
    segmentation = node.GetSegmentation()
    segmentation.SetSourceRepresentationName(LABELMAP)
    for organ in organs:
        segmentation.AddSegment(organSegment(organ, image), organ.name)
    slicer.mrmlScene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    node.SetAndObserveTransformNodeID(None if transformNode is None else transformNode.GetID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)  # without it DICOM SEG cannot be exported
    _placeBeside(node, volumeNode)
    return node


def _addSegments(node: Any, organs: Sequence[OrganItem], image: Any) -> None:
    """Add organs as a layer of their own; those that the node has already are replaced in their place of the list."""
    with slicer.util.NodeModify(node):
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
        segmentation = node.GetSegmentation()
        segmentation.SetSourceRepresentationName(LABELMAP)
        ids = list(segmentation.GetSegmentIDs())
        for organ in organs:
            following = ""
            if organ.name in ids:
                following = next(iter(ids[ids.index(organ.name) + 1 :]), "")
                segmentation.RemoveSegment(organ.name)
            segmentation.AddSegment(organSegment(organ, image), organ.name, following)


def _placeBeside(node: Any, volumeNode: Any) -> None:
    """Put ``node`` under the study (or folder) of ``volumeNode`` in the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return
    volumeItem = hierarchy.GetItemByDataNode(volumeNode)
    if not volumeItem:  # without the application's plugins nodes have no item
        return
    parent, item = hierarchy.GetItemParent(volumeItem), hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)
