"""Every baseline's formula against a slow plain version of its paper's."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wbcss_training.continual.ewc import Anchor, elastic_penalty, fisher_diagonal
from wbcss_training.continual.ilt import OutputsAndEncoder, encoder_loss, masked_output_loss
from wbcss_training.continual.lwf import OldOutputs, old_output_loss
from wbcss_training.continual.mib import UnbiasedOutputs, spread_background, unbiased_distillation
from wbcss_training.continual.plop import (
    IGNORED,
    LocalPod,
    entropy_thresholds,
    local_pod,
    local_pod_loss,
    normalized_entropy,
    pseudo_labels,
)
from wbcss_training.continual.view import View
from wbcss_training.losses import OrganLoss, marginal_labels, marginal_logits

Array = npt.NDArray[np.float64]
OLD, NEW, VOXELS = 3, 5, 7


def logits(channels: int, seed: int, *, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(2, channels, VOXELS, generator=generator)


def softmax(values: Array) -> Array:
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())


def voxels(tensor: torch.Tensor) -> list[Array]:
    """Every voxel's channels."""
    return [tensor[b, :, n].double().numpy() for b in range(tensor.shape[0]) for n in range(tensor.shape[2])]


def view(now: torch.Tensor, former: torch.Tensor, seed: int = 5) -> View:
    generator = torch.Generator().manual_seed(seed)
    maps = [[torch.randn(2, 3, 4, 4, 4, generator=generator) for _ in range(2)] for _ in range(4)]
    return View(
        logits=now,
        former_logits=former,
        skips=maps[0],
        former_skips=maps[1],
        levels=maps[2],
        former_levels=maps[3],
        parameters={},
    )


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_lwf_is_cross_entropy_of_the_softened_old_outputs(temperature: float) -> None:
    now, former = logits(NEW, 0), logits(OLD, 1)
    total = 0.0
    for new, old in zip(voxels(now), voxels(former), strict=True):
        target = softmax(old) ** (1 / temperature)
        target /= target.sum()
        answer = softmax(new[:OLD]) ** (1 / temperature)  # a softmax over the old classes only
        answer /= answer.sum()
        total -= float((target * np.log(answer)).sum())
    expected = total / (2 * VOXELS)
    assert float(old_output_loss(now, former, temperature=temperature)) == pytest.approx(expected, rel=1e-5)
    term = OldOutputs(weight=3.0, temperature=temperature)
    assert float(term(view(now, former))) == pytest.approx(3 * expected, rel=1e-5)


def test_lwf_does_not_see_the_new_organs() -> None:
    now, former = logits(NEW, 0), logits(OLD, 1)
    other = now.clone()
    other[:, OLD:] += 5
    assert torch.equal(old_output_loss(now, former, temperature=2.0), old_output_loss(other, former, temperature=2.0))


def test_ilt_is_masked_cross_entropy_and_the_distance_of_the_encoders() -> None:
    now, former = logits(NEW, 0), logits(OLD, 1)
    total = 0.0
    for new, old in zip(voxels(now), voxels(former), strict=True):
        total -= float((softmax(old) * np.log(softmax(new)[:OLD])).sum())
    expected = total / (2 * VOXELS)
    assert float(masked_output_loss(now, former)) == pytest.approx(expected, rel=1e-5)
    scene = view(now, former)
    ours, theirs = scene.skips[-1].double().numpy(), scene.former_skips[-1].double().numpy()
    distance = sum((ours[at] - theirs[at]) ** 2 for at in np.ndindex(*ours.shape)) / ours.size
    assert float(encoder_loss(scene.skips[-1], scene.former_skips[-1])) == pytest.approx(distance, rel=1e-5)
    term = OutputsAndEncoder(output_weight=2.0, encoder_weight=7.0)
    assert float(term(scene)) == pytest.approx(2 * expected + 7 * distance, rel=1e-5)


def test_mib_s_distillation_gives_the_background_all_that_was_background() -> None:
    now, former = logits(NEW, 0), logits(OLD, 1)
    total = 0.0
    for new, old in zip(voxels(now), voxels(former), strict=True):
        answer = softmax(new)
        merged = [answer[0] + answer[OLD:].sum(), *answer[1:OLD]]
        total -= float((softmax(old) * np.log(merged)).sum())
    expected = total / (2 * VOXELS)
    assert float(unbiased_distillation(now, former)) == pytest.approx(expected, rel=1e-5)
    assert float(UnbiasedOutputs(weight=4.0)(view(now, former))) == pytest.approx(4 * expected, rel=1e-5)


