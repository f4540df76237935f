"""Specs as JSON: what old files lack keeps its meaning, and what says nothing new is written as before."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from tiny_registry import ENCODER_SPEC, decoder_spec

from wbcss.errors import SpecError
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import Encoder
from wbcss.specs import DecoderSpec, spec_from_json, spec_to_json

PLAIN = decoder_spec(2)
SPLIT = dataclasses.replace(PLAIN, kernels=((3, 3, 1), (3, 3, 3)), then_kernels=((1, 1, 3), ()))


def test_a_decoder_without_second_kernels_is_written_as_before_there_were_any() -> None:
    assert list(spec_to_json(PLAIN)) == ["stage_channels", "kernels", "convs_per_stage", "num_organs"]


@pytest.mark.parametrize("spec", [PLAIN, SPLIT])
def test_a_spec_read_back_is_the_same(spec: DecoderSpec) -> None:
    assert spec_from_json(DecoderSpec, json.loads(json.dumps(spec_to_json(spec)))) == spec


def test_second_kernels_follow_every_block_of_their_level() -> None:
    spec = dataclasses.replace(SPLIT, convs_per_stage=(2, 2))
    assert spec.block_kernels(0) == ((3, 3, 1), (1, 1, 3)) * 2
    assert spec.block_kernels(1) == ((3, 3, 3),) * 2


def test_a_decoder_runs_its_second_kernels_in_their_place() -> None:
    """Oracle: the finest level written out with the functions of torch."""
    decoder = Decoder(SPLIT, ENCODER_SPEC)
    with torch.no_grad():
        skips = Encoder(ENCODER_SPEC)(torch.randn(1, 1, *ENCODER_SPEC.tile))
        finest, coarser = decoder.levels(skips)
        x = torch.cat([decoder.ups[0](coarser), skips[0]], dim=1)
        for block, padding in zip(decoder.stages[0], [(1, 1, 0), (0, 0, 1)], strict=True):  # type: ignore[arg-type]
            x = torch.nn.functional.conv3d(x, block.conv.weight, block.conv.bias, padding=padding)
            x = torch.nn.functional.leaky_relu(torch.nn.functional.instance_norm(x), 0.01)
    torch.testing.assert_close(finest, x)
    assert [tuple(block.conv.kernel_size) for block in decoder.stages[0]] == [(3, 3, 1), (1, 1, 3)]  # type: ignore[union-attr]


def test_a_level_without_convolutions_is_its_transposed_convolution_and_reads_no_skip() -> None:
    """Oracle: every voxel below becomes the block of voxels that the kernel makes of it, written as an einsum."""
    decoder = Decoder(dataclasses.replace(PLAIN, convs_per_stage=(0, 1)), ENCODER_SPEC)
    with torch.no_grad():
        skips = Encoder(ENCODER_SPEC)(torch.randn(1, 1, *ENCODER_SPEC.tile))
        finest, coarser = decoder.levels([skips[0] * torch.nan, *skips[1:]])
        up = decoder.ups[0]
        parts = torch.einsum("bcijk,coxyz->boixjykz", coarser, up.weight)  # type: ignore[arg-type]
        expected = parts.flatten(6, 7).flatten(4, 5).flatten(2, 3) + up.bias.view(1, -1, 1, 1, 1)  # type: ignore[operator,union-attr]
    torch.testing.assert_close(finest, expected)


def test_fewer_than_no_convolutions_are_refused() -> None:
    with pytest.raises(SpecError, match=r"no fewer than 0 convolutions, got \(2, 3\) and \(-1, 1\)"):
        dataclasses.replace(PLAIN, convs_per_stage=(-1, 1))


@pytest.mark.parametrize(
    ("then", "message"),
    [
        (((1, 1, 3),), r"then_kernels must have one entry for each of the 2 levels.*got \(\(1, 1, 3\),\)"),
        (((), ()), r"at least one of them a kernel, or none at all, got \(\(\), \(\)\)"),
        (((1, 1, 2), ()), r"decoder kernels must be three odd positive numbers, got \(1, 1, 2\)"),
        (((3, 3), ()), r"decoder kernels must be three odd positive numbers, got \(3, 3\)"),
    ],
)
def test_second_kernels_that_make_no_sense_are_refused(then: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(PLAIN, then_kernels=then)
