"""PythonQt's idioms on PySide6: what every ``qt`` object of the harness can do beyond its Qt class.

Every Qt class gets one Python subclass, because Shiboken looks ``connect`` up in the dictionary of an object's own type
only. So these classes have no Python inheritance among themselves, exactly as PythonQt's wrappers have none.
"""

from __future__ import annotations

import builtins
from typing import Any

from PySide6 import QtCore

from .properties import as_pythonqt

QT6_ONLY_SIGNALS = {"checkStateChanged"}
"""Signals that the Qt 5.15 of Slicer does not have."""

MADE_BY_QT = (
    "header", "horizontalHeader", "verticalHeader", "selectionModel", "model", "tabBar", "button", "addButton",
    "lineEdit", "viewport", "verticalScrollBar", "horizontalScrollBar", "addAction", "addMenu", "menuBar", "statusBar",
)  # fmt: skip
"""Methods that hand out objects which Qt made by itself; they come out as ``QtMade``."""

_PYTHON_TYPES = {"bool": bool, "int": int, "double": float, "QString": str}
_wrapped: dict[type, type] = {}
_loading: list[str] = []


class PythonQtObject:
    """What a PythonQt wrapper offers beyond the Qt class; mixed into every class of ``qt``, ``ctk`` and qMRML."""

    _is_cpp = False
    cpp_signals: tuple[str, ...] = ()
    """C++ signatures of the signals that a stand-in declares in Python."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name in ("connect", "disconnect"):
            cls.__dict__.get(name) or setattr(cls, name, getattr(PythonQtObject, name))
        for name in MADE_BY_QT:
            base = None if name in cls.__dict__ else getattr(cls, name, None)
            if callable(base) and not getattr(base, "comes_out_idiomatic", False):
                setattr(cls, name, _idiomatic(base))

    def __setattr__(self, name: str, value: Any) -> None:
        cls = type(self)
        closed = cls.__dict__.get("_is_cpp", False) and not _loading  # Qt's loader publishes children as attributes
        if closed and not name.startswith("_") and not hasattr(cls, name) and name not in self._dynamic_names():
            raise AttributeError(
                f"'{name}' does not exist on {cls.__name__} and creating new attributes on C++ objects is not allowed"
            )
        if closed and name in self._dynamic_names():
            QtCore.QObject.setProperty(self, name, value)
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            if name in self._dynamic_names():
                return as_pythonqt(QtCore.QObject.property(self, name))
            base = type(self).__dict__.get("_qt_class")
            if base is not None and name[:1].isupper() and hasattr(base, name):  # an enum value: process.Running
                return getattr(base, name)
        raise AttributeError(f"{type(self).__name__} has no attribute named '{name}'")

    def _dynamic_names(self) -> list[str]:
        try:
            return [bytes(name.data()).decode() for name in QtCore.QObject.dynamicPropertyNames(self)]
        except RuntimeError:  # the C++ object is gone
            return []

    def property(self, name: str) -> Any:
        """The value of a static or dynamic property."""
        return as_pythonqt(QtCore.QObject.property(self, name))

    def connect(self, signature: str, *target: Any) -> bool:
        """``connect("clicked(bool)", function)`` or ``connect("clicked()", receiver, "slot()")``.

        PythonQt prints a line and returns False for a signal that does not exist; here it raises, so that a test fails.
        """
        signal = self._signal(signature)
        if len(target) == 2:
            receiver, slot = target
            function = getattr(receiver, _split(slot)[0])
        else:
            (function,) = target
        if not callable(function):
            raise TypeError(f"connect: {signature!r} needs a function, got {function!r}")
        signal.connect(function)
        return True

    def disconnect(self, signature: str, *target: Any) -> bool:
        """Undo a ``connect``; False if there was none."""
        try:
            self._signal(signature).disconnect(*target)
        except (RuntimeError, TypeError):
            return False
        return True

    def _signal(self, signature: str) -> Any:
        return find_signal(self, signature)

    def findChildren(self, kind: type = QtCore.QObject, *rest: Any) -> tuple[Any, ...]:
        """Every descendant of a Qt class."""
        return tuple(QtCore.QObject.findChildren(self, qt_class(kind), *rest))

    def findChild(self, kind: type = QtCore.QObject, *rest: Any) -> Any:
        """The first descendant of a Qt class."""
        return QtCore.QObject.findChild(self, qt_class(kind), *rest)

    def className(self) -> str:
        """Name of the C++ class."""
        return str(QtCore.QObject.metaObject(self).className())

    def inherits(self, name: str) -> bool:
        """Whether the object is of the C++ class ``name`` or derived from it."""
        return any(cls.__name__ == name for cls in type(self).__mro__)

    def delete(self) -> None:
        """Destroy the object when control returns to the event loop."""
        QtCore.QObject.deleteLater(self)

    def exec_(self, *arguments: Any) -> Any:
        """``exec`` under its name of Qt 5."""
        return self.exec(*arguments)

    def _name(self) -> str:
        return str(QtCore.QObject.property(self, "objectName"))

    def _set_name(self, name: str) -> None:
        QtCore.QObject.setProperty(self, "objectName", name)

    name = builtins.property(_name, _set_name)  # `property` is a method here


def wrap_class(cls: type) -> type:
    """The subclass of a PySide6 class that behaves like PythonQt's wrapper of it; other classes stay as they are."""
    if not issubclass(cls, QtCore.QObject) or issubclass(cls, PythonQtObject):
        return cls
    if cls not in _wrapped:
        body = {"__module__": "qt", "__doc__": cls.__doc__, "_qt_class": cls, "_is_cpp": True}
        try:
            _wrapped[cls] = type(QtCore.QObject)(cls.__name__, (PythonQtObject, cls), body)
        except TypeError:  # PySide6 does not let it be derived
            _wrapped[cls] = cls
    return _wrapped[cls]


