"""What is inside a safetensors file, read without torch, and what a spec says should be inside."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import RegistryError
from .specs import DecoderSpec, EncoderSpec, Kernel3

MAX_WEIGHTS_BYTES = 2 << 30
_MAX_HEADER_BYTES = 16 << 20
_ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4}
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a weight file: its safetensors type name and its shape."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Name, type and shape of every tensor of a safetensors file, whose data must fill the file without gaps.

    Raises RegistryError naming the file and what is wrong.
    """
    num_bytes = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if num_bytes < 8 or length > min(_MAX_HEADER_BYTES, num_bytes - 8):
            raise RegistryError(f"{path.name} is no safetensors file or was cut: {num_bytes} bytes")
        text = stream.read(length)
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        infos = {str(name): _tensor_info(entry) for name, entry in entries.items()}
        spans = sorted((int(entry["data_offsets"][0]), int(entry["data_offsets"][1])) for entry in entries.values())
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise RegistryError(f"{path.name} has no readable safetensors header: {error}") from error
    end = 0
    for start, stop in spans:
        if start != end:
            raise RegistryError(f"{path.name}: tensor data must follow each other, got a start of {start} after {end}")
        end = stop
    if end != num_bytes - 8 - length:
        raise RegistryError(f"{path.name} must hold {end} bytes of weights, got {num_bytes - 8 - length}")
    return infos


def _tensor_info(entry: Any) -> TensorInfo:
    if entry["dtype"] not in _ITEM_BYTES:
        raise ValueError(f"tensors must be F16, BF16 or F32, got {entry['dtype']}")
    shape = tuple(int(n) for n in entry["shape"])
    start, stop = entry["data_offsets"]
    if any(n < 0 for n in shape) or stop - start != math.prod(shape) * _ITEM_BYTES[entry["dtype"]]:
        raise ValueError(f"{stop - start} bytes do not hold {entry['dtype']} of shape {shape}")
    return TensorInfo(entry["dtype"], shape)


def largest_file_bytes(shapes: Shapes) -> int:
    """Upper bound for the size of a file that holds tensors of these shapes and nothing else."""
    header_bytes = sum(len(name.encode()) + 512 for name in shapes)
    return (1 << 16) + header_bytes + 4 * sum(math.prod(shape) for shape in shapes.values())


def check_shapes(found: Mapping[str, TensorInfo], expected: Shapes, *, source: str) -> None:
    """Raise RegistryError naming the first tensor of ``source`` that is missing, unexpected or of another shape."""
    foreign = sorted(name for name in set(found) - set(expected) if name.startswith("encoder."))
    if foreign:
        raise RegistryError(
            f"{source} holds the encoder weight {foreign[0]!r} ({len(foreign)} in all); a decoder file holds the "
            "weights of its own task only"
        )
    missing = sorted(set(expected) - set(found))
    if missing:
        raise RegistryError(f"{source} lacks the weight {missing[0]!r} ({len(missing)} missing in all)")
    unexpected = sorted(set(found) - set(expected))
    if unexpected:
        raise RegistryError(
            f"{source} holds the weight {unexpected[0]!r}, which its spec does not have ({len(unexpected)} in all)"
        )
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise RegistryError(
                f"{source}: the weight {name!r} must have shape {shape} by its spec, got {found[name].shape}"
            )


def encoder_shapes(spec: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of ``nn.encoder.Encoder(spec)``."""
    widths = (spec.in_channels, *spec.stage_channels)
    shapes: dict[str, tuple[int, ...]] = {}
    for stage, kernel in enumerate(spec.kernels):
        kernels = (kernel,) * spec.convs_per_stage[stage]
        shapes |= _stack_shapes(f"stages.{stage}", widths[stage], widths[stage + 1], kernels=kernels)
    return shapes


def decoder_shapes(spec: DecoderSpec, encoder: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of ``nn.decoder.Decoder(spec, encoder)``.

    Raises RegistryError if the decoder is deeper than the encoder.
    """
    widths = spec.stage_channels
    if len(widths) > len(encoder.stage_channels) - 1:
        raise RegistryError(
            f"a decoder of {len(widths)} levels needs an encoder of at least {len(widths) + 1} stages, "
            f"got {len(encoder.stage_channels)}"
        )
    below = (*widths[1:], encoder.stage_channels[len(widths)])
    shapes: dict[str, tuple[int, ...]] = {}
    for level, width in enumerate(widths):
        shapes[f"ups.{level}.weight"] = (below[level], width, *encoder.strides[level + 1])
        shapes[f"ups.{level}.bias"] = (width,)
    for level, width in enumerate(widths):
        in_channels = width + encoder.stage_channels[level]
        shapes |= _stack_shapes(f"stages.{level}", in_channels, width, kernels=spec.block_kernels(level))
    shapes["head.weight"] = (1 + spec.num_organs, spec.num_features, 1, 1, 1)
    shapes["head.bias"] = (1 + spec.num_organs,)
    return shapes


CONFIDENCE_WIDTH = 16
"""Hidden units of a confidence head."""

ORGAN_SCALE = "confidence.organ_scale"
"""The one tensor of a confidence head that may be missing."""


def confidence_shapes(spec: DecoderSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a ``confidence.ConfidenceHead`` beside the decoder of ``spec`` must have."""
    return {
        "confidence.hidden_weight": (CONFIDENCE_WIDTH, spec.num_features + 1),
        "confidence.hidden_bias": (CONFIDENCE_WIDTH,),
        "confidence.out_weight": (CONFIDENCE_WIDTH,),
        "confidence.out_bias": (1,),
        "confidence.scale": (2,),
    }


def anomaly_shapes(spec: DecoderSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of ``anomaly.OrganReference`` beside the decoder of ``spec``."""
    size = 2 * spec.num_features
    return {
        "anomaly.count": (spec.num_organs,),
        "anomaly.total": (spec.num_organs, size),
        "anomaly.scatter": (size, size),
    }


def evidence_shapes(spec: DecoderSpec, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of an evidence file that holds ``names``: either part may be missing, but not half of one."""
    held = set(names)
    prefixes = {name.split(".")[0] for name in held}
    parts = {"confidence": confidence_shapes(spec), "anomaly": anomaly_shapes(spec)}
    if ORGAN_SCALE in held:
        parts["confidence"][ORGAN_SCALE] = (spec.num_organs, 2)
    return {name: shape for prefix in parts if prefix in prefixes for name, shape in parts[prefix].items()}


def _stack_shapes(
    prefix: str, in_channels: int, out_channels: int, *, kernels: Sequence[Kernel3]
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for block, kernel in enumerate(kernels):
        source = in_channels if block == 0 else out_channels
        shapes[f"{prefix}.{block}.conv.weight"] = (out_channels, source, *kernel)
        for name in ("conv.bias", "norm.weight", "norm.bias"):
            shapes[f"{prefix}.{block}.{name}"] = (out_channels,)
    return shapes
