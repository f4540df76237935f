"""How long it will take: exact for what was measured, in proportion for the rest."""

from __future__ import annotations

import math

import pytest

from wbcss.errors import InputError
from wbcss.job import OVERLAP
from WholeBodyCSSLib.RunOptions import RunOptions
from WholeBodyCSSLib.TimeEstimate import TILES, TimeEstimate


def ask(estimate: TimeEstimate, *tasks: str, liters: float = 10.0, quality: str = "normal") -> float | None:
    return estimate.seconds(device="cpu", quality=RunOptions(quality=quality).quality, tasks=tasks, liters=liters)  # type: ignore[arg-type]


def test_nothing_is_said_before_the_first_run_on_a_device() -> None:
    estimate = TimeEstimate()
    assert ask(estimate, "wholebody") is None
    estimate.learn(device="cuda", quality="normal", tasks=["wholebody"], liters=10, seconds=5)
    assert ask(estimate, "wholebody") is None


def test_the_same_run_again_takes_as_long_as_it_took() -> None:
    estimate = TimeEstimate()
    estimate.learn(device="cpu", quality="normal", tasks=["wholebody", "chest"], liters=10, seconds=60)
    assert ask(estimate, "wholebody", "chest") == pytest.approx(60)
    assert ask(estimate, "wholebody", "chest", liters=20) == pytest.approx(120)


def test_fewer_tasks_take_less_and_none_nothing() -> None:
    estimate = TimeEstimate()
    estimate.learn(device="cpu", quality="normal", tasks=["wholebody", "chest"], liters=10, seconds=60)
    one = ask(estimate, "chest")
    assert one is not None
    assert 0 < one < 60
    assert ask(estimate) is None


def test_runs_of_single_tasks_tell_the_shares_apart() -> None:
    truth = {"*": 2.0, "big": 4.0, "small": 0.5}
    runs = [("big", "small"), ("big",), ("small",)]
    estimate = TimeEstimate()
    for tasks in runs * 200:
        seconds = 10 * (truth["*"] + sum(truth[task] for task in tasks))
        estimate.learn(device="cpu", quality="normal", tasks=tasks, liters=10, seconds=seconds)
    for tasks in runs:
        expected = 10 * (truth["*"] + sum(truth[task] for task in tasks))
        assert ask(estimate, *tasks) == pytest.approx(expected, rel=0.01)


def test_another_quality_is_scaled_by_its_tiles() -> None:
    estimate = TimeEstimate()
    estimate.learn(device="cpu", quality="normal", tasks=["a"], liters=10, seconds=60)
    assert ask(estimate, "a", quality="fast") == pytest.approx(60 * 8 / 27)
    for quality, tiles in TILES.items():
        assert tiles == pytest.approx(((1 - OVERLAP["normal"]) / (1 - OVERLAP[quality])) ** 3)


@pytest.mark.parametrize(
    ("tasks", "liters", "seconds"), [([], 1.0, 1.0), (["a"], 0.0, 1.0), (["a"], 1.0, 0.0), (["a"], 1.0, math.nan)]
)
def test_what_is_no_measurement_changes_nothing(tasks: list[str], liters: float, seconds: float) -> None:
    estimate = TimeEstimate()
    estimate.learn(device="cpu", quality="normal", tasks=["a"], liters=10, seconds=60)
    before = estimate.toText()
    estimate.learn(device="cpu", quality="normal", tasks=tasks, liters=liters, seconds=seconds)
    assert estimate.toText() == before


def test_it_survives_the_settings() -> None:
    estimate = TimeEstimate()
    estimate.learn(device="cpu", quality="normal", tasks=["a"], liters=10, seconds=60)
    assert ask(TimeEstimate.fromText(estimate.toText()), "a") == pytest.approx(60)


@pytest.mark.parametrize("text", ["", "null", "[]", '{"cpu": 3}', '{"cpu": {"*": "x"}}', '{"cpu": {"*": -1}}', "{"])
def test_settings_that_somebody_edited_count_as_none(text: str) -> None:
    assert ask(TimeEstimate.fromText(text), "a") is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"device": "gpu"}, "cuda or cuda:N, got 'gpu'"), ({"quality": "superb"}, "fast, normal, best, got 'superb'")],
)
def test_options_that_no_engine_knows_are_refused(change: dict[str, str], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        RunOptions(**change)  # type: ignore[arg-type]
