"""The benchmark as pictures: how every task fares while later ones are learned, and the curve of few cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wbcss.io.atomic import atomic_path

from .benchmark import MethodResult

_SIZE_IN, _DPI = 4.2, 110


def plot_benchmark(results: Sequence[MethodResult], task_names: Sequence[str], path: Path) -> Path:
    """One panel per task: its Dice after every task since, one line per method; written to ``path`` (PNG)."""
    count = len(task_names)
    figure = Figure(figsize=(_SIZE_IN * count, _SIZE_IN), layout="constrained")
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for j, (axes, task) in enumerate(zip(panels, task_names, strict=True)):
        for number, result in enumerate(results):
            column = [(i, row[j]) for i, row in enumerate(result.matrix.rows) if row[j] is not None]
            dash = "-" if result.name.startswith("ours") else ("--" if result.scope == "so_far" else ":")
            axes.plot(
                [i + 1 for i, _ in column],
                [value for _, value in column],
                dash,
                marker="o",
                color=f"C{number % 10}",
                label=result.title,
            )
        axes.set_title(task)
        axes.set_xlabel("tasks learned")
        axes.set_xticks(range(1, count + 1))
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("Dice")
    panels[-1].legend(fontsize="x-small", loc="lower left")
    return _write(figure, path)


def plot_few_shot(curves: Mapping[str, Mapping[int, float | None]], path: Path) -> Path:
    """Mean Dice over the number of training cases (logarithmic), one line per method; written to ``path`` (PNG)."""
    figure = Figure(figsize=(_SIZE_IN * 1.3, _SIZE_IN), layout="constrained")
    axes = figure.subplots()
    counts = sorted({count for curve in curves.values() for count in curve})
    for title, curve in curves.items():
        points = [(count, value) for count, value in sorted(curve.items()) if value is not None]
        axes.plot([count for count, _ in points], [value for _, value in points], "-o", label=title)
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("training cases")
    axes.set_ylabel("Dice")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return _write(figure, path)


def _write(figure: Figure, path: Path) -> Path:
    """Without a display and without the date: equal results give equal bytes."""
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure)
        figure.savefig(temporary, dpi=_DPI, metadata={"Software": None})
    return path
