"""Owns the worker process: starts it, talks to it in one-line JSON messages, notices its death, stops it.

Free of Qt on purpose: threads read the pipes into a queue and ``poll``, called from a timer of the GUI thread, hands
the messages over. So nothing here blocks the GUI, and the same class is tested with the real worker without Slicer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import wbcss
from wbcss.errors import ProtocolError, RunError
from wbcss.protocol import ErrorReply, Message, Reply, Shutdown, encode, parse_reply

ENGINE_DIR = Path(wbcss.__file__).resolve().parents[1]
LOST = "worker_lost"
"""Kind of the error that ``poll`` reports when the worker ended without being asked to."""

_KEPT_LOG_LINES = 40
_LOG = logging.getLogger(__name__)


def workerCommand(module: str = "wbcss.worker") -> list[str]:
    """How a worker is started: by Slicer's Python launcher if this is Slicer, else by the running interpreter."""
    return [shutil.which("PythonSlicer") or sys.executable, "-m", module]


def workerEnvironment(base: Mapping[str, str]) -> dict[str, str]:
    """``base`` plus what the worker needs: the engine on its path, and pipes in UTF-8 without buffering.

    Slicer's child processes do not inherit the folders that Slicer adds to its own Python path.
    """
    folders = [str(ENGINE_DIR), *filter(None, [base.get("PYTHONPATH", "")])]
    return {
        **base,
        "PYTHONPATH": os.pathsep.join(folders),
        "PYTHONIOENCODING": "utf-8",
        "PYTHONUNBUFFERED": "1",
    }


class EngineProcess:
    """One worker. It is started by the first ``send`` and again by the next one after it died or was stopped.

    Args:
        command: How to start it.
        environment: What it inherits besides its own needs; None means everything.
        title: What users know it as.
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        title: str = "segmentation process",
    ) -> None:
        self._command = list(command) if command is not None else workerCommand()
        self._environment = workerEnvironment(os.environ if environment is None else environment)
        self._title = title
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._log: deque[str] = deque(maxlen=_KEPT_LOG_LINES)
        self._logReader: threading.Thread | None = None

    @property
    def isRunning(self) -> bool:
        """Whether there is a live worker."""
        return self._process is not None and self._process.poll() is None

    def send(self, request: Message) -> None:
        """Write one message, starting the worker if there is none. Raises RunError if it cannot be reached."""
        if not self.isRunning:
            self._start()
        stdin = self._process.stdin if self._process else None
        try:
            if stdin is not None:
                stdin.write(encode(request).encode("ascii"))
                stdin.flush()
        except OSError as error:
            raise RunError(f"the {self._title} does not take messages any more: {self._reason()}") from error

    def poll(self) -> list[Reply]:
        """Messages that arrived since the last call; the last one is an ``error`` of kind LOST if the worker died."""
        replies: list[Reply] = []
        while True:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                return replies
            if line is None:
                replies.append(ErrorReply(kind=LOST, message=f"the {self._title} ended: {self._reason()}"))
                self._forget()
                return replies
            try:
                replies.append(parse_reply(line))
            except ProtocolError as error:
                # A library that prints to standard output must not take the conversation down.
                _LOG.warning("ignored a line of the worker: %s", error)

    def stop(self, timeout_s: float = 2.0) -> None:
        """Ask the worker to exit, and make it after ``timeout_s``. Closing its input ends it behind a launcher, too."""
        process, self._process = self._process, None
        self._lines = queue.Queue()
        if process is None:
            return
        if process.stdin is not None:
            with contextlib.suppress(OSError):  # it may be gone before it is asked to stop
                process.stdin.write(encode(Shutdown()).encode("ascii"))
            with contextlib.suppress(OSError):
                process.stdin.close()
        for end in (process.terminate, process.kill):
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                end()
        process.wait()

    def kill(self) -> None:
        """End the worker at once, without waiting for it. Closing its input ends it behind a launcher, too."""
        process = self._process
        self._forget()
        if process is not None:
            # The dead child is collected aside, so that the window never waits for the system.
            threading.Thread(target=process.wait, daemon=True).start()

    def _start(self) -> None:
        self._forget()
        self._log.clear()
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise RunError(f"the {self._title} cannot be started by {self._command[0]}: {error}") from error
        self._process = process
        lines = self._lines
        threading.Thread(target=_readLines, args=(process.stdout, lines), daemon=True).start()
        self._logReader = threading.Thread(target=_readLog, args=(process.stderr, self._log), daemon=True)
        self._logReader.start()

    def _forget(self) -> None:
        """Let go of a worker that ended. A new queue, so that a late reader cannot speak for the next worker."""
        self._lines = queue.Queue()
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.kill()
        if process.stdin is not None:
            with contextlib.suppress(OSError):  # what was still to be written has no reader any more
                process.stdin.close()

    def _reason(self) -> str:
        """How the worker ended, in a few words; waits a moment for its exit code and its last line."""
        if self._process is None:
            return "it is not running"
        try:
            code: int | None = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            code = None
        if self._logReader is not None:
            self._logReader.join(1.0)
        return f"exit code {code}; {self._log[-1] if self._log else 'it said nothing'}"


def _readLines(pipe: IO[bytes] | None, lines: queue.Queue[bytes | None]) -> None:
    """Hand over every line, then None. Runs in its own thread until the worker closes its end."""
    if pipe is not None:
        with pipe:
            for line in pipe:
                if line.strip():
                    lines.put(line)
    lines.put(None)


def _readLog(pipe: IO[bytes] | None, log: deque[str]) -> None:
    """Keep the last lines of the worker's log for an error message. An unread pipe would block the worker."""
    if pipe is not None:
        with pipe:
            for line in pipe:
                text = line.decode("utf-8", errors="replace").strip()
                if text:
                    log.append(text)
