"""The platform's own small icons for good, worth a note, and bad."""

from __future__ import annotations

from typing import Any

import qt

SIZE_PX = 16


def statusIcon(widget: Any, state: str) -> Any:
    """Icon of ``good``, ``note`` or ``bad`` in the style of ``widget``."""
    icons = {
        "good": qt.QStyle.SP_DialogApplyButton,
        "note": qt.QStyle.SP_MessageBoxInformation,
        "bad": qt.QStyle.SP_MessageBoxWarning,
    }
    return widget.style().standardIcon(icons[state])


def showIcon(label: Any, state: str) -> None:
    """Show the icon of ``state`` on ``label``, or hide the label for no state."""
    label.visible = bool(state)
    if state:
        label.setPixmap(statusIcon(label, state).pixmap(SIZE_PX, SIZE_PX))
