"""Augmentation: shapes, no mirroring, and how strong it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wbcss.errors import SpecError
from wbcss_training.augmentation import Strength, augmentation

PATCH = (16, 16, 16)


def crop() -> dict[str, torch.Tensor]:
    """HU above air rising from left to right; organ 1 in the left half, 2 in the right."""
    ramp = torch.linspace(1000, 1300, 22)[:, None, None].expand(22, 22, 22).clone()
    labels = torch.ones(22, 22, 22, dtype=torch.uint8)
    labels[11:] = 2
    return {"hu": ramp[None], "labels": labels[None]}


def drawn(strength: Strength, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    transform = augmentation(strength, PATCH)
    transform.set_random_state(seed=seed)
    out = transform(crop())
    return torch.as_tensor(out["hu"])[0], torch.as_tensor(out["labels"])[0]


def test_nothing_but_the_middle_is_what_none_gives() -> None:
    hu, labels = drawn("none", 0)
    assert torch.equal(hu, crop()["hu"][0, 3:19, 3:19, 3:19])
    assert torch.equal(labels, crop()["labels"][0, 3:19, 3:19, 3:19])


@pytest.mark.parametrize("strength", ["normal", "strong"])
@pytest.mark.parametrize("seed", range(6))
def test_left_stays_left_and_labels_stay_whole(strength: Strength, seed: int) -> None:
    hu, labels = drawn(strength, seed)
    assert hu.shape == labels.shape == PATCH
    assert set(labels.unique().tolist()) <= {0.0, 1.0, 2.0}
    left, right = (np.argwhere(labels.numpy() == organ)[:, 0].mean() for organ in (1, 2))
    assert left < right
    again = drawn(strength, seed)
    assert torch.equal(hu, again[0])
    assert torch.equal(labels, again[1])


def test_strong_changes_more_than_normal() -> None:
    still = drawn("none", 0)[1]
    moved = {
        strength: np.mean([float((drawn(strength, seed)[1] != still).float().mean()) for seed in range(12)])
        for strength in ("normal", "strong")
    }
    assert moved["strong"] > 1.3 * moved["normal"] > 0


def test_another_strength_is_refused() -> None:
    with pytest.raises(SpecError, match="augmentation must be none, normal, strong, got 'wild'"):
        augmentation("wild", PATCH)  # type: ignore[arg-type]
