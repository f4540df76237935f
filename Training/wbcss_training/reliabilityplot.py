"""The reliability diagram as a picture: how often a decoder is right against how sure it says it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wbcss.io.atomic import atomic_path

from .reliability import NUM_BINS, table_error

RELIABILITY = "reliability.png"
_PANEL_IN, _DPI = (3.4, 4.2), 90


@dataclass(frozen=True, kw_only=True)
class Diagram:
    """One diagram.

    Attributes:
        title: Of what, in a word or two.
        table: As ``reliability.reliability`` gives it.
    """

    title: str
    table: Sequence[Mapping[str, Any]]


def diagrams_of(calibration: Mapping[str, Any], confidence: Mapping[str, Any]) -> list[tuple[Diagram, Diagram]]:
    """Before and after of the temperature and of the learned confidence, as far as a card knows them."""
    tables = calibration.get("reliability", {})
    pairs = [
        ("temperature", tables.get("before"), tables.get("after")),
        ("confidence", confidence.get("reliability_before"), confidence.get("reliability")),
    ]
    return [
        (Diagram(title=f"{what}, before", table=before), Diagram(title=f"{what}, after", table=after))
        for what, before, after in pairs
        if before and after
    ]


def draw_reliability(pairs: Sequence[tuple[Diagram, Diagram]], path: Path) -> Path:
    """Draw one row per pair, before on the left and after on the right, to ``path`` (PNG).

    Each diagram has the share of right answers of 15 bins as bars, the diagonal of a network that knows what it knows,
    and below it the number of voxels of every bin. Equal tables give equal bytes. Raises OutputError if the disk
    refuses.
    """
    figure = Figure(figsize=(2 * _PANEL_IN[0], len(pairs) * _PANEL_IN[1]), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2 * len(pairs), 2, height_ratios=[3, 1] * len(pairs))
    for row, pair in enumerate(pairs):
        for column, diagram in enumerate(pair):
            above = figure.add_subplot(grid[2 * row, column])
            _bars(above, diagram)
            _counts(figure.add_subplot(grid[2 * row + 1, column], sharex=above), diagram)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, metadata={"Software": None})
    return path


def _bars(axes: Axes, diagram: Diagram) -> None:
    middles = [(row["bin"] - 0.5) / NUM_BINS for row in diagram.table]
    axes.bar(middles, [row["accuracy"] for row in diagram.table], width=1 / NUM_BINS, color="tab:blue", edgecolor="w")
    axes.plot([0, 1], [0, 1], color="tab:gray", linestyle="--", linewidth=1)
    axes.plot(
        [row["confidence"] for row in diagram.table],
        [row["accuracy"] for row in diagram.table],
        color="tab:orange",
        marker=".",
        linestyle="none",
    )
    error = table_error(diagram.table)
    axes.set_title(f"{diagram.title}: ECE {'-' if error is None else f'{error:.3f}'}", fontsize="medium")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of right answers")
    axes.tick_params(labelbottom=False)


def _counts(axes: Axes, diagram: Diagram) -> None:
    middles = [(row["bin"] - 0.5) / NUM_BINS for row in diagram.table]
    axes.bar(middles, [row["voxels"] for row in diagram.table], width=1 / NUM_BINS, color="tab:gray", edgecolor="w")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    axes.set_xlabel("confidence")
    axes.set_ylabel("voxels")
