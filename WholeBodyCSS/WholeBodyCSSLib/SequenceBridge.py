"""Frames of a sequence into the scene, and their segmentations into a sequence that plays along with it."""

from __future__ import annotations

from typing import Any

import slicer

from wbcss.errors import InputError

RESULT_ROLE = "WholeBodyCSS.frames"


class SequenceBridge:
    """Works on sequences of scalar volumes in ``slicer.mrmlScene``. Implements FrameBridge."""

    def numFrames(self, sequenceNode: Any) -> int:
        """Frames of the sequence. Raises InputError if they are not volumes."""
        count = int(sequenceNode.GetNumberOfDataNodes())
        for number in range(count):
            frame = sequenceNode.GetNthDataNode(number)
            if frame is None or not frame.IsA("vtkMRMLScalarVolumeNode"):
                kind = "nothing" if frame is None else frame.GetClassName()
                raise InputError(
                    f"every frame of {sequenceNode.GetName()} must be a scalar volume, got {kind} in frame {number + 1}"
                )
        return count

    def openFrame(self, sequenceNode: Any, number: int) -> Any:
        """A copy of the frame as a node of the scene, under the transform of the sequence's volume."""
        frame = sequenceNode.GetNthDataNode(number)
        name = f"{sequenceNode.GetName()} {number + 1}"
        node = slicer.mrmlScene.AddNewNodeByClass(frame.GetClassName(), name)
        node.SetHideFromEditors(True)
        node.CopyContent(frame, False)  # shares the voxels with the frame
        proxy = self._proxy(sequenceNode)
        if proxy is not None:
            node.SetAndObserveTransformNodeID(proxy.GetTransformNodeID())
        return node

    def keepFrame(self, sequenceNode: Any, number: int, segmentationNode: Any) -> None:
        """Move a segmentation out of the scene into the sequence of results."""
        proxy = self._proxy(sequenceNode)
        if proxy is not None:  # the frame itself leaves the scene; its place is that of the volume that plays
            segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(proxy)
        result = self.resultOf(sequenceNode) or self._makeResult(sequenceNode)
        result.SetDataNodeAtValue(segmentationNode, sequenceNode.GetNthIndexValue(number))
        for role in ("display", "storage"):
            companion = segmentationNode.GetNodeReference(role)
            if companion is not None:
                slicer.mrmlScene.RemoveNode(companion)
        slicer.mrmlScene.RemoveNode(segmentationNode)
        self._play(sequenceNode, result)

    def closeFrame(self, volumeNode: Any) -> None:
        """Take the copy of a frame out of the scene again."""
        if slicer.mrmlScene.IsNodePresent(volumeNode):
            slicer.mrmlScene.RemoveNode(volumeNode)

    def resultOf(self, sequenceNode: Any) -> Any:
        """The sequence of segmentations of ``sequenceNode``, or None."""
        return sequenceNode.GetNodeReference(RESULT_ROLE)

    def hasResult(self, sequenceNode: Any, number: int) -> bool:
        """Whether the frame was segmented before."""
        result = self.resultOf(sequenceNode)
        return result is not None and result.GetDataNodeAtValue(sequenceNode.GetNthIndexValue(number)) is not None

    def _makeResult(self, sequenceNode: Any) -> Any:
        result = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", f"{sequenceNode.GetName()} organs")
        result.SetIndexName(sequenceNode.GetIndexName())
        result.SetIndexUnit(sequenceNode.GetIndexUnit())
        result.SetIndexType(sequenceNode.GetIndexType())
        sequenceNode.SetNodeReferenceID(RESULT_ROLE, result.GetID())
        return result

    def _play(self, sequenceNode: Any, result: Any) -> None:
        """Let the browser of the volumes show the segmentations too."""
        browser = self._browser(sequenceNode)
        if browser is not None and not browser.IsSynchronizedSequenceNode(result, True):
            browser.AddSynchronizedSequenceNode(result)

    def _proxy(self, sequenceNode: Any) -> Any:
        browser = self._browser(sequenceNode)
        return None if browser is None else browser.GetProxyNode(sequenceNode)

    @staticmethod
    def _browser(sequenceNode: Any) -> Any:
        browsers = slicer.mrmlScene.GetNodesByClass("vtkMRMLSequenceBrowserNode")
        browsers.UnRegister(None)
        found = (browsers.GetItemAsObject(number) for number in range(browsers.GetNumberOfItems()))
        return next((browser for browser in found if browser.IsSynchronizedSequenceNode(sequenceNode, True)), None)
