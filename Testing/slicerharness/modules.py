"""Modules as ``slicer.modules`` shows them: the real C++ logics, and scripted modules loaded from their file."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtCore
from PySide6.QtCore import Signal

from . import filedialog
from .nodewidgets import qMRMLWidget
from .pythonqt import PythonQtObject


class ModuleManager(PythonQtObject, QtCore.QObject):
    """``slicer.app.moduleManager()``."""

    moduleAboutToBeUnloaded = Signal(str)
    cpp_signals = ("moduleAboutToBeUnloaded(QString)",)

    def module(self, name: str) -> Any:
        return vars(slicer.modules).get(name.lower())

    def factoryManager(self) -> ModuleManager:
        return self

    def loadedModuleNames(self) -> tuple[str, ...]:
        return tuple(module.name for module in vars(slicer.modules).values() if isinstance(module, Module))

    def unload(self) -> None:
        """What the application does at its end: panels clean up."""
        for module in [module for module in vars(slicer.modules).values() if isinstance(module, Module)]:
            self.moduleAboutToBeUnloaded.emit(module.name)
            module.unload()

    def isLoaded(self, name: str) -> bool:
        return self.module(name) is not None


class Module:
    """A module of the application; the parent of a scripted module's class."""

    def __init__(self, name: str, *, path: Path | None = None, logic: Any = None) -> None:
        self.name = self.title = name
        self.path = str(path) if path is not None else None
        self.categories: list[str] = []
        self.dependencies: list[str] = []
        self.contributors: list[str] = []
        self.associatedNodeTypes: list[str] = []
        self.helpText = self.acknowledgementText = ""
        self.icon: Any = None
        self.hidden = False
        self.index = -1
        self._logic = logic
        self._representation: ScriptedWidget | None = None

    def logic(self) -> Any:
        return self._logic

    def widgetRepresentation(self) -> Any:
        """The panel, made when it is asked for the first time; C++ modules have none here."""
        if self._representation is None and self.path is not None:
            representation = ScriptedWidget(self.name)
            representation.reload()  # what raises here raises at each call: a test shall not meet half a panel
            self._representation = representation
        return self._representation

    def open(self) -> None:
        if self.widgetRepresentation() is not None:
            self._representation.enter()

    def leave(self) -> None:
        if self._representation is not None:
            self._representation.exit()

    def unload(self) -> None:
        if self._representation is not None:
            self._representation.self().cleanup()


class ScriptedWidget(qMRMLWidget):
    """``qSlicerScriptedLoadableModuleWidget``: the widget that holds a scripted module's panel."""

    def __init__(self, module_name: str) -> None:
        super().__init__()
        import qt

        self._module_name, self._panel, self._is_entered = module_name, None, False
        self.setObjectName(f"{module_name}ModuleWidget")
        self.setLayout(qt.QVBoxLayout())
        self.setMRMLScene(slicer.mrmlScene)

    def self(self) -> Any:
        return self._panel

    def reload(self) -> None:
        """Make the panel anew from the module's class, as *Reload* does."""
        self._panel = getattr(sys.modules[self._module_name], f"{self._module_name}Widget")(self)
        setattr(slicer.modules, f"{self._module_name}Widget", self._panel)
        self._panel.setup()

    def setup(self) -> None:
        """The panel is set up by ``reload``."""

    @property
    def isEntered(self) -> bool:
        return self._is_entered

    def enter(self) -> None:
        self._is_entered = True
        self._panel.enter()

    def exit(self) -> None:
        self._is_entered = False
        self._panel.exit()


def load_scripted(path: Path) -> Module:
    """Import a module file as Slicer does at start, and register what its class says."""
    name = path.stem
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} is not a Python file")
    source = importlib.util.module_from_spec(spec)
    sys.modules[name] = source
    spec.loader.exec_module(source)
    module = Module(name, path=path)
    setattr(slicer.modules, name.lower(), module)
    setattr(slicer.modules, f"{name}Instance", getattr(source, name)(module))
    filedialog.register(source)
    return module
