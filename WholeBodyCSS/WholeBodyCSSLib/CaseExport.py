"""A volume and its segmentation in the scene as one annotated case: arrays on the grid of the volume, in the world."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer

from wbcss.catalogue import FIRST_CUSTOM_LABEL, Organ
from wbcss.errors import GeometryError, InputError
from wbcss.volume import LabelMap

from .CaseFolder import organOf
from .EnrollScene import SceneCase
from .SceneGeometry import shearAngle_deg, worldAffine

_INT16 = np.iinfo(np.int16)


class CaseExport:
    """Reads cases out of ``slicer.mrmlScene``; changes nothing there."""

    def read(self, volumeNode: Any, segmentationNode: Any) -> SceneCase:
        """The case of a volume and a segmentation, which may lie on another grid: Slicer resamples it.

        Raises:
            GeometryError: The volume is empty, sheared, or bent by its transform.
            InputError: The segmentation has no segment, or one without a usable name, or one name twice.
        """
        voxels = _voxels(volumeNode)
        affine = worldAffine(volumeNode)
        if shearAngle_deg(affine):
            raise GeometryError(
                f"{volumeNode.GetName()} must have perpendicular axes to be learned from, got one sheared by "
                f"{shearAngle_deg(affine):.1f} degrees; resample it first"
            )
        labels: LabelMap = np.zeros(voxels.shape, np.uint16)
        organs: list[Organ] = []
        numShared = 0
        for number, (segmentId, segment) in enumerate(_segments(segmentationNode)):
            red, green, blue = (round(255 * part) for part in segment.GetColor())
            organ = organOf(segmentId, segment.GetName(), (red, green, blue), (), freeLabel=FIRST_CUSTOM_LABEL + number)
            if organ.name in {other.name for other in organs}:
                raise InputError(
                    f"{segmentationNode.GetName()} may name an organ once, got {segment.GetName()!r} again; rename one"
                )
            organs.append(organ)
            with _leavingNoNode():
                mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentationNode, segmentId, volumeNode)
            inside = np.asarray(mask).T != 0
            numShared += int(np.count_nonzero(labels[inside]))
            labels[inside] = organ.label
        return SceneCase(
            voxels=voxels,
            affine=affine,
            labels=labels,
            organs=tuple(organs),
            numShared=numShared,
            owner=_owner(volumeNode),
        )


@contextlib.contextmanager
def _leavingNoNode() -> Iterator[None]:
    """Remove what was added to the scene meanwhile: resampling leaves a display node and a color table behind."""
    scene = slicer.mrmlScene
    before = {scene.GetNthNode(number).GetID() for number in range(scene.GetNumberOfNodes())}
    try:
        yield
    finally:
        nodes = [scene.GetNthNode(number) for number in range(scene.GetNumberOfNodes())]
        for node in nodes:
            if node.GetID() not in before:
                scene.RemoveNode(node)


def _voxels(volumeNode: Any) -> npt.NDArray[Any]:
    """A copy, (I, J, K), in a type that volumes are written in: a thread writes it while the user goes on."""
    if volumeNode is None or volumeNode.GetImageData() is None:
        name = "the volume" if volumeNode is None else volumeNode.GetName()
        raise GeometryError(f"{name} must hold voxels, got an empty volume; choose another one")
    stored = slicer.util.arrayFromVolume(volumeNode).T
    if stored.ndim != 3:
        raise GeometryError(f"{volumeNode.GetName()} must hold one number per voxel, got {stored.shape[0]}")
    fits = np.issubdtype(stored.dtype, np.integer) and _INT16.min <= stored.min() and stored.max() <= _INT16.max
    return np.array(stored, dtype=np.int16 if fits else np.float32)


def _segments(segmentationNode: Any) -> list[tuple[str, Any]]:
    segmentation = None if segmentationNode is None else segmentationNode.GetSegmentation()
    if segmentation is None or not segmentation.GetNumberOfSegments():
        name = "the segmentation" if segmentationNode is None else segmentationNode.GetName()
        raise InputError(f"{name} must hold at least one segment, got none; draw the organ first")
    identities = [segmentation.GetNthSegmentID(number) for number in range(segmentation.GetNumberOfSegments())]
    return [(identity, segmentation.GetSegment(identity)) for identity in identities]


def _owner(volumeNode: Any) -> int:
    """The patient's item in the subject hierarchy: a number of this session, not of the patient."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = 0 if hierarchy is None else hierarchy.GetItemByDataNode(volumeNode)
    patient = hierarchy.GetItemAncestorAtLevel(item, "Patient") if item else 0
    return int(patient)
