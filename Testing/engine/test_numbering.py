"""Vertebrae and ribs in order: who breaks it, and what a repair changes."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wbcss.catalogue import find
from wbcss.errors import Cancelled
from wbcss.labels import OrganName
from wbcss.numbering import CHAINS, ORDER_MM, out_of_order, repair_numbering
from wbcss.volume import LabelMap

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SPINE = ("vertebrae_T10", "vertebrae_T11", "vertebrae_T12", "vertebrae_L1", "vertebrae_L2", "vertebrae_L3")
ORGANS = find([*SPINE, "liver"])


def spine(*names: str) -> LabelMap:
    """Blocks of 6 x 6 x 8 voxels (2.3 ml) from the head down, 12 voxels apart."""
    labels = np.zeros((10, 10, 12 * len(names) + 2), np.uint16)
    for number, name in enumerate(reversed(names)):
        labels[2:8, 2:8, 12 * number + 2 : 12 * number + 10] = find([name])[0].label
    return labels


def read(labels: LabelMap, count: int) -> list[str]:
    """Names from the head down."""
    by_label = {organ.label: str(organ.name) for organ in ORGANS}
    return [by_label[int(labels[5, 5, 12 * number + 5])] for number in reversed(range(count))]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (SPINE, SPINE),
        (SPINE[1:4], SPINE[1:4]),
        ((SPINE[0], SPINE[1], SPINE[1], SPINE[3]), SPINE[:4]),  # one number twice, the next left out
        ((SPINE[0], SPINE[2], SPINE[1], SPINE[3]), SPINE[:4]),  # swapped
        ((SPINE[0], SPINE[1], SPINE[3], SPINE[4]), (SPINE[0], SPINE[1], SPINE[3], SPINE[4])),  # one is really missing
    ],
)
def test_bones_are_numbered_in_order_with_the_fewest_changes(names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    labels = spine(*names)
    before = labels.copy()
    changes = repair_numbering(labels, AFFINE, ORGANS)
    assert read(labels, len(names)) == list(expected)
    assert len(changes) == sum(a != b for a, b in zip(names, expected, strict=True))
    assert ((labels > 0) == (before > 0)).all()
    assert sum(change.voxels for change in changes) == np.count_nonzero(labels != before)


def test_a_change_is_told_with_its_place() -> None:
    labels = spine(SPINE[0], SPINE[1], SPINE[1], SPINE[3])
    (change,) = repair_numbering(labels, AFFINE, ORGANS)
    assert (change.before, change.after, change.voxels) == ("vertebrae_T11", "vertebrae_T12", 288)
    assert change.place_ras_mm == pytest.approx((9.0, 9.0, 2 * (12 + 5.5)))


def test_one_bone_under_two_numbers_gets_the_one_that_most_of_it_has() -> None:
    labels = spine(*SPINE[:3])
    labels[2:4, 2:8, 14:22] = find([SPINE[3]])[0].label  # a third of the middle one, on its level
    (change,) = repair_numbering(labels, AFFINE, ORGANS)
    assert (change.before, change.after) == (SPINE[3], SPINE[1])
    assert read(labels, 3) == list(SPINE[:3])


def test_other_organs_and_crumbs_are_not_touched() -> None:
    labels = spine(*SPINE[:3])
    labels[0, 0, :5] = find(["liver"])[0].label
    labels[9, 9, 30] = find([SPINE[0]])[0].label
    before = labels.copy()
    assert repair_numbering(labels, AFFINE, ORGANS) == ()
    np.testing.assert_array_equal(labels, before)


def test_a_repair_stops_when_cancelled() -> None:
    with pytest.raises(Cancelled):
        repair_numbering(spine(*SPINE), AFFINE, ORGANS, cancelled=lambda: True)


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=7))
def test_the_fewest_organs_are_called_out_of_order(steps: list[int]) -> None:
    chain = CHAINS[1][: len(steps)]
    levels = {name: float(level * 10) for name, level in zip(chain, steps, strict=True)}
    found = out_of_order(levels)

    def is_ordered(names: tuple[OrganName, ...]) -> bool:
        places = [chain.index(name) for name in names]
        return all(
            levels[b] < levels[a] + ORDER_MM * (j - i)
            for (a, i), (b, j) in zip(
                zip(names, places, strict=True), list(zip(names, places, strict=True))[1:], strict=False
            )
        )

    longest = max(
        size for size in range(1, len(chain) + 1) if any(is_ordered(names) for names in combinations(chain, size))
    )
    assert len(chain) - len(found) == longest
    assert is_ordered(tuple(name for name in chain if name not in found))
