"""One rising fraction and a remaining time out of the progress of several stages."""

from __future__ import annotations

import time
from collections.abc import Callable

from .progress import Progress

Report = Callable[[float, str, "float | None"], None]
"""Called with the fraction in [0, 1], a stage name and the remaining seconds (None while unknown)."""

FIRST_GUESS_S = 1.0
"""No remaining time is told before this much time has passed: the first guesses are wild."""

INTERVAL_S = 0.1
"""Reports of one stage are at least this far apart."""


class Pace:
    """Reports the progress of one job, made of parts that each count from 0 to 1.

    The fraction never falls. The remaining time extrapolates the part that is running from its own beginning, because
    parts run at different speeds, and counts the parts to come at the mean speed so far.
    """

    def __init__(self, report: Report, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._start_s = clock()
        self._last = (-1.0, "", float("-inf"))

    def part(self, low: float, high: float) -> Progress:
        """A Progress whose 0 is ``low`` and whose 1 is ``high`` of the whole job."""
        started_s: list[float] = []

        def progress(fraction: float, stage: str) -> None:
            now_s = self._clock()
            if not started_s:
                started_s.append(now_s)
            within = min(max(fraction, 0.0), 1.0)
            remaining_s = None
            if now_s - self._start_s >= FIRST_GUESS_S and within > 0:
                rest_of_part_s = (now_s - started_s[0]) * (1 - within) / within
                done = low + (high - low) * within
                remaining_s = rest_of_part_s + (now_s - self._start_s) * (1 - high) / done
            self._tell(low + (high - low) * within, stage, remaining_s, now_s)

        return progress

    def _tell(self, fraction: float, stage: str, remaining_s: float | None, now_s: float) -> None:
        last_fraction, last_stage, told_s = self._last
        fraction = max(fraction, last_fraction)
        is_news = stage != last_stage or (fraction >= 1 > last_fraction)
        if is_news or (fraction > last_fraction and now_s - told_s >= INTERVAL_S):
            self._last = (fraction, stage, now_s)
            self._report(fraction, stage, remaining_s)
