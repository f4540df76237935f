"""The module ``ctk``. A class without a stand-in raises at its first use."""

from __future__ import annotations

import types
from typing import Any, NoReturn

from PySide6 import QtWidgets

from . import ctksettings, ctkwidgets
from .uiloader import register


class ctkWidgetsUtils:
    """Helpers of CTK."""

    @staticmethod
    def grabWidget(widget: QtWidgets.QWidget) -> Any:
        return widget.grab().toImage()


def make_ctk() -> types.ModuleType:
    """Build the module and let ``.ui`` files name its widgets."""
    module = types.ModuleType("ctk", __doc__)
    module.ctkWidgetsUtils = ctkWidgetsUtils
    for source in (ctkwidgets, ctksettings):
        for name, found in vars(source).items():
            if name.startswith("ctk"):
                setattr(module, name, found)
                if issubclass(found, QtWidgets.QWidget):
                    register(found)
    module.__getattr__ = _missing
    return module


def _missing(name: str) -> NoReturn:
    raise AttributeError(f"ctk.{name} has no stand-in in the harness")
