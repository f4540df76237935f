"""The inside of weight files, read without torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tiny_registry import ENCODER_SPEC, decoder_spec, safetensors_bytes

from wbcss.errors import RegistryError
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import Encoder
from wbcss.specs import DecoderSpec, EncoderSpec
from wbcss.weights import TensorInfo, check_shapes, decoder_shapes, encoder_shapes, largest_file_bytes, read_header

DEEP = EncoderSpec(
    stage_channels=(3, 5, 7, 9),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 1, 2)),
    kernels=((1, 3, 3), (3, 3, 3), (3, 5, 3), (3, 3, 1)),
    convs_per_stage=(1, 2, 3, 1),
    windows_hu=((-1000.0, 1000.0), (-150.0, 250.0)),
    tile=(8, 8, 8),
)
WIDE = DecoderSpec(
    stage_channels=(4, 6, 8), kernels=((3, 3, 3), (1, 3, 5), (3, 1, 3)), convs_per_stage=(2, 1, 3), num_organs=5
)
BARE = dataclasses.replace(decoder_spec(2), convs_per_stage=(0, 1))
"""The finest level is a transposed convolution alone."""
SPLIT = dataclasses.replace(WIDE, then_kernels=((1, 1, 3), (), (3, 1, 1)))


@pytest.mark.parametrize("spec", [ENCODER_SPEC, DEEP])
def test_the_expected_weights_of_an_encoder_are_those_of_the_network(spec: EncoderSpec) -> None:
    built = {name: tuple(value.shape) for name, value in Encoder(spec).state_dict().items()}
    assert encoder_shapes(spec) == built


@pytest.mark.parametrize(
    ("spec", "encoder"),
    [(decoder_spec(2), ENCODER_SPEC), (decoder_spec(1), DEEP), (WIDE, DEEP), (SPLIT, DEEP), (BARE, DEEP)],
)
def test_the_expected_weights_of_a_decoder_are_those_of_the_network(spec: DecoderSpec, encoder: EncoderSpec) -> None:
    built = {name: tuple(value.shape) for name, value in Decoder(spec, encoder).state_dict().items()}
    assert decoder_shapes(spec, encoder) == built


def test_a_decoder_deeper_than_its_encoder_has_no_weights() -> None:
    with pytest.raises(RegistryError, match="a decoder of 3 levels needs an encoder of at least 4 stages, got 3"):
        decoder_shapes(WIDE, ENCODER_SPEC)


def test_a_header_tells_types_and_shapes(tmp_path: Path) -> None:
    shapes = {"a": (2, 3), "b": (4,), "scalar": ()}
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(shapes))
    assert read_header(path) == {name: TensorInfo("F16", shape) for name, shape in shapes.items()}
    assert path.stat().st_size <= largest_file_bytes(shapes)


def _file(header: object, num_bytes: int) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"\0" * num_bytes


def _entry(start: int, stop: int, *, dtype: str = "F16", shape: tuple[int, ...] = (2,)) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "w.safetensors is no safetensors file or was cut: 0 bytes"),
        (b"PK\3\4 hello, I am a zip", "w.safetensors is no safetensors file or was cut"),
        (_file({"a": _entry(0, 4)}, 4)[:12], "w.safetensors is no safetensors file or was cut: 12 bytes"),
        (_file({"a": _entry(0, 4)}, 3), "w.safetensors must hold 4 bytes of weights, got 3"),
        (_file({"a": _entry(0, 4)}, 5), "w.safetensors must hold 4 bytes of weights, got 5"),
        (_file([], 0), "w.safetensors has no readable safetensors header"),
        (_file({"a": _entry(0, 4, dtype="I64")}, 4), "tensors must be F16, BF16 or F32, got I64"),
        (_file({"a": _entry(0, 4, shape=(3,))}, 4), r"4 bytes do not hold F16 of shape \(3,\)"),
        (_file({"a": _entry(0, 4, shape=(-1, -2))}, 4), r"4 bytes do not hold F16 of shape \(-1, -2\)"),
        (_file({"a": _entry(0, 4), "b": _entry(2, 6)}, 6), "data must follow each other, got a start of 2 after 4"),
        (_file({"a": {"dtype": "F16", "shape": [2], "data_offsets": [0]}}, 4), "no readable safetensors header"),
    ],
)
def test_a_damaged_weight_file_is_named_with_the_reason(tmp_path: Path, data: bytes, complaint: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    with pytest.raises(RegistryError, match=complaint):
        read_header(path)


def test_the_first_weight_that_does_not_fit_is_named() -> None:
    expected = {"a": (2,), "b": (3,)}
    found = {"a": TensorInfo("F16", (2,)), "b": TensorInfo("F16", (3,))}
    check_shapes(found, expected, source="x")
    with pytest.raises(RegistryError, match=r"x lacks the weight 'b' \(1 missing in all\)"):
        check_shapes({"a": found["a"]}, expected, source="x")
    with pytest.raises(RegistryError, match="x holds the weight 'c', which its spec does not have"):
        check_shapes({**found, "c": found["a"]}, expected, source="x")
    with pytest.raises(RegistryError, match=r"the weight 'b' must have shape \(3,\) by its spec, got \(4,\)"):
        check_shapes({**found, "b": TensorInfo("F16", (4,))}, expected, source="x")
    with pytest.raises(RegistryError, match=r"x holds the encoder weight 'encoder.stages.0' \(1 in all\)"):
        check_shapes({**found, "encoder.stages.0": found["a"]}, expected, source="x")
