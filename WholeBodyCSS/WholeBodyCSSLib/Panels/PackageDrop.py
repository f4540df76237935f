"""Task packages that are dropped onto Slicer's window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer

from wbcss.package import SUFFIX

from ..Translation import _

MODULE_NAME = "WholeBodyCSS"


class WholeBodyCSSFileDialog:
    """Accepts ``.wbtask`` files and hands them to the module's ``importPackage``.

    Slicer finds it by its name in the file of the module.
    """

    def __init__(self, qSlicerFileDialog: Any) -> None:
        self.qSlicerFileDialog = qSlicerFileDialog
        qSlicerFileDialog.fileType = _("Task package")
        qSlicerFileDialog.description = _("Add the organs of a task package to WholeBodyCSS")
        qSlicerFileDialog.action = slicer.qSlicerFileDialog.Read
        self._paths: list[Path] = []

    def execDialog(self) -> bool:
        """Never shown: dropping is enough."""
        return True

    def isMimeDataAccepted(self) -> None:
        """Accept only if everything that is dropped is a task package."""
        self._paths = packagesOf(self.qSlicerFileDialog.mimeData())
        self.qSlicerFileDialog.acceptMimeData(bool(self._paths))

    def dropEvent(self) -> None:
        """Import when the program that the files come from has been let go."""
        paths, self._paths = self._paths, []
        qt.QTimer.singleShot(0, lambda: _import(paths))


def packagesOf(mimeData: Any) -> list[Path]:
    """The dropped task packages; none if anything else is among what was dropped."""
    if not mimeData.hasFormat("text/uri-list"):
        return []
    paths = [Path(url.toLocalFile()) for url in mimeData.urls()]
    return paths if paths and all(path.suffix.lower() == SUFFIX for path in paths) else []


def _import(paths: list[Path]) -> None:
    slicer.util.selectModule(MODULE_NAME)
    widget = slicer.util.getModuleWidget(MODULE_NAME)
    for path in paths:
        widget.importPackage(path)
