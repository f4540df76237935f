"""What held-out cases say about a task: means, intervals, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .evaluate import CaseScore, Evaluation, report_json

NUM_RESAMPLES = 2000
MANY_CASES = 10
"""With fewer held-out cases the note says that the interval itself is uncertain."""


def held_out_summary(evaluation: Evaluation, *, chosen_on_them: bool) -> dict[str, Any]:
    """Metrics for a task card: per organ and over all, with bootstrap intervals of Dice. No case is listed.

    Args:
        evaluation: Of the held-out cases by the product's own inference.
        chosen_on_them: Whether the same cases decided when training stopped.
    """
    report = report_json(evaluation)
    scored = [case for case in evaluation.cases if case.organs]
    organs = {name: {**row, "dice_ci95": dice_interval(scored, [name])} for name, row in report["organs"].items()}
    return {
        "cases": len(scored),
        "tolerance_mm": report["tolerance_mm"],
        "mean": {**report["mean"], "dice_ci95": dice_interval(scored, list(organs))},
        "organs": organs,
        "note": _note(len(scored), chosen_on_them=chosen_on_them),
    }


def without_validation() -> dict[str, Any]:
    """What a card says when nothing was held out."""
    return {"cases": 0, "note": "no case was held out, so how well the organs are found is not known"}


def dice_interval(cases: Sequence[CaseScore], organs: Sequence[str], *, seed: int = 0) -> list[float] | None:
    """95% interval of the mean Dice over ``organs``, each counting once; None for fewer than two cases with them.

    Percentile bootstrap over cases (Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982, ch. 10).
    """
    table = _dice_table(cases, organs)
    table = table[~np.isnan(table).all(axis=1)]
    if len(table) < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = table[rng.integers(len(table), size=(NUM_RESAMPLES, len(table)))]
    known = ~np.isnan(drawn)
    sums, counts = np.where(known, drawn, 0).sum(axis=1), known.sum(axis=1)
    # An organ that no drawn case has says nothing in that draw; every draw has at least one organ.
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    statistic = means.sum(axis=1) / (counts > 0).sum(axis=1)
    low, high = np.percentile(statistic, (2.5, 97.5))
    return [round(float(low), 4), round(float(high), 4)]


def _dice_table(cases: Sequence[CaseScore], organs: Sequence[str]) -> npt.NDArray[np.float64]:
    """(cases, organs) Dice, NaN where the reference lacks the organ."""
    rows: list[Mapping[str, float]] = [{name: score.dice for name, score in case.organs.items()} for case in cases]
    return np.array([[row.get(name, np.nan) for name in organs] for row in rows]).reshape(len(rows), len(organs))


def _note(num_cases: int, *, chosen_on_them: bool) -> str:
    parts = []
    if num_cases == 0:
        return "no held-out case has a voxel of these organs, so how well they are found is not known"
    if num_cases == 1:
        parts.append("one held-out case only: no interval can be given")
    elif num_cases < MANY_CASES:
        parts.append(f"{num_cases} held-out cases only: the intervals are rough and probably too narrow")
    if chosen_on_them:
        parts.append("training stopped where the loss on these same cases was lowest, so the numbers flatter")
    return "; ".join(parts) or "held-out cases, of patients that were not trained on"
