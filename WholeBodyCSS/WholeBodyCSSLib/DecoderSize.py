"""How small a decoder became when it was trimmed, in numbers and words; read from a report or a card. No Qt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .Translation import _

DEFAULT_BUDGET = 0.15
"""Share of the full decoder's arithmetic that a new decoder is trimmed to if nobody says otherwise."""


@dataclass(frozen=True, kw_only=True)
class DecoderSize:
    """A trimmed decoder beside the full one that it comes from.

    Attributes:
        parameters, fullParameters: Numbers that were learned.
        share: Multiply-accumulates of a tile as a share of the full decoder's; 1 if nothing smaller was good enough.
        dice, fullDice: Means over the same held-out cases; None where there is none.
    """

    parameters: int
    fullParameters: int
    share: float
    dice: float | None
    fullDice: float | None

    @property
    def isSmaller(self) -> bool:
        """Whether a smaller decoder was good enough."""
        return self.share < 1


def decoderSize(trimming: object) -> DecoderSize | None:
    """What a trimming has come to; None if there was none, or if it is not understood."""
    try:
        kept, full = trimming["kept"], trimming["full"]  # type: ignore[index]
        size = DecoderSize(
            parameters=int(kept["parameters"]),
            fullParameters=int(full["parameters"]),
            share=float(kept["macs"]) / float(full["macs"]),
            dice=_dice(kept),
            fullDice=_dice(full),
        )
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return size if math.isfinite(size.share) else None


def sizeSentence(size: DecoderSize) -> str:
    """As in ``0.21 million parameters (full: 1.62 million), 13% of the arithmetic; Dice 0.902 (full: 0.905)``."""
    if not size.isSmaller:
        text = _("{parameters} parameters; nothing smaller was as good in the held-out cases")
        return text.format(parameters=_count(size.parameters))
    text = _("{parameters} parameters (full: {full}), {share} of the arithmetic; Dice {dice} (full: {fullDice})")
    return text.format(
        parameters=_count(size.parameters),
        full=_count(size.fullParameters),
        share=_percent(size.share),
        dice=_number(size.dice),
        fullDice=_number(size.fullDice),
    )


def outcomeSentence(report: Mapping[str, Any], budget: float | None) -> str:
    """What came of the wish for a decoder of ``budget`` (None: full size); "" before there is a report."""
    if not report:
        return ""
    size = decoderSize(report.get("trimming"))
    if size is not None and size.isSmaller:
        return _("Small decoder: {facts}.").format(facts=sizeSentence(size))
    if size is not None:
        return _("Full size: {facts}.").format(facts=sizeSentence(size))
    if budget is None:
        return _("The decoder keeps its full size, as you chose.")
    reason = str(report.get("untrimmed", ""))
    if reason:
        return _("The decoder keeps its full size: {reason}.").format(reason=reason)
    return _("The decoder keeps its full size: there was nothing to take away.")


def _dice(facts: Mapping[str, Any]) -> float | None:
    dice = facts["mean"]["dice"]
    return None if dice is None else float(dice)


def _count(number: int) -> str:
    return f"{number:,}" if number < 100_000 else _("{count} million").format(count=f"{number / 1e6:.2f}")


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.01 else f"{100 * share:.1f}%"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
