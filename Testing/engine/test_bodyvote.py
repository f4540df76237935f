from __future__ import annotations

import numpy as np
import pytest
import torch

from wbcss.bodyvote import KNOWN_ORGANS, OrganVote
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


THIGH, NECK = (90.0, 130.0), (15.0, 50.0)
BODY: list[LevelRange | None] = [THIGH] * KNOWN_ORGANS + [NECK] * KNOWN_ORGANS


def found(thigh: int, neck: int) -> list[list[int]]:
    """So many voxels of an organ of the thigh and of one of the neck in every plane; the others are not found."""
    return [[thigh] + [0] * (KNOWN_ORGANS - 1) + [neck]] * PLANES


def test_organs_where_they_belong_agree() -> None:
    assert a_vote(BODY, found(9, 1)).say(a_curve(95.0), MARGIN_CM) == "firmly for"


def test_organs_that_belong_elsewhere_contradict_a_curve_where_the_task_knows_others() -> None:
    assert a_vote(BODY, found(9, 1)).say(a_curve(18.0), MARGIN_CM) == "against"


def test_a_task_that_knows_little_there_has_no_say() -> None:
    assert a_vote(BODY[:KNOWN_ORGANS], found(9, 0)).say(a_curve(18.0), MARGIN_CM) == "nothing"
    assert a_vote(BODY[:-1], found(9, 1)).say(a_curve(18.0), MARGIN_CM) == "nothing"
    # Half of the scan is within its reach: not enough either.
    half: list[LevelRange | None] = [THIGH] * KNOWN_ORGANS + [(15.0, 33.0)] * KNOWN_ORGANS
    assert a_vote(half, found(9, 0)).say(a_curve(18.0), MARGIN_CM) == "nothing"


@pytest.mark.parametrize(("foreign", "expected"), [(10, "firmly for"), (11, "for"), (60, "for")])
def test_nine_tenths_of_what_is_found_must_fit_to_confirm(foreign: int, expected: str) -> None:
    """The foreign organs belong nowhere that the others do: no place explains much more, so nothing contradicts."""
    ranges = [*BODY, (150.0, 170.0), (190.0, 200.0)]
    planes = [[0] * KNOWN_ORGANS + [100 - foreign] + [0] * (KNOWN_ORGANS - 1) + [foreign // 2, foreign - foreign // 2]]
    assert a_vote(ranges, planes * PLANES).say(a_curve(18.0), MARGIN_CM) == expected


@pytest.mark.parametrize(("elsewhere", "expected"), [(10, "firmly for"), (11, "against")])
def test_another_place_that_explains_more_than_a_tenth_more_contradicts(elsewhere: int, expected: str) -> None:
    """An organ that reaches from the thigh to the abdomen, and one of the thigh alone: both fit there, one here."""
    both: LevelRange = (15.0, 130.0)
    ranges: list[LevelRange | None] = [THIGH] * KNOWN_ORGANS + [both] * KNOWN_ORGANS
    planes = [[elsewhere] + [0] * (KNOWN_ORGANS - 1) + [100 - elsewhere]] * PLANES
    assert a_vote(ranges, planes).say(a_curve(18.0), MARGIN_CM) == expected


def test_organs_of_unknown_range_do_not_count() -> None:
    unknown: list[LevelRange | None] = [None] * KNOWN_ORGANS + [NECK] * KNOWN_ORGANS
    assert a_vote(unknown, found(90, 10)).say(a_curve(18.0), MARGIN_CM) == "firmly for"
    assert a_vote([None], [[90]] * PLANES).say(a_curve(18.0), MARGIN_CM) == "nothing"


def test_nothing_found_and_nothing_seen_contradict_nothing() -> None:
    assert a_vote(BODY, found(0, 0)).say(a_curve(18.0), MARGIN_CM) == "nothing"
    assert a_vote(BODY, []).say(a_curve(18.0), MARGIN_CM) == "nothing"


def test_the_margin_widens_every_range() -> None:
    ranges: list[LevelRange | None] = [(55.0, 70.0)] * KNOWN_ORGANS + [NECK] * KNOWN_ORGANS
    vote = a_vote(ranges, found(9, 1))
    assert vote.say(a_curve(18.0), MARGIN_CM) == "against"
    assert vote.say(a_curve(18.0), 40.0) == "firmly for"
