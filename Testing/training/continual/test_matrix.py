"""Numbers read off the matrix of continual learning."""

from __future__ import annotations

import pytest

from wbcss.errors import SpecError
from wbcss_training.continual.matrix import Forgetting

R = Forgetting(rows=[[0.8, None, None], [0.6, 0.7, None], [0.5, 0.4, 0.9]])


def test_the_average_is_of_the_last_row() -> None:
    assert R.average == pytest.approx((0.5 + 0.4 + 0.9) / 3)
    assert R.learned == pytest.approx((0.8 + 0.7 + 0.9) / 3)


def test_backward_transfer_compares_the_end_with_the_day_of_learning() -> None:
    assert R.backward_transfer == pytest.approx(((0.5 - 0.8) + (0.4 - 0.7)) / 2)
    assert R.relative_backward_transfer == pytest.approx(((0.5 - 0.8) / 0.8 + (0.4 - 0.7) / 0.7) / 2)


def test_nothing_forgotten_is_exactly_zero() -> None:
    kept = Forgetting(rows=[[0.1 + 0.2, None], [0.1 + 0.2, 0.7]])
    assert kept.backward_transfer == 0


def test_the_gap_to_a_bound_is_in_dice_points() -> None:
    bound = Forgetting(rows=[[0.9, None, None], [0.9, 0.8, None], [0.9, 0.8, 0.9]])
    assert R.below(bound) == pytest.approx(100 * ((0.9 - 0.5) + (0.8 - 0.4) + 0.0) / 3)


def test_what_was_not_asked_is_not_known() -> None:
    joint = Forgetting(rows=[[None, None], [0.5, 0.6]])
    assert joint.average == pytest.approx(0.55)
    assert joint.learned is None
    assert joint.backward_transfer is None
    assert joint.relative_backward_transfer is None
    assert Forgetting(rows=[[0.0, None], [0.0, 0.5]]).relative_backward_transfer is None
    assert Forgetting(rows=[[0.5]]).backward_transfer is None
    assert joint.below(joint) == 0
    assert Forgetting(rows=[[0.5, None], [0.5, None]]).below(joint) is None


def test_crooked_matrices_are_refused() -> None:
    with pytest.raises(SpecError, match=r"as many columns as rows, got \[1, 2\] for 2 tasks"):
        Forgetting(rows=[[0.1], [0.1, 0.2]])
    with pytest.raises(SpecError, match="must have as many tasks, got 3 and 1"):
        R.below(Forgetting(rows=[[0.5]]))
