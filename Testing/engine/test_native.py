from __future__ import annotations

import numpy as np
import pytest
import torch

from wbcss.heads import TaskHead, channel_labels
from wbcss.labels import TaskId
from wbcss.native import NativeCarrier
from wbcss.preprocess import AxisMap
from wbcss.sweep import FeaturePlane
from wbcss.volume import Shape3

CPU = torch.device("cpu")
TASK = TaskId("wholebody")
NUM_FEATURES, NUM_CHANNELS = 3, 6

Axes = tuple[AxisMap, AxisMap, AxisMap]


def some_head() -> TaskHead:
    labels = channel_labels([10 * c for c in range(1, NUM_CHANNELS)])
    return TaskHead(torch.randn(NUM_FEATURES, NUM_CHANNELS) * 2, torch.randn(NUM_CHANNELS) * 0.1, labels)


def axes_of(native: Shape3, ratio: tuple[float, float, float]) -> Axes:
    i, j, k = (AxisMap.between(n, 1.0, r) for n, r in zip(native, ratio, strict=True))
    return i, j, k


def smooth_features(shape: Shape3) -> torch.Tensor:
    """(F, I, J, K)."""
    low = torch.randn(1, NUM_FEATURES, 4, 4, 4)
    return torch.nn.functional.interpolate(low, size=shape, mode="trilinear")[0]


def carry(
    axes: Axes, head: TaskHead, features: torch.Tensor, covered: torch.Tensor | None = None
) -> tuple[np.ndarray, np.ndarray]:
    shape = tuple(features.shape[1:])
    carrier = NativeCarrier(axes, ((0, shape[0]), (0, shape[1]), (0, shape[2])), {TASK: head}, CPU)
    native = tuple(axis.native_size for axis in axes)
    labels, confidence = np.full(native, 65535, np.uint16), np.full(native, np.nan, np.float16)
    if covered is None:
        covered = torch.ones(shape, dtype=torch.bool)
    order = []
    for k in range(shape[2]):
        rows = features[..., k].reshape(NUM_FEATURES, -1).t().contiguous()
        for plane in carrier.push(FeaturePlane(k, {TASK: rows}, covered[..., k])):
            labels[slice(*plane.i), slice(*plane.j), plane.k] = plane.labels[TASK]
            confidence[slice(*plane.i), slice(*plane.j), plane.k] = plane.confidence[TASK]
            order.append(plane.k)
    assert order == list(range(native[2])) == list(range(carrier.num_planes))
    return labels, confidence


