"""Enums of Qt compare with numbers, because in PythonQt they are numbers: ``state == qt.Qt.Checked`` with state 2."""

from __future__ import annotations

import enum
from typing import Any

_changed: set[type] = set()


def compare_with_numbers(cls: type) -> None:
    """Change the enums that ``cls`` and its bases declare; those of PySide6 that are numbers already stay."""
    for base in cls.__mro__:
        if base in _changed:
            return
        _changed.add(base)
        for found in list(vars(base).values()):
            if isinstance(found, type) and issubclass(found, enum.Enum) and not issubclass(found, int):
                found.__eq__ = _equal
                found.__hash__ = _hash
                found.__int__ = found.__index__ = _value


def _equal(self: Any, other: object) -> bool:
    return self is other or (isinstance(other, int) and self.value == other)


def _hash(self: Any) -> int:
    return hash(self.value)


def _value(self: Any) -> int:
    return int(self.value)
