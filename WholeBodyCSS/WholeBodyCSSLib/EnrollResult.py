"""The report of an enrolment in rows and words: how well each organ was found, and what the proof has shown. No Qt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .Translation import _


@dataclass(frozen=True, kw_only=True)
class OrganScore:
    """How well an organ was found: means over held-out cases, or one case.

    Attributes:
        organ: Its name.
        cases: Held-out cases with the organ; the number of the case in a row of one case.
        dice, hd95Mm, surfaceDice: None where they cannot be computed.
        interval: 95% interval of the mean Dice, if there is one.
    """

    organ: str
    cases: int
    dice: float | None
    hd95Mm: float | None
    surfaceDice: float | None
    interval: tuple[float, float] | None = None


def organScores(report: Mapping[str, Any]) -> tuple[OrganScore, ...]:
    """Per organ, worst first."""
    rows = [_score(name, row, int(row["count"])) for name, row in _organs(report.get("validation", {})).items()]
    return tuple(sorted(rows, key=lambda row: (row.dice if row.dice is not None else -1.0, row.organ)))


def caseScores(report: Mapping[str, Any]) -> tuple[OrganScore, ...]:
    """Per held-out case and organ, in the order of the cases."""
    cases: Sequence[Mapping[str, Any]] = report.get("validation", {}).get("scores", ())
    return tuple(_score(name, row, int(case["number"])) for case in cases for name, row in _organs(case).items())


def proofText(report: Mapping[str, Any]) -> str:
    """The proof in one sentence; "" if there was nothing to compare with."""
    organs, tasks = int(report.get("unchanged_organs", 0)), len(report.get("unchanged", ()))
    if not report:
        return ""
    if not tasks:
        return _("This is the first task of the registry: there was nothing that it could have changed.")
    text = _("{organs} of {organs} earlier organs unchanged, bit for bit. Published task versions compared: {tasks}.")
    return text.format(organs=organs, tasks=tasks)


def _organs(values: Mapping[str, Any]) -> Mapping[str, Any]:
    organs = values.get("organs", {})
    return organs if isinstance(organs, Mapping) else {}


def _score(name: str, row: Mapping[str, Any], cases: int) -> OrganScore:
    interval = row.get("dice_ci95")
    return OrganScore(
        organ=str(name),
        cases=cases,
        dice=row.get("dice"),
        hd95Mm=row.get("hd95_mm"),
        surfaceDice=row.get("surface_dice"),
        interval=None if interval is None else (float(interval[0]), float(interval[1])),
    )
