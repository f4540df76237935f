"""``qt.QUiLoader``: loads ``.ui`` files into the harness's classes and carries out their connections literally."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from . import pythonqt

_custom: dict[str, type[QtWidgets.QWidget]] = {}
_alive: list[QtCore.QObject] = []
"""Python halves of loaded widgets: without a reference Shiboken would forget their class."""


def register(cls: type[QtWidgets.QWidget]) -> None:
    """Let ``.ui`` files name a stand-in."""
    _custom[cls.__name__] = cls


class QUiLoader(QtUiTools.QUiLoader):
    """Strict: a widget without a stand-in, or a connection between things that do not exist, raises."""

    def __init__(self, parent: QtCore.QObject | None = None) -> None:
        super().__init__(parent)
        self._problems: list[str] = []

    def createWidget(self, class_name: str, parent: QtWidgets.QWidget | None = None, name: str = "") -> Any:
        """Called by Qt for each ``<widget>``."""
        cls = _custom.get(class_name) or getattr(QtWidgets, class_name, None)
        if cls is None:
            self._problems.append(f"loadUI: no stand-in for {class_name} (object {name!r})")
            cls = QtWidgets.QWidget
        return self._named(pythonqt.wrap_class(cls)(parent), name)

    def createLayout(self, class_name: str, parent: QtCore.QObject | None = None, name: str = "") -> Any:
        """Called by Qt for each ``<layout>``."""
        cls = pythonqt.wrap_class(getattr(QtWidgets, class_name))
        return self._named(cls(parent) if isinstance(parent, QtWidgets.QWidget) else cls(), name)

    def createAction(self, parent: QtCore.QObject | None = None, name: str = "") -> Any:
        """Called by Qt for each ``<action>``."""
        return self._named(pythonqt.wrap_class(QtGui.QAction)(parent), name)

    def load(self, file: Any, parent: QtWidgets.QWidget | None = None) -> Any:
        """The root widget of ``file``, a ``QFile`` or a path."""
        path = Path(QtCore.QFile.fileName(file) if isinstance(file, QtCore.QFile) else str(file))
        tree, connections = _without_connections(path)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(tree))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        pythonqt._loading.append(path.name)
        try:
            root = super().load(buffer, parent)
        finally:
            pythonqt._loading.clear()
        if self._problems:
            raise RuntimeError(f"{path.name}: " + "; ".join(self._problems))
        if root is None:
            raise RuntimeError(f"{path.name}: {self.errorString()}")
        for sender, signal, receiver, slot in connections:
            _connect(root, path.name, sender, signal, receiver, slot)
        return root

    def _named(self, widget: Any, name: str) -> Any:
        widget.setObjectName(name)
        _alive.append(widget)
        return widget


def _without_connections(path: Path) -> tuple[ElementTree.Element, list[tuple[str, ...]]]:
    """QUiLoader cannot connect C++ signatures of classes written in Python; that is done afterwards."""
    root = ElementTree.parse(path).getroot()
    found = []
    for group in root.findall("connections"):
        for connection in group.findall("connection"):
            found.append(tuple(connection.findtext(key, "") for key in ("sender", "signal", "receiver", "slot")))
        root.remove(group)
    return root, found


def _connect(root: Any, file: str, sender: str, signal: str, receiver: str, slot: str) -> None:
    where = f"{file}: connection {sender}.{signal} -> {receiver}.{slot}"
    objects = {child.objectName: child for child in (*root.findChildren(QtCore.QObject), root)}
    for name in (sender, receiver):
        if name not in objects:
            raise RuntimeError(f"{where}: there is no {name}")
    function = getattr(objects[receiver], slot.partition("(")[0], None)
    if not callable(function):
        raise RuntimeError(f"{where}: {receiver} has no such slot")
    try:
        objects[sender].connect(signal, function)
    except AttributeError as error:
        raise RuntimeError(f"{where}: {error}") from error
