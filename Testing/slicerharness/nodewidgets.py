"""Stand-ins for the widgets that choose nodes, bound to the real MRML scene by real VTK observers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
import vtk
from PySide6 import QtWidgets
from PySide6.QtCore import Property, Signal

from .ctkwidgets import ctkCollapsibleButton, ctkDoubleSpinBox, ctkRangeWidget, ctkSliderWidget
from .pythonqt import PythonQtObject
from .standin import stored, with_setters

SCENE_SIGNAL = "mrmlSceneChanged(vtkMRMLScene*)"


class Observers:
    """VTK observers that are removed together."""

    def __init__(self) -> None:
        self._tags: list[tuple[Any, int]] = []

    def add(self, target: Any, event: int, function: Callable[..., None]) -> None:
        self._tags.append((target, target.AddObserver(event, function)))

    def clear(self) -> None:
        for target, tag in self._tags:
            target.RemoveObserver(tag)
        self._tags.clear()


class SceneFollower(PythonQtObject):
    """``setMRMLScene`` with its signal; mixed into every qMRML widget."""

    _scene: Any = None

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self._scene:
            return
        self._scene = scene
        self._scene_was_set()
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> Any:
        return self._scene

    def _scene_was_set(self) -> None:
        """A widget with contents fills itself here."""


class qMRMLWidget(SceneFollower, QtWidgets.QWidget):
    """Root of a panel."""

    _is_cpp = True
    mrmlSceneChanged = Signal(object)
    cpp_signals = (SCENE_SIGNAL,)


class qMRMLCollapsibleButton(SceneFollower, ctkCollapsibleButton):
    """A section that hands the scene on."""

    _is_cpp = True
    mrmlSceneChanged = Signal(object)
    cpp_signals = (SCENE_SIGNAL,)


class qMRMLSliderWidget(SceneFollower, ctkSliderWidget):
    """A slider that knows units in the application, not here."""

    _is_cpp = True
    mrmlSceneChanged = Signal(object)
    cpp_signals = (SCENE_SIGNAL,)
    quantity = stored(str, "")


class qMRMLSpinBox(SceneFollower, ctkDoubleSpinBox):
    """A number box that knows units in the application, not here."""

    _is_cpp = True
    mrmlSceneChanged = Signal(object)
    cpp_signals = (SCENE_SIGNAL,)
    quantity = stored(str, "")


class qMRMLRangeWidget(SceneFollower, ctkRangeWidget):
    """A range that knows units in the application, not here."""

    _is_cpp = True
    mrmlSceneChanged = Signal(object)
    cpp_signals = (SCENE_SIGNAL,)
    quantity = stored(str, "")


def _filling(kind: Any, default: Any) -> Property:
    """A property after whose change the list is made anew."""
    return stored(kind, default, lambda self: self._fill())


@with_setters
class qMRMLNodeComboBox(SceneFollower, QtWidgets.QWidget):
    """Lists the nodes of some classes and follows the scene."""

    _is_cpp = True
    mrmlSceneChanged = Signal(object)
    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    currentNodeRenamed = Signal(str)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAboutToBeRemoved = Signal(object)
    nodeActivated = Signal(object)
    cpp_signals = (
        SCENE_SIGNAL,
        "currentNodeChanged(vtkMRMLNode*)",
        "currentNodeChanged(bool)",
        "currentNodeIDChanged(QString)",
        "currentNodeRenamed(QString)",
        "nodeAdded(vtkMRMLNode*)",
        "nodeAddedByUser(vtkMRMLNode*)",
        "nodeAboutToBeRemoved(vtkMRMLNode*)",
        "nodeActivated(vtkMRMLNode*)",
    )

    nodeTypes = _filling("QStringList", ())
    hideChildNodeTypes = _filling("QStringList", ())
    showHidden = _filling(bool, False)
    showChildNodeTypes = _filling(bool, True)
    noneEnabled = _filling(bool, False)
    noneDisplay = _filling(str, "None")
    addEnabled = _filling(bool, True)
    removeEnabled = stored(bool, True)
    renameEnabled = stored(bool, False)
    editEnabled = stored(bool, False)
    selectNodeUponCreation = stored(bool, True)
    baseName = stored(str, "")
    interactionNodeSingletonTag = stored(str, "")
    currentNodeID = Property(
        str, lambda self: self._node.GetID() if self._node else "", lambda self, node_id: self.setCurrentNode(node_id)
    )

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._box = QtWidgets.QComboBox()
        row.addWidget(self._box)
        self._node: Any = None
        self._nodes: list[Any] = []
        self._attributes: dict[str, dict[str, str | None]] = {}
        self._observers = Observers()
        self._box.activated.connect(self._on_activated)
        self._fill()

    def _scene_was_set(self) -> None:
        self._observers.clear()
        if self._scene is not None:
            events = slicer.vtkMRMLScene
            self._observers.add(self._scene, events.NodeAddedEvent, _with_node(self._on_added))
            self._observers.add(self._scene, events.NodeAboutToBeRemovedEvent, _with_node(self._on_removing))
            self._observers.add(self._scene, events.NodeRemovedEvent, lambda *_: self._fill())
            self._observers.add(self._scene, events.EndCloseEvent, lambda *_: self._fill())
            self._observers.add(self._scene, events.EndBatchProcessEvent, lambda *_: self._fill())
        self._fill()

    def _on_added(self, node: Any) -> None:
        if self._accepts(node):
            self._observers.add(node, vtk.vtkCommand.ModifiedEvent, lambda *_: self._on_renamed(node))
            self._fill()
            self.nodeAdded.emit(node)

    def _on_removing(self, node: Any) -> None:
        if self._accepts(node):
            self.nodeAboutToBeRemoved.emit(node)

    def _on_renamed(self, node: Any) -> None:
        if node in self._nodes and self._box.itemText(self._nodes.index(node)) != node.GetName():
            self._box.setItemText(self._nodes.index(node), node.GetName())
            if node is self._node:
                self.currentNodeRenamed.emit(node.GetName())

    def _on_activated(self, index: int) -> None:
        if index < len(self._nodes):
            self._choose(self._nodes[index])
            self.nodeActivated.emit(self._node)
        else:
            self.addNode()

    def _accepts(self, node: Any) -> bool:
        if node is None or (node.GetHideFromEditors() and not self.showHidden):
            return False
        if any(node.IsA(hidden) for hidden in self.hideChildNodeTypes):
            return False
        for kind in self.nodeTypes:
            if node.IsA(kind) if self.showChildNodeTypes else node.GetClassName() == kind:
                wanted = self._attributes.get(kind, {}).items()
                return all(
                    node.GetAttribute(key) == value if value else node.GetAttribute(key) for key, value in wanted
                )
        return False

    def _fill(self) -> None:
        """List the nodes anew and keep the choice; a choice that went away is replaced as the application does."""
        if "_box" not in self.__dict__:
            return
        scene = self._scene
        every = [] if scene is None else [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]
        nodes = [node for node in every if self._accepts(node)]
        self._nodes = [None, *nodes] if self.noneEnabled else nodes
        self._box.clear()
        for node in self._nodes:
            self._box.addItem(self.noneDisplay if node is None else node.GetName())
        if self.addEnabled and self.nodeTypes:
            self._box.addItem(f"Create new {self.nodeTypes[0].removeprefix('vtkMRML').removesuffix('Node')}")
        kept = self._node if self._node in self._nodes else None
        first = nodes[0] if nodes and not self.noneEnabled else None
        self._choose(kept if kept is not None else first)

    def _choose(self, node: Any) -> None:
        self._box.setCurrentIndex(self._nodes.index(node) if node in self._nodes else -1)
        if node is not self._node:
            self._node = node
            self.currentNodeChanged.emit(node)
            self.currentNodeIDChanged.emit(node.GetID() if node else "")

    def currentNode(self) -> Any:
        return self._node

    def setCurrentNode(self, node: Any) -> None:
        """A node, its id, or None."""
        if isinstance(node, str):
            node = self._scene.GetNodeByID(node) if node and self._scene is not None else None
        self._choose(node if node in self._nodes else None)

    def addAttribute(self, kind: str, name: str, value: str | None = None) -> None:
        self._attributes.setdefault(kind, {})[name] = value
        self._fill()

    def removeAttribute(self, kind: str, name: str) -> None:
        self._attributes.get(kind, {}).pop(name, None)
        self._fill()

    def nodeCount(self) -> int:
        return len([node for node in self._nodes if node is not None])

    def nodeFromIndex(self, index: int) -> Any:
        return [node for node in self._nodes if node is not None][index]

    def addNode(self, kind: str = "") -> Any:
        """What the entry *Create new* does."""
        kind = kind or self.nodeTypes[0]
        name = self._scene.GenerateUniqueName(self.baseName or kind.removeprefix("vtkMRML").removesuffix("Node"))
        node = self._scene.AddNewNodeByClass(kind, name)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node


@with_setters
class qMRMLCheckableNodeComboBox(qMRMLNodeComboBox):
    """Chooses several nodes."""

    _is_cpp = True
    checkedNodesChanged = Signal()
    cpp_signals = ("checkedNodesChanged()",)

    def checkedNodes(self) -> tuple[Any, ...]:
        return tuple(node for node in self._nodes if node is not None and node.GetID() in self._checked)

    def setCheckState(self, node: Any, state: Any) -> None:
        checked = bool(getattr(state, "value", state))
        if checked != (node.GetID() in self._checked):
            (self._checked.add if checked else self._checked.discard)(node.GetID())
            self.checkedNodesChanged.emit()

    @property
    def _checked(self) -> set[str]:
        return self.__dict__.setdefault("_checked_ids", set())


def _with_node(function: Callable[[Any], None]) -> Callable[..., None]:
    """An observer that receives the node of a scene's event."""

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def observer(_scene: Any, _event: str, node: Any) -> None:
        function(node)

    return observer
