"""Who works in a run folder now, how the last call ended, and how another process asks for a pause.

A program that started an enrolment and left, such as 3D Slicer, finds it again by these files: ``state.json`` says how
the last call went, ``.lock`` is held for as long as a process works there (the system frees it however that process
ends), and a file called ``pause`` asks it to stop at the next checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from wbcss.errors import Cancelled, RunError, WbcssError
from wbcss.progress import IsCancelled
from wbcss.report import remove_names
from wbcss.storage import held

from .runfolder import RunFolder

STATE = "state.json"
LOCK = ".lock"
PAUSE = "pause"
_TAKE_OVER_S = 2.0
"""A look at the lock holds it for an instant; whoever is to work there waits longer than that."""


@contextmanager
def at_work(folder: RunFolder, stopped: IsCancelled) -> Iterator[IsCancelled]:
    """Hold the run folder during the block and record how the block ends: finished, paused or failed.

    Yields ``stopped`` widened by the wish for a pause.

    Raises:
        RunError: another process works in the folder.
        OutputError: the folder cannot be written.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    pause = folder.root / PAUSE
    with held(folder.root / LOCK, timeout_s=_TAKE_OVER_S) as is_held:
        if not is_held:
            raise RunError(
                f"the run folder {folder.root} must be free, but another process works in it; wait for it or pause it"
            )
        pause.unlink(missing_ok=True)
        _record(folder, "running")
        try:
            yield lambda: stopped() or pause.exists()
        except (Cancelled, KeyboardInterrupt) as error:
            _record(folder, "paused", error)
            raise
        except BaseException as error:
            _record(folder, "failed", error)
            raise
        _record(folder, "finished")


def _record(folder: RunFolder, state: str, error: BaseException | None = None) -> None:
    text = "" if error is None else str(error) if isinstance(error, WbcssError) else type(error).__name__
    folder.write(STATE, {"state": state, "pid": os.getpid(), "message": remove_names(" ".join(text.split()))})
