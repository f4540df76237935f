from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from wbcss.labels import TaskId
from wbcss.specs import TileSpec
from wbcss.sweep import FeaturePlane, FeatureSweep
from wbcss.tiling import TileLayer, TilePlan, importance, plan_tiles, tile_starts
from wbcss.volume import Shape3

from .test_tiling import extent

CPU = torch.device("cpu")
LIVER = TaskId("liver")

TileFeatures = Callable[[Shape3], torch.Tensor]


def sweep_all(
    plan: TilePlan, shape: Shape3, features: TileFeatures, width: int, dtype: torch.dtype
) -> list[FeaturePlane]:
    sweep = FeatureSweep(plan.box[:2], plan.size, {LIVER: width}, device=CPU, dtype=dtype)
    planes = []
    for number, layer in enumerate(plan.layers):
        for i, j in layer.starts_ij:
            start = (i, j, layer.k_start)
            sweep.add(start, {LIVER: features(start)}, k_limit=shape[2])
        last = number == len(plan.layers) - 1
        stop = plan.box[2][1] if last else plan.layers[number + 1].k_start
        planes += sweep.take((max(0, layer.k_start), stop))
    return planes


def naive(plan: TilePlan, shape: Shape3, features: TileFeatures, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the whole volume, voxel by voxel where tiles stick out."""
    total, norm = np.zeros((width, *shape)), np.zeros(shape)
    weight = importance(plan.size).double().numpy()
    for layer in plan.layers:
        for i, j in layer.starts_ij:
            start = (i, j, layer.k_start)
            tile = features(start).double().numpy()
            inside = [
                [n for n in range(t) if 0 <= s + n < size] for s, t, size in zip(start, plan.size, shape, strict=True)
            ]
            source = np.ix_(*inside)
            target = np.ix_(*([s + n for n in axis] for s, axis in zip(start, inside, strict=True)))
            norm[target] += weight[source]
            for channel in range(width):
                total[channel][target] += (weight * tile[channel])[source]
    return total / np.where(norm > 0, norm, 1), norm > 0


@pytest.mark.parametrize("shape", [(9, 11, 23), (4, 11, 5), (8, 6, 8), (3, 2, 1)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_sweep_equals_the_weighted_mean_over_the_whole_volume(shape: Shape3, channels_last: bool) -> None:
    memory: dict[Shape3, torch.Tensor] = {}

    def features(start: Shape3) -> torch.Tensor:
        if start not in memory:
            values = torch.randn(3, 6, 4, 8)
            memory[start] = values.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2) if channels_last else values
        return memory[start]

    plan = plan_tiles(shape, TileSpec(size=(6, 4, 8), overlap=0.5), extent(np.ones(shape, bool)))
    assert plan is not None
    expected, covered = naive(plan, shape, features, 3)
    assert covered.all()
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-5)):
        planes = sweep_all(plan, shape, features, 3, dtype)
        assert [plane.k for plane in planes] == list(range(shape[2]))
        found = torch.stack([plane.features[LIVER] for plane in planes]).numpy()
        np.testing.assert_allclose(
            found.transpose(2, 1, 0).reshape(3, *shape), expected, rtol=tolerance, atol=tolerance
        )


def test_what_no_tile_reached_is_zero_and_said_to_be_uncovered() -> None:
    mask = np.zeros((20, 20, 6), bool)
    mask[0, 0], mask[19, 19] = True, True
    plan = plan_tiles((20, 20, 6), TileSpec(size=(6, 6, 6)), extent(mask))
    assert plan is not None
    planes = sweep_all(plan, (20, 20, 6), lambda start: torch.ones(1, 6, 6, 6), 1, torch.float32)
    values = planes[0].features[LIVER].view(20, 20)
    assert torch.equal(planes[0].covered, (values - 1).abs() < 1e-6)
    assert planes[0].covered[0, 0]
    assert not planes[0].covered[0, 19]
    assert (values[~planes[0].covered] == 0).all()


def test_averaging_features_then_the_head_equals_averaging_logits() -> None:
    """The identity the design rests on: mean(W h + b) = W mean(h) + b."""
    shape, size = (10, 7, 12), (6, 4, 8)
    head = torch.nn.Conv3d(3, 5, 1).double().requires_grad_(False)
    tiles = {
        start: torch.randn(3, *size, dtype=torch.float64)
        for start in product(*(tile_starts(n, t, 0.5) for n, t in zip(shape, size, strict=True)))
    }
    plan = plan_tiles(shape, TileSpec(size=size), extent(np.ones(shape, bool)))
    assert plan is not None
    logits, _ = naive(plan, shape, lambda start: head(tiles[start][None])[0], 5)
    features, _ = naive(plan, shape, lambda start: tiles[start], 3)
    np.testing.assert_allclose(head(torch.from_numpy(features)[None])[0].numpy(), logits, atol=1e-9)


def test_a_place_in_the_ring_is_empty_again_after_it_was_taken() -> None:
    sweep = FeatureSweep(((0, 2), (0, 2)), (2, 2, 3), {LIVER: 1}, device=CPU)
    sweep.add((0, 0, 0), {LIVER: torch.ones(1, 2, 2, 3)}, k_limit=9)
    (first,) = sweep.take((0, 1))
    assert first.covered.all()
    (later,) = sweep.take((3, 4))
    assert not later.covered.any()
    assert (later.features[LIVER] == 0).all()
    (second,) = sweep.take((1, 2))
    assert second.covered.all()


def overlapping(shape: Shape3, size: Shape3, width: int) -> tuple[TilePlan, dict[Shape3, torch.Tensor]]:
    """Tiles that share three quarters with their neighbors and agree no better than real ones do."""
    plan = plan_tiles(shape, TileSpec(size=size, overlap=0.75), extent(np.ones(shape, bool)))
    assert plan is not None
    low = torch.randn(1, width, 5, 5, 5)
    smooth = 2 * torch.nn.functional.interpolate(low, size=shape, mode="trilinear")[0]
    tiles = {}
    for layer in plan.layers:
        for i, j in layer.starts_ij:
            start = (i, j, layer.k_start)
            inside = tuple(slice(first, first + length) for first, length in zip(start, size, strict=True))
            noise = 0.2 * torch.randn(width, *size)
            tiles[start] = torch.nn.functional.leaky_relu(smooth[(slice(None), *inside)] + noise, 0.01)
    return plan, tiles


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_many_overlapping_tiles_give_the_labels_of_full_averaging(dtype: torch.dtype) -> None:
    """Up to 64 tiles meet in a voxel and 16 bits are rounded to at each; logits are averaged in float64."""
    shape, size, width, channels = (28, 26, 32), (16, 16, 16), 16, 60
    plan, tiles = overlapping(shape, size, width)
    assert plan.num_tiles > 60
    head = torch.randn(width, channels, dtype=torch.float64)
    means, _ = naive(plan, shape, tiles.__getitem__, width)
    expected = (torch.from_numpy(means).reshape(width, -1).t() @ head).argmax(dim=1)
    planes = sweep_all(plan, shape, tiles.__getitem__, width, dtype)
    found = torch.stack([plane.features[LIVER] for plane in planes], dim=1).reshape(-1, width).double()
    assert ((found @ head).argmax(dim=1) == expected).double().mean() >= 0.999
    limit = 2.0**-9 if dtype == torch.float16 else 2.0**-20
    assert np.abs(found.t().numpy() - means.reshape(width, -1)).max() < limit * np.abs(means).max()


def test_means_are_held_in_16_bits_and_their_weights_in_32() -> None:
    sweep = FeatureSweep(((0, 2), (0, 2)), (2, 2, 4), {LIVER: 3}, device=CPU)
    assert sweep._means[LIVER].dtype == torch.float16
    assert sweep._weights.dtype == torch.float32


def test_what_16_bits_cannot_hold_becomes_their_largest_number_and_heals() -> None:
    sweep = FeatureSweep(((0, 1), (0, 1)), (1, 1, 4), {LIVER: 1}, device=CPU)
    values = torch.tensor([1e6, -1e6, float("inf"), float("nan")]).view(1, 1, 1, 4)
    sweep.add((0, 0, 0), {LIVER: values}, k_limit=99)
    found = [plane.features[LIVER].item() for plane in sweep.take((0, 4))]
    assert found[:3] == [65504.0, -65504.0, 65504.0]
    assert np.isnan(found[3])
    sweep.add((0, 0, 4), {LIVER: torch.full((1, 1, 1, 4), 2.5)}, k_limit=99)
    assert [plane.features[LIVER].item() for plane in sweep.take((4, 8))] == [2.5] * 4


def test_planes_come_in_order_across_the_end_of_the_ring_and_in_several_steps() -> None:
    depth = 40
    sweep = FeatureSweep(((0, 1), (0, 1)), (1, 1, depth), {LIVER: 1}, device=CPU)
    for start in (0, 20, 40):
        values = torch.arange(start, start + depth, dtype=torch.float32).view(1, 1, 1, -1)
        sweep.add((0, 0, start), {LIVER: values}, k_limit=99)
        stop = start + (depth if start == 40 else 20)
        planes = list(sweep.take((start, stop)))
        assert [plane.k for plane in planes] == list(range(start, stop))
        assert [plane.features[LIVER].item() for plane in planes] == list(range(start, stop))


def test_a_task_left_out_of_tiles_is_the_mean_of_the_others_and_changes_no_other_task() -> None:
    """As if the tiles that left it out had never been: for the task the naive mean of the rest, for others the same."""
    shape, size = (8, 6, 19), (6, 6, 8)
    plan = plan_tiles(shape, TileSpec(size=size, overlap=0.5), extent(np.ones(shape, bool)))
    assert plan is not None
    other = TaskId("other")
    made = {start: torch.randn(2, *size) for layer in plan.layers for start in starts_of(layer)}
    left_out = set(list(made)[::3])
    assert 0 < len(left_out) < len(made)
    sweep = FeatureSweep(plan.box[:2], size, {LIVER: 2, other: 2}, device=CPU, dtype=torch.float64)
    planes = []
    for number, layer in enumerate(plan.layers):
        for start in starts_of(layer):
            features = {other: made[start]} | ({} if start in left_out else {LIVER: made[start]})
            sweep.add(start, features, k_limit=shape[2])
        last = number == len(plan.layers) - 1
        planes += sweep.take((layer.k_start, plan.box[2][1] if last else plan.layers[number + 1].k_start))
    kept = replace(
        plan,
        layers=tuple(
            replace(layer, starts_ij=tuple((i, j) for i, j, k in starts_of(layer) if (i, j, k) not in left_out))
            for layer in plan.layers
        ),
    )
    for task, tiles in ((LIVER, kept), (other, plan)):
        expected, covered = naive(tiles, shape, made.__getitem__, 2)
        found = torch.stack([plane.features[task].view(*shape[:2], 2) for plane in planes], dim=2)
        np.testing.assert_allclose(found.numpy(), expected.transpose(1, 2, 3, 0), atol=1e-6)
        reached = torch.stack([plane.covered_by(task) for plane in planes], dim=2)
        np.testing.assert_array_equal(reached.numpy(), covered)


def starts_of(layer: TileLayer) -> list[Shape3]:
    return [(i, j, layer.k_start) for i, j in layer.starts_ij]
