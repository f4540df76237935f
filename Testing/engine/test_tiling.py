from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wbcss.body import BodyExtent
from wbcss.specs import TileSpec
from wbcss.tiling import MIN_IMPORTANCE, fit_range, importance, plan_tiles, shrink_tile, tile_starts
from wbcss.volume import Shape3

unhurried = settings(deadline=None, max_examples=60)
"""A busy machine must not fail a property."""


def extent(mask: np.ndarray) -> BodyExtent:
    """One cell per model voxel."""
    i, j, k = (np.stack([np.arange(n), np.arange(n) + 1], axis=1) for n in mask.shape)
    return BodyExtent(mask, (i, j, k))


@unhurried
@given(st.integers(1, 300), st.integers(1, 100), st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.9]))
def test_starts_cover_the_length_never_repeat_and_keep_the_overlap(length: int, tile: int, overlap: float) -> None:
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - tile)
    steps = np.diff(starts)
    assert (steps > 0).all(), "no tile twice"
    assert (steps <= max(1, int(tile * (1 - overlap)))).all(), "no gap, and at least the overlap asked for"


def test_starts_written_by_hand() -> None:
    assert tile_starts(128, 128, 0.5) == [0]
    assert tile_starts(192, 128, 0.5) == [0, 64]
    assert tile_starts(256, 128, 0.5) == [0, 64, 128]
    assert tile_starts(10, 4, 0.0) == [0, 3, 6]


@unhurried
@given(st.integers(1, 200), st.integers(1, 64), st.data())
def test_a_fitted_range_covers_what_is_wanted_and_stays_in_the_grid(size: int, tile: int, data: st.DataObject) -> None:
    low = data.draw(st.integers(0, size - 1))
    high = data.draw(st.integers(low + 1, size))
    first, last = fit_range((low, high), size, tile)
    assert first <= low
    assert high <= last
    assert last - first >= tile
    if size > tile:
        assert first >= 0
        assert last <= size
        assert last - first == max(tile, high - low)
    else:
        assert last - first == tile


@pytest.mark.parametrize("size", [(8, 8, 8), (5, 9, 16), (1, 1, 1), (128, 2, 3)])
def test_importance_is_positive_symmetric_and_largest_in_the_middle(size: Shape3) -> None:
    weight = importance(size)
    assert weight.shape == size
    assert weight.min() >= MIN_IMPORTANCE
    assert torch.equal(weight, weight.flip(0, 1, 2))
    assert weight[size[0] // 2, size[1] // 2, size[2] // 2] == weight.max()


@unhurried
@given(st.integers(0, 10_000))
def test_every_body_voxel_lies_in_a_tile_and_no_tile_comes_twice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 40, 3).tolist())
    mask = rng.random(shape) < rng.choice([0.001, 0.01, 0.3])
    spec = TileSpec(size=tuple(rng.integers(2, 12, 3).tolist()), overlap=float(rng.choice([0.0, 0.5])))
    plan = plan_tiles(shape, spec, extent(mask))
    if plan is None:
        assert not mask.any()
        return
    covered = np.zeros(shape, bool)
    seen = set()
    for layer in plan.layers:
        for i, j in layer.starts_ij:
            box = tuple(slice(max(0, s), s + t) for s, t in zip((i, j, layer.k_start), spec.size, strict=True))
            assert mask[box].any(), "a tile of pure air is not run"
            covered[box] = True
            seen.add((i, j, layer.k_start))
    assert len(seen) == plan.num_tiles
    assert not (mask & ~covered).any()
    where = np.argwhere(covered)
    assert [(low, high + 1) for low, high in zip(where.min(axis=0), where.max(axis=0), strict=True)] == list(plan.box)
    starts = [layer.k_start for layer in plan.layers]
    assert starts == sorted(set(starts))


def test_tiles_follow_the_body_from_layer_to_layer() -> None:
    mask = np.zeros((64, 64, 64), bool)
    mask[4:20, 4:20, :32] = True
    mask[40:60, 40:60, 32:] = True
    plan = plan_tiles((64, 64, 64), TileSpec(size=(32, 32, 32), overlap=0.0), extent(mask))
    assert plan is not None
    assert [layer.starts_ij for layer in plan.layers] == [((0, 0),), ((32, 32),)]
    assert plan.box == ((0, 64), (0, 64), (0, 64))


def test_a_volume_of_one_tile_is_one_tile() -> None:
    plan = plan_tiles((32, 32, 32), TileSpec(size=(32, 32, 32)), extent(np.ones((32, 32, 32), bool)))
    assert plan is not None
    assert plan.num_tiles == 1


def test_a_volume_smaller_than_a_tile_lies_in_its_middle() -> None:
    plan = plan_tiles((10, 1, 32), TileSpec(size=(32, 32, 32)), extent(np.ones((10, 1, 32), bool)))
    assert plan is not None
    assert plan.layers[0].starts_ij == ((-11, -15),)
    assert plan.box == ((0, 10), (0, 1), (0, 32))


def test_a_smaller_tile_stays_a_multiple_and_keeps_more_than_one_bottom_voxel() -> None:
    assert shrink_tile((96, 96, 112), (16, 16, 16), 0.5) == (48, 48, 48)
    assert shrink_tile((96, 96, 112), (16, 16, 16), 0.75) == (64, 64, 80)
    assert shrink_tile((32, 16, 16), (16, 16, 16), 0.5) == (32, 16, 16)
