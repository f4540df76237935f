"""A picture of how a run is going, drawn from its ``metrics.jsonl``."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wbcss.io.atomic import write_bytes

from .loop import METRICS

CURVES = "curves.png"
_SIZE_INCH = (7.0, 4.0)
_AXES = (0.11, 0.13, 0.77, 0.82)
"""Left, bottom, width and height: fixed, because measuring the texts takes longer than drawing them."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a ``metrics.jsonl`` in order; one that a killed run left half-written is passed over."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
    return lines


def draw_curves(run_dir: Path) -> Path:
    """Draw ``curves.png`` beside ``metrics.jsonl``: losses on the left axis, learning rate on the right.

    Raises OutputError if the disk refuses.
    """
    lines = read_metrics(run_dir / METRICS)
    figure = Figure(figsize=_SIZE_INCH)
    FigureCanvasAgg(figure)
    axes = figure.add_axes(_AXES)
    axes.plot(*_series(lines, "loss"), color="tab:blue", linewidth=1, label="training loss")
    axes.plot(*_series(lines, "validation_loss"), color="tab:orange", marker="o", label="loss on held-out cases")
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel("loss")
    axes.legend(loc="upper right")
    rate = axes.twinx()
    rate.plot(*_series(lines, "learning_rate"), color="tab:gray", linestyle=":", linewidth=1)
    rate.set_ylabel("learning rate (dotted)")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100, metadata={"Software": None})
    write_bytes(run_dir / CURVES, picture.getvalue())
    return run_dir / CURVES


def _series(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    found = [(int(line["step"]), float(line[key])) for line in lines if key in line]
    return [step for step, _ in found], [value for _, value in found]
