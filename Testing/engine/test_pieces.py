"""Counting the connected pieces of an organ."""

from __future__ import annotations

from collections import deque
from itertools import product

import numpy as np
import pytest

from wbcss.pieces import Box, large_pieces
from wbcss.volume import LabelMap


def _box(labels: LabelMap) -> Box:
    i, j, k = (slice(0, n) for n in labels.shape)
    return i, j, k


def _pieces_by_walking(mask: np.ndarray) -> list[int]:
    """Sizes of the 26-connected pieces, by visiting neighbors one by one."""
    left = {tuple(int(x) for x in voxel) for voxel in np.argwhere(mask)}
    sizes = []
    while left:
        queue, size = deque([left.pop()]), 0
        while queue:
            i, j, k = queue.popleft()
            size += 1
            for di, dj, dk in product((-1, 0, 1), repeat=3):
                near = (i + di, j + dj, k + dk)
                if near in left:
                    left.remove(near)
                    queue.append(near)
        sizes.append(size)
    return sizes


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("smallest", [1, 2, 4])
def test_pieces_agree_with_a_walk_over_neighbors(rng: np.random.Generator, order: str, smallest: int) -> None:
    labels = np.asarray((rng.random((9, 8, 7)) < 0.1) * 4, np.uint16, order=order)  # type: ignore[call-overload]
    expected = sum(size >= smallest for size in _pieces_by_walking(labels == 4))
    assert expected > 0
    assert len(large_pieces(labels, 4, _box(labels), smallest_voxels=smallest)) == expected


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("box_voxels", [10**9, 300, 40])
def test_blocks_count_voxels_and_keep_far_pieces_apart(order: str, box_voxels: int) -> None:
    labels = np.zeros((31, 20, 13), np.uint16, order=order)  # type: ignore[call-overload]
    labels[1:5, 1:7, 2:6] = 3  # 96 voxels
    labels[26:30, 12:18, 7:11] = 3  # 96 voxels
    labels[27, 2, 2] = 3  # a crumb
    for smallest, expected in ((96, 2), (97, 0)):
        found = large_pieces(labels, 3, _box(labels), smallest_voxels=smallest, box_voxels=box_voxels)
        assert len(found) == expected
        for middle, place in zip(sorted(found), [(2.5, 3.5, 3.5), (27.5, 14.5, 8.5)], strict=False):
            assert middle == pytest.approx(place, abs=4)


def test_blocks_never_tear_an_organ() -> None:
    labels = np.zeros((24, 24, 24), np.uint16)
    labels[np.arange(24), np.arange(24), 5] = 9  # a diagonal line, connected by corners only
    for box_voxels in (10**6, 2000, 200, 20):
        assert len(large_pieces(labels, 9, _box(labels), smallest_voxels=2, box_voxels=box_voxels)) == 1


def test_voxels_outside_the_box_and_of_other_organs_are_not_looked_at() -> None:
    labels = np.zeros((10, 4, 4), np.uint16)
    labels[0:2], labels[4:6], labels[8:10] = 1, 1, 2
    assert len(large_pieces(labels, 1, _box(labels), smallest_voxels=1)) == 2
    assert len(large_pieces(labels, 1, (slice(4, 10), slice(0, 4), slice(0, 4)), smallest_voxels=1)) == 1


@pytest.mark.parametrize("order", ["C", "F"])
def test_middles_come_with_the_largest_piece_first(order: str) -> None:
    labels = np.zeros((12, 9, 8), np.uint16, order=order)  # type: ignore[call-overload]
    labels[1:3, 1:3, 1:3] = 2
    labels[6:10, 4:7, 3:7] = 2
    box = (slice(1, 11), slice(1, 8), slice(1, 8))
    assert large_pieces(labels, 2, box, smallest_voxels=1) == ((7.5, 5.0, 4.5), (1.5, 1.5, 1.5))
