"""Learning-rate schedule and refused settings."""

from __future__ import annotations

import pytest

from wbcss.errors import SpecError
from wbcss_training.config import TrainConfig

SCHEDULE = TrainConfig(steps=100, warmup_steps=10, decay_fraction=0.3, learning_rate=2e-3, balanced_fraction=0.5)


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (69, 1.0), (70, 1.0), (85, 0.5), (99, 1 / 30), (100, 0.0)],
)
def test_learning_rate_warms_up_stays_and_falls_to_zero(step: int, share: float) -> None:
    assert SCHEDULE.learning_rate_at(step) == pytest.approx(2e-3 * share)


@pytest.mark.parametrize(("step", "fraction"), [(0, 0.5), (70, 0.5), (85, 0.25), (100, 0.0)])
def test_balanced_share_falls_to_zero_in_the_decay_phase(step: int, fraction: float) -> None:
    assert SCHEDULE.balanced_fraction_at(step) == pytest.approx(fraction)


def test_a_longer_run_has_the_same_constant_phase() -> None:
    longer = TrainConfig(steps=1000, warmup_steps=10, learning_rate=2e-3)
    assert [longer.learning_rate_at(s) for s in range(70)] == [SCHEDULE.learning_rate_at(s) for s in range(70)]


def test_no_warm_up_and_no_decay_mean_a_constant_rate() -> None:
    flat = TrainConfig(steps=5, warmup_steps=0, decay_fraction=0.0, learning_rate=1e-3)
    assert [flat.learning_rate_at(step) for step in range(5)] == [1e-3] * 5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 0, "steps must be at least 1, got 0"),
        ("batch_size", 0, "batch_size must be at least 1, got 0"),
        ("sampled_voxels", -4, "sampled_voxels must be at least 1, got -4"),
        ("deep_supervision", 0, "deep_supervision must be at least 1, got 0"),
        ("checkpoint_every", 0, "checkpoint_every must be at least 1, got 0"),
        ("log_every", 0, "log_every must be at least 1, got 0"),
        ("decay_fraction", 1.5, r"decay_fraction must be in \[0, 1\], got 1.5"),
        ("balanced_fraction", -0.1, r"balanced_fraction must be in \[0, 1\], got -0.1"),
        ("ema_decay", 2, r"ema_decay must be in \[0, 1\], got 2"),
        ("learning_rate", 0, "learning_rate must be positive, got 0"),
        ("learning_rate", float("nan"), "learning_rate must be positive, got nan"),
        ("gradient_clip", -1, "gradient_clip must be positive, got -1"),
        ("warmup_steps", -1, "warmup_steps must not be negative, got -1"),
        ("weight_decay", -0.5, "weight_decay must not be negative, got -0.5"),
        ("seed", -1, "seed must not be negative, got -1"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value(name: str, value: float, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        TrainConfig(**{name: value})  # type: ignore[arg-type]
