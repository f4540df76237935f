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

    def __init__(self, scene: Any) -> None:
        super().__init__()
        self._scene = scene

    @property
    def layout(self) -> int:
        return int(self.layoutLogic().GetViewArrangement())

    def setLayout(self, layout: int) -> None:
        recorded.layouts.append(int(layout))
        self.layoutLogic().SetViewArrangement(int(layout))
        self.layoutChanged.emit(int(layout))

    def layoutLogic(self) -> Any:
        return self._scene.GetFirstNodeByClass("vtkMRMLLayoutNode")

    def sliceViewNames(self) -> tuple[str, ...]:
        count = self._scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")
        return tuple(self._scene.GetNthNodeByClass(index, "vtkMRMLSliceNode").GetLayoutName() for index in range(count))

    def sliceWidget(self, name: str) -> SliceWidget | None:
        return SliceWidget(self._scene, name) if name in self.sliceViewNames() else None

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

    def __init__(self, scene: Any, name: str) -> None:
        self._scene, self._name = scene, name

    def mrmlSliceNode(self) -> Any:
        return self._scene.GetSingletonNode(self._name, "vtkMRMLSliceNode")

    def mrmlSliceCompositeNode(self) -> Any:
        return self._scene.GetSingletonNode(self._name, "vtkMRMLSliceCompositeNode")


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


def jumped_to_ras_mm() -> tuple[float, float, float]:
    """Where the three slice views meet."""
    node = {name: slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode") for name in ("Red", "Yellow", "Green")}
    return (node["Yellow"].GetSliceOffset(), node["Green"].GetSliceOffset(), node["Red"].GetSliceOffset())
