"""Is a network right as often as it says? The reliability diagram as a table, and the calibration error.

Both with bins of equal width: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

NUM_BINS = 15


def reliability(confidence: torch.Tensor, right: torch.Tensor) -> list[dict[str, Any]]:
    """The reliability diagram as a table: per bin with voxels its mean confidence and share of right answers.

    Args:
        confidence: (N,) in [0, 1].
        right: (N,) bool, or 0 and 1.

    Returns:
        ``bin`` (1 to 15; bin n holds confidences above (n - 1) / 15 up to n / 15), ``voxels``, ``confidence``,
        ``accuracy``; bins without voxels are left out.
    """
    count, sure, hit = _sums(confidence, right)
    return [
        {
            "bin": number + 1,
            "voxels": int(count[number]),
            "confidence": round(float(sure[number] / count[number]), 5),
            "accuracy": round(float(hit[number] / count[number]), 5),
        }
        for number in range(NUM_BINS)
        if count[number] > 0
    ]


def calibration_error(confidence: torch.Tensor, right: torch.Tensor) -> float:
    """Mean gap between confidence and share of right answers over 15 bins of equal width, weighted by their voxels."""
    _, sure, hit = _sums(confidence, right)
    return float((sure - hit).abs().sum() / len(confidence))


def joined(tables: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One table of the voxels of several: what ``reliability`` says of all of them at once, but for its rounding."""
    rows = []
    for number in range(1, NUM_BINS + 1):
        parts = [row for table in tables for row in table if row["bin"] == number]
        voxels = sum(row["voxels"] for row in parts)
        if voxels:
            means = {key: sum(row["voxels"] * row[key] for row in parts) / voxels for key in ("confidence", "accuracy")}
            rows.append({"bin": number, "voxels": voxels, **{key: round(value, 5) for key, value in means.items()}})
    return rows


def table_error(table: Sequence[Mapping[str, Any]]) -> float | None:
    """The calibration error that a table tells; None for one without voxels."""
    total = sum(row["voxels"] for row in table)
    gap = sum(row["voxels"] * abs(row["confidence"] - row["accuracy"]) for row in table)
    return gap / total if total else None


def _sums(confidence: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Voxels, sum of confidence and right answers of every bin, each (15,) float64."""
    sure, hit = confidence.double(), right.double()
    bins = (sure * NUM_BINS).ceil().clamp(1, NUM_BINS).long() - 1
    zeros = torch.zeros(NUM_BINS, dtype=torch.float64)
    count = zeros.index_add(0, bins, torch.ones_like(sure))
    return count, zeros.index_add(0, bins, sure), zeros.index_add(0, bins, hit)
