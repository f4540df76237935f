"""Puts the stand-ins where a module imports them from: ``qt``, ``ctk``, ``slicer.app``, ``slicer.modules`` ..."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import types
from pathlib import Path
from typing import Any

from .recorder import catch_exception, catch_in_thread

_MANY = 1 << 40
MODULE_FILE = Path(__file__).resolve().parents[2] / "WholeBodyCSS" / "WholeBodyCSS.py"


def install() -> Any:
    """The ``slicer`` package, ready for a module. Once per process: PySide6's classes are changed for good."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    _keep_none_alive()
    from . import qtmodule

    sys.modules["qt"] = qtmodule.make()
    import slicer
    import slicer.util

    from . import (
        application,
        filedialog,
        modules,
        nodewidgets,
        sampledata,
        scene,
        scripted,
        segmenteditor,
        segmentwidgets,
    )
    from .ctkmodule import make_ctk
    from .uiloader import register

    sys.modules["ctk"] = make_ctk()
    slicer.mrmlScene, logic, logics = scene.make()
    slicer.app = application.Application(slicer.mrmlScene, logic)
    slicer.modules = types.SimpleNamespace()
    slicer.moduleNames = types.SimpleNamespace()
    for name, module_logic in logics.items():
        setattr(slicer.modules, name.lower(), modules.Module(name, logic=module_logic))
        setattr(slicer.moduleNames, name, name)
    for source in (nodewidgets, segmentwidgets, segmenteditor):
        for name, found in vars(source).items():
            if name.startswith("qMRML"):
                setattr(slicer, name, found)
                register(found)
    slicer.modules.segmenteditor = segmenteditor.SegmentEditorModule()
    slicer.qSlicerScriptedLoadableModuleWidget = modules.ScriptedWidget
    slicer.qSlicerFileDialog = filedialog.qSlicerFileDialog
    slicer.qSlicerScriptedLoadableModule = modules.Module
    slicer.ScriptedLoadableModule, slicer.i18n = scripted.make_modules()
    for module in (slicer.ScriptedLoadableModule, slicer.i18n):
        sys.modules[module.__name__] = module
    sys.modules["SampleData"] = sampledata.make()
    slicer.modules.sampleDataSources = {}
    slicer.util.delayDisplay = _delay_display
    slicer.app.window = application.MainWindow()
    sys.excepthook = catch_exception
    threading.excepthook = catch_in_thread
    return slicer


def load_module(path: Path = MODULE_FILE) -> Any:
    """Load a scripted module and finish starting the application; returns ``slicer.modules.<name>``."""
    import slicer

    from . import modules

    module = modules.load_scripted(path)
    slicer.app.startupCompleted.emit()
    return module


def _delay_display(message: str, *_rest: Any, **_options: Any) -> None:
    """No test waits for a message to go away."""
    import logging

    import slicer

    logging.getLogger("slicer").info(message)
    slicer.app.processEvents()


def _keep_none_alive() -> None:
    """Let a panel that is polled for minutes not end in "deallocating None".

    Every call of PySide6 6.12 that returns nothing takes one reference from None, and before Python 3.12, which made
    None immortal, a few thousand of them end the process. Slicer has neither.
    """
    if sys.version_info < (3, 12):
        ctypes.c_ssize_t.from_address(id(None)).value += _MANY
