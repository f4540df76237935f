"""Closed forms of cost against what the modules really hold and multiply."""

from __future__ import annotations

import math

import pytest
import tiny_training
import torch
from torch import nn

from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import Encoder
from wbcss.specs import DecoderSpec, EncoderSpec
from wbcss_training.continual.cost import Cost, decoder_cost, encoder_cost, total

ENCODER = EncoderSpec(
    stage_channels=(2, 3, 5),
    strides=((1, 1, 1), (2, 2, 2), (1, 2, 2)),
    kernels=((3, 3, 3), (3, 3, 1), (1, 3, 3)),
    convs_per_stage=(1, 2, 1),
    windows_hu=((-1000.0, 1000.0), (-160.0, 240.0)),
    tile=(8, 8, 8),
)
DECODER = DecoderSpec(
    stage_channels=(4, 6),
    kernels=((3, 3, 3), (1, 3, 3)),
    convs_per_stage=(1, 2),
    num_organs=3,
    then_kernels=((), (3, 1, 1)),
)


def counted(module: nn.Module, *inputs: object) -> int:
    """Multiply-accumulates of every convolution that runs, from the shapes that go through."""
    sums = [0]

    def count(layer: nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        assert isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d))
        taps = layer.in_channels * layer.out_channels * math.prod(layer.kernel_size)
        grid = out if isinstance(layer, nn.Conv3d) else given[0]
        sums[0] += math.prod(grid.shape[2:]) * taps

    for layer in module.modules():
        if isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        module(*inputs)
    return sums[0]


def test_costs_are_what_the_networks_hold_and_multiply() -> None:
    encoder, decoder = Encoder(ENCODER), Decoder(DECODER, ENCODER)
    image = torch.zeros(1, 2, *ENCODER.tile)
    skips = encoder(image)
    found = encoder_cost(ENCODER), decoder_cost(DECODER, ENCODER)
    assert found[0].macs == counted(encoder, image)
    assert found[1].macs == counted(decoder, skips)
    for cost, module in zip(found, (encoder, decoder), strict=True):
        assert cost.parameters == sum(parameter.numel() for parameter in module.parameters())


def test_the_first_stage_by_hand() -> None:
    spec = EncoderSpec(
        stage_channels=(3, 4),
        strides=((1, 1, 1), (2, 2, 2)),
        kernels=((3, 3, 3), (1, 1, 1)),
        convs_per_stage=(1, 1),
        tile=(4, 4, 4),
    )
    assert encoder_cost(spec).macs == 64 * 1 * 3 * 27 + 8 * 3 * 4
    decoder = DecoderSpec(stage_channels=(2,), kernels=((1, 1, 1),), convs_per_stage=(1,), num_organs=1)
    assert decoder_cost(decoder, spec).macs == 8 * 4 * 2 * 8 + 64 * (2 + 3) * 2 + 64 * 2 * 2


def test_a_tile_of_twice_the_voxels_costs_twice() -> None:
    double = encoder_cost(tiny_training.ENCODER, (16, 16, 32))
    assert double.macs == 2 * encoder_cost(tiny_training.ENCODER).macs
    assert double.parameters == encoder_cost(tiny_training.ENCODER).parameters


def test_costs_add_up() -> None:
    one, two = Cost(parameters=3, macs=5), Cost(parameters=4, macs=7)
    assert total([one, two]) == Cost(parameters=7, macs=12)
    assert two - one == Cost(parameters=1, macs=2)
    assert total([]) == Cost(parameters=0, macs=0)


@pytest.mark.parametrize("num_organs", [1, 7])
def test_an_organ_more_costs_a_row_of_the_head(num_organs: int) -> None:
    small = decoder_cost(tiny_training.decoder_spec(num_organs), tiny_training.ENCODER)
    large = decoder_cost(tiny_training.decoder_spec(num_organs + 1), tiny_training.ENCODER)
    assert large - small == Cost(parameters=3 + 1, macs=3 * 16**3)
