"""What stand-ins for C++ widgets are made of: stored properties and the setters that PythonQt shows beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from PySide6.QtCore import Property

from .properties import as_pythonqt, coerced

Widget = TypeVar("Widget", bound=type)


def stored(kind: Any, default: Any, changed: Callable[[Any], None] | None = None) -> Property:
    """A property that remembers what was set; ``changed`` is called after it has got another value."""
    key = f"_stored_{len(_keys)}"
    _keys.append(key)
    type_name = {bool: "bool", int: "int", float: "double", str: "QString"}.get(kind, str(kind))

    def read(self: Any) -> Any:
        return as_pythonqt(self.__dict__.get(key, default))

    def write(self: Any, value: Any) -> None:
        value = coerced(key, type_name, value)
        if value != read(self):
            self.__dict__[key] = list(value) if kind == "QStringList" else value
            if changed is not None:
                changed(self)

    return Property(kind, read, write)


_keys: list[str] = []


def with_setters(cls: Widget) -> Widget:
    """Add ``setName`` for each property that the class declares: setters are slots, and callable from Python."""
    for name, found in list(vars(cls).items()):
        if isinstance(found, Property):
            setter = f"set{name[0].upper()}{name[1:]}"
            if not callable(getattr(cls, setter, None)):
                setattr(cls, setter, _setter(name))
    return cls


def _setter(name: str) -> Callable[[Any, Any], None]:
    def write(self: Any, value: Any) -> None:
        setattr(self, name, value)

    return write
