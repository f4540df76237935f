"""What the harness cannot do but a test wants to see: pages opened, sample data registered, status messages shown."""

from __future__ import annotations

import sys
import threading
import traceback
from dataclasses import dataclass, field
from types import TracebackType

errors: list[str] = []
"""Tracebacks of exceptions that Qt or VTK swallowed: raised in a slot, an observer or a timer. Tests want none."""


@dataclass
class Recorder:
    """Filled by the stand-ins; emptied by a test that wants to start anew."""

    opened_urls: list[str] = field(default_factory=list)
    selected_modules: list[str] = field(default_factory=list)
    status_messages: list[str] = field(default_factory=list)
    layouts: list[int] = field(default_factory=list)


recorded = Recorder()


def catch_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """``sys.excepthook``: an exception in a slot is printed, remembered, and the click returns."""
    errors.append("".join(traceback.format_exception(kind, error, trace)))
    sys.__excepthook__(kind, error, trace)


def catch_in_thread(found: threading.ExceptHookArgs) -> None:
    """``threading.excepthook``: a thread that died of an exception is one that nobody heard of."""
    if found.exc_value is not None:
        catch_exception(found.exc_type, found.exc_value, found.exc_traceback)