def test_mib_s_cross_entropy_gives_the_background_all_that_may_be_an_old_organ() -> None:
    now = logits(NEW, 0)
    labels = torch.tensor([[0, 3, 4, 0, 0, 3, 0]] * 2)  # channels 1 and 2 are old organs
    annotated = torch.tensor([True, False, False, True, True])
    total = 0.0
    for new, label in zip(voxels(now), labels.flatten().tolist(), strict=True):
        answer = softmax(new)
        total -= math.log(answer[label] if label else answer[:OLD].sum())
    expected = total / (2 * VOXELS)
    folded = marginal_logits(now, annotated), marginal_labels(labels, annotated)
    assert float(torch.nn.functional.cross_entropy(*folded)) == pytest.approx(expected, rel=1e-5)
    loss = OrganLoss(batch_dice=True)
    dice = loss(now, labels, annotated) - torch.nn.functional.cross_entropy(*folded)
    assert 0 < float(dice) < 1  # the Dice half of the loss every method shares


@settings(deadline=None)  # the first call is slow on a busy machine
@given(bias=st.floats(-3, 3), new=st.integers(1, 6), seed=st.integers(0, 99))
def test_mib_s_start_spreads_the_background_evenly_and_keeps_the_old_answer(bias: float, new: int, seed: int) -> None:
    torch.manual_seed(seed)
    old_head, head = torch.nn.Conv3d(4, OLD, 1), torch.nn.Conv3d(4, OLD + new, 1)
    with torch.no_grad():
        old_head.bias[0] = bias  # type: ignore[index]
        head.weight[:OLD], head.bias[:OLD] = old_head.weight, old_head.bias  # type: ignore[index]
    spread_background(head, OLD)
    features = torch.randn(1, 4, 2, 2, 2)
    with torch.no_grad():
        before, after = old_head(features).softmax(dim=1), head(features).softmax(dim=1)
    share = before[:, :1] / (1 + new)
    torch.testing.assert_close(after[:, :1], share)
    torch.testing.assert_close(after[:, OLD:], share.expand(-1, new, -1, -1, -1))
    torch.testing.assert_close(after[:, 1:OLD], before[:, 1:])


