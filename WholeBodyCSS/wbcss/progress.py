"""Callables through which long operations report and are stopped."""

from __future__ import annotations

from collections.abc import Callable

from .errors import Cancelled

Progress = Callable[[float, str], None]
"""Called with the finished fraction in [0, 1] and a short stage name."""

IsCancelled = Callable[[], bool]


def silent(fraction: float, stage: str) -> None:
    """A Progress that reports to nobody."""


def never() -> bool:
    """An IsCancelled that never stops anything."""
    return False


def check_cancelled(cancelled: IsCancelled) -> None:
    """Raise Cancelled if the caller asked to stop."""
    if cancelled():
        raise Cancelled("cancelled; nothing was written")
