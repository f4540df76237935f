"""Which architecture a trimming tries next."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wbcss.specs import DecoderSpec, EncoderSpec, spec_to_json
from wbcss_training.config import TrimConfig
from wbcss_training.continual.cost import decoder_cost
from wbcss_training.trimming import hindrance, next_spec

ENCODER = EncoderSpec(
    stage_channels=(16, 32, 96),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 3,
    convs_per_stage=(1, 1, 1),
    tile=(32, 32, 32),
)
FULL = DecoderSpec(stage_channels=(24, 32), kernels=((3, 3, 3),) * 2, convs_per_stage=(1, 2), num_organs=3)


BARE = dataclasses.replace(FULL, convs_per_stage=(0, 2))


def entry(widths: tuple[int, ...], *, accepted: bool) -> dict[str, Any]:
    return {"spec": spec_to_json(dataclasses.replace(FULL, stage_channels=widths)), "accepted": accepted}


def walk(config: TrimConfig, decide: Callable[[int], bool]) -> list[tuple[tuple[int, ...], bool]]:
    """All steps of a trimming whose verdicts ``decide`` gives by number."""
    steps: list[dict[str, Any]] = []
    while (spec := next_spec(config, FULL, ENCODER, steps)) is not None:
        steps.append(entry(spec.stage_channels, accepted=decide(len(steps))))
        assert len(steps) < 50
    return [(tuple(step["spec"]["stage_channels"]), step["accepted"]) for step in steps]


def share(widths: tuple[int, ...]) -> float:
    spec = dataclasses.replace(FULL, stage_channels=widths)
    return decoder_cost(spec, ENCODER).macs / decoder_cost(FULL, ENCODER).macs


@given(
    st.floats(0.05, 1.0), st.floats(0.3, 0.9), st.integers(1, 8), st.integers(0, 3), st.lists(st.booleans(), max_size=9)
)
def test_steps_get_smaller_until_the_budget_is_met_or_too_many_were_taken_back(
    budget: float, shrink: float, multiple: int, max_rejected: int, verdicts: list[bool]
) -> None:
    config = TrimConfig(budget=budget, shrink=shrink, multiple=multiple, max_rejected=max_rejected, keep_finest=True)
    path = walk(config, lambda number: verdicts[number] if number < len(verdicts) else True)
    now = FULL.stage_channels
    for widths, accepted in path:
        assert share(now) > budget  # a decoder within the budget is left alone
        assert widths != now
        assert all(1 <= new <= old for new, old in zip(widths, now, strict=True))
        now = widths if accepted else now
    assert len({widths for widths, accepted in path}) == len(path)
    assert sum(not accepted for _, accepted in path) <= max_rejected + 1
    ended = share(now) <= budget or sum(not accepted for _, accepted in path) > max_rejected
    assert ended or next_spec(config, FULL, ENCODER, [entry(w, accepted=a) for w, a in path]) is None


def test_a_trimming_where_all_is_well_ends_within_its_budget_and_not_far_below() -> None:
    path = walk(TrimConfig(budget=0.3, keep_finest=True), lambda number: True)
    assert [accepted for _, accepted in path] == [True] * len(path)
    assert 0.2 < share(path[-1][0]) <= 0.3 < share(path[-2][0])


def test_after_a_step_that_lost_too_much_the_next_goes_half_as_far() -> None:
    config = TrimConfig(shrink=0.49, multiple=1, max_rejected=1, budget=0.05, keep_finest=True)
    path = walk(config, lambda number: False)
    assert path == [((12, 16), False), ((17, 22), False)]  # 0.49 and 0.7 of (24, 32)


def bare_entry(*, accepted: bool) -> dict[str, Any]:
    return {"spec": spec_to_json(BARE), "accepted": accepted}


def test_a_trimming_begins_without_the_convolutions_of_the_finest_level() -> None:
    config = TrimConfig(shrink=0.5, budget=0.05)
    assert next_spec(config, FULL, ENCODER, []) == BARE
    assert next_spec(config, FULL, ENCODER, [bare_entry(accepted=True)]) == dataclasses.replace(
        BARE, stage_channels=(12, 16)
    )


def test_taken_back_they_stay_and_the_next_step_goes_as_far_as_the_first_would_have() -> None:
    config = TrimConfig(shrink=0.5, budget=0.05, max_rejected=0)
    narrow = dataclasses.replace(FULL, stage_channels=(12, 16))
    before = [bare_entry(accepted=False)]
    assert next_spec(config, FULL, ENCODER, before) == narrow
    assert next_spec(config, FULL, ENCODER, [*before, entry((12, 16), accepted=False)]) is None


def test_a_decoder_within_the_budget_or_bare_already_keeps_what_it_has() -> None:
    assert next_spec(TrimConfig(budget=1.0), FULL, ENCODER, []) is None
    found = next_spec(TrimConfig(shrink=0.5, budget=0.05), BARE, ENCODER, [])
    assert found == dataclasses.replace(BARE, stage_channels=(12, 16))


def test_a_target_is_the_only_step() -> None:
    target = dataclasses.replace(FULL, stage_channels=(4, 4), kernels=((1, 3, 3),) * 2)
    config = TrimConfig(target=target)
    assert next_spec(config, FULL, ENCODER, []) == target
    assert next_spec(config, FULL, ENCODER, [entry((4, 4), accepted=False)]) is None


@pytest.mark.parametrize(
    ("held_out", "reason"),
    [
        ({"cases": 2, "mean": {"dice": 0.5}}, r"on at least 3 held-out case\(s\) with these organs only, got 2"),
        ({"cases": 3, "mean": {"dice": None}}, "no held-out case has a Dice to compare"),
        ({"cases": 0, "note": "no case was held out"}, "got 0"),
    ],
)
def test_without_cases_to_judge_nothing_is_trimmed(held_out: Mapping[str, Any], reason: str) -> None:
    found = hindrance(TrimConfig(), {"held_out": held_out})
    assert found is not None
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found)
    assert hindrance(TrimConfig(), {"held_out": {"cases": 3, "mean": {"dice": 0.5}}}) is None
