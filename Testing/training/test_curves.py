"""The picture of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from wbcss_training.curves import draw_curves, read_metrics

LINES = (
    '{"step": 1, "loss": 2.0, "learning_rate": 0.001}\n{"step": 2, "loss": 1.0, "learning_rate": 0.001}\n'
    '{"step": 2, "validation_loss": 1.5}\n'
)


def test_a_half_written_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text(LINES + '7\n{"loss": 1}\n{"step": 3, "lo')
    assert [(line["step"], line.get("validation_loss")) for line in read_metrics(path)] == [
        (1, None),
        (2, None),
        (2, 1.5),
    ]


@pytest.mark.parametrize("lines", ["", LINES])
def test_the_picture_is_drawn_whatever_there_is(tmp_path: Path, lines: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(lines)
    with Image.open(draw_curves(tmp_path)) as picture:
        assert picture.format == "PNG"
        assert picture.size == (700, 400)
        colors = {color for _, color in picture.convert("RGB").getcolors(1 << 20)}
    orange = (255, 127, 14)  # matplotlib's tab:orange, in the legend in any case
    assert orange in colors


def test_a_lower_loss_is_drawn_lower(tmp_path: Path) -> None:
    """Oracle: the mean height of the blue pixels of a falling line right and left of the middle."""
    steps = "".join(f'{{"step": {n}, "loss": {100 - n}}}\n' for n in range(100))
    (tmp_path / "metrics.jsonl").write_text(steps)
    with Image.open(draw_curves(tmp_path)) as picture:
        rgb = picture.convert("RGB")
        blue = [(x, y) for x in range(700) for y in range(60, 400) if rgb.getpixel((x, y)) == (31, 119, 180)]
    left, right = ([y for x, y in blue if (x < 350) == side] for side in (True, False))
    assert sum(left) / len(left) + 50 < sum(right) / len(right)
