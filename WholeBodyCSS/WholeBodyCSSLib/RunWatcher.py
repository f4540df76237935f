"""An enrolment that may have been started by a Slicer long closed: where it stands, how to pause, resume or drop it.

Everything is read from the run folder, so that it does not matter who started the run. Free of Qt.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from wbcss.errors import EXIT_FAILED, EXIT_INPUT, OutputError
from wbcss.storage import held, sha256_file

from .TrainProcess import ERRORS, OUTPUT, LineReader, RunProtocol, lastComplaint
from .Translation import _

RUN = "run"
_LOCK, _STATE, _PAUSE = ".lock", "state.json", "pause"
_REPORT, _VALIDATION, _RECORD, _METRICS, _CARD = (
    "report.json",
    "validation.json",
    "run.json",
    "metrics.jsonl",
    "card.json",
)
_CURVES, _OVERLAYS = "curves.png", "overlays"
_DECODER, _STEPS = "decoder.safetensors", "trim/step-*"
"""The full decoder, and in these folders the smaller ones of a trimming."""

_WINDOW_S = 60.0
"""The remaining time extrapolates the pace of the last minute: stages run at different speeds."""

_FIRST_GUESS_S = 3.0


class RunState(Enum):
    """Where an enrolment stands."""

    NONE = "none"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    FAILED = "failed"
    PROVEN = "proven"
    PUBLISHED = "published"


_RESUMABLE = {RunState.PAUSED, RunState.FAILED}
_ENDED = {RunState.PROVEN, RunState.PUBLISHED}


@dataclass(frozen=True, kw_only=True)
class RunView:
    """What can be said about a run now.

    Attributes:
        state: Where it stands.
        fraction: Of the whole, in [0, 1].
        stage: What it does.
        remainingS: Seconds left, None while unknown.
        message: Why it is paused or failed.
        step, steps: Optimizer steps done and planned; 0 while unknown.
        loss: Newest training loss.
    """

    state: RunState = RunState.NONE
    fraction: float = 0.0
    stage: str = ""
    remainingS: float | None = None
    message: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None

    @property
    def isWorking(self) -> bool:
        """Whether a process works on it."""
        return self.state in (RunState.RUNNING, RunState.PAUSING)

    @property
    def canResume(self) -> bool:
        """Whether it stopped before its end."""
        return self.state in _RESUMABLE

    @property
    def isEnded(self) -> bool:
        """Whether there is a result."""
        return self.state in _ENDED


@dataclass
class _Pace:
    """Samples of the last minute."""

    clock: Callable[[], float]
    samples: deque[tuple[float, float]] = field(default_factory=deque)

    def remaining(self, fraction: float) -> float | None:
        now = self.clock()
        if self.samples and fraction < self.samples[-1][1]:
            self.samples.clear()  # the run went back to a check, or began again
        self.samples.append((now, fraction))
        while len(self.samples) > 2 and self.samples[0][0] < now - _WINDOW_S:
            self.samples.popleft()
        then, done = self.samples[0][0], fraction - self.samples[0][1]
        if now - then < _FIRST_GUESS_S or done <= 0:
            return None
        return (1 - fraction) * (now - then) / done


class RunWatcher:
    """Follows the enrolment in ``folder``, which holds the back end's run folder and its output.

    Args:
        folder: Work folder of the wizard.
        process: The process if this Slicer started it; it is found by its files otherwise.
        clock: Replaced in tests.
    """

    def __init__(
        self, folder: Path, process: RunProtocol | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder = folder
        self.run = folder / RUN
        self._process = process
        self._output = LineReader(folder / OUTPUT)
        self._metrics = LineReader(self.run / _METRICS)
        self._pace = _Pace(clock)
        self._view = RunView()
        self.look()

    @property
    def view(self) -> RunView:
        """What the last look has seen."""
        return self._view

    def started(self, process: RunProtocol) -> None:
        """This Slicer has started ``process`` on the run."""
        self._process = process
        self._pace.samples.clear()
        self.look()

    def look(self) -> RunView:
        """Read what is new. Cheap enough for a timer of the GUI."""
        fraction, stage = self._view.fraction, self._view.stage
        for line in self._output.read():
            if "fraction" in line:
                fraction, stage = float(line["fraction"]), str(line.get("stage", ""))
        step, loss = self._view.step, self._view.loss
        for line in self._metrics.read():
            step = max(step, int(line.get("step", 0)))
            loss = float(line["loss"]) if "loss" in line else loss
        state, message = self._state()
        remainingS = self._pace.remaining(fraction) if state == RunState.RUNNING else None
        self._view = RunView(
            state=state,
            fraction=1.0 if state in _ENDED else fraction,
            stage=stage,
            remainingS=remainingS,
            message=message,
            step=step,
            steps=int(_object(self.run / _RECORD).get("steps", 0)),
            loss=loss,
        )
        return self._view

    def pause(self) -> None:
        """Ask the run to stop at its next checkpoint. Raises OutputError if the wish cannot be written."""
        try:
            self.run.mkdir(parents=True, exist_ok=True)
            (self.run / _PAUSE).touch()
        except OSError as error:
            raise OutputError(f"the run cannot be paused, its folder cannot be written: {error}") from error
        self.look()

    def kill(self) -> None:
        """End a process that this Slicer started and that does not stop by itself."""
        if self._process is not None:
            self._process.kill()
            self.look()

    def dropRun(self) -> None:
        """Delete what the run has learned; the cases in the work folder stay. Raises OutputError."""
        self._delete(self.run)
        for name in (OUTPUT, ERRORS):
            (self.folder / name).unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete everything of the run. Raises OutputError while a process works on it, or if the disk refuses."""
        if self.look().isWorking:
            raise OutputError("a run must have stopped before it is deleted, this one is still working")
        self._delete(self.folder)

    @staticmethod
    def _delete(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            raise OutputError(f"the folder {folder} cannot be deleted; close programs that use it")

    # What came out

    @property
    def report(self) -> Mapping[str, Any]:
        """The report of the back end; empty before the end."""
        return _object(self.run / _REPORT)

    @property
    def verdict(self) -> Mapping[str, Any]:
        """Validation of the back end; empty before it was done."""
        return _object(self.run / _VALIDATION)

    @property
    def curves(self) -> Path | None:
        """The picture of the losses, if there is one yet."""
        return _existing(self.run / _CURVES)

    @property
    def card(self) -> Path | None:
        """The card that is published, or would be."""
        return _existing(self.run / _CARD)

    def weights(self, sha256: str) -> Path | None:
        """The decoder with this hash, which is the full one or a trimmed one; None if it is not there (any more)."""
        paths = (self.run / _DECODER, *self.run.glob(f"{_STEPS}/{_DECODER}"))
        return next((path for path in paths if path.is_file() and sha256_file(path) == sha256), None)

    @property
    def overlays(self) -> tuple[Path, ...]:
        """Pictures of the worst held-out cases, worst first."""
        names = [str(name) for name in self.verdict.get("overlays", ()) if Path(str(name)).name == str(name)]
        return tuple(self.run / _OVERLAYS / name for name in names if (self.run / _OVERLAYS / name).is_file())

    def _state(self) -> tuple[RunState, str]:
        recorded = _object(self.run / _STATE)
        state, message = str(recorded.get("state", "")), str(recorded.get("message", ""))
        if self._isHeld():
            return (RunState.PAUSING if (self.run / _PAUSE).exists() else RunState.RUNNING), ""
        if self._process is not None:
            if self._process.exitCode is None:
                return RunState.RUNNING, ""  # it is still loading its libraries, or is about to say how it ended
            if self._process.exitCode in (EXIT_INPUT, EXIT_FAILED):
                return RunState.FAILED, lastComplaint(self.folder / ERRORS) or message
        if state == "finished":
            return (RunState.PUBLISHED if self.report.get("published", False) else RunState.PROVEN), ""
        if state == "failed":
            return RunState.FAILED, message or lastComplaint(self.folder / ERRORS)
        if state == "paused":
            return RunState.PAUSED, ""
        if state == "running":
            return RunState.PAUSED, _("The run was interrupted; it goes on from its last checkpoint.")
        complaint = lastComplaint(self.folder / ERRORS)
        return (RunState.FAILED, complaint) if complaint else (RunState.NONE, "")

    def _isHeld(self) -> bool:
        """Whether a process works in the run folder, whoever started it."""
        lock = self.run / _LOCK
        if not lock.is_file():
            return False
        try:
            with held(lock) as isFree:
                return not isFree
        except OSError:
            return False


def _object(path: Path) -> Mapping[str, Any]:
    """A JSON object that the back end writes whole or not at all; empty if it is not there."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
