"""What a person at a terminal sees and does: a progress line, a table, and Ctrl-C."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TextIO

from .progress import IsCancelled

BAR_CHARACTERS = 28


class ProgressLine:
    """One line that is redrawn in place; nothing at all where the stream is not a terminal.

    Call it like a ``pace.Report``. Close it before writing anything else to the terminal.
    """

    def __init__(self, stream: TextIO, *, title: str = "", shown: bool = True) -> None:
        self._stream = stream
        self._title = f"{title}  " if title else ""
        self._shown = shown and stream.isatty()
        self._drawn = False

    def __call__(self, fraction: float, stage: str, remaining_s: float | None) -> None:
        """Draw ``fraction`` in [0, 1], the stage, and the remaining seconds when they are known."""
        if not self._shown:
            return
        filled = round(BAR_CHARACTERS * fraction)
        bar = "#" * filled + "-" * (BAR_CHARACTERS - filled)
        left = "" if remaining_s is None else f"  {duration(remaining_s)} left"
        text = f"{self._title}[{bar}] {100 * fraction:3.0f} %  {stage}{left}"
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r" + text[:width].ljust(width))
        self._stream.flush()
        self._drawn = True

    def close(self) -> None:
        """Wipe the line, so that the next output starts at the left edge."""
        if self._drawn:
            self._stream.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
            self._stream.flush()
            self._drawn = False

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def duration(seconds: float) -> str:
    """Seconds in words a person reads at a glance: ``40 s``, ``2 min 05 s``, ``1 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under ``header``, aligned left if they hold words and right if they hold numbers."""
    widths = [max(len(row[n]) for row in (header, *rows)) for n in range(len(header))]
    numeric = [any(row[n] for row in rows) and all(_is_number(row[n]) for row in rows) for n in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in (header, ["-" * width for width in widths], *rows)
    ]
    return "\n".join(lines) + "\n"


def _is_number(text: str) -> bool:
    return not text.strip("-") or text.replace(".", "", 1).removeprefix("-").isdigit()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[IsCancelled]:
    """Turn Ctrl-C and SIGTERM into a flag, so that the running step ends tidily; a second one breaks it off.

    Only the main thread can listen to signals; elsewhere the flag stays down.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    listened = [signal.SIGINT, signal.SIGTERM]
    before = {number: signal.signal(number, on_signal) for number in listened}
    try:
        yield stop.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
