"""The module ``qt``: the flat namespace of PythonQt over PySide6."""

from __future__ import annotations

import types
from typing import Any

from PySide6 import QtCore, QtGui, QtNetwork, QtPrintSupport, QtSvg, QtTest, QtWidgets

from . import enums, properties, pythonqt
from .recorder import recorded
from .uiloader import QUiLoader

LIBRARIES = (QtCore, QtGui, QtWidgets, QtNetwork, QtSvg, QtPrintSupport, QtTest)
FILE_DIALOGS = ("getOpenFileName", "getSaveFileName", "getOpenFileNames", "getExistingDirectory")


def make() -> types.ModuleType:
    """Build the module; the PySide6 classes are changed for good, so once per process."""
    for library in LIBRARIES:
        for found in [getattr(library, name) for name in dir(library)]:
            if isinstance(found, type) and issubclass(found, QtCore.QObject):
                properties.install(found)
    properties.install_coercing_setters()
    # QObjects that Qt made and nobody adopted still tell their name.
    QtCore.QObject.name = pythonqt.PythonQtObject.name
    QtCore.QObject.className = pythonqt.PythonQtObject.className

    module = types.ModuleType("qt", __doc__)
    module.__getattr__ = lambda name: _lookup(module, name)
    module.QUiLoader = QUiLoader
    module.SIGNAL = lambda signature: f"2{signature}"
    module.SLOT = lambda signature: f"1{signature}"
    module.QDesktopServices = QDesktopServices
    module.QFileDialog = _file_dialog()
    _forbid_modal(module.QDialog, module.QMessageBox, module.QInputDialog, module.QColorDialog, module.QFileDialog)
    return module


def _lookup(module: types.ModuleType, name: str) -> Any:
    for library in LIBRARIES:
        found = getattr(library, name, None)
        if found is not None:
            if isinstance(found, type):
                enums.compare_with_numbers(found)
                found = pythonqt.wrap_class(found)
            setattr(module, name, found)
            return found
    raise AttributeError(f"module 'qt' has no attribute {name!r}")


class QDesktopServices:
    """Opens nothing; remembers what it was asked to open."""

    @staticmethod
    def openUrl(url: QtCore.QUrl) -> bool:
        recorded.opened_urls.append(url.toString())
        return True


def _file_dialog() -> type:
    dialog = pythonqt.wrap_class(QtWidgets.QFileDialog)
    for name in FILE_DIALOGS:
        setattr(dialog, name, staticmethod(_unanswered(f"qt.QFileDialog.{name}")))
    return dialog


def _forbid_modal(*dialogs: type) -> None:
    """A dialog that waits for a person would hang the test."""
    for dialog in dialogs:
        dialog.exec = dialog.exec_ = _unanswered(f"qt.{dialog.__name__}.exec")
    for name in ("question", "information", "warning", "critical"):
        setattr(dialogs[1], name, staticmethod(_unanswered(f"qt.QMessageBox.{name}")))
    for name in ("getText", "getItem", "getInt", "getDouble", "getMultiLineText"):
        setattr(dialogs[2], name, staticmethod(_unanswered(f"qt.QInputDialog.{name}")))
    dialogs[3].getColor = staticmethod(_unanswered("qt.QColorDialog.getColor"))


def _unanswered(name: str) -> Any:
    def call(*_arguments: Any, **_keywords: Any) -> Any:
        raise RuntimeError(f"{name} would wait for a person; answer it in the test with unittest.mock.patch({name!r})")

    return call
