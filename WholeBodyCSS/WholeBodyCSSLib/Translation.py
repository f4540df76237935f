"""Slicer's translation as ``_``, also for logic that runs where Slicer is not: there every text stays as it is."""

from __future__ import annotations

from collections.abc import Callable


def _untranslated(text: str) -> str:
    return text


# The very function of Slicer, not a wrapper: it finds the translation by the file of its caller.
try:
    from slicer.i18n import tr
except ImportError:
    tr = _untranslated
_: Callable[[str], str] = tr
