"""Pages of the settings dialog: properties of widgets kept in ``QSettings``."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal

from .pythonqt import PythonQtObject, find_signal


class ctkSettingsPanel(PythonQtObject, QtWidgets.QWidget):
    """Reads registered properties from the settings at once and writes each change."""

    _is_cpp = True
    OptionNone, OptionRequireRestart = 0, 1
    settingChanged = Signal(str, object)
    cpp_signals = ("settingChanged(QString,QVariant)",)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._registered: dict[str, tuple[Any, str, Any]] = {}

    def registerProperty(
        self, key: str, target: Any, name: str, signal: str, label: str = "", options: int = 0, settings: Any = None
    ) -> None:
        """Tie ``target.name`` to ``key``; the present value is the default."""
        del label, options
        self._registered[key] = (target, name, getattr(target, name))
        store = settings if settings is not None else QtCore.QSettings()
        if store.contains(key):
            default = getattr(target, name)
            setattr(target, name, _like(default, store.value(key)))

        def write(*_values: Any) -> None:
            store.setValue(key, getattr(target, name))
            self.settingChanged.emit(key, getattr(target, name))

        find_signal(target, signal).connect(write)

    def settings(self) -> QtCore.QSettings:
        return QtCore.QSettings()

    def defaultPropertyValue(self, key: str) -> Any:
        return self._registered[key][2]

    def restoreDefaultSettings(self) -> None:
        for target, name, default in self._registered.values():
            setattr(target, name, default)


class ctkBooleanMapper(PythonQtObject, QtCore.QObject):
    """A boolean property of another object as a number."""

    _is_cpp = True
    valueChanged = Signal(bool)
    valueAsIntChanged = Signal(int)
    cpp_signals = ("valueChanged(bool)", "valueAsIntChanged(int)")

    def __init__(self, target: Any, name: str, signal: str) -> None:
        super().__init__(target)
        self._target, self._name = target, name
        find_signal(target, signal).connect(self._report)

    def _report(self, *_values: Any) -> None:
        self.valueChanged.emit(self.value)
        self.valueAsIntChanged.emit(self.valueAsInt)

    def _get(self) -> bool:
        return bool(getattr(self._target, self._name))

    def _set(self, on: Any) -> None:
        setattr(self._target, self._name, bool(on))

    value = Property(bool, _get, _set)
    valueAsInt = Property(int, lambda self: int(self._get()), _set)


def _like(default: Any, stored: Any) -> Any:
    """INI files keep text only."""
    if isinstance(default, bool):
        return str(stored).lower() in {"true", "1"}
    return type(default)(stored) if isinstance(default, (int, float)) else stored
