"""Files dropped onto the application's window: the classes of modules that accept them, and a drop."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PySide6 import QtCore

dialogs: list[tuple[qSlicerFileDialog, Any]] = []
"""What the loaded modules offer: objects of their classes ``<Module>FileDialog``."""


class qSlicerFileDialog:
    """The parent that Slicer gives to a module's file dialog."""

    NoAction, Read, Write = 0, 1, 2

    def __init__(self) -> None:
        self.fileType = self.description = ""
        self.action = self.NoAction
        self._mime: Any = None
        self._accepted = False

    def mimeData(self) -> Any:
        return self._mime

    def acceptMimeData(self, accepted: bool) -> None:
        self._accepted = bool(accepted)


def register(module_source: Any) -> None:
    """Make the file dialog of a module that has one."""
    cls = getattr(module_source, f"{module_source.__name__}FileDialog", None)
    if cls is not None:
        parent = qSlicerFileDialog()
        dialogs.append((parent, cls(parent)))


def drop(paths: Iterable[Path]) -> bool:
    """Drop files onto the window; whether a module took them. It may put off what it does to a timer."""
    mime = QtCore.QMimeData()
    mime.setUrls([QtCore.QUrl.fromLocalFile(str(path)) for path in paths])
    for parent, dialog in dialogs:
        parent._mime, parent._accepted = mime, False
        dialog.isMimeDataAccepted()
        if parent._accepted:
            dialog.dropEvent()
            return True
    return False
