"""What the user prefers, kept between sessions in Slicer's settings under ``WholeBodyCSS/``. Nothing about patients."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from wbcss.errors import LabelSpaceError
from wbcss.labels import TaskId, parse_task_id
from wbcss.protocol import Quality

PREFIX = "WholeBodyCSS/"
QUALITIES: tuple[Quality, ...] = typing.get_args(Quality)
AUTOMATIC, SHIPPED = "auto", "shipped"
"""Values of ``registryInUse``: the user's own registry where there is one, or always the shipped one."""

_Value = TypeVar("_Value", str, bool)


class StoreProtocol(Protocol):
    """What is needed of a QSettings."""

    def value(self, key: str, default: Any = ...) -> Any: ...

    def setValue(self, key: str, value: Any) -> None: ...

    def remove(self, key: str) -> None: ...


class MemoryStore:
    """Settings that end with the process: for tests, and where Slicer offers none."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def value(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def setValue(self, key: str, value: Any) -> None:
        self.values[key] = value

    def remove(self, key: str) -> None:
        self.values.pop(key, None)


@dataclass(frozen=True)
class Preference(Generic[_Value]):
    """One key: a descriptor that reads and writes the store of its ``Settings``.

    A value that is not of ``default``'s type, or not one of ``choices``, reads as ``default``: a settings file that
    somebody edited must never keep the module from opening.
    """

    key: str
    default: _Value
    choices: tuple[str, ...] = ()

    def __get__(self, settings: Settings, owner: type | None = None) -> _Value:
        return self._checked(settings.store.value(PREFIX + self.key, self.default))

    def __set__(self, settings: Settings, value: _Value) -> None:
        settings.store.setValue(PREFIX + self.key, value)

    def _checked(self, found: Any) -> _Value:
        if isinstance(self.default, bool):
            # QSettings writes booleans into an .ini file as the words true and false.
            known = {"true": True, "false": False, "1": True, "0": False}
            return known.get(str(found).lower(), self.default)
        if not isinstance(found, str) or (self.choices and found not in self.choices):
            return self.default
        return found


class Settings:
    """Typed access to the preferences.

    Attributes:
        registryFolder: The user's own registry; empty means the folder of ``RegistryPlaces``.
        registryInUse: ``auto`` or ``shipped``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        quality: How far tiles overlap: fast, normal or best.
        show3D: Whether results are shown in 3D by themselves.
        keepWorkerWarm: Whether the segmentation process stays, with its model loaded, between runs.
        caseFolder: Where accepted corrections are kept for the next enrolment; empty until one is chosen.
        runTimes: What segmentations took on this machine, as ``TimeEstimate`` writes it.
        resumeInstallation: Set while packages are installed, so that an interrupted installation is noticed.
    """

    registryFolder = Preference("registryFolder", "")
    registryInUse = Preference("registryInUse", AUTOMATIC, (AUTOMATIC, SHIPPED))
    device = Preference("device", "auto")
    quality = Preference("quality", "normal", QUALITIES)
    show3D = Preference("show3D", True)
    keepWorkerWarm = Preference("keepWorkerWarm", True)
    caseFolder = Preference("caseFolder", "")
    runTimes = Preference("runTimes", "")
    resumeInstallation = Preference("resumeInstallation", False)

    def __init__(self, store: StoreProtocol | None = None) -> None:
        self.store: StoreProtocol = MemoryStore() if store is None else store

    @property
    def disabledTasks(self) -> frozenset[TaskId]:
        """Tasks that the user switched off: their decoders are not run, nothing of them is deleted."""
        words = str(self.store.value(f"{PREFIX}disabledTasks", "") or "").split()
        return frozenset(task for word in words if (task := _task(word)) is not None)

    @disabledTasks.setter
    def disabledTasks(self, tasks: Iterable[TaskId]) -> None:
        self.store.setValue(f"{PREFIX}disabledTasks", " ".join(sorted(tasks)))

    def setTaskEnabled(self, task: TaskId, isEnabled: bool) -> None:
        """Switch one task on or off."""
        others = self.disabledTasks - {task}
        self.disabledTasks = others if isEnabled else others | {task}

    @property
    def ownRegistry(self) -> Path | None:
        """The folder that the user chose for the own registry, if any."""
        return Path(self.registryFolder).expanduser() if self.registryFolder.strip() else None


def _task(word: str) -> TaskId | None:
    try:
        return parse_task_id(word)
    except LabelSpaceError:
        return None
