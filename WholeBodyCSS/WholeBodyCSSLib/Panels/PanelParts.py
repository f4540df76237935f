"""What the panels share: loading a layout, and saying a duration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer

from wbcss.resources import resource_path

from ..Translation import _

UiLoader = Callable[[str], Any]
"""``slicer.util.loadUI``."""


def loadPanel(uiLoader: UiLoader, name: str) -> tuple[Any, Any]:
    """The widget of ``name.ui``, which follows the scene, and its children by name."""
    widget = uiLoader(str(resource_path("UI", f"{name}.ui")))
    widget.setMRMLScene(slicer.mrmlScene)
    return widget, slicer.util.childWidgetVariables(widget)


def duration(seconds: float) -> str:
    """A time to wait, as people say it."""
    if seconds < 90:
        return _("{seconds} s").format(seconds=max(1, round(seconds)))
    if seconds < 5400:
        return _("{minutes} min").format(minutes=round(seconds / 60))
    return _("{hours} h").format(hours=round(seconds / 3600, 1))
