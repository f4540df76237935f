"""One temperature: known answers, and the calibration error against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny_training
import torch
from hypothesis import given
from hypothesis import strategies as st

from wbcss.errors import SpecError
from wbcss.nn.decoder import Decoder
from wbcss_training.calibration import (
    MIN_TEMPERATURE,
    Voxels,
    calibrate,
    draw_organ_voxels,
    expected_calibration_error,
)
from wbcss_training.patches import FeaturePatch
from wbcss_training.reliability import NUM_BINS

ALL = torch.ones(3, dtype=torch.bool)


def drawn(num: int, *, sharpness: float = 1.0, seed: int = 0) -> Voxels:
    """Labels drawn from the softmax of logits, which are then multiplied by ``sharpness``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (num, 3))
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (share.cumsum(axis=1) < rng.random((num, 1))).sum(axis=1)
    return Voxels(torch.from_numpy(logits * sharpness).float(), torch.from_numpy(labels), ALL)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_known_overconfidence(sharpness: float) -> None:
    found = calibrate([drawn(40_000, sharpness=sharpness)])
    assert found.temperature == pytest.approx(sharpness, rel=0.05)
    assert found.ece_after < 0.02
    assert (found.ece_before > 0.05) == (sharpness != 1)
    assert found.num_voxels == 40_000


def test_two_logits_have_a_temperature_in_closed_form() -> None:
    """With logits (a, 0) everywhere and a share p of label 0, softmax(a / T) must be p: T = a / log(p / (1 - p))."""
    logits = torch.tensor([[2.0, 0.0]]).repeat(100, 1)
    labels = torch.tensor([0] * 70 + [1] * 30)
    found = calibrate([Voxels(logits, labels, torch.ones(2, dtype=torch.bool))])
    assert found.temperature == pytest.approx(2.0 / math.log(0.7 / 0.3), rel=1e-3)
    assert found.ece_before == pytest.approx(1 / (1 + math.exp(-2)) - 0.7, abs=1e-6)
    assert found.ece_after == pytest.approx(0.0, abs=1e-3)
    assert found.before == ({"bin": 14, "voxels": 100, "confidence": 0.8808, "accuracy": 0.7},)
    assert found.after == ({"bin": 11, "voxels": 100, "confidence": pytest.approx(0.7, abs=1e-3), "accuracy": 0.7},)


def test_a_decoder_that_is_always_right_keeps_a_finite_temperature() -> None:
    logits = torch.eye(3).repeat(10, 1)
    found = calibrate([Voxels(logits, torch.arange(3).repeat(10), ALL)])
    assert MIN_TEMPERATURE <= found.temperature < 2 * MIN_TEMPERATURE


@given(st.integers(1, 60), st.integers(0, 1000), st.floats(0.2, 5))
def test_the_calibration_error_equals_a_plain_loop(num: int, seed: int, temperature: float) -> None:
    voxels = drawn(num, seed=seed)
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(voxels.logits.double().numpy() / temperature, voxels.labels.tolist(), strict=True):
        share = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        place = max(1, math.ceil(share.max() * NUM_BINS - 1e-6))
        bins.setdefault(place, []).append((share.max(), int(share.argmax()) == label))
    plain = sum(abs(sum(sure - hit for sure, hit in members)) for members in bins.values()) / num
    assert expected_calibration_error([voxels], temperature) == pytest.approx(plain, abs=1e-5)


def test_an_unannotated_organ_counts_as_background() -> None:
    """Channel 2 is unknown: whatever probability it gets belongs to the background, so nothing is wrong here."""
    logits = torch.tensor([[0.0, -9.0, 9.0]]).repeat(50, 1)
    hidden = Voxels(logits, torch.zeros(50, dtype=torch.long), torch.tensor([True, True, False]))
    known = Voxels(logits, torch.zeros(50, dtype=torch.long), ALL)
    assert expected_calibration_error([hidden], 1.0) < 1e-6
    assert expected_calibration_error([known], 1.0) > 0.99


def test_voxels_are_those_of_organs_in_the_reference_or_the_answer() -> None:
    decoder = Decoder(tiny_training.decoder_spec(), tiny_training.ENCODER)
    with torch.no_grad():
        decoder.head.bias.copy_(torch.tensor([5.0, 0.0, 0.0, 0.0]))  # background everywhere
        decoder.head.weight.zero_()
    labels = torch.zeros(16, 16, 16, dtype=torch.uint8)
    labels[2:4, 2:4, 2:4] = 3
    shapes = [(2, 16, 16, 16), (3, 8, 8, 8), (4, 4, 4, 4)]
    patch = FeaturePatch(tuple(torch.randn(s).half() for s in shapes), labels, torch.ones(4, dtype=torch.bool))
    voxels = draw_organ_voxels(decoder, patch, seed=0)
    assert voxels.labels.tolist() == [3] * 8
    assert voxels.logits.shape == (8, 4)
    with torch.no_grad():
        decoder.head.bias.copy_(torch.tensor([0.0, 5.0, 0.0, 0.0]))  # liver everywhere
    assert len(draw_organ_voxels(decoder, patch, seed=0).labels) == 16**3


def test_an_organ_that_the_patch_does_not_annotate_judges_nothing() -> None:
    decoder = Decoder(tiny_training.decoder_spec(), tiny_training.ENCODER)
    with torch.no_grad():
        decoder.head.bias.copy_(torch.tensor([0.0, 5.0, 0.0, 0.0]))  # the first organ everywhere
        decoder.head.weight.zero_()
    labels = torch.zeros(16, 16, 16, dtype=torch.uint8)
    labels[2:4, 2:4, 2:4] = 3
    skips = tuple(torch.zeros(s).half() for s in [(2, 16, 16, 16), (3, 8, 8, 8), (4, 4, 4, 4)])
    patch = FeaturePatch(skips, labels, torch.tensor([True, False, True, True]))
    assert draw_organ_voxels(decoder, patch, seed=0).labels.tolist() == [3] * 8


def test_a_calibration_without_a_voxel_is_refused() -> None:
    with pytest.raises(SpecError, match="a calibration needs at least one voxel of an organ, got none"):
        calibrate([Voxels(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), ALL)])
