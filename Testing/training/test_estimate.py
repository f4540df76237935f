"""What a run will cost: sums, and the number of steps that fit into a time."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import tiny_enrollment
import torch
from hypothesis import given
from hypothesis import strategies as st

from wbcss.errors import SpecError
from wbcss.nn.encoder import Encoder
from wbcss_training.cases import CasePatches
from wbcss_training.config import TrimConfig
from wbcss_training.enrollment import Schedule, schedule_of
from wbcss_training.estimate import MIN_STEPS, Estimate, measure, steps_within
from wbcss_training.features import FeatureSpec

COSTS = Estimate(prepare_s=2.0, patch_s=3.0, step_s=0.5, coarse_step_s=0.25, validate_s=10.0, peak_bytes=2**31)


def schedule(steps: int) -> Schedule:
    """A pool of one patch for every ten steps, at most seven, and two held-out patches."""
    return Schedule(
        config=dataclasses.replace(tiny_enrollment.CONFIG, steps=steps),
        decoder=tiny_enrollment.DECODER,
        features=FeatureSpec(patch=(16, 16, 16), num_skips=3),
        num_training=min(7, math.ceil(steps / 10)),
        num_validation=2,
        bytes_per_patch=2**20,
        coarse_steps=steps // 2,
        round_steps=10,
        patience=None,
    )


def test_the_parts_add_up() -> None:
    assert COSTS.stages(schedule(40), num_training=4, num_validation=1) == {
        "encode": 2.0 * 5 + 3.0 * 6,
        "train": 0.5 * 20 + 0.25 * 20,
        "validate": 10.0,
        "describe": pytest.approx(0.2 * 53),
    }
    assert COSTS.sentence(schedule(40), num_training=4, num_validation=1) == (
        "4 case(s) to learn from, 1 held out; 6 patches of 16x16x16, 40 steps; about 1 min 04 s in all (28 s to "
        "encode, 15 s to train, 10 s to validate, 11 s to describe), 0.01 GiB of disk, 2.0 GiB of memory"
    )


def test_trimming_is_told_where_it_can_be_judged() -> None:
    config = TrimConfig(budget=0.25, shrink=0.5, step_share=0.25, min_cases=2)
    made = dataclasses.replace(schedule(40), trim=config)
    assert COSTS.stages(made, num_training=4, num_validation=2)["trim"] == 2 * (0.5 * 10 + 10.0 * 2)
    assert "trim" not in COSTS.stages(made, num_training=4, num_validation=1)


def test_a_published_decoder_takes_no_time_to_learn() -> None:
    made = dataclasses.replace(schedule(40), learns=False)
    assert COSTS.stages(made, num_training=4, num_validation=1)["train"] == 0


def test_memory_that_nobody_knows_is_not_told() -> None:
    unknown = dataclasses.replace(COSTS, peak_bytes=0)
    assert "memory" not in unknown.sentence(schedule(40), num_training=4, num_validation=1)


@given(st.floats(1.5, 500), st.integers(1, 5), st.integers(0, 2))
def test_the_steps_are_the_most_that_fit(minutes: float, num_training: int, num_validation: int) -> None:
    counts = {"num_training": num_training, "num_validation": num_validation}
    steps = steps_within(minutes, COSTS, schedule, **counts)
    assert sum(COSTS.stages(schedule(steps), **counts).values()) <= 60 * minutes
    assert sum(COSTS.stages(schedule(steps + 1), **counts).values()) > 60 * minutes
    assert steps >= MIN_STEPS


def test_too_little_time_is_told() -> None:
    with pytest.raises(
        SpecError, match=r"--minutes must leave time for 20 steps, about 47 s in all here, got 0\.5 min"
    ):
        steps_within(0.5, COSTS, schedule, num_training=4, num_validation=1)


def test_costs_are_measured_on_the_request_itself(tmp_path: Path) -> None:
    request = tiny_enrollment.request(tmp_path / "cases")
    source = CasePatches(
        task=request.task,
        organs=request.organs,
        cases=request.training,
        cache_dir=tmp_path / "cache",
        encoder=tiny_enrollment.ENCODER,
    )
    made = schedule_of(request, tiny_enrollment.ENCODER, request.train)
    encoder = Encoder(tiny_enrollment.ENCODER)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    found = measure(source, encoder, made, held_out=request.validation[0], device=torch.device("cpu"))
    assert min(found.patch_s, found.step_s, found.coarse_step_s, found.validate_s) > 0
    assert found.peak_bytes > 2**20
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    without = measure(source, encoder, made, held_out=None, device=torch.device("cpu"))
    assert without.validate_s == 0
