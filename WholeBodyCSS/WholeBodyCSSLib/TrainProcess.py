"""``wbcss-train`` in a process of its own: a short job that ends with Slicer, or a run that outlives it.

Room S must not import the training back end: everything is asked of its command line, which answers in JSON lines.
Output goes to files, never to pipes: a pipe would end a run together with the Slicer that reads it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from wbcss.errors import EXIT_CANCELLED, EXIT_DONE, EXIT_FAILED, RunError

from .EngineProcess import ENGINE_DIR, workerCommand, workerEnvironment

OUTPUT, ERRORS = "output.jsonl", "errors.log"
_PACKAGE = "wbcss_training"
_MODULE = f"{_PACKAGE}.cli"
_PREFIX = "wbcss-train: "
_KILL_AFTER_S = 1.0


def trainingFolder() -> Path:
    """The folder of the back end: beside the module in a checkout, else among the modules of the extension."""
    inCheckout = ENGINE_DIR.parent / "Training"
    return inCheckout if (inCheckout / "wbcss_training").is_dir() else ENGINE_DIR


def trainEnvironment(base: Mapping[str, str]) -> dict[str, str]:
    """``base`` plus what the engine and the back end need."""
    environment = workerEnvironment(base)
    return {**environment, "PYTHONPATH": os.pathsep.join([environment["PYTHONPATH"], str(trainingFolder())])}


def checkBackend() -> None:
    """Raise RunError unless the back end is part of this installation."""
    if not (trainingFolder() / _PACKAGE).is_dir() and importlib.util.find_spec(_PACKAGE) is None:
        raise RunError(
            f"training needs the package {_PACKAGE} in {trainingFolder()}, which is not there; install the extension "
            "again"
        )


@dataclass(frozen=True, kw_only=True)
class JobEnd:
    """How a job ended.

    Attributes:
        exitCode: 0 done, 2 something given was wrong, 3 failed, 130 cancelled.
        lines: The JSON objects that it printed, progress left out.
        message: Its complaint in one line, "" if it had none.
    """

    exitCode: int
    lines: tuple[Mapping[str, Any], ...] = ()
    message: str = ""

    @property
    def isCancelled(self) -> bool:
        """Whether it was stopped on purpose."""
        return self.exitCode == EXIT_CANCELLED


class JobProtocol(Protocol):
    """What is needed of a TrainJob."""

    def poll(self) -> JobEnd | None: ...

    def cancel(self) -> None: ...

    @property
    def progress(self) -> tuple[float, str]: ...


class RunProtocol(Protocol):
    """What is needed of a process that runs an enrolment: whether it still lives, and its end if it must be."""

    @property
    def exitCode(self) -> int | None: ...

    def kill(self) -> None: ...


JobStarter = Callable[[Sequence[str]], JobProtocol]
RunStarter = Callable[[Sequence[str], Path], RunProtocol]
"""Starts ``wbcss-train ARGUMENTS`` with its output in a folder. Raises RunError."""


class LineReader:
    """The JSON objects of a file that another process is writing, each handed over once; half a line waits."""

    def __init__(self, path: Path, start: int = 0) -> None:
        self._path = path
        self._offset = start
        self._rest = b""

    def read(self) -> list[Mapping[str, Any]]:
        """What came since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        found: list[Mapping[str, Any]] = []
        for line in lines:
            with contextlib.suppress(ValueError):  # a library may print to standard output, too
                values = json.loads(line)
                if isinstance(values, dict):
                    found.append(values)
        return found


class DetachedRun:
    """A back end process that does not end with Slicer; it is running once this is made.

    Raises RunError if it cannot be started, or the back end is not installed.
    """

    def __init__(self, arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
        checkBackend()
        command = [*workerCommand(_MODULE), *arguments]
        detached = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(subprocess, "DETACHED_PROCESS", 0)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / OUTPUT).open("ab") as output, (folder / ERRORS).open("wb") as errors:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    env=trainEnvironment(os.environ if environment is None else environment),
                    creationflags=detached,
                    start_new_session=os.name != "nt",  # the end of Slicer's terminal or session is not its end
                )
        except OSError as error:
            raise RunError(f"the training process cannot be started by {command[0]}: {error}") from error

    @property
    def exitCode(self) -> int | None:
        """None while it lives."""
        return self._process.poll()

    def kill(self) -> None:
        """End it with all its children; it has ended on return. Behind a launcher the group is what counts."""
        for name in ("SIGTERM", "SIGKILL"):
            if self.exitCode is not None:
                return
            _signalTree(self._process.pid, name)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILL_AFTER_S)


class TrainJob:
    """A short ``wbcss-train`` command, such as a check; it is running once this is made, and ends with Slicer."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="WholeBodyCSS-"))
        self._reader = LineReader(self._folder / OUTPUT)
        self._lines: list[Mapping[str, Any]] = []
        self._end: JobEnd | None = None
        self._isCancelled = False
        self._progress = (0.0, "")
        try:
            self._run = DetachedRun(arguments, self._folder, environment)
        except RunError:
            self._close()
            raise

    @property
    def progress(self) -> tuple[float, str]:
        """The last fraction and stage that it told."""
        return self._progress

    def poll(self) -> JobEnd | None:
        """How it ended; None while it runs. Never waits."""
        if self._end is not None:
            return self._end
        code = self._run.exitCode
        for line in self._reader.read():
            if "fraction" in line:
                self._progress = (float(line["fraction"]), str(line.get("stage", "")))
            else:
                self._lines.append(line)
        if code is not None:
            self._end = self._ended(code)
            self._close()
        return self._end

    def cancel(self) -> None:
        """Stop it; ``poll`` says that it was cancelled."""
        if self._end is None:
            self._isCancelled = True
            self._run.kill()
            self.poll()

    def _ended(self, code: int) -> JobEnd:
        if self._isCancelled:
            return JobEnd(exitCode=EXIT_CANCELLED)
        message = lastComplaint(self._folder / ERRORS)
        if code != EXIT_DONE and not message:
            message = f"the training process ended with code {code} and said nothing"
        return JobEnd(exitCode=code if code >= 0 else EXIT_FAILED, lines=tuple(self._lines), message=message)

    def _close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def lastComplaint(path: Path) -> str:
    """The last line in which ``wbcss-train`` complained, else the last line at all, "" if there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    own = [line.removeprefix(_PREFIX) for line in lines if line.startswith(_PREFIX)]
    return (own or lines or [""])[-1]


def _signalTree(pid: int, name: str) -> None:
    if sys.platform == "win32":
        command = ["taskkill", "/T", "/F", "/PID", str(pid)]
        subprocess.run(command, capture_output=True, check=False, creationflags=subprocess.CREATE_NO_WINDOW)
        return
    with contextlib.suppress(ProcessLookupError):  # it may end by itself just now
        os.killpg(pid, getattr(signal, name))
