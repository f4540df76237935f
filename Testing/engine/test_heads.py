from __future__ import annotations

import numpy as np
import pytest
import torch

from wbcss import heads
from wbcss.errors import SpecError
from wbcss.heads import TaskHead, channel_labels
from wbcss.nn.decoder import Decoder
from wbcss.specs import DecoderSpec, EncoderSpec

CPU = torch.device("cpu")
ENCODER = EncoderSpec(
    stage_channels=(4, 4),
    strides=((1, 1, 1), (2, 2, 2)),
    kernels=((1, 1, 1), (1, 1, 1)),
    convs_per_stage=(1, 1),
    tile=(8, 8, 8),
)


def a_decoder(num_organs: int = 6) -> Decoder:
    spec = DecoderSpec(stage_channels=(5,), kernels=((1, 1, 1),), convs_per_stage=(1,), num_organs=num_organs)
    return Decoder(spec, ENCODER).requires_grad_(False)


def a_head(decoder: Decoder, temperature: float = 1.0) -> TaskHead:
    return TaskHead.of(
        decoder, channel_labels(list(range(1, decoder.head.out_channels))), temperature=temperature, device=CPU
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_channel_and_probability_equal_softmax_of_the_logits(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "CPU_CHUNK", 7)
    decoder = a_decoder()
    features = torch.randn(50, 5) * 3
    logits = decoder.head(features.t().reshape(1, 5, 50, 1, 1)).reshape(7, 50).t()
    probability, channel = torch.softmax(logits / temperature, dim=1).max(dim=1)
    found, confidence = a_head(decoder, temperature).classify(features)
    assert torch.equal(found.long(), channel)
    torch.testing.assert_close(confidence, probability, rtol=1e-5, atol=1e-6)


def test_a_tie_goes_to_the_first_channel() -> None:
    decoder = a_decoder()
    torch.nn.init.zeros_(decoder.head.weight)
    torch.nn.init.zeros_(decoder.head.bias)
    decoder.head.bias[2:4] = 1.0
    channel, confidence = a_head(decoder).classify(torch.zeros(3, 5))
    assert channel.tolist() == [2, 2, 2]
    assert (confidence < 0.5).all()


def test_a_tie_of_all_channels_is_background_and_so_is_what_is_no_number() -> None:
    decoder = a_decoder()
    torch.nn.init.zeros_(decoder.head.weight)
    torch.nn.init.zeros_(decoder.head.bias)
    channel, _ = a_head(decoder).classify(torch.tensor([[0.0] * 5, [float("nan")] * 5]))
    assert channel.tolist() == [0, 0]


def test_no_voxel_is_no_trouble() -> None:
    channel, confidence = a_head(a_decoder()).classify(torch.zeros(0, 5))
    assert len(channel) == len(confidence) == 0


def test_extreme_logits_do_not_overflow() -> None:
    decoder = a_decoder()
    _, confidence = a_head(decoder).classify(torch.full((2, 5), 1e6))
    assert torch.isfinite(confidence).all()
    torch.testing.assert_close(confidence, torch.ones(2))


def test_background_comes_first_among_the_labels() -> None:
    labels = channel_labels([5, 1, 0])
    assert labels.dtype == np.uint16
    assert labels.tolist() == [0, 5, 1, 0]


def test_wrong_numbers_are_refused_with_what_came() -> None:
    with pytest.raises(SpecError, match=r"a head of 7 channels needs as many labels, got 3"):
        TaskHead.of(a_decoder(), channel_labels([1, 2]), temperature=1.0, device=CPU)
    with pytest.raises(SpecError, match=r"temperature must be positive, got 0\.0"):
        a_head(a_decoder(), 0.0)
    with pytest.raises(SpecError, match=r"labels must be in 0\.\.65535, got \[70000\]"):
        channel_labels([70000])
