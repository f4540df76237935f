"""Searched against swept at equal cost, over seeds: the table that says whether the search earns its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .candidate import Candidate

SEARCHED, SWEPT, BARE = "searched", "one width", "one width bare"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What one seed gave.

    Attributes:
        searched: The decoder that the search of this seed found.
        swept: The decoder of one width share for all levels that is predicted to take as long.
        bare: The same with a finest level that is its transposed convolution alone.
    """

    searched: Candidate
    swept: Candidate
    bare: Candidate

    @property
    def by_name(self) -> Mapping[str, Candidate]:
        """In the order of the table."""
        return {SEARCHED: self.searched, SWEPT: self.swept, BARE: self.bare}


def comparison_json(pairs: Sequence[Pair], *, full_seconds: float, budget: float) -> dict[str, Any]:
    """Plain JSON values: every candidate, and mean and spread of Dice and of both differences."""
    return {
        "budget": budget,
        "full_seconds": full_seconds,
        "seeds": [{name: candidate.to_json() for name, candidate in pair.by_name.items()} for pair in pairs],
        "dice": {
            **{name: _spread([pair.by_name[name].dice for pair in pairs]) for name in (SEARCHED, SWEPT, BARE)},
            "difference": _spread([pair.searched.dice - pair.swept.dice for pair in pairs]),
            "difference to bare": _spread([pair.searched.dice - pair.bare.dice for pair in pairs]),
        },
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation between seeds; None for that of one."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": spread}


def comparison_markdown(pairs: Sequence[Pair], *, full_seconds: float, budget: float) -> str:
    """The same as a table for people."""
    rows = [candidate for pair in pairs for candidate in pair.by_name.values()]
    spreads = comparison_json(pairs, full_seconds=full_seconds, budget=budget)["dice"]
    title = f"# Searched against one width, at most {budget:.0%} of the full decoder's time"
    return (
        "\n".join(
            [
                title,
                "",
                candidate_table(rows, full_seconds),
                *(f"{name}: Dice {_shown(s)}" for name, s in spreads.items()),
            ]
        )
        + "\n"
    )


def candidate_table(candidates: Sequence[Candidate], full_seconds: float) -> str:
    """One row per candidate; shares are of ``full_seconds``."""
    titles = "seed | decoder | channels | kernels | convolutions | time (share) | measured | parameters | MACs | Dice"
    lines = [f"| {titles} |", "|" + "-|" * (1 + titles.count("|"))]
    return "\n".join(lines + [_row(candidate, full_seconds) for candidate in candidates]) + "\n"


def _row(candidate: Candidate, full_seconds: float) -> str:
    spec, cost = candidate.spec, candidate.cost
    kernels = []
    for level, (kernel, count) in enumerate(zip(spec.kernels, spec.convs_per_stage, strict=True)):
        then = spec.then_kernels[level] if spec.then_kernels else ()
        named = "+".join("x".join(str(n) for n in reversed(k)) for k in (kernel, then) if k)
        kernels.append(named if count else "none")
    cells = [
        str(candidate.seed),
        candidate.name,
        "-".join(map(str, spec.stage_channels)),
        " ".join(kernels),
        "-".join(map(str, spec.convs_per_stage)),
        f"{1000 * cost.seconds:.1f} ms ({cost.seconds / full_seconds:.1%})",
        "-" if candidate.measured_s is None else f"{1000 * candidate.measured_s:.1f} ms",
        f"{cost.parameters / 1e6:.3f} M",
        f"{cost.macs / 1e9:.2f} G",
        f"{candidate.dice:.4f}",
    ]
    return f"| {' | '.join(cells)} |"


def _shown(spread: dict[str, float | None]) -> str:
    return f"{spread['mean']:.4f}" + ("" if spread["sd"] is None else f" (sd {spread['sd']:.4f})")
