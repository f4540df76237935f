"""Learning-rate schedule, length of a trimming, and refused settings."""

from __future__ import annotations

import json

import pytest

from wbcss.errors import SpecError
from wbcss.specs import DecoderSpec
from wbcss_training.config import DistillConfig, TrainConfig, TrimConfig

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


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", 0.0, "temperature must be a positive number, got 0.0"),
        ("temperature", float("inf"), "temperature must be a positive number, got inf"),
        ("logit_weight", -1.0, "logit_weight must be a number of at least 0, got -1.0"),
        ("feature_weight", float("nan"), "feature_weight must be a number of at least 0, got nan"),
        ("foreground_weight", -0.5, "foreground_weight must be a number of at least 0, got -0.5"),
        ("boundary_weight", float("inf"), "boundary_weight must be a number of at least 0, got inf"),
    ],
)
def test_a_setting_of_a_distillation_out_of_range_is_named(name: str, value: float, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        DistillConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("budget", 0.0, "budget must be above 0 and at most 1, got 0.0"),
        ("budget", 1.5, "budget must be above 0 and at most 1, got 1.5"),
        ("shrink", 1.0, "shrink must be above 0 and below 1, got 1.0"),
        ("step_share", -1.0, "step_share must be above 0 and at most 1, got -1.0"),
        ("tolerance", 0.5001e1, r"tolerance must be a Dice in \[0, 1\], got 5.001"),
        ("multiple", 0, "multiple must be at least 1, got 0"),
        ("max_rejected", -1, "max_rejected must be at least 0, got -1"),
        ("min_cases", 0, "min_cases must be at least 1, got 0"),
        ("importance", "luck", "importance must be taylor or filters, got 'luck'"),
    ],
)
def test_a_setting_of_a_trimming_out_of_range_is_named(name: str, value: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        TrimConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("budget", "shrink", "steps"), [(0.15, 0.7, 4), (0.25, 0.5, 2), (1.0, 0.7, 2), (0.01, 0.5, 5)])
def test_a_step_is_expected_to_cost_the_square_of_its_share(budget: float, shrink: float, steps: int) -> None:
    assert TrimConfig(budget=budget, shrink=shrink).expected_steps == steps


def test_a_target_is_reached_in_one_step_and_all_is_plain_json() -> None:
    target = DecoderSpec(stage_channels=(3,), kernels=((3, 3, 3),), convs_per_stage=(1,), num_organs=2)
    made = TrimConfig(target=target, step_share=0.25)
    assert made.expected_steps == 1
    facts = json.loads(json.dumps(made.to_json()))
    assert (facts["target"]["stage_channels"], facts["distill"]["temperature"]) == ([3], 2.0)
    assert TrimConfig().to_json()["target"] is None
    assert [made.distill_steps(TrainConfig(steps=n)) for n in (1, 6, 1500)] == [1, 2, 375]
