"""Overall progress out of parts, with a clock that the test turns."""

from __future__ import annotations

import pytest

from wbcss.pace import Pace


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_parts_fill_the_whole_and_the_fraction_never_falls(clock: Clock) -> None:
    told: list[tuple[float, str]] = []
    pace = Pace(lambda fraction, stage, _left: told.append((fraction, stage)), clock=clock)
    read, network = pace.part(0.0, 0.25), pace.part(0.25, 1.0)
    for progress, fraction, stage in (
        (read, 0.0, "read"),
        (read, 1.0, "done"),
        (network, -1.0, "odd"),
        (network, 7.0, "end"),
    ):
        clock.now_s += 1
        progress(fraction, stage)
    assert told == [(0.0, "read"), (0.25, "done"), (0.25, "odd"), (1.0, "end")]


def test_the_remaining_time_is_exact_at_constant_speed(clock: Clock) -> None:
    told: list[float | None] = []
    progress = Pace(lambda _f, _s, left: told.append(left), clock=clock).part(0.0, 1.0)
    for percent in range(0, 101, 20):
        progress(percent / 100, "network")
        clock.now_s += 2
    assert told == [None, pytest.approx(8), pytest.approx(6), pytest.approx(4), pytest.approx(2), pytest.approx(0)]


def test_a_slow_part_does_not_inherit_the_speed_of_the_fast_one_before(clock: Clock) -> None:
    told: list[float | None] = []
    pace = Pace(lambda _f, _s, left: told.append(left), clock=clock)
    read, network = pace.part(0.0, 0.5), pace.part(0.5, 1.0)
    read(0.0, "read")
    read(1.0, "read")
    network(0.0, "network")
    clock.now_s += 10
    network(0.1, "network")
    assert told[-1] == pytest.approx(90)


def test_reports_of_one_stage_are_spaced_but_the_last_always_comes(clock: Clock) -> None:
    told: list[float] = []
    progress = Pace(lambda fraction, _s, _l: told.append(fraction), clock=clock).part(0.0, 1.0)
    for step in range(1000):
        progress(step / 1000, "network")
        clock.now_s += 0.001
    progress(1.0, "network")
    assert 9 <= len(told) <= 13
    assert told[-1] == 1.0
