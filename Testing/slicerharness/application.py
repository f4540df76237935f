"""``slicer.app``, ``slicer.modules`` and the main window over the real MRML scene."""

from __future__ import annotations

import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Signal

from .iomanager import CoreIOManager
from .modules import Module, ModuleManager
from .pythonqt import PythonQtObject
from .recorder import recorded
from .views import LayoutManager


class Application(PythonQtObject, QtWidgets.QApplication):
    """Stands in for ``qSlicerApplication`` in testing mode."""

    startupCompleted = Signal()
    cpp_signals = ("startupCompleted()",)
    majorVersion, minorVersion, revision = 5, 12, "harness"
    documentationBaseUrl = "https://slicer.readthedocs.io/"

    def __init__(self, scene: Any, logic: Any) -> None:
        super().__init__(["slicerharness"])
        self.setStyle("Fusion")
        self._scene, self._logic = scene, logic
        self._folder = tempfile.TemporaryDirectory(prefix="slicerharness-")
        self._isolate_settings()
        self._modules = ModuleManager(self)
        self._layout = LayoutManager(scene, logic)
        self._io = CoreIOManager()
        self._dialog: Any = None
        self.exit_code = 0
        self._options = types.SimpleNamespace(runPythonAndExit=False, noMainWindow=False)

    def _isolate_settings(self) -> None:
        """``qt.QSettings()`` is a file of this run, never the user's."""
        self.setOrganizationName("slicerharness")
        self.setApplicationName("SlicerHarness")
        settings = QtCore.QSettings
        settings.setDefaultFormat(settings.Format.IniFormat)
        for scope in (settings.Scope.UserScope, settings.Scope.SystemScope):
            settings.setPath(settings.Format.IniFormat, scope, self._folder.name)

    def remove_temporary_files(self) -> None:
        """The process ends without Python's own cleaning up."""
        self._folder.cleanup()

    @property
    def temporaryPath(self) -> str:
        return self._folder.name

    @property
    def slicerHome(self) -> str:
        return str(Path(sys.executable).parent)

    def mrmlScene(self) -> Any:
        return self._scene

    def applicationLogic(self) -> Any:
        return self._logic

    def moduleManager(self) -> ModuleManager:
        return self._modules

    def layoutManager(self) -> LayoutManager:
        return self._layout

    def coreIOManager(self) -> CoreIOManager:
        return self._io

    ioManager = coreIOManager

    def settingsDialog(self) -> Any:
        if self._dialog is None:
            self._dialog = SettingsDialog()
        return self._dialog

    def settings(self) -> Any:
        import qt

        return qt.QSettings()

    userSettings = revisionUserSettings = settings

    def testingEnabled(self) -> bool:
        return True

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        return QtCore.QProcessEnvironment.systemEnvironment()

    def moduleDocumentationUrl(self, name: str) -> str:
        return f"{self.documentationBaseUrl}{name}"

    def showStatusMessage(self, message: str, *_duration: int) -> None:
        recorded.status_messages.append(str(message))

    def pauseRender(self) -> None:
        """Nothing is rendered here."""

    def resumeRender(self) -> None:
        """Nothing is rendered here."""

    def exit(self, code: int = 0) -> None:
        """Remembered for the end of the script, which goes on until then as it does in Slicer."""
        self.exit_code = int(code)

    def commandOptions(self) -> types.SimpleNamespace:
        return self._options


class SettingsDialog(PythonQtObject, QtWidgets.QDialog):
    """Where modules add their page of preferences."""

    _is_cpp = True

    def __init__(self) -> None:
        super().__init__()
        self._tabs = QtWidgets.QTabWidget()
        QtWidgets.QVBoxLayout(self).addWidget(self._tabs)

    def addPanel(self, label: str, *rest: Any) -> None:
        """``addPanel(label, panel)`` or ``addPanel(label, icon, panel)``."""
        self._tabs.addTab(rest[-1], label)

    def panel(self, label: str) -> Any:
        for index in range(self._tabs.count):
            if self._tabs.tabText(index) == label:
                return self._tabs.widget(index)
        return None


class MainWindow(PythonQtObject, QtWidgets.QMainWindow):
    """Only what ``slicer.util`` asks of the main window."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self._selector = ModuleSelector()

    def moduleSelector(self) -> ModuleSelector:
        return self._selector


class ModuleSelector(PythonQtObject, QtWidgets.QWidget):
    """Opens modules: tells the old one to exit and the new one to enter."""

    moduleSelected = Signal(str)
    cpp_signals = ("moduleSelected(QString)",)

    def __init__(self) -> None:
        super().__init__()
        self._module = ""

    @property
    def selectedModule(self) -> str:
        return self._module

    def selectModule(self, name: str) -> None:
        module = slicer.app.moduleManager().module(name)
        if not isinstance(module, Module):
            raise RuntimeError(f"there is no module {name!r} in the harness")
        before = slicer.app.moduleManager().module(self._module)
        if before is not None:
            before.leave()
        recorded.selected_modules.append(name)
        self._module = name
        module.open()
        self.moduleSelected.emit(name)
