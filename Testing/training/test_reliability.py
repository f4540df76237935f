"""The reliability table against a plain loop, and its picture."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wbcss_training.reliability import NUM_BINS, calibration_error, joined, reliability, table_error
from wbcss_training.reliabilityplot import Diagram, diagrams_of, draw_reliability

BLUE = (31, 119, 180)
"""matplotlib's tab:blue, of the bars."""


def drawn(num: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.random(num)), torch.from_numpy(rng.random(num) < 0.5)


def test_the_table_equals_a_plain_loop() -> None:
    sure, right = drawn(300)
    bins: dict[int, list[int]] = {}
    for number, value in enumerate(sure.tolist()):
        bins.setdefault(max(1, math.ceil(value * NUM_BINS)), []).append(number)
    rows = reliability(sure, right)
    assert [(row["bin"], row["voxels"]) for row in rows] == [(place, len(bins[place])) for place in sorted(bins)]
    for row in rows:
        members = bins[row["bin"]]
        assert row["confidence"] == pytest.approx(float(sure[members].mean()), abs=1e-5)
        assert row["accuracy"] == pytest.approx(float(right[members].double().mean()), abs=1e-5)
    gap = sum(abs(float(sure[members].sum()) - int(right[members].sum())) for members in bins.values()) / 300
    assert calibration_error(sure, right) == pytest.approx(gap, abs=1e-12)
    assert table_error(rows) == pytest.approx(gap, abs=1e-4)


def test_the_ends_of_the_scale_have_bins() -> None:
    rows = reliability(torch.tensor([0.0, 1.0, 0.05]), torch.tensor([False, True, False]))
    assert [(row["bin"], row["voxels"]) for row in rows] == [(1, 2), (15, 1)]


def test_tables_join_to_the_table_of_all_voxels() -> None:
    parts = [drawn(100, seed=seed) for seed in range(3)]
    whole = reliability(torch.cat([sure for sure, _ in parts]), torch.cat([right for _, right in parts]))
    for one, other in zip(joined([reliability(*part) for part in parts]), whole, strict=True):
        assert one == pytest.approx(other, abs=2e-5)
    assert joined([]) == []
    assert table_error([]) is None


def test_a_card_tells_its_diagrams_and_an_older_one_none() -> None:
    rows = reliability(*drawn(50))
    assert diagrams_of({"temperature": 2.0, "ece_after": 0.1}, {"reliability": rows}) == []
    pairs = diagrams_of({"reliability": {"before": rows, "after": rows}}, {})
    assert [diagram.title for diagram in pairs[0]] == ["temperature, before", "temperature, after"]
    both = diagrams_of(
        {"reliability": {"before": rows, "after": rows}}, {"reliability_before": rows, "reliability": rows}
    )
    assert [before.title for before, _ in both] == ["temperature, before", "confidence, before"]


def test_the_picture_shows_the_share_of_right_answers(tmp_path: Path) -> None:
    """Oracle: the bars of a network that is right half as often as another are half as high in pixels."""

    def diagram(accuracy: float) -> Diagram:
        row = {"bin": 15, "voxels": 100, "confidence": 0.99, "accuracy": accuracy}
        return Diagram(title="some", table=[row])

    with Image.open(draw_reliability([(diagram(0.4), diagram(0.8))], tmp_path / "r.png")) as picture:
        rgb = np.asarray(picture.convert("RGB")).astype(int)
    is_blue = np.abs(rgb - np.array(BLUE)).sum(axis=2) < 12
    half = is_blue.shape[1] // 2
    low, high = (int(side.any(axis=1).sum()) for side in (is_blue[:, :half], is_blue[:, half:]))
    assert low > 20
    assert high == pytest.approx(2 * low, abs=4)
    again = draw_reliability([(diagram(0.4), diagram(0.8))], tmp_path / "again.png")
    assert again.read_bytes() == (tmp_path / "r.png").read_bytes()
