"""One ``wbcss`` command in a process of its own: started, polled by a timer, stopped together with its children.

Free of Qt and of threads: what the command prints goes to temporary files, so that nothing waits for a pipe.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from wbcss.errors import EXIT_CANCELLED, EXIT_DONE, EXIT_FAILED, RunError

from .EngineProcess import workerEnvironment

_PREFIX = "wbcss: "
_KILL_AFTER_S = 0.5
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CommandEnd:
    """How a command ended.

    Attributes:
        exitCode: 0 done, 2 something given was wrong, 3 failed, 130 cancelled.
        output: The JSON object that it printed; empty if it printed none.
        message: What it complained of, in one line; empty when it did not.
    """

    exitCode: int
    output: Mapping[str, Any] = field(default_factory=dict)
    message: str = ""

    @property
    def isDone(self) -> bool:
        """Whether it did what it was asked for."""
        return self.exitCode == EXIT_DONE


class JobProtocol(Protocol):
    """What is needed of a CommandJob."""

    def poll(self) -> CommandEnd | None: ...

    def cancel(self) -> None: ...


Runner = Callable[[Sequence[str]], JobProtocol]
"""Starts ``wbcss ARGUMENTS``. Raises RunError if it cannot."""


def pythonCommand() -> str:
    """Slicer's Python launcher if this is Slicer, else the running interpreter."""
    return shutil.which("PythonSlicer") or sys.executable


class CommandJob:
    """``wbcss ARGUMENTS`` in the background; it is running once this is made.

    Raises RunError if it cannot be started.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._output: IO[bytes] | None = None
        self._complaints: IO[bytes] | None = None
        self._isCancelled = False
        self._end: CommandEnd | None = None
        command = [pythonCommand(), "-m", "wbcss.cli.main", *arguments]
        try:
            self._output, self._complaints = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._complaints,
                env=workerEnvironment(os.environ if environment is None else environment),
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                # A group of its own: PythonSlicer is a launcher, and stopping it alone would leave the work running.
                start_new_session=os.name != "nt",
            )
        except OSError as error:
            self._close()
            raise RunError(f"the command wbcss {arguments[0]} cannot be started by {command[0]}: {error}") from error

    def poll(self) -> CommandEnd | None:
        """How it ended; None while it runs. Never waits."""
        if self._end is None and self._process.poll() is not None:
            self._end = self._ended(self._process.returncode)
            self._close()
        return self._end

    def wait(self, timeout_s: float) -> CommandEnd:
        """``poll`` until it has ended. Raises RunError, and stops it, after ``timeout_s``."""
        give_up_s = time.monotonic() + timeout_s
        while (end := self.poll()) is None:
            if time.monotonic() >= give_up_s:
                self.cancel()
                raise RunError(f"the command must end within {timeout_s:g} s, it was stopped")
            time.sleep(0.02)
        return end

    def cancel(self) -> None:
        """Stop it with all its children; it has ended on return, and ``poll`` says that it was cancelled."""
        if self.poll() is not None:
            return
        self._isCancelled = True
        for sign in ("SIGTERM", "SIGKILL"):
            _signalTree(self._process, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILL_AFTER_S)
                break
        self.poll()

    def _ended(self, code: int) -> CommandEnd:
        if self._isCancelled:
            return CommandEnd(exitCode=EXIT_CANCELLED)
        lines = [line for line in _text(self._complaints).splitlines() if line.strip()]
        own = [line.removeprefix(_PREFIX) for line in lines if line.startswith(_PREFIX)]
        message = (own or lines or [""])[-1]
        if code < 0 or (code and not message):
            message = message or f"the command ended with code {code} and said nothing"
        if lines and not own:
            _LOG.warning("a wbcss command wrote: %s", message)
        return CommandEnd(exitCode=code if code >= 0 else EXIT_FAILED, output=_object(self._output), message=message)

    def _close(self) -> None:
        for stream in (self._output, self._complaints):
            if stream is not None:
                stream.close()


def _signalTree(process: subprocess.Popen[bytes], name: str) -> None:
    if sys.platform == "win32":
        command = ["taskkill", "/T", "/F", "/PID", str(process.pid)]
        subprocess.run(command, capture_output=True, check=False, creationflags=subprocess.CREATE_NO_WINDOW)
        return
    with contextlib.suppress(ProcessLookupError):  # it may end by itself just now
        os.killpg(process.pid, getattr(signal, name))


def _text(stream: IO[bytes] | None) -> str:
    if stream is None:
        return ""
    stream.seek(0)
    return stream.read().decode("utf-8", errors="replace")


def _object(stream: IO[bytes] | None) -> Mapping[str, Any]:
    try:
        values = json.loads(_text(stream))
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
