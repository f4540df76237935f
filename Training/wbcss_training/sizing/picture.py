"""The size of a model as a picture: every decoder, published and full, beside the encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wbcss.io.atomic import atomic_path

from .sizes import ModelSize
from .timing import TileTimes

_PANEL_IN, _ROW_IN, _DPI = 4.2, 0.5, 100


def draw_sizes(model: ModelSize, times: Sequence[TileTimes], path: Path) -> Path:
    """Draw parameters, multiply-accumulates and every kind of time per tile to ``path`` (PNG), one panel each.

    Raises OutputError if the disk refuses.
    """
    sizes = [(task.published, task.full) for task in model.tasks]
    panels = [
        (
            "parameters (M)",
            [tuple(size.cost.parameters / 1e6 for size in pair) for pair in sizes],
            model.encoder_cost.parameters / 1e6,
        ),
        ("GMAC per tile", [tuple(s.cost.macs / 1e9 for s in pair) for pair in sizes], model.encoder_cost.macs / 1e9),
        *(
            (f"s per tile, {t.backend}", [tuple(t.decoder_s(s.spec) for s in pair) for pair in sizes], t.encoder_s)
            for t in times
        ),
    ]
    height = 1.6 + _ROW_IN * (len(sizes) + 1)
    figure = Figure(figsize=(_PANEL_IN * len(panels), height), layout="constrained")
    names = [task.title for task in model.tasks]
    for axes, (title, pairs, encoder) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True
    ):
        _panel(axes, title, pairs, encoder)
        axes.set_yticks(range(len(names) + 1), [*names, "all decoders"])
    axes.invert_yaxis()
    figure.legend(*axes.get_legend_handles_labels(), fontsize="small", loc="outside lower center", ncols=3)
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure)
        figure.savefig(temporary, dpi=_DPI, metadata={"Software": None})
    return path


def _panel(axes: Axes, title: str, pairs: Sequence[Sequence[float]], encoder: float) -> None:
    """A pair of bars per task and one of their sums, with a line at the encoder."""
    pairs = [*pairs, [sum(pair[n] for pair in pairs) for n in range(2)]]
    for n, (label, color) in enumerate((("published", "tab:blue"), ("full", "tab:gray"))):
        places = [row + 0.4 * n - 0.2 for row in range(len(pairs))]
        axes.barh(places, [pair[n] for pair in pairs], height=0.38, color=color, label=label)
    axes.axvline(encoder, color="tab:red", linestyle="--", linewidth=1, label="encoder")
    axes.set_title(title, fontsize="medium")
    axes.grid(axis="x", alpha=0.3)