def qt_class(cls: type) -> type:
    """The PySide6 class behind ``cls``."""
    return cls.__dict__.get("_qt_class", cls) if isinstance(cls, type) else cls


class QtMade:
    """PythonQt's idioms around an object that Qt itself has made: such an object's class cannot be changed."""

    def __init__(self, target: QtCore.QObject) -> None:
        object.__setattr__(self, "_target", target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(type(self._target), name):
            raise AttributeError(f"'{name}' does not exist on {type(self._target).__name__}")
        setattr(self._target, name, value)

    def connect(self, signature: str, function: Any) -> bool:
        """As ``PythonQtObject.connect``."""
        find_signal(self._target, signature).connect(function)
        return True

    def disconnect(self, signature: str, *target: Any) -> bool:
        """As ``PythonQtObject.disconnect``."""
        return PythonQtObject.disconnect(self, signature, *target)

    def _signal(self, signature: str) -> Any:
        return find_signal(self._target, signature)


def _idiomatic(method: Any) -> Any:
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        found = method(self, *arguments, **keywords)
        plain = isinstance(found, QtCore.QObject) and not isinstance(found, PythonQtObject)
        return QtMade(found) if plain else found

    call.comes_out_idiomatic = True
    return call


def find_signal(sender: Any, signature: str) -> Any:
    """The signal of ``sender`` with exactly this C++ signature. Raises AttributeError if Slicer's would not have it."""
    cls, signature = type(sender), str(signature).lstrip("2")  # Qt's SIGNAL() puts a 2 in front
    name, arguments = _split(signature)
    missing = f"connect: {cls.__name__} has no signal {signature!r}"
    if name in QT6_ONLY_SIGNALS:
        raise AttributeError(f"{missing} in the Qt 5.15 of Slicer")
    if type(getattr(cls, name, None)).__name__ != "Signal":
        raise AttributeError(missing)
    wanted = _normalized(signature)
    declared = {_normalized(text) for base in cls.__mro__ for text in base.__dict__.get("cpp_signals", ())}
    ours = any(text.startswith(f"{name}(") for text in declared)
    is_cpp = getattr(cls, "_is_cpp", True)  # PySide6 itself checks a class that a module has written in Python
    if wanted not in declared if ours else is_cpp and QtCore.QObject.metaObject(sender).indexOfSignal(wanted) < 0:
        raise AttributeError(missing)
    signal = getattr(sender, name)
    if ours or not arguments or "," in arguments:
        return signal
    try:
        return signal[_PYTHON_TYPES.get(arguments, arguments)]
    except (KeyError, IndexError, TypeError):  # the only overload
        return signal


def _normalized(signature: str) -> str:
    return bytes(QtCore.QMetaObject.normalizedSignature(signature).data()).decode()


def _split(signature: str) -> tuple[str, str]:
    name, _, arguments = str(signature).partition("(")
    return name.strip().lstrip("12"), arguments.rstrip(")").strip()
