"""The path of a search as a picture: what it cost on average, and what every level came to prefer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wbcss.io.atomic import atomic_path

from .space import SearchSpace

_GROUPS = ("widths", "kernels", "counts")
_TITLES = {"widths": "channels", "kernels": "kernel", "counts": "convolutions"}
_PANEL_IN, _DPI = (3.0, 1.5), 90


def plot_path(lines: Sequence[Mapping[str, Any]], space: SearchSpace, path: Path, *, budget: float) -> Path:
    """Draw the lines of a ``path.jsonl`` to ``path`` (PNG).

    Above, the expected time and parameters as shares of the full decoder's, with the budget; below, one row per
    level, finest first, with the probability of every width, kernel and depth as a band. Equal paths give equal bytes.

    Raises OutputError if the disk refuses.
    """
    rows = space.num_levels
    height = _PANEL_IN[1] * (rows + 1.4)
    figure = Figure(figsize=(_PANEL_IN[0] * len(_GROUPS), height), layout="constrained")
    grid = figure.add_gridspec(rows + 1, len(_GROUPS), height_ratios=[1.4] + [1.0] * rows)
    steps = [int(line["step"]) for line in lines]
    top = figure.add_subplot(grid[0, :])
    top.plot(steps, [line["time_share"] for line in lines], color="tab:blue", label="expected time")
    top.plot(steps, [line["parameter_share"] for line in lines], color="tab:orange", label="expected parameters")
    top.axhline(budget, color="tab:red", linestyle="--", linewidth=1, label="budget of time")
    top.set_ylabel("share of full")
    top.set_ylim(bottom=0)
    top.legend(fontsize="small", loc="upper right")
    for level in range(rows):
        for column, group in enumerate(_GROUPS):
            axes = figure.add_subplot(grid[level + 1, column], sharex=top)
            _bands(axes, steps, [line["levels"][level][group] for line in lines], _names(space, level, group))
            if level == 0:
                axes.set_title(_TITLES[group], fontsize="medium")
            if column == 0:
                axes.set_ylabel(f"level {level}")
            if level == rows - 1:
                axes.set_xlabel("optimizer steps")
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure)
        figure.savefig(temporary, dpi=_DPI, metadata={"Software": None})
    return path


def _names(space: SearchSpace, level: int, group: str) -> list[str]:
    names: Sequence[object] = {
        "widths": space.widths(level),
        "kernels": space.kernels,
        "counts": space.counts(level),
    }[group]
    return [str(name) for name in names]


def _bands(axes: Axes, steps: Sequence[int], rows: Sequence[Sequence[float]], names: Sequence[str]) -> None:
    """Probabilities stacked to 1; the legend beside them lists them from above as they lie."""
    axes.stackplot(steps, *([row[n] for row in rows] for n in range(len(names))), labels=names, alpha=0.8)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 1])
    axes.margins(x=0)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
