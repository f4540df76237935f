"""Qt properties as attributes, the way PythonQt shows them: ``button.text``, ``box.value = 3``, no parentheses."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtWidgets

QT5_PROPERTIES: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("qt5_properties.json").read_text(encoding="utf-8")
)
"""Properties per class in Qt 5.15: Slicer's Qt, which must not look richer than it is."""

STAY_METHODS = {"sizeHint", "minimumSizeHint", "heightForWidth"}
"""Virtual methods that are also properties; as attributes they would hide what Shiboken calls."""

COERCING_SETTERS: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (QtWidgets.QLabel, "setText", str),
    (QtWidgets.QLineEdit, "setText", str),
    (QtWidgets.QAbstractButton, "setText", str),
    (QtWidgets.QSpinBox, "setValue", int),
    (QtWidgets.QWidget, "setEnabled", bool),
    (QtWidgets.QWidget, "setVisible", bool),
    (QtWidgets.QWidget, "setToolTip", str),
    (QtWidgets.QWidget, "setWindowTitle", str),
)


class StaticOrProperty(property):
    """``QTimer.singleShot``: a static function of the class, a property of its instances."""

    def __init__(self, static: Any, getter: Callable[[Any], Any], setter: Callable[[Any, Any], None]) -> None:
        super().__init__(getter, setter)
        self._static = static

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self._static.__get__(None, owner) if instance is None else super().__get__(instance, owner)


def as_pythonqt(value: Any) -> Any:
    """List values arrive as tuples in PythonQt."""
    return tuple(value) if type(value) is list else value


def install(cls: type[QtCore.QObject]) -> None:
    """Replace the getters of the properties that ``cls`` itself declares by properties of the same name."""
    meta = cls.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        described = meta.property(index)
        name = described.name()
        if name in STAY_METHODS or (cls.__name__ in QT5_PROPERTIES and name not in QT5_PROPERTIES[cls.__name__]):
            continue
        existing = inspect.getattr_static(cls, name, None)
        if type(existing).__name__ == "Signal":
            continue
        getter, setter = _getter(cls, name), _setter(cls, name, described.typeName())
        if isinstance(existing, staticmethod) or name == "singleShot":
            setattr(cls, name, StaticOrProperty(existing, getter, setter))
        else:
            setattr(cls, name, property(getter, setter if described.isWritable() else None))


def install_coercing_setters() -> None:
    """``label.setText(5)`` and ``button.setEnabled(None)`` work in PythonQt."""
    for cls, name, convert in COERCING_SETTERS:
        setattr(cls, name, _coercing(getattr(cls, name), convert))


def _getter(cls: type, name: str) -> Callable[[Any], Any]:
    capital = name[0].upper() + name[1:]
    found = [inspect.getattr_static(cls, candidate, None) for candidate in (name, f"is{capital}", f"has{capital}")]
    methods = [method for method in found if method is not None and not isinstance(method, property)]

    def getter(self: Any) -> Any:
        if methods:
            try:
                return as_pythonqt(methods[0](self))
            except TypeError:  # needs arguments: not this property's getter
                pass
        return as_pythonqt(QtCore.QObject.property(self, name))

    return getter


def _setter(cls: type, name: str, type_name: str) -> Callable[[Any, Any], None]:
    method = inspect.getattr_static(cls, f"set{name[0].upper()}{name[1:]}", None)

    def setter(self: Any, value: Any) -> None:
        value = coerced(name, type_name, value)
        if method is not None:
            try:
                method(self, value)
            except TypeError:  # another overload than that of the property
                pass
            else:
                return
        if not QtCore.QObject.setProperty(self, name, value):
            raise TypeError(f"{cls.__name__}.{name} must be a {type_name}, got {value!r}")

    return setter


def coerced(name: str, type_name: str, value: Any) -> Any:
    """``value`` as PythonQt hands it to a property of the C++ type ``type_name``."""
    if type_name == "bool":
        return bool(value)
    if type_name == "QString":
        return str(value)
    if type_name in {"int", "double"} and isinstance(value, str):
        raise AttributeError(
            f"Property '{name}' of type '{type_name}' does not accept an object of type str ({value!r})"
        )
    if type_name == "int" and isinstance(value, float):
        return int(value)
    return value


def _coercing(method: Callable[[Any, Any], Any], convert: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def setter(self: Any, value: Any) -> Any:
        return method(self, convert(value))

    return setter
