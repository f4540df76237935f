"""How long a run will take on this machine, from what the runs before it took. No Qt and no scene.

A run is taken to cost a share for everybody (reading, encoder, writing) and one for each decoder, all in proportion to
the size of the scan. Every measured run scales the shares that it used to what it took. So one run of the whole body
tells something about every choice, and runs of single tasks tell the shares apart.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from wbcss.protocol import Quality

TILES: Mapping[Quality, float] = {"fast": (0.5 / 0.75) ** 3, "normal": 1.0, "best": (0.5 / 0.375) ** 3}
"""Tiles that a quality needs, in those of ``normal``: the step between tiles, along three axes."""

_SHARED = "*"
_FIRST_TASK_SHARE = 0.5
"""A decoder nobody has measured is taken to cost half of what everybody pays: it is smaller than the encoder."""

_MIN_LITERS = 0.5
"""Below this size starting costs more than computing."""


class TimeEstimate:
    """Seconds per liter of scan, by device and share."""

    def __init__(self, rates: Mapping[str, Mapping[str, float]] | None = None) -> None:
        self._rates = {device: dict(shares) for device, shares in (rates or {}).items()}

    def seconds(self, *, device: str, quality: Quality, tasks: Sequence[str], liters: float) -> float | None:
        """What a run of ``tasks`` on a scan of ``liters`` will take; None before the first run on ``device``."""
        rates = self._rates.get(device)
        if not rates or not tasks:
            return None
        return self._rate(rates, tasks) * max(liters, _MIN_LITERS) * TILES[quality]

    def learn(self, *, device: str, quality: Quality, tasks: Sequence[str], liters: float, seconds: float) -> None:
        """Take in what a run took. What cannot be a duration or a size is passed over."""
        if not tasks or not all(math.isfinite(value) and value > 0 for value in (seconds, liters)):
            return
        measured = seconds / (max(liters, _MIN_LITERS) * TILES[quality])
        rates = self._rates.setdefault(device, {_SHARED: measured / (1 + _FIRST_TASK_SHARE * len(tasks))})
        for task in tasks:
            rates.setdefault(task, _typical(rates))
        scale = measured / self._rate(rates, tasks)
        for share in (_SHARED, *tasks):
            rates[share] *= scale

    def toText(self) -> str:
        """For the settings of the application."""
        return json.dumps(self._rates, sort_keys=True)

    @classmethod
    def fromText(cls, text: str) -> TimeEstimate:
        """What was kept; nothing if it cannot be read, for a wrong guess is worse than none."""
        try:
            rates = {
                str(device): {str(share): float(rate) for share, rate in shares.items()}
                for device, shares in json.loads(text).items()
            }
        except (ValueError, AttributeError, TypeError):
            return cls()
        if not all(rate > 0 and math.isfinite(rate) for shares in rates.values() for rate in shares.values()):
            return cls()
        return cls({device: shares for device, shares in rates.items() if _SHARED in shares})

    @staticmethod
    def _rate(rates: Mapping[str, float], tasks: Sequence[str]) -> float:
        return rates[_SHARED] + sum(rates.get(task, _typical(rates)) for task in tasks)


def _typical(rates: Mapping[str, float]) -> float:
    """Share of a task that was never run: the mean of the others."""
    known = [rate for share, rate in rates.items() if share != _SHARED]
    return sum(known) / len(known) if known else _FIRST_TASK_SHARE * rates[_SHARED]
