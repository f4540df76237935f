"""Learned confidence: known answers, honesty, and what is not learned."""

from __future__ import annotations

import dataclasses
import math

import pytest
import tiny_training
import torch

from wbcss.nn.decoder import Decoder
from wbcss_training.certainty import (
    ClaimedVoxels,
    draw_claimed_voxels,
    fit_odds,
    fit_scale,
    learn_certainty,
    train_head,
)
from wbcss_training.patches import FeaturePatch

FEATURES = tiny_training.decoder_spec().num_features


def voxels(num: int, *, seed: int, sharpness: float = 1.0) -> ClaimedVoxels:
    """The first feature says how probably the decoder is right; its softmax says 0.95, times ``sharpness``."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(num, FEATURES, generator=generator)
    chance = torch.sigmoid(2 * features[:, 0])
    right = torch.rand(num, generator=generator) < chance
    odds = torch.full((num,), math.log(19.0)) * sharpness
    true = torch.where(right, torch.tensor(0.95), torch.tensor(0.03))
    return ClaimedVoxels(features, odds, odds, true, right)


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(tiny_training.decoder_spec(), tiny_training.ENCODER).requires_grad_(False)


def test_a_head_finds_what_the_features_tell_and_its_numbers_are_shares(decoder: Decoder) -> None:
    training = [voxels(3000, seed=n) for n in range(3)]
    held_out = [voxels(1500, seed=100 + n) for n in range(4)]
    found = learn_certainty(decoder, training, held_out, temperature=1.0)
    assert found.head is not None
    assert found.facts["head"] == "learned"
    assert found.facts["ece_before"] == pytest.approx(0.45, abs=0.03)
    assert found.facts["ece_after"] < 0.05
    fresh = voxels(4000, seed=999)
    told = torch.sigmoid(found.head.log_odds(fresh.features, fresh.log_odds))
    expected = torch.sigmoid(2 * fresh.features[:, 0])
    assert float((told - expected).abs().mean()) < 0.08
    assert sum(row["voxels"] for row in found.facts["reliability"]) == found.facts["num_voxels"] == 6000
    (before,) = found.facts["reliability_before"]  # the softmax says 0.95 everywhere
    assert (before["bin"], before["voxels"], before["confidence"]) == (15, 6000, pytest.approx(0.95, abs=1e-4))


def test_a_calibrated_softmax_is_kept(decoder: Decoder) -> None:
    """With right answers drawn by the softmax itself, features that mean nothing must not win by much."""

    def honest(seed: int) -> ClaimedVoxels:
        generator = torch.Generator().manual_seed(seed)
        odds = torch.randn(1500, generator=generator) * 2
        right = torch.rand(1500, generator=generator) < torch.sigmoid(odds)
        features = torch.randn(1500, FEATURES, generator=generator)
        return ClaimedVoxels(features, odds, odds, torch.sigmoid(odds), right)

    found = learn_certainty(decoder, [honest(1), honest(2)], [honest(3), honest(4)], temperature=1.0)
    assert found.facts["ece_after"] < 0.04
    assert found.facts["loss"]["learned"] == pytest.approx(found.facts["loss"]["softmax"], abs=0.02)


def test_without_held_out_voxels_nothing_is_learned(decoder: Decoder) -> None:
    for held_out in ([], [voxels(100, seed=1)]):
        found = learn_certainty(decoder, [voxels(100, seed=0)], held_out, temperature=1.0)
        assert found.head is None
        assert found.facts == {"note": "not learned: it takes two held-out patches with claimed voxels"}


def test_training_is_repeatable() -> None:
    one, other = (train_head(voxels(500, seed=1), 16, seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.tensors().values(), other.tensors().values(), strict=True))


def test_scale_and_shift_undo_a_known_distortion() -> None:
    generator = torch.Generator().manual_seed(5)
    odds = torch.randn(40_000, generator=generator) * 2
    right = torch.rand(40_000, generator=generator) < torch.sigmoid(0.5 * odds - 1)
    drawn = ClaimedVoxels(torch.zeros(40_000, FEATURES), odds, odds, torch.sigmoid(odds), right)
    head = train_head(voxels(10, seed=0), 16, seed=0)
    identity = dataclasses.replace(head, out_weight=torch.zeros(16), out_bias=torch.zeros(1))
    assert fit_scale(drawn, identity).tolist() == pytest.approx([0.5, -1.0], abs=0.05)


def test_claimed_voxels_are_those_of_annotated_organs_that_the_decoder_names(decoder: Decoder) -> None:
    with torch.no_grad():
        decoder.head.weight.zero_()
        decoder.head.bias.copy_(torch.tensor([0.0, 2.0, 0.0, 0.0]))  # liver everywhere
    labels = torch.zeros(16, 16, 16, dtype=torch.uint8)
    labels[:8] = 1
    shapes = [(2, 16, 16, 16), (3, 8, 8, 8), (4, 4, 4, 4)]
    skips = tuple(torch.randn(s).half() for s in shapes)
    known = draw_claimed_voxels(
        decoder, FeaturePatch(skips, labels, torch.ones(4, dtype=torch.bool)), temperature=2.0, seed=0
    )
    assert len(known) == 4096
    share = math.e / (math.e + 3)
    torch.testing.assert_close(torch.sigmoid(known.log_odds), torch.full((4096,), share))
    torch.testing.assert_close(known.raw_log_odds, torch.full((4096,), 2 - math.log(3.0)))
    assert int(known.right.sum()) == 2048
    torch.testing.assert_close(known.true_class[known.right], torch.full((2048,), share))
    unknown = torch.tensor([True, False, True, True])
    assert len(draw_claimed_voxels(decoder, FeaturePatch(skips, labels, unknown), temperature=2.0, seed=0)) == 0


def test_a_slope_that_is_given_is_kept_and_the_shift_still_fits() -> None:
    """Odds that say nothing, right in a fifth: free, the slope goes to its least; kept, it stays and the mean fits."""
    odds = torch.linspace(-2, 6, 1000)
    right = torch.arange(1000) % 5 == 0
    free, kept = fit_odds(odds, right), fit_odds(odds, right, slope=1.2)
    assert float(free[0]) == pytest.approx(0.05, abs=0.02)
    assert float(kept[0]) == pytest.approx(1.2)
    assert float(torch.sigmoid(odds * kept[0] + kept[1]).mean()) == pytest.approx(
        0.2, abs=0.02
    )  # the ridge pulls a little
