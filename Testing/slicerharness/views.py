"""The layout manager: slice and 3D views are nodes of the real scene; there are no pixels."""

from __future__ import annotations

from typing import Any

import slicer
from PySide6 import QtCore
from PySide6.QtCore import Signal

from .pythonqt import PythonQtObject
from .recorder import recorded


class LayoutManager(PythonQtObject, QtCore.QObject):
    """``slicer.app.layoutManager()``."""

    layoutChanged = Signal(int)
    cpp_signals = ("layoutChanged(int)",)

    def __init__(self, scene: Any, application_logic: Any) -> None:
        super().__init__()
        self._scene = scene
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(scene)
        self._logic.GetLayoutNode().SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self._slice_logics: dict[str, Any] = {}
        for name in self.sliceViewNames():
            logic = slicer.vtkMRMLSliceLogic()
            logic.SetMRMLScene(scene)
            logic.SetSliceNode(scene.GetSingletonNode(name, "vtkMRMLSliceNode"))
            application_logic.GetSliceLogics().AddItem(logic)
            self._slice_logics[name] = logic

    @property
    def layout(self) -> int:
        return int(self._logic.GetLayoutNode().GetViewArrangement())

    def setLayout(self, layout: int) -> None:
        recorded.layouts.append(int(layout))
        self._logic.GetLayoutNode().SetViewArrangement(int(layout))
        self.layoutChanged.emit(int(layout))

    def layoutLogic(self) -> Any:
        return self._logic

    def sliceViewNames(self) -> tuple[str, ...]:
        count = self._scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")
        return tuple(self._scene.GetNthNodeByClass(index, "vtkMRMLSliceNode").GetLayoutName() for index in range(count))

    def sliceWidget(self, name: str) -> SliceWidget | None:
        return SliceWidget(self._scene, self._slice_logics[name]) if name in self._slice_logics else None

    @property
    def threeDViewCount(self) -> int:
        return int(self._scene.GetNumberOfNodesByClass("vtkMRMLViewNode"))

    def threeDWidget(self, index: int) -> ThreeDWidget | None:
        return ThreeDWidget(self._scene, index) if index < self.threeDViewCount else None

    def resetSliceViews(self) -> None:
        """Nothing to fit: there are no windows."""

    def resetThreeDViews(self) -> None:
        """Nothing to fit: there are no windows."""


class SliceWidget:
    """One slice view."""

    def __init__(self, scene: Any, logic: Any) -> None:
        self._scene, self._logic = scene, logic

    def sliceLogic(self) -> Any:
        return self._logic

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()


class ThreeDWidget:
    """One 3D view; also its own ``threeDView()``."""

    def __init__(self, scene: Any, index: int) -> None:
        self._scene, self._index = scene, index

    def mrmlViewNode(self) -> Any:
        return self._scene.GetNthNodeByClass(self._index, "vtkMRMLViewNode")

    def threeDView(self) -> ThreeDWidget:
        return self

    def resetFocalPoint(self) -> None:
        """There is no camera to turn."""

    def scheduleRender(self) -> None:
        """There is nothing to render."""
