"""Which registries there are: the shipped one, which nobody writes into, and the user's own one.

The user's registry is made when it is first needed, for an enrolment or an import, as a verified copy of the shipped
one. From then on it is the one in use. A new version of the extension never touches it: a shipped task that is newer
than the user's is offered as an update and published beside the old version; a shipped registry with another encoder
is reported, because the user's own tasks cannot work with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wbcss import storage
from wbcss.cards import TaskCard
from wbcss.errors import OutputError, RegistryError, WbcssError
from wbcss.labels import TaskId
from wbcss.layout import ENCODER_DIR, version_folders
from wbcss.registry import Registry
from wbcss.resources import starter_registry

from .Settings import AUTOMATIC, SHIPPED, Settings

_LOG = logging.getLogger(__name__)


def defaultOwnFolder() -> Path:
    """Where the system wants a user's data: it outlives updates of Slicer and is not copied between computers."""
    home = Path.home()
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "WholeBodyCSS" / "registry"


@dataclass(frozen=True, kw_only=True)
class ShippedNews:
    """What the shipped registry has and the user's own one has not.

    Attributes:
        updates: Newest shipped version of every task that the own registry has in an older version, or not at all.
        isOtherEncoder: The shipped encoder is another one: its tasks cannot be brought over.
    """

    updates: tuple[TaskCard, ...] = ()
    isOtherEncoder: bool = False

    def of(self, task: TaskId) -> TaskCard | None:
        """The update of ``task``, if there is one."""
        return next((card for card in self.updates if card.task == task), None)


class RegistryPlaces:
    """The registries of this user.

    Args:
        settings: Names the own folder and which registry is in use.
        ownFolder: Where the own registry lies when the settings name none.
        shipped: Replaced in tests.
    """

    def __init__(
        self, settings: Settings, ownFolder: Callable[[], Path] = defaultOwnFolder, shipped: Path | None = None
    ) -> None:
        self._settings = settings
        self._ownFolder = ownFolder
        self.shipped = starter_registry() if shipped is None else shipped

    @property
    def own(self) -> Path:
        """Folder of the user's own registry, whether it exists or not."""
        return self._settings.ownRegistry or self._ownFolder()

    @property
    def hasOwn(self) -> bool:
        """Whether the own registry was made."""
        return (self.own / ENCODER_DIR).is_dir()

    @property
    def inUse(self) -> Path:
        """The registry that segmentations use and the panels show."""
        return self.own if self.hasOwn and self._settings.registryInUse != SHIPPED else self.shipped

    @property
    def isReadOnly(self) -> bool:
        """Whether the registry in use is the shipped one."""
        return self.inUse == self.shipped

    def writable(self) -> Path:
        """The own registry, made now if there is none, and put to use.

        Raises:
            OutputError: its folder cannot be written, or the disk is full; nothing is left behind.
            RegistryError: the shipped registry is damaged and is not copied.
        """
        own = self.own
        if not self.hasOwn:
            self._makeOwn(own)
        self._settings.registryInUse = AUTOMATIC
        return own

    def news(self) -> ShippedNews:
        """What an update of the extension brought that the own registry lacks; nothing while there is no own one."""
        if not self.hasOwn:
            return ShippedNews()
        own, shipped = Registry(self.own), Registry(self.shipped)
        try:
            if own.encoder_card().weights_sha256 != shipped.encoder_card().weights_sha256:
                return ShippedNews(isOtherEncoder=True)
            versions = version_folders(own.root)
            newer = [card for card in shipped.tasks() if card.version > max(versions.get(card.task, (0,)))]
        except WbcssError as error:
            _LOG.warning("shipped and own registry cannot be compared: %s", error)
            return ShippedNews()
        return ShippedNews(updates=tuple(newer))

    def _makeOwn(self, own: Path) -> None:
        problems = Registry(self.shipped).verify()
        if problems:
            raise RegistryError(f"the shipped registry must be sound, got: {problems[0]}; install the extension again")
        with _reported(own):
            if own.exists() and any(path.name != storage.LOCK_NAME for path in own.iterdir()):
                raise OutputError(
                    f"the folder for your own tasks must be empty or a registry, got {own}; choose another one in the "
                    "application settings"
                )
            own.parent.mkdir(parents=True, exist_ok=True)
            staging = storage.staging_path(own.parent)
            try:
                shutil.copytree(self.shipped, staging, ignore=shutil.ignore_patterns(".*"))
                _checkCopy(staging)
                if not self.hasOwn:
                    _removeEmpty(own)
                try:
                    storage.rename_folder(staging, own)
                except OSError:
                    if not self.hasOwn:  # else another Slicer made it in the same moment, and that one is as good
                        raise
            finally:
                shutil.rmtree(staging, ignore_errors=True)


class _reported:
    """Turns the system's refusal into an OutputError that says where and what to do."""

    def __init__(self, own: Path) -> None:
        self._own = own

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, shutil.Error)):
            reason = getattr(error, "strerror", None) or "its files cannot be copied"
            raise OutputError(
                f"cannot make a folder for your own tasks at {self._own}: {reason}; choose another folder in the "
                "application settings, or free some space"
            ) from error


def _removeEmpty(folder: Path) -> None:
    """Make room for the rename. A folder that holds anything stays, and the rename says so."""
    with contextlib.suppress(OSError):
        (folder / storage.LOCK_NAME).unlink(missing_ok=True)
        folder.rmdir()


def _checkCopy(folder: Path) -> None:
    problems = Registry(folder).verify()
    if problems:
        raise RegistryError(f"the copy of the shipped registry must be sound, got: {problems[0]}; check the disk")
