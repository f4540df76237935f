"""Where in a body a scan lies: noisy levels of slabs, and the curve through them that only falls towards the feet.

A level is the distance below the top of the head, in cm of the atlas body along its axis: 0 at the vertex, about 171
at the soles. A body of another size has the same levels at the same anatomy, so a scan's levels fall by more or less
than 1 cm per cm. METHOD 1.4 has the idea (a slice score by which organs are gated).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import InputError

Floats = npt.NDArray[np.float64]
LevelRange = tuple[float, float]
"""First and last level in cm, the one nearer to the head first."""

MM_PER_CM = 10.0
MIN_STRETCH, MAX_STRETCH = 0.7, 1.4
"""How many cm of level a cm of scan may be on average: from a giant to a child."""

MIN_LOCAL_STRETCH = 0.4
"""Between two places of one scan the proportions differ more."""

_STRETCHES = np.geomspace(MIN_STRETCH, MAX_STRETCH, 29)
_OUTLIER_SPREADS = 3.0
_WINDOW_MM = 120.0
_MIN_REACH_CM = 3.0
"""A level nearer than this to what its neighborhood says, up to ``_WINDOW_MM`` away, is never called an outlier."""

MIN_LENGTH_TO_TURN_CM = 15.0
"""In a shorter scan noise may well run the wrong way."""

TURNED_LOSS_SHARE = 0.5
"""A scan lies the wrong way round if the line that rises towards the feet fits with this share of the error at most."""

TURNED_EVIDENCE = 6.0
"""And it must be more likely by this log-likelihood ratio, each height counting once and as sure as the head said:
a head that hardly knows calls nothing upside down."""

QUANTILES = (0.005, 0.995)
WIDENING = 0.25
"""METHOD 1.4: the range of an organ is widened by this share of its extent at both ends."""


def weighted_median(values: Floats, weights: Floats) -> float:
    """The smallest value below or at which half of the weight lies; all (N,), N >= 1, weights above 0."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, 0.5 * reached[-1])])


def fall(groups: Sequence[tuple[Floats, Floats]]) -> Floats:
    """The numbers (N,), none above the one before, with the least weighted sum of absolute errors.

    Pooled adjacent violators with medians (Robertson & Wright, Ann Statist 8:645, 1980): a far outlier moves its
    place by no more than its weight, as a mean would not.

    Args:
        groups: Values and weights of each of the N places, in order; each at least one.
    """
    blocks: list[tuple[Floats, Floats, int, float]] = []
    for values, weights in groups:
        block = (values, weights, 1, weighted_median(values, weights))
        while blocks and blocks[-1][3] < block[3]:
            earlier = blocks.pop()
            pooled = np.concatenate([earlier[0], block[0]]), np.concatenate([earlier[1], block[1]])
            block = (*pooled, earlier[2] + block[2], weighted_median(*pooled))
        blocks.append(block)
    return np.repeat([middle for *_, middle in blocks], [count for _, _, count, _ in blocks]).astype(np.float64)


@dataclass(frozen=True, eq=False)
class LevelCurve:
    """Levels of a scan.

    Attributes:
        heights_mm: (N,) ascending, N >= 1: positions along the scan's axis towards S.
        levels_cm: (N,) level there; strictly falling, or rising if the scan is reversed.
        stretch: Cm of level per cm of scan, of the straight line through it.
        spread_cm: Weighted median of the distance of the observations from the curve.
        doubt_cm: The spread, or what the head's own doubt leaves after as many heights, if that is more: few
            observations agree easily.
        is_reversed: Whether the levels rise towards S: the scan is upside down.
    """

    heights_mm: Floats
    levels_cm: Floats
    stretch: float
    spread_cm: float
    doubt_cm: float
    is_reversed: bool

    def at(self, heights_mm: npt.ArrayLike) -> Floats:
        """Levels in cm at ``heights_mm``; beyond the ends they go on as the straight line does."""
        heights = np.asarray(heights_mm, np.float64)
        inside = np.interp(heights, self.heights_mm, self.levels_cm)
        beyond = heights - np.clip(heights, self.heights_mm[0], self.heights_mm[-1])
        sign = 1.0 if self.is_reversed else -1.0
        levels: Floats = inside + sign * self.stretch * beyond / MM_PER_CM
        return levels

    def range_of(self, heights_mm: npt.ArrayLike) -> LevelRange:
        """First and last level of ``heights_mm``."""
        levels = self.at(heights_mm)
        return float(levels.min()), float(levels.max())