def oracle(axes: Axes, head: TaskHead, features: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate the logits of all channels to the native grid, then decide."""
    logits = torch.einsum("fijk,fc->cijk", features, head.weight) + head.bias[:, None, None, None]
    for number, axis in enumerate(axes):
        position = np.clip(axis.model_of(np.arange(axis.native_size)), 0, axis.model_size - 1)
        lower = torch.from_numpy(np.floor(position).astype(np.int64))
        upper = (lower + 1).clamp_max(axis.model_size - 1)
        fraction = torch.from_numpy((position - np.floor(position)).astype(np.float32))
        fraction = fraction.view([-1 if d == number + 1 else 1 for d in range(4)])
        logits = torch.lerp(logits.index_select(number + 1, lower), logits.index_select(number + 1, upper), fraction)
    best, channel = torch.softmax(logits * np.log(2.0), dim=0).max(dim=0)
    return head.global_labels[channel.numpy()], best.numpy()


GRIDS = {
    "finer": ((17, 15, 13), (2.3, 1.7, 1.4)),
    "slices thicker than the model's": ((17, 15, 6), (2.0, 2.0, 0.6)),
    "coarser everywhere": ((5, 4, 6), (0.3, 0.45, 0.8)),
    "aligned": ((7, 8, 9), (1.0, 1.0, 1.0)),
    "aligned in plane": ((7, 8, 9), (1.0, 1.0, 2.5)),
    "aligned along k": ((17, 13, 5), (2.1, 1.9, 1.0)),
    "one slice": ((14, 12, 1), (2.0, 2.0, 3.0)),
    "one thick slice": ((14, 12, 1), (2.0, 2.0, 0.4)),
    "one voxel": ((1, 1, 1), (1.0, 1.0, 1.0)),
    "one voxel of many": ((1, 1, 1), (0.2, 0.2, 0.2)),
}


@pytest.mark.parametrize("grid", GRIDS)
def test_it_equals_interpolating_all_logits_then_deciding(grid: str) -> None:
    native, ratio = GRIDS[grid]
    axes = axes_of(native, ratio)
    head = some_head()
    features = smooth_features((axes[0].model_size, axes[1].model_size, axes[2].model_size))
    labels, confidence = carry(axes, head, features)
    expected, probability = oracle(axes, head, features)
    assert (labels == expected).mean() >= 0.999
    assert np.abs(confidence.astype(np.float32) - probability).max() < 0.2, "interpolated where labels agree"
    assert np.abs(confidence.astype(np.float32) - probability).mean() < 0.02


def test_noise_where_every_cell_is_mixed_is_exact_in_confidence_too() -> None:
    axes = axes_of((15, 14, 13), (2.2, 2.2, 2.2))
    head = some_head()
    features = torch.randn(NUM_FEATURES, *(axis.model_size for axis in axes))
    labels, confidence = carry(axes, head, features)
    expected, probability = oracle(axes, head, features)
    assert (labels == expected).mean() >= 0.999
    assert np.median(np.abs(confidence.astype(np.float32) - probability)) < 1e-3


def test_the_head_runs_on_model_voxels_and_mixed_cells_only(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = axes_of((40, 40, 40), (4.0, 4.0, 4.0))
    features = torch.zeros(NUM_FEATURES, 10, 10, 10)
    features[0, 5:] = 1.0
    head = TaskHead(
        torch.eye(NUM_FEATURES, NUM_CHANNELS).roll(1, 1) * 10,
        torch.tensor([5.0] + [0.0] * 5),
        np.arange(6, dtype=np.uint16),
    )
    evaluated: list[int] = []
    classify = TaskHead.classify
    monkeypatch.setattr(TaskHead, "classify", lambda self, f: (evaluated.append(len(f)), classify(self, f))[1])
    labels, _ = carry(axes, head, features)
    assert (labels[:20] == 0).all()
    assert (labels[20:] == 1).all()
    assert sum(evaluated) == 10**3 + 4 * 40 * 40, "one layer of cells, four native voxels thick, is mixed"


def test_what_no_tile_reached_is_background_and_does_not_pull_its_neighbors() -> None:
    axes = axes_of((16, 16, 4), (2.0, 2.0, 1.0))
    head = some_head()
    features = torch.randn(NUM_FEATURES, 1, 1, 1).expand(-1, 8, 8, 4).clone()
    covered = torch.ones(8, 8, 4, dtype=torch.bool)
    covered[5:] = False
    features[:, 5:] = 0
    whole, _ = carry(axes, head, features[:, :1, :1, :1].expand(-1, 8, 8, 4))
    labels, confidence = carry(axes, head, features, covered)
    assert (labels[:10] == whole[0, 0, 0]).all()
    assert (labels[12:] == 0).all()
    assert (confidence[12:] == 1).all()


def test_only_the_box_is_answered() -> None:
    axes = axes_of((30, 30, 30), (3.0, 3.0, 3.0))
    carrier = NativeCarrier(axes, ((2, 5), (3, 8), (4, 9)), {TASK: some_head()}, CPU)
    planes = [
        plane
        for k in range(4, 9)
        for plane in carrier.push(
            FeaturePlane(k, {TASK: torch.zeros(15, NUM_FEATURES)}, torch.ones(3, 5, dtype=torch.bool))
        )
    ]
    assert [plane.k for plane in planes] == list(range(12, 27))
    assert {plane.i for plane in planes} == {(6, 15)}
    assert {plane.j for plane in planes} == {(9, 24)}
    assert planes[0].labels[TASK].shape == (9, 15)
