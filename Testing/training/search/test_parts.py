"""Parts of a decoder: together exactly its parameters and its multiply-accumulates."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_search

from wbcss.errors import SpecError
from wbcss.nn.decoder import Decoder
from wbcss.specs import DecoderSpec
from wbcss_training.continual.cost import decoder_cost
from wbcss_training.search.parts import level_shape, parts_of
from wbcss_training.search.space import KERNELS, LevelChoice, SearchSpace, full_decoder, scaled_decoder, without_finest


def random_spec(rng: np.random.Generator) -> DecoderSpec:
    """Any decoder on the tiny encoder, of the space or not."""
    levels = int(rng.integers(1, 3))
    pairs = list(KERNELS.values())
    chosen = [pairs[int(rng.integers(len(pairs)))] for _ in range(levels)]
    then = tuple(pair[1] for pair in chosen)
    return DecoderSpec(
        stage_channels=tuple(int(n) for n in rng.integers(1, 9, levels)),
        kernels=tuple(pair[0] for pair in chosen),
        convs_per_stage=tuple(int(n) for n in rng.integers(0, 4, levels)),
        num_organs=int(rng.integers(1, 6)),
        then_kernels=then if any(then) else (),
    )


def test_promised_parameters_are_those_of_the_built_decoder_for_50_random_specs(rng: np.random.Generator) -> None:
    specs = [random_spec(rng) for _ in range(50)]
    assert len(set(specs)) > 40
    assert any(spec.then_kernels for spec in specs)
    assert sum(0 in spec.convs_per_stage for spec in specs) > 10
    for spec in specs:
        built = sum(p.numel() for p in Decoder(spec, tiny_search.ENCODER).parameters())
        assert sum(part.parameters for part in parts_of(spec, tiny_search.ENCODER)) == built


def test_multiply_accumulates_are_those_of_the_closed_form(rng: np.random.Generator) -> None:
    """``decoder_cost`` is itself compared with what hooks count while a decoder runs."""
    for spec in (random_spec(rng) for _ in range(20)):
        macs = sum(part.macs(tiny_search.ENCODER, (16, 32, 16)) for part in parts_of(spec, tiny_search.ENCODER))
        assert macs == decoder_cost(spec, tiny_search.ENCODER, (16, 32, 16)).macs


def test_a_level_has_the_shape_of_its_skip() -> None:
    assert [level_shape(tiny_search.ENCODER, (16, 16, 32), level) for level in range(3)] == [
        (16, 16, 32),
        (8, 8, 16),
        (8, 4, 8),
    ]


def test_a_space_lists_every_width_once_and_the_full_choice_first() -> None:
    assert [tiny_search.SPACE.widths(level) for level in range(2)] == [(4, 2, 1), (6, 3, 2, 1)]
    assert [tiny_search.SPACE.counts(level) for level in range(2)] == [(2, 1, 0), (1,)]
    one = SearchSpace(encoder=tiny_search.ENCODER, full=full_decoder(tiny_search.ENCODER, num_organs=1))
    assert [one.counts(level) for level in range(2)] == [(2, 1, 0), (2, 1)]
    shallow = DecoderSpec(stage_channels=(4,), kernels=((3, 3, 3),), convs_per_stage=(2,), num_organs=1)
    assert SearchSpace(encoder=tiny_search.ENCODER, full=shallow).counts(0) == (2, 1)
    assert without_finest(shallow) == shallow


def test_choices_become_the_spec_that_they_name() -> None:
    split = LevelChoice(width=2, kernel="1x3x3+3x1x1", count=1)
    full = LevelChoice(width=6, kernel="3x3x3", count=1)
    assert tiny_search.SPACE.spec([split, full]) == DecoderSpec(
        stage_channels=(2, 6),
        kernels=((3, 3, 1), (3, 3, 3)),
        convs_per_stage=(1, 1),
        num_organs=3,
        then_kernels=((1, 1, 3), ()),
    )
    largest = LevelChoice(width=4, kernel="3x3x3", count=2)
    assert tiny_search.SPACE.spec([largest, full]) == tiny_search.FULL
    bare = [LevelChoice(width=4, kernel=kernel, count=0) for kernel in KERNELS]
    assert {tiny_search.SPACE.spec([level, full]) for level in bare} == {without_finest(tiny_search.FULL)}
    split_below = tiny_search.SPACE.spec([split, LevelChoice(width=6, kernel="1x3x3+3x1x1", count=1)])
    assert without_finest(split_below).then_kernels == ((), (1, 1, 3))
    assert without_finest(split_below).block_kernels(0) == ()
    with pytest.raises(SpecError, match="each of the 2 levels needs one choice, got 1"):
        tiny_search.SPACE.spec([full])


def test_a_space_begins_with_cubes_on_an_encoder_that_is_deep_enough() -> None:
    flat = DecoderSpec(stage_channels=(4,), kernels=((1, 3, 3),), convs_per_stage=(1,), num_organs=1)
    with pytest.raises(SpecError, match=r"kernels \(3, 3, 3\) at every level, got \(\(1, 3, 3\),\)"):
        SearchSpace(encoder=tiny_search.ENCODER, full=flat)
    deep = DecoderSpec(stage_channels=(1,) * 3, kernels=((3, 3, 3),) * 3, convs_per_stage=(1,) * 3, num_organs=1)
    with pytest.raises(SpecError, match="a decoder of 3 levels needs an encoder of at least 4 stages, got 3"):
        SearchSpace(encoder=tiny_search.ENCODER, full=deep)


def test_the_full_decoder_is_as_wide_as_its_encoder_and_can_be_scaled() -> None:
    full = full_decoder(tiny_search.ENCODER, num_organs=2)
    assert (full.stage_channels, full.convs_per_stage, full.num_organs) == ((4, 6), (2, 2), 2)
    assert scaled_decoder(full, 0.5).stage_channels == (2, 3)
    assert scaled_decoder(full, 0.01).stage_channels == (1, 1)
    with pytest.raises(SpecError, match=r"the share of the channels must be above 0 and at most 1, got 1\.5"):
        scaled_decoder(full, 1.5)