def fit_curve(heights_mm: npt.ArrayLike, levels_cm: npt.ArrayLike, weights: npt.ArrayLike) -> LevelCurve | None:
    """The curve through observed levels, or None if none has any weight.

    A straight line of least absolute error first, for either direction. What lies off it otherwise than its
    neighborhood does is left out: bodies are not straight lines, but they bend slowly. Then the falling curve of least
    absolute error that falls nowhere slower than ``MIN_LOCAL_STRETCH``.

    Args:
        heights_mm: (N,) where the levels were observed, several at one height being fine.
        levels_cm: (N,) what was observed.
        weights: (N,) how sure each is, 1 / cm; those of 0 are left out.

    Raises InputError if the three differ in length or hold what is not finite.
    """
    heights, levels, sure = (np.asarray(values, np.float64).ravel() for values in (heights_mm, levels_cm, weights))
    if not len(heights) == len(levels) == len(sure):
        raise InputError(
            f"heights, levels and weights must be equally many, got {len(heights)}, {len(levels)} and {len(sure)}"
        )
    if not all(np.isfinite(values).all() for values in (heights, levels, sure)):
        raise InputError("heights, levels and weights must be finite, got NaN or infinity")
    kept = sure > 0
    if not kept.any():
        return None
    heights, levels, sure = heights[kept], levels[kept], sure[kept]
    stretch, start, loss = _line(heights, levels, sure)
    turned = _line(-heights, levels, sure)
    is_long = float(np.ptp(heights)) / MM_PER_CM >= MIN_LENGTH_TO_TURN_CM
    evidence = (loss - turned[2]) * float(sure.mean()) * len(np.unique(heights))
    is_reversed = is_long and turned[2] < TURNED_LOSS_SHARE * loss and evidence >= TURNED_EVIDENCE
    along = -heights if is_reversed else heights
    if is_reversed:
        stretch, start, _ = turned
    return _bent(along, levels, sure, stretch=stretch, start=start, is_reversed=is_reversed)


def _line(along_mm: Floats, levels: Floats, weights: Floats) -> tuple[float, float, float]:
    """Stretch, level at 0 and mean absolute error of the best line that falls along ``along_mm``."""
    best = (1.0, 0.0, math.inf)
    for stretch in _STRETCHES:
        left = levels + stretch * along_mm / MM_PER_CM
        start = weighted_median(left, weights)
        loss = float(np.average(np.abs(left - start), weights=weights))
        if loss < best[2] - 1e-9:
            best = (float(stretch), start, loss)
    return best


def _bent(
    along_mm: Floats, levels: Floats, weights: Floats, *, stretch: float, start: float, is_reversed: bool
) -> LevelCurve:
    off = levels - (start - stretch * along_mm / MM_PER_CM)
    odd = np.abs(off - _around(along_mm, off, weights))
    kept = odd <= max(_MIN_REACH_CM, _OUTLIER_SPREADS * weighted_median(odd, weights))
    # What falls fast enough plus the slowest fall allowed is what falls at all.
    raised = levels + MIN_LOCAL_STRETCH * along_mm / MM_PER_CM
    places, at = np.unique(along_mm[kept], return_inverse=True)
    fitted = fall([(raised[kept][at == n], weights[kept][at == n]) for n in range(len(places))])
    fitted -= MIN_LOCAL_STRETCH * places / MM_PER_CM
    spread = weighted_median(np.abs(levels - np.interp(along_mm, places, fitted)), weights)
    if is_reversed:
        places, fitted = -places[::-1], fitted[::-1]
    doubt = 1 / float(weights.mean()) / math.sqrt(len(np.unique(along_mm)))
    return LevelCurve(places, fitted, stretch, spread, max(spread, doubt), is_reversed)


def _around(along_mm: Floats, values: Floats, weights: Floats) -> Floats:
    """Weighted median of the values up to ``_WINDOW_MM`` away from each place."""
    medians = np.empty_like(values)
    for place in np.unique(along_mm):
        near = np.abs(along_mm - place) <= _WINDOW_MM
        medians[along_mm == place] = weighted_median(values[near], weights[near])
    return medians


def learned_range(levels_cm: npt.ArrayLike) -> LevelRange:
    """Where an organ may be, by the (N,) levels at which it was seen, N >= 1.

    METHOD 1.4's two rules, the wider at either end: quantiles 0.5 and 99.5% and a quarter of the extent between, or
    one standard deviation beyond what was seen, so that a tumor of few cases has room.
    """
    levels = np.asarray(levels_cm, np.float64).ravel()
    first, last = (float(q) for q in np.quantile(levels, QUANTILES))
    margin = WIDENING * (last - first)
    deviation = float(levels.std())
    return min(first - margin, float(levels.min()) - deviation), max(last + margin, float(levels.max()) + deviation)


def meet(one: LevelRange, other: LevelRange) -> bool:
    """Whether two ranges have a level in common."""
    return one[0] <= other[1] and other[0] <= one[1]


def widened(levels: LevelRange, margin_cm: float) -> LevelRange:
    """``levels`` with ``margin_cm`` more at both ends."""
    return levels[0] - margin_cm, levels[1] + margin_cm


def covered_shares(shown: LevelRange, regions: Mapping[str, LevelRange]) -> dict[str, float]:
    """Which part of every region, 0 to 1, lies within the levels ``shown``."""
    shares = {}
    for name, (first, last) in regions.items():
        inside = min(shown[1], last) - max(shown[0], first)
        shares[name] = min(1.0, max(0.0, inside / (last - first)))
    return shares


def region_names(shares: Mapping[str, float], *, least: float = 0.1) -> tuple[str, ...]:
    """Regions of which at least ``least`` is shown; the most shown one if none is."""
    found = tuple(name for name, share in shares.items() if share >= least)
    shown: Iterable[str] = found or (name for name, share in shares.items() if share == max(shares.values()) > 0)
    return tuple(shown)
