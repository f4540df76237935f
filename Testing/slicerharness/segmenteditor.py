"""The Segment Editor as far as a hand-over reaches: which segment of which segmentation it was given to edit."""

from __future__ import annotations

from typing import Any

import slicer
from PySide6 import QtWidgets
from PySide6.QtCore import Signal

from .modules import Module
from .nodewidgets import SCENE_SIGNAL, SceneFollower


class qMRMLSegmentEditorWidget(SceneFollower, QtWidgets.QWidget):
    """Keeps its state in a real segment editor node; there is no effect to paint with."""

    _is_cpp = True
    mrmlSceneChanged = Signal(object)
    cpp_signals = (SCENE_SIGNAL,)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: Any = None

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        self._node = node

    def mrmlSegmentEditorNode(self) -> Any:
        return self._node

    def setSegmentationNode(self, node: Any) -> None:
        self._given().SetAndObserveSegmentationNode(node)

    def segmentationNode(self) -> Any:
        return self._given().GetSegmentationNode()

    def setSourceVolumeNode(self, node: Any) -> None:
        self._given().SetAndObserveSourceVolumeNode(node)

    def sourceVolumeNode(self) -> Any:
        return self._given().GetSourceVolumeNode()

    def setCurrentSegmentID(self, segment_id: str) -> None:
        self._given().SetSelectedSegmentID(segment_id)

    def currentSegmentID(self) -> str:
        return str(self._given().GetSelectedSegmentID() or "")

    def _given(self) -> Any:
        if self._node is None:
            raise RuntimeError("the segment editor has no parameter node yet; open the module first")
        return self._node


class SegmentEditorPanel:
    """``slicer.modules.segmenteditor.widgetRepresentation().self()``."""

    def __init__(self) -> None:
        self.editor = qMRMLSegmentEditorWidget()
        self.editor.setMRMLScene(slicer.mrmlScene)

    def enter(self) -> None:
        """The application chooses the scene's segment editor node each time the module is opened."""
        node = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.vtkMRMLSegmentEditorNode()
            node.SetSingletonTag("SegmentEditor")
            node = slicer.mrmlScene.AddNode(node)
        self.editor.setMRMLSegmentEditorNode(node)


class SegmentEditorModule(Module):
    """The module that ``slicer.util.selectModule("SegmentEditor")`` opens."""

    def __init__(self) -> None:
        super().__init__("SegmentEditor")
        self._panel = SegmentEditorPanel()

    def widgetRepresentation(self) -> Any:
        return self

    def self(self) -> Any:
        return self._panel

    def open(self) -> None:
        self._panel.enter()

    def leave(self) -> None:
        """Nothing is shown."""
