from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wbcss.errors import InputError
from wbcss.levels import (
    MIN_LOCAL_STRETCH,
    covered_shares,
    fall,
    fit_curve,
    learned_range,
    meet,
    region_names,
    weighted_median,
)


def least_loss(groups: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The least weighted absolute error of any falling sequence: some best one takes observed values only."""
    candidates = sorted({float(v) for values, _ in groups for v in values})
    best = [0.0] * len(candidates)
    for values, weights in groups:
        cost = [float((weights * np.abs(values - c)).sum()) for c in candidates]
        above = list(itertools.accumulate(reversed(best), min))[::-1]  # a place before may be as high or higher
        best = [a + c for a, c in zip(above, cost, strict=True)]
    return min(best)


@given(
    st.lists(st.lists(st.tuples(st.integers(-9, 9), st.integers(1, 5)), min_size=1, max_size=3), min_size=1, max_size=8)
)
def test_no_falling_sequence_has_less_error(drawn: list[list[tuple[int, int]]]) -> None:
    groups = [(np.array([v for v, _ in g], float), np.array([w for _, w in g], float)) for g in drawn]
    found = fall(groups)
    assert (np.diff(found) <= 0).all()
    loss = sum(float((w * np.abs(v - f)).sum()) for (v, w), f in zip(groups, found, strict=True))
    assert loss == pytest.approx(least_loss(groups))


def test_a_weighted_median_has_half_of_the_weight_on_either_side() -> None:
    assert weighted_median(np.array([5.0, 1.0, 3.0]), np.array([1.0, 1.0, 1.0])) == 3.0
    assert weighted_median(np.array([5.0, 1.0, 3.0]), np.array([9.0, 1.0, 1.0])) == 5.0


def a_body(stretch: float, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Heights and true levels of a body of 1 cm per 10 mm times ``stretch``."""
    heights = np.linspace(0.0, 600.0, count)
    return heights, 90.0 - stretch * heights / 10


@pytest.mark.parametrize("stretch", [0.8, 1.0, 1.25])
def test_a_third_of_wild_outliers_moves_no_level_by_more_than_two_centimeters(
    stretch: float, rng: np.random.Generator
) -> None:
    heights, truth = a_body(stretch)
    observed = truth + rng.normal(0, 0.3, len(truth))
    wild = rng.permutation(len(truth))[: len(truth) // 3]
    observed[wild] = rng.uniform(0, 170, len(wild))
    curve = fit_curve(heights, observed, np.ones_like(heights))
    assert curve is not None
    assert not curve.is_reversed
    off = np.abs(curve.at(heights) - truth)
    assert off.max() < 2.0
    assert off.mean() < 0.5
    assert curve.stretch == pytest.approx(stretch, rel=0.05)


def test_the_curve_falls_at_every_place_and_goes_on_as_a_line_beyond_its_ends(rng: np.random.Generator) -> None:
    heights, truth = a_body(1.0)
    curve = fit_curve(heights, truth + rng.normal(0, 3, len(truth)), np.ones_like(heights))
    assert curve is not None
    slopes = -np.diff(curve.at(heights)) / np.diff(heights) * 10
    assert slopes.min() >= MIN_LOCAL_STRETCH - 1e-9
    beyond = curve.at([-100.0, 700.0])
    ends = curve.at([0.0, 600.0])
    np.testing.assert_allclose(beyond - ends, [10 * curve.stretch, -10 * curve.stretch])


def test_levels_that_rise_towards_the_head_are_found_to_be_upside_down() -> None:
    heights, truth = a_body(1.0)
    curve = fit_curve(heights, truth[::-1], np.ones_like(heights))
    assert curve is not None
    assert curve.is_reversed
    np.testing.assert_allclose(curve.at(heights), truth[::-1], atol=0.3)


def test_a_head_that_hardly_knows_calls_nothing_upside_down_and_is_in_doubt() -> None:
    heights = np.linspace(0.0, 200.0, 4)
    rising = 40 + heights / 10
    sure, unsure = (fit_curve(heights, rising, np.full(4, 1 / scale)) for scale in (1.0, 25.0))
    assert sure is not None
    assert unsure is not None
    assert sure.is_reversed
    assert not unsure.is_reversed
    assert unsure.doubt_cm >= 25.0 / 2
    assert sure.doubt_cm == pytest.approx(1.0 / 2, rel=0.1)


def test_a_short_scan_is_never_called_upside_down() -> None:
    heights = np.linspace(0.0, 100.0, 8)
    curve = fit_curve(heights, 40 + heights / 10, np.ones_like(heights))
    assert curve is not None
    assert not curve.is_reversed


def test_observations_without_weight_make_no_curve() -> None:
    assert fit_curve([0.0, 1.0], [3.0, 2.0], [0.0, 0.0]) is None
    assert fit_curve([], [], []) is None


def test_what_cannot_be_fitted_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="must be equally many, got 2, 1 and 2"):
        fit_curve([0.0, 1.0], [3.0], [1.0, 1.0])
    with pytest.raises(InputError, match="must be finite, got NaN"):
        fit_curve([0.0], [np.nan], [1.0])


def test_a_learned_range_is_wider_than_what_was_seen_by_both_rules() -> None:
    levels = np.concatenate([np.full(900, 50.0), np.linspace(40.0, 60.0, 101)])
    first, last = learned_range(levels)
    assert first == pytest.approx(41.0 - 0.25 * 18.0)
    assert last == pytest.approx(59.0 + 0.25 * 18.0)
    # A lesion seen at two places: quarter of an extent is little, a standard deviation more.
    assert learned_range([40.0, 60.0]) == (30.0, 70.0)


def test_ranges_meet_where_they_share_a_level() -> None:
    assert meet((0, 1), (1, 2))
    assert meet((0, 9), (3, 4))
    assert not meet((0, 1), (1.5, 2))
    assert not meet((1.5, 2), (0, 1))


def test_regions_are_named_by_how_much_of_them_is_shown() -> None:
    regions = {"head": (0.0, 20.0), "chest": (20.0, 50.0), "legs": (90.0, 170.0)}
    shares = covered_shares((15.0, 51.0), regions)
    assert shares == {"head": 0.25, "chest": 1.0, "legs": 0.0}
    assert region_names(shares) == ("head", "chest")
    assert region_names(covered_shares((90.0, 91.0), regions)) == ("legs",)
    assert region_names(covered_shares((180.0, 190.0), regions)) == ()
