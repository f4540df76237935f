"""The organs' say about the body-part check: a task whose organs lie all wrong contradicts the levels, not itself.

The level head reads pooled features and can be far off without much doubt, as it was on thighs that it took for necks;
a decoder that finds a femur there knows better. Before organs are taken away a task that knows many at the levels told
is therefore asked whether what it finds belongs elsewhere. One that knows few has no say: a jaw in an abdomen is an
error of the task, not of the curve. A curve in doubt, as short scans have it, decides nothing unless a task confirms
it.

A task's vote depends on the scan, the curve and its own organs. METHOD 1.4 has no such vote; it was found to be needed
on real scans of limbs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from .levels import Floats, LevelCurve, LevelRange

Say = Literal["nothing", "against", "for", "firmly for"]

FIRM_FIT = 0.9
"""Share of what a task finds that must belong where it lies to confirm the curve."""

GAIN = 0.1
"""By how much more of it another place must explain to speak against the curve. Measured: at most 0.05 in whole scans
and thirds of scans whose levels are sure and right, however much else a decoder made up there; up to 0.7 in crops of
limbs whose levels are wrong.
"""

KNOWN_ORGANS = 10
"""A task knows a level at which that many of its organs may lie."""

LEAST_REACH = 0.9
"""Share of the planes of a scan whose levels a task must know to have a say."""

_SHIFTS_CM: Floats = np.arange(-170.0, 171.0, 2.0)
"""Other places: from one end of the body to the other."""


class OrganVote:
    """Counts what one task finds at which height, and compares it with a curve.

    Args:
        ranges_cm: Where the organ of each of the task's channels 1, 2, ... may be, whether it was asked for or not;
            None if nobody knows.
        spacing_mm: Of model planes.
    """

    def __init__(self, ranges_cm: Sequence[LevelRange | None], spacing_mm: float) -> None:
        self._num_channels = 1 + len(ranges_cm)
        self._known = np.array([n for n, levels in enumerate(ranges_cm, start=1) if levels is not None], np.intp)
        ends = np.array([levels for levels in ranges_cm if levels is not None], np.float64).reshape(-1, 2)
        self._first, self._last = ends[:, 0], ends[:, 1]
        self._spacing_mm = spacing_mm
        self._heights: list[float] = []
        self._counts: list[npt.NDArray[np.int64]] = []

    def add(self, k: int, channels: torch.Tensor) -> None:
        """Take the winning channels of the model plane ``k``, int of any shape."""
        counts = torch.bincount(channels.flatten(), minlength=self._num_channels).cpu().numpy()
        self._heights.append(k * self._spacing_mm)
        self._counts.append(counts[self._known])

    def say(self, curve: LevelCurve, margin_cm: float) -> Say:
        """What the task says of ``curve``; ranges are widened by ``margin_cm``."""
        if not self._heights or not len(self._known):
            return "nothing"
        levels = curve.at(self._heights)
        counts = np.stack(self._counts)
        inside = self._inside(levels, margin_cm)
        total = int(counts.sum())
        if not total or float((inside.sum(axis=1) >= KNOWN_ORGANS).mean()) < LEAST_REACH:
            return "nothing"
        fits = int(counts[inside].sum())
        best = max(int(counts[self._inside(levels + shift, margin_cm)].sum()) for shift in _SHIFTS_CM)
        if best > fits + GAIN * total:
            return "against"
        return "firmly for" if fits >= FIRM_FIT * total else "for"

    def _inside(self, levels: Floats, margin_cm: float) -> npt.NDArray[np.bool_]:
        """(K, organs) whether an organ may lie at each of the ``levels`` (K,)."""
        here = levels[:, None]
        inside: npt.NDArray[np.bool_] = (here >= self._first - margin_cm) & (here <= self._last + margin_cm)
        return inside
