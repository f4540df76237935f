from __future__ import annotations

import numpy as np
import pytest
import torch

from wbcss.bodyvote import OrganVote
from wbcss.levels import LevelCurve, LevelRange

SPACING_MM = 10.0
PLANES = 30
MARGIN_CM = 0.0


def a_curve(top_cm: float) -> LevelCurve:
    """A scan of 30 cm whose topmost plane lies at ``top_cm``."""
    heights = SPACING_MM * np.arange(PLANES)
    return LevelCurve(heights, top_cm + (PLANES - 1) - heights / 10, 1.0, 0.1, 0.1, False)


def a_vote(ranges: list[LevelRange | None], planes: list[list[int]]) -> OrganVote:
    """Voxels of channels 1, 2, ... from the lowest plane up."""
    vote = OrganVote(ranges, SPACING_MM)
    for k, counts in enumerate(planes):
        channels = [0] * 5 + [n for n, count in enumerate(counts, start=1) for _ in range(count)]
        vote.add(k, torch.tensor(channels, dtype=torch.int32))
    return vote


EVERYWHERE = (-1000.0, 1000.0)
THIGH, NECK = (90.0, 130.0), (15.0, 50.0)


def test_organs_where_they_belong_agree() -> None:
    vote = a_vote([THIGH, NECK], [[9, 1]] * PLANES)
    assert not vote.contradicts(a_curve(95.0), MARGIN_CM)


def test_organs_that_belong_elsewhere_contradict_a_curve_where_the_task_knows_others() -> None:
    vote = a_vote([THIGH, NECK], [[9, 1]] * PLANES)
    assert vote.contradicts(a_curve(18.0), MARGIN_CM)


def test_a_task_that_knows_nothing_there_has_no_say() -> None:
    assert not a_vote([THIGH], [[9]] * PLANES).contradicts(a_curve(18.0), MARGIN_CM)
    # Half of the scan is within its reach: not enough either.
    assert not a_vote([THIGH, (15.0, 33.0)], [[9, 0]] * PLANES).contradicts(a_curve(18.0), MARGIN_CM)


def test_errors_that_fit_nowhere_better_are_none_of_the_curves() -> None:
    """Two organs that are never found together: each place loses one of them."""
    vote = a_vote([THIGH, NECK], [[5, 5]] * PLANES)
    assert not vote.contradicts(a_curve(18.0), MARGIN_CM)


@pytest.mark.parametrize(("foreign", "expected"), [(54, False), (56, True)])
def test_another_place_must_fit_better_by_a_tenth(foreign: int, expected: bool) -> None:
    vote = a_vote([THIGH, NECK], [[foreign, 100 - foreign]] * PLANES)
    assert vote.contradicts(a_curve(18.0), MARGIN_CM) is expected


def test_organs_of_unknown_range_say_nothing() -> None:
    assert not a_vote([None, NECK], [[90, 10]] * PLANES).contradicts(a_curve(18.0), MARGIN_CM)
    assert not a_vote([None], [[90]] * PLANES).contradicts(a_curve(18.0), MARGIN_CM)


def test_nothing_found_and_nothing_seen_contradict_nothing() -> None:
    assert not a_vote([THIGH, EVERYWHERE], [[0, 0]] * PLANES).contradicts(a_curve(18.0), MARGIN_CM)
    assert not a_vote([THIGH, EVERYWHERE], []).contradicts(a_curve(18.0), MARGIN_CM)


def test_the_margin_widens_every_range() -> None:
    vote = a_vote([(55.0, 70.0), NECK], [[9, 1]] * PLANES)
    assert vote.contradicts(a_curve(18.0), MARGIN_CM)
    assert not vote.contradicts(a_curve(18.0), 40.0)
