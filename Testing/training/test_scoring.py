"""What held-out cases say: intervals and honest notes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from wbcss.labels import OrganName
from wbcss_training.evaluate import CaseScore, Evaluation
from wbcss_training.metrics import Agreement
from wbcss_training.scoring import dice_interval, held_out_summary, without_validation

LIVER, SPLEEN = OrganName("liver"), OrganName("spleen")


def agreement(dice: float) -> Agreement:
    return Agreement(dice=dice, hd95_mm=2.0, surface_dice=dice, reference_ml=1.0, segmented_ml=1.0)


def cases(*rows: dict[OrganName, float]) -> tuple[CaseScore, ...]:
    return tuple(
        CaseScore(number=n, organs={name: agreement(dice) for name, dice in row.items()}, seconds=1.0)
        for n, row in enumerate(rows, start=1)
    )


def summary(*rows: dict[OrganName, float], chosen_on_them: bool = False) -> dict:  # type: ignore[type-arg]
    evaluation = Evaluation(cases=cases(*rows), unknown=(), tasks=("x@1",), encoder_sha256="0" * 64)
    return held_out_summary(evaluation, chosen_on_them=chosen_on_them)


def test_the_interval_is_that_of_all_resamples() -> None:
    """With five cases all 3125 draws can be listed; their 2.5 and 97.5 percentiles are what sampling approaches."""
    dice = [0.2, 0.5, 0.6, 0.85, 0.9]
    means = [np.mean(draw) for draw in itertools.product(dice, repeat=5)]
    low, high = dice_interval(cases(*({LIVER: d} for d in dice)), [LIVER]) or [0, 0]
    assert low == pytest.approx(np.percentile(means, 2.5), abs=0.03)
    assert high == pytest.approx(np.percentile(means, 97.5), abs=0.02)


def test_equal_cases_have_an_interval_of_one_point() -> None:
    assert dice_interval(cases(*[{LIVER: 0.7}] * 5), [LIVER]) == [0.7, 0.7]


def test_organs_count_alike_however_often_they_occur() -> None:
    rows = cases({LIVER: 1.0, SPLEEN: 0.5}, {LIVER: 1.0}, {LIVER: 1.0})
    low, high = dice_interval(rows, [LIVER, SPLEEN]) or [0, 0]
    assert (low, high) == (0.75, 1.0)  # with the spleen drawn or not


@pytest.mark.parametrize("rows", [(), ({LIVER: 0.5},), ({LIVER: 0.5}, {SPLEEN: 0.5})])
def test_one_case_has_no_interval(rows: tuple[dict[OrganName, float], ...]) -> None:
    assert dice_interval(cases(*rows), [LIVER]) is None


def test_a_summary_lists_organs_and_no_case() -> None:
    facts = summary({LIVER: 0.8, SPLEEN: 0.6}, {LIVER: 0.6})
    assert facts["cases"] == 2
    assert facts["mean"]["dice"] == pytest.approx(0.65)
    assert facts["organs"]["liver"]["dice"] == pytest.approx(0.7)
    assert facts["organs"]["liver"]["dice_ci95"] == [0.6, 0.8]
    assert facts["organs"]["spleen"]["dice_ci95"] is None
    assert set(facts) == {"cases", "tolerance_mm", "mean", "organs", "note"}


@pytest.mark.parametrize(
    ("count", "chosen", "note"),
    [
        (0, False, "no held-out case has a voxel of these organs"),
        (1, False, "one held-out case only: no interval can be given"),
        (3, False, "3 held-out cases only: the intervals are rough and probably too narrow"),
        (3, True, "narrow; training stopped where the loss on these same cases was lowest, so the numbers flatter"),
        (12, False, "held-out cases, of patients that were not trained on"),
    ],
)
def test_the_note_says_how_far_the_numbers_can_be_trusted(count: int, chosen: bool, note: str) -> None:
    assert note in summary(*[{LIVER: 0.5}] * count, chosen_on_them=chosen)["note"]


def test_without_a_held_out_case_nothing_is_claimed() -> None:
    assert without_validation() == {
        "cases": 0,
        "note": "no case was held out, so how well the organs are found is not known",
    }
