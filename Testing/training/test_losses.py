"""Losses against naive NumPy versions kept here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from wbcss_training.losses import OrganLoss, draw_voxels, marginal_labels, marginal_logits

Array = npt.NDArray[np.float64]


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def naive_loss(logits: Array, labels: npt.NDArray[np.int64], *, batch_dice: bool) -> float:
    probability = softmax(logits)
    batch, voxels = np.indices(labels.shape)
    cross_entropy = -np.log(probability[batch, labels, voxels]).mean()
    dice = []
    for organ in [organ for organ in np.unique(labels) if organ > 0]:
        p, t = probability[:, organ], (labels == organ).astype(float)
        for rows in [slice(None)] if batch_dice else [slice(b, b + 1) for b in range(len(p))]:
            dice.append(1 - (2 * (p[rows] * t[rows]).sum() + 1e-5) / (p[rows].sum() + t[rows].sum() + 1e-5))
    return float(cross_entropy + (np.mean(dice) if dice else 0.0))


def test_marginal_softmax_gives_the_background_the_unknown_organs_too(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(2, 5, 7))
    annotated = torch.tensor([True, True, False, True, False])
    found = torch.softmax(marginal_logits(torch.from_numpy(logits), annotated), dim=1).numpy()
    whole = softmax(logits)
    expected = np.stack([whole[:, 0] + whole[:, 2] + whole[:, 4], whole[:, 1], whole[:, 3]], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_marginal_logits_of_a_complete_annotation_are_the_logits(rng: np.random.Generator) -> None:
    logits = torch.from_numpy(rng.normal(size=(1, 3, 4)))
    assert torch.equal(marginal_logits(logits, torch.ones(3, dtype=torch.bool)), logits)


def test_marginal_labels_number_the_annotated_channels_in_order() -> None:
    labels = torch.tensor([[0, 1, 2], [3, 4, 1]])
    annotated = torch.tensor([True, False, True, False, True])
    assert marginal_labels(labels, annotated).tolist() == [[0, 0, 1], [0, 2, 0]]


@pytest.mark.parametrize("batch_dice", [True, False])
def test_dice_and_cross_entropy_equal_the_naive_version(rng: np.random.Generator, batch_dice: bool) -> None:
    logits, labels = rng.normal(size=(2, 4, 60)), rng.integers(0, 4, (2, 60))
    labels[labels == 2] = 0  # an organ that is absent from the sample
    loss = OrganLoss(batch_dice=batch_dice)(
        torch.from_numpy(logits), torch.from_numpy(labels), torch.ones(4, dtype=torch.bool)
    )
    assert float(loss) == pytest.approx(naive_loss(logits, labels, batch_dice=batch_dice), abs=1e-5)


def test_without_an_organ_only_cross_entropy_remains(rng: np.random.Generator) -> None:
    logits, labels = rng.normal(size=(1, 3, 20)), np.zeros((1, 20), np.int64)
    loss = OrganLoss(batch_dice=True)(torch.from_numpy(logits), torch.from_numpy(labels), torch.ones(3).bool())
    assert float(loss) == pytest.approx(float(-np.log(softmax(logits)[:, 0]).mean()), abs=1e-6)


def test_moving_probability_from_background_to_a_masked_organ_costs_nothing(rng: np.random.Generator) -> None:
    annotated = torch.tensor([True, True, False])
    logits = torch.zeros(1, 3, 40, dtype=torch.float64)
    logits[:, 1] = torch.from_numpy(rng.normal(size=40))
    swapped = logits.clone()
    swapped[:, 0], swapped[:, 2] = -3.0, float(np.log(2 - np.exp(-3.0)))  # exp(bg) + exp(masked) is 2 as before
    labels = torch.from_numpy(rng.integers(0, 2, (1, 40)))
    loss = OrganLoss(batch_dice=True)
    assert float(loss(swapped, labels, annotated)) == pytest.approx(float(loss(logits, labels, annotated)), abs=1e-6)


def test_a_masked_organ_is_pulled_like_the_background_and_an_annotated_one_is_pushed_down() -> None:
    labels = torch.zeros(1, 30, dtype=torch.long)
    for annotated, sign in (([True, True, False], -1), ([True, True, True], 1)):
        logits = torch.zeros(1, 3, 30, requires_grad=True)
        OrganLoss(batch_dice=True)(logits, labels, torch.tensor(annotated)).backward()
        assert logits.grad is not None
        assert bool((torch.sign(logits.grad[:, 2]) == sign).all())


def test_a_small_patch_is_drawn_whole_and_in_order() -> None:
    labels = torch.zeros(2, 3, 4, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert draw_voxels(labels, 24, balanced_fraction=0.5, generator=generator).tolist() == list(range(24))
    assert torch.equal(generator.get_state(), state)


def test_uniform_draws_hit_every_voxel_equally_often() -> None:
    labels = torch.zeros(2, 2, 5, dtype=torch.uint8)
    counts = np.zeros(20)
    generator = torch.Generator().manual_seed(1)
    for _ in range(2000):
        counts += np.bincount(draw_voxels(labels, 10, balanced_fraction=0.0, generator=generator).numpy(), minlength=20)
    assert counts.sum() == 20000
    assert abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_balanced_draws_give_every_label_its_equal_share() -> None:
    labels = torch.zeros(20, 20, 20, dtype=torch.uint8)
    labels[0, 0, :3] = 7
    labels[5, :, :] = 2
    generator = torch.Generator().manual_seed(2)
    drawn = labels.reshape(-1)[draw_voxels(labels, 6000, balanced_fraction=1.0, generator=generator)]
    shares = [float((drawn == label).float().mean()) for label in (0, 2, 7)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.04)


def test_balanced_draws_reach_every_voxel_of_a_label() -> None:
    labels = torch.zeros(8, 8, 8, dtype=torch.uint8)
    labels[3, 4, :] = 1
    generator = torch.Generator().manual_seed(3)
    drawn = draw_voxels(labels, 511, balanced_fraction=1.0, generator=generator)
    hit = set(drawn[labels.reshape(-1)[drawn] == 1].tolist())
    assert hit == {3 * 64 + 4 * 8 + k for k in range(8)}


def test_equal_generators_draw_equal_voxels() -> None:
    labels = torch.zeros(6, 6, 6, dtype=torch.uint8)
    labels[2:4] = 1
    first, second, other = (
        draw_voxels(labels, 100, balanced_fraction=0.5, generator=torch.Generator().manual_seed(seed))
        for seed in (4, 4, 5)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert len(first) == 100