def plain_local_pod(features: Array, scales: tuple[int, ...]) -> Array:
    """One patch (F, I, J, K), voxel by voxel."""
    parts: list[float] = []
    shape = features.shape[1:]
    for scale in scales:
        if scale > min(shape):
            continue
        for place in np.ndindex(scale, scale, scale):
            low = [place[x] * shape[x] // scale for x in range(3)]
            high = [(place[x] + 1) * shape[x] // scale for x in range(3)]
            for pooled in range(3):
                kept = [x for x in range(3) if x != pooled]
                for channel in range(features.shape[0]):
                    for one in range(low[kept[0]], high[kept[0]]):
                        for two in range(low[kept[1]], high[kept[1]]):
                            at = [0, 0, 0]
                            at[kept[0]], at[kept[1]] = one, two
                            line = []
                            for depth in range(low[pooled], high[pooled]):
                                at[pooled] = depth
                                line.append(features[(channel, *at)])
                            parts.append(sum(line) / len(line))
    return np.array(parts)


def test_local_pod_pools_every_region_along_every_axis() -> None:
    features = torch.randn(2, 2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    found = local_pod(features, scales=(1, 2, 4))  # 4 regions do not fit into 3 voxels
    for row, patch in zip(found, features, strict=True):
        expected = plain_local_pod(patch.double().numpy(), (1, 2, 4))
        np.testing.assert_allclose(row.double().numpy(), expected, atol=1e-6)


def test_plop_s_feature_loss_compares_embeddings_of_unit_length() -> None:
    scene = view(logits(NEW, 0), logits(OLD, 1))
    now, former = [*scene.skips, *scene.levels], [*scene.former_skips, *scene.former_levels]
    norms = []
    for ours, theirs in zip(now, former, strict=True):
        per_patch = []
        for b in range(2):
            one, other = (plain_local_pod(side[b].double().numpy() ** 2, (1, 2)) for side in (ours, theirs))
            per_patch.append(np.linalg.norm(one / np.linalg.norm(one) - other / np.linalg.norm(other)))
        norms.append(np.mean(per_patch))
    expected = float(np.mean(norms))
    assert float(local_pod_loss(now, former, scales=(1, 2))) == pytest.approx(expected, rel=1e-5)
    term = LocalPod(weight=0.5, scales=(1, 2))
    assert float(term(scene)) == pytest.approx(0.5 * math.sqrt(NEW / (NEW - OLD)) * expected, rel=1e-5)
    same = [level.clone().requires_grad_() for level in now]
    unchanged = local_pod_loss(same, now, scales=(1, 2))
    unchanged.backward()
    assert float(unchanged.detach()) == 0
    assert all(bool(torch.isfinite(level.grad).all()) for level in same if level.grad is not None)


def test_entropy_is_a_share_of_the_largest() -> None:
    values = logits(OLD, 3)
    expected = [-float((softmax(v) * np.log(softmax(v))).sum()) / math.log(OLD) for v in voxels(values)]
    np.testing.assert_allclose(normalized_entropy(values).flatten().numpy(), expected, rtol=1e-5)
    assert float(normalized_entropy(torch.zeros(1, 4, 1))) == pytest.approx(1.0)


def test_plop_s_thresholds_are_medians_of_the_class() -> None:
    entropy = torch.tensor([0.1, 0.5, 0.3, 0.0, 0.0, 0.0])
    predicted = torch.tensor([0, 0, 0, 2, 2, 2])
    found = entropy_thresholds(entropy, predicted, num_classes=OLD)
    torch.testing.assert_close(found, torch.tensor([0.3, 0.001, 0.001]))


def test_plop_labels_background_where_the_former_network_is_sure() -> None:
    former = logits(OLD, 4, scale=3.0)[0].reshape(OLD, 7, 1, 1)
    labels = torch.tensor([0, 0, 0, 4, 0, 3, 0]).reshape(7, 1, 1)
    thresholds = torch.tensor([0.3, 0.5, 0.2])
    expected, accepted = [], 0
    for value, label in zip(former.reshape(OLD, -1).T.double().numpy(), labels.flatten().tolist(), strict=True):
        answer = softmax(value)
        winner = int(answer.argmax())
        entropy = -float((answer * np.log(answer)).sum()) / math.log(OLD)
        sure = entropy < float(thresholds[winner])
        accepted += label == 0 and sure
        expected.append(label if label else (winner if sure else IGNORED))
    completed, share = pseudo_labels(labels, former, thresholds)
    assert completed.flatten().tolist() == expected
    assert share == pytest.approx(accepted / 5)
    assert 0 < accepted < 5  # both happen in the example
    assert pseudo_labels(labels.clamp_min(1), former, thresholds)[1] == 1.0


def test_ewc_s_penalty_is_the_sum_of_all_springs() -> None:
    rng = np.random.default_rng(0)
    now = {"head.weight": rng.normal(size=(5, 3)), "body": rng.normal(size=(4,))}
    anchors = [
        {
            "head.weight": (rng.normal(size=(rows, 3)), rng.random((rows, 3))),
            "body": (rng.normal(size=4), rng.random(4)),
        }
        for rows in (2, 3)  # the head has grown twice since
    ]
    expected = 0.0
    for anchor in anchors:
        for name, (center, fisher) in anchor.items():
            for at in np.ndindex(*center.shape):
                expected += 0.5 * fisher[at] * (now[name][at] - center[at]) ** 2
    parameters = {name: torch.tensor(value) for name, value in now.items()}
    held = [
        Anchor(
            center={name: torch.tensor(pair[0]).float() for name, pair in anchor.items()},
            fisher={name: torch.tensor(pair[1]).float() for name, pair in anchor.items()},
        )
        for anchor in anchors
    ]
    assert float(elastic_penalty(parameters, held)) == pytest.approx(expected, rel=1e-5)


def test_the_fisher_information_is_that_of_a_softmax() -> None:
    """Of logits a: F = E[(1{y = c} - p_c)^2] = p_c (1 - p_c); the estimate gets there as patches add up."""
    bias = torch.tensor([0.5, -0.5, 0.1], requires_grad=True)
    probability = softmax(bias.detach().double().numpy())
    found = fisher_diagonal(
        {"bias": bias, "unused": torch.zeros(2, requires_grad=True)},
        lambda index: bias[:, None].expand(3, 64),
        indices=range(400),
        generator=torch.Generator().manual_seed(0),
    )
    np.testing.assert_allclose(found["bias"].numpy(), probability * (1 - probability), rtol=0.15)
    assert not bool(found["unused"].any())


def test_the_fisher_estimate_of_one_voxel_is_the_squared_score_of_the_drawn_label() -> None:
    weight = torch.randn(3, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
    feature = torch.tensor([0.7, -1.2])
    found = fisher_diagonal(
        {"weight": weight},
        lambda index: (weight @ feature)[:, None],
        indices=[0],
        generator=torch.Generator().manual_seed(3),
    )["weight"]
    probability = softmax((weight.detach() @ feature).double().numpy())
    candidates = []
    for label in range(3):
        score = np.outer(np.eye(3)[label] - probability, feature.numpy())
        candidates.append(score**2)
    assert any(np.allclose(found.numpy(), candidate, rtol=1e-4) for candidate in candidates)
