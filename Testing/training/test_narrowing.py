"""Channels that are taken out for good: exactness, importance, refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny_training
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wbcss.errors import SpecError
from wbcss.nn.decoder import Decoder
from wbcss.specs import DecoderSpec
from wbcss_training.narrowing import (
    Kept,
    best_channels,
    blocks,
    filter_scores,
    fits_into,
    groups_for,
    groups_of,
    narrow_decoder,
    taylor_scores,
)
from wbcss_training.patches import FeaturePatch

ENCODER = tiny_training.ENCODER
FULL = DecoderSpec(stage_channels=(5, 6), kernels=((3, 3, 3), (3, 3, 3)), convs_per_stage=(1, 2), num_organs=3)
PAIRS = dataclasses.replace(FULL, kernels=((3, 3, 1), (3, 3, 3)), then_kernels=((1, 1, 3), ()))


def decoder(spec: DecoderSpec = FULL, *, seed: int = 0) -> Decoder:
    """Random weights, norms and biases included, in float64."""
    torch.manual_seed(seed)
    made = Decoder(spec, ENCODER).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return made


def skips() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = ((2, 8), (3, 4), (4, 2))
    return [torch.randn(1, width, n, n, n, generator=generator, dtype=torch.float64) for width, n in sizes]


def drawn(spec: DecoderSpec, widths: tuple[int, ...], seed: int) -> Kept:
    """Other channels in every group."""
    rng = np.random.default_rng(seed)
    return tuple(
        tuple(
            tuple(sorted(rng.choice(spec.stage_channels[level], width, replace=False).tolist()))
            for _ in range(1 + len(spec.block_kernels(level)))
        )
        for level, width in enumerate(widths)
    )


def silence(network: Decoder, kept: Kept) -> None:
    """Let every channel that is not kept answer 0."""
    with torch.no_grad():
        for level, groups in enumerate(kept):
            gone = [[c for c in range(network.spec.stage_channels[level]) if c not in group] for group in groups]
            up = network.ups[level]
            up.weight[:, gone[0]] = 0  # type: ignore[index,operator]
            up.bias[gone[0]] = 0  # type: ignore[index,operator]
            for block, channels in zip(blocks(network, level), gone[1:], strict=True):
                block.norm.weight[channels] = 0
                block.norm.bias[channels] = 0


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from([FULL, PAIRS]),
    st.tuples(st.integers(1, 5), st.integers(1, 6)),
    st.integers(0, 1000),
)
def test_where_the_other_channels_are_zero_the_narrower_decoder_answers_alike(
    spec: DecoderSpec, widths: tuple[int, int], seed: int
) -> None:
    whole, kept = decoder(spec), drawn(spec, widths, seed)
    silence(whole, kept)
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    narrow = narrow_decoder(whole, ENCODER, dataclasses.replace(spec, stage_channels=widths), kept).double()
    with torch.no_grad():
        torch.testing.assert_close(narrow(skips()), whole(skips()), atol=1e-5, rtol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())


def test_all_channels_are_the_same_decoder() -> None:
    whole = decoder()
    kept = tuple(
        tuple(tuple(range(width)) for _ in group) for width, group in zip((5, 6), groups_of(whole), strict=True)
    )
    same = narrow_decoder(whole, ENCODER, FULL, kept).state_dict()
    assert all(torch.equal(same[name], value.float()) for name, value in whole.state_dict().items())


def test_of_a_kernel_that_gets_smaller_the_middle_stays() -> None:
    whole = decoder()
    kept = tuple(
        tuple(tuple(range(width)) for _ in group) for width, group in zip((5, 6), groups_of(whole), strict=True)
    )
    flat = dataclasses.replace(FULL, kernels=((1, 3, 3), (3, 3, 1)))
    found = narrow_decoder(whole, ENCODER, flat, kept)
    for level, middle in ((0, (slice(1, 2), slice(None), slice(None))), (1, (slice(None), slice(None), slice(1, 2)))):
        expected = blocks(whole, level)[0].conv.weight[(slice(None), slice(None), *middle)].float()
        assert torch.equal(blocks(found, level)[0].conv.weight, expected)


@pytest.mark.parametrize("bare", [0, 1])
def test_without_the_blocks_of_a_level_all_else_stays_and_what_they_lay_between_begins_anew(bare: int) -> None:
    whole = decoder()
    spec = dataclasses.replace(FULL, convs_per_stage=tuple(0 if n == bare else c for n, c in enumerate((1, 2))))
    every = tuple(
        tuple(tuple(range(width)) for _ in group) for width, group in zip((5, 6), groups_of(whole), strict=True)
    )
    kept = groups_for(every, spec)
    assert [len(groups) for groups in kept] == [1 if n == bare else c for n, c in enumerate((2, 3))]
    torch.manual_seed(7)
    found = narrow_decoder(whole, ENCODER, spec, kept).state_dict()
    torch.manual_seed(7)
    fresh = Decoder(spec, ENCODER).state_dict()
    anew = {0: ("ups.0.", "head."), 1: ("ups.0.", "ups.1.")}[bare]
    for name, value in found.items():
        expected = fresh[name] if name.startswith(anew) else whole.state_dict()[name].float()
        assert torch.equal(value, expected), name


CONFIG = tiny_training.config(sampled_voxels=10**6)


def plain_loss(network: Decoder, patch: FeaturePatch) -> float:
    """Cross-entropy and Dice in float64, as ``OrganLoss`` has them in float32."""
    with torch.no_grad():
        logits = network([skip[None].double() for skip in patch.skips]).flatten(2)[0]
    labels = patch.labels.flatten().long()
    probability, truth = torch.softmax(logits, dim=0), torch.nn.functional.one_hot(labels).t()
    both = 2 * (probability * truth).sum(dim=1) + 1e-5
    dice = 1 - both / (probability.sum(dim=1) + truth.sum(dim=1) + 1e-5)
    return float(torch.nn.functional.cross_entropy(logits.t(), labels) + dice[1:].mean())


def scale(network: Decoder, level: int, group: int, channel: int, factor: float) -> None:
    """Make a channel answer ``factor`` times as much: the leaky ReLU is linear in a positive factor."""
    module = groups_of(network)[level][group]
    parts = (module.weight[:, channel], module.bias) if group == 0 else (module.norm.weight, module.norm.bias)  # type: ignore[index,union-attr]
    with torch.no_grad():
        for part in parts:
            (part if part.ndim > 1 else part[channel]).mul_(factor)  # type: ignore[union-attr,index]


def test_taylor_scores_are_the_squared_derivative_by_the_size_of_a_channel() -> None:
    whole, patch, step = decoder(), tiny_training.encoded_patches()[0], 1e-5
    scores = taylor_scores(decoder().float(), tiny_training.TASK, [patch], config=CONFIG)
    assert [[len(group) for group in groups] for groups in scores] == [[5, 5], [6, 6, 6]]
    for level, groups in enumerate(scores):
        for group, found in enumerate(groups):
            channel = int(found.argmax())  # the others are near the rounding of float32
            scale(whole, level, group, channel, 1 + step)
            above = plain_loss(whole, patch)
            scale(whole, level, group, channel, (1 - step) / (1 + step))
            below = plain_loss(whole, patch)
            scale(whole, level, group, channel, 1 / (1 - step))
            assert float(found[channel]) == pytest.approx(((above - below) / (2 * step)) ** 2, rel=0.01)


def test_scores_are_the_mean_over_patches_and_leave_the_decoder_alone() -> None:
    whole = decoder().float()
    before = {name: value.clone() for name, value in whole.state_dict().items()}
    both = taylor_scores(whole, tiny_training.TASK, tiny_training.encoded_patches(), config=CONFIG)
    one, other = (
        taylor_scores(whole, tiny_training.TASK, [patch], config=CONFIG) for patch in tiny_training.encoded_patches()
    )
    torch.testing.assert_close(both[0][1], (one[0][1] + other[0][1]) / 2)
    assert all(torch.equal(value, before[name]) for name, value in whole.state_dict().items())
    assert all(not module._forward_hooks for group in groups_of(whole) for module in group)


def test_without_a_patch_nothing_can_be_compared() -> None:
    with pytest.raises(SpecError, match="compared on at least 1 patch, got none"):
        taylor_scores(decoder().float(), tiny_training.TASK, [], config=CONFIG)


@pytest.mark.parametrize("kind", ["filters", "taylor"])
def test_silent_channels_go_first(kind: str) -> None:
    whole, kept = decoder(), drawn(FULL, (3, 2), 5)
    silence(whole, kept)
    whole = whole.float()
    scores = (
        filter_scores(whole)
        if kind == "filters"
        else taylor_scores(whole, tiny_training.TASK, tiny_training.encoded_patches(), config=CONFIG)
    )
    assert best_channels(scores, (3, 2)) == kept


def test_filter_scores_do_not_care_for_the_size_that_a_norm_undoes() -> None:
    whole, louder = decoder(), decoder()
    with torch.no_grad():
        blocks(louder, 1)[0].conv.weight.mul_(10)
    for groups, others in zip(filter_scores(whole), filter_scores(louder), strict=True):
        for scores, same in zip(groups, others, strict=True):
            torch.testing.assert_close(scores, same)


def test_among_equals_the_first_stay() -> None:
    assert best_channels(((torch.tensor([1.0, 3.0, 1.0, 1.0]),),), (3,)) == (((0, 1, 2),),)


@pytest.mark.parametrize("width", [0, 5])
def test_more_channels_than_there_are_cannot_stay(width: int) -> None:
    with pytest.raises(SpecError, match=rf"level 0 must keep 1\.\.4 channels, got {width}"):
        best_channels(((torch.ones(4),),), (width,))


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"stage_channels": (1, 6)}, True),
        ({"kernels": ((1, 3, 3), (3, 3, 1))}, True),
        ({"stage_channels": (6, 6)}, False),
        ({"kernels": ((5, 3, 3), (3, 3, 3))}, False),
        ({"convs_per_stage": (1, 1)}, False),
        ({"convs_per_stage": (0, 2)}, True),
        ({"convs_per_stage": (0, 1)}, False),
        ({"num_organs": 2}, False),
        ({"stage_channels": (5,), "kernels": ((3, 3, 3),), "convs_per_stage": (1,)}, False),
        ({"then_kernels": ((1, 1, 3), ())}, False),
    ],
)
def test_only_what_is_nowhere_larger_can_be_cut_out(change: dict[str, object], fits: bool) -> None:
    spec = dataclasses.replace(FULL, **change)  # type: ignore[arg-type]
    assert fits_into(spec, FULL) is fits
    if not fits:
        with pytest.raises(SpecError, match=r"a narrower decoder must fit into DecoderSpec\(stage_channels=\(5, 6\)"):
            narrow_decoder(decoder(), ENCODER, spec, ())


def test_kept_channels_must_be_as_many_as_the_spec_says() -> None:
    narrow = dataclasses.replace(FULL, stage_channels=(3, 2))
    with pytest.raises(SpecError, match=r"kept channels must be \(3, 2\) by level, got \[\[3\], \[4\]\]"):
        narrow_decoder(decoder(), ENCODER, narrow, drawn(FULL, (3, 4), 0))
