"""Asks the engine for its diagnosis in a process of its own and makes the report of it. No Qt, no MRML, no torch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from wbcss.errors import WbcssError

from . import Dependencies
from .CommandJob import CommandEnd, CommandJob, JobProtocol, Runner
from .DoctorReport import Host, Needs, Report, brokenReport, makeReport
from .RegistryPlaces import RegistryPlaces
from .Settings import Settings
from .Translation import _


class DoctorCheck:
    """One check at a time: from ``start`` to exactly one call of ``onReport``; ``poll`` moves it on.

    Attributes:
        onReport: Called with the report, whatever was found.
    """

    def __init__(
        self,
        places: RegistryPlaces,
        settings: Settings,
        slicerVersion: str,
        runner: Runner = CommandJob,
        isInstalled: Dependencies.IsInstalled | None = None,
    ) -> None:
        self._places = places
        self._settings = settings
        self._slicerVersion = slicerVersion
        self._runner = runner
        self._isInstalled = isInstalled
        self._job: JobProtocol | None = None
        self._host = Host(slicerVersion=slicerVersion)
        self._answer: CommandEnd | None = None
        self.onReport: Callable[[Report], None] = lambda report: None

    @property
    def isRunning(self) -> bool:
        """Whether a check was started and has not ended."""
        return self._job is not None

    def start(self, needs: Needs | None = None) -> None:
        """Look at everything; ``needs`` are those of the chosen scan."""
        self.close()
        self._host = self._look(needs)
        try:
            self._job = self._runner(("doctor", "--registry", str(self._places.inUse), "--json"))
        except WbcssError as error:
            self.onReport(brokenReport(str(error), self._host))

    def poll(self) -> None:
        """Report if the engine has answered."""
        end = None if self._job is None else self._job.poll()
        if end is not None:
            self._job, self._answer = None, end
            self.onReport(self._report(end))

    def update(self, needs: Needs | None) -> None:
        """Report again for another scan, with what the engine said last; nothing before it has said anything."""
        if self._answer is not None and not self.isRunning:
            self._host = self._look(needs)
            self.onReport(self._report(self._answer))

    def close(self) -> None:
        """Stop without reporting."""
        job, self._job = self._job, None
        if job is not None:
            job.cancel()

    def _report(self, end: CommandEnd) -> Report:
        if "system" not in end.output:
            text = _("it cannot be started (code {code}): {message}")
            return brokenReport(text.format(code=end.exitCode, message=end.message), self._host)
        return makeReport(end.output, self._host)

    def _look(self, needs: Needs | None) -> Host:
        isInstalled = () if self._isInstalled is None else (self._isInstalled,)
        return Host(
            slicerVersion=self._slicerVersion,
            device=self._settings.device,
            quality=self._settings.quality,
            isOwnRegistry=not self._places.isReadOnly,
            isOwnWritable=_isWritable(self._places.own),
            missing=Dependencies.missingPackages(*isInstalled),
            isInterrupted=Dependencies.isInterrupted(self._settings, *isInstalled),
            needs=needs,
        )


def _isWritable(folder: Path) -> bool:
    """Whether files can be made in ``folder``, or where it would be made."""
    place = next((place for place in (folder, *folder.absolute().parents) if place.exists()), None)
    try:
        with tempfile.TemporaryFile(dir=place):
            return place is not None
    except OSError:
        return False
