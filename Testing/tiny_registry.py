"""Small encoders, tasks and registries that publish in milliseconds."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wbcss.cards import EncoderCard, TaskCard
from wbcss.catalogue import Organ
from wbcss.labels import OrganName, TaskId
from wbcss.registry import Registry, StagedEncoder, StagedTask
from wbcss.specs import DecoderSpec, EncoderSpec
from wbcss.terminology import Code
from wbcss.weights import Shapes, decoder_shapes, encoder_shapes

ENCODER_SPEC = EncoderSpec(
    stage_channels=(2, 4, 4),
    strides=((1, 1, 1), (2, 2, 2), (1, 2, 2)),
    kernels=((3, 3, 3), (3, 3, 3), (1, 3, 3)),
    convs_per_stage=(1, 2, 1),
    tile=(8, 8, 8),
)
CATEGORY = Code(scheme="SCT", value="91723000", meaning="Anatomical Structure")
KIND = Code(scheme="SCT", value="10200004", meaning="Liver")


def make_organ(name: str, label: int) -> Organ:
    """An organ that the catalogue need not know."""
    return Organ(
        name=OrganName(name),
        label=label,
        side="none",
        group="abdomen",
        color_rgb=(label % 256, 100, 50),
        category=CATEGORY,
        type=KIND,
    )


def decoder_spec(num_organs: int) -> DecoderSpec:
    """Two levels on ``ENCODER_SPEC``."""
    return DecoderSpec(
        stage_channels=(2, 3), kernels=((3, 3, 3), (3, 3, 3)), convs_per_stage=(1, 2), num_organs=num_organs
    )


def safetensors_bytes(shapes: Shapes, *, seed: int = 0) -> bytes:
    """A float16 safetensors file written by hand: eight bytes of length, a JSON header, the numbers."""
    rng = np.random.default_rng(seed)
    header: dict[str, Any] = {}
    blobs: list[bytes] = []
    start = 0
    for name, shape in sorted(shapes.items()):
        blob = rng.normal(0, 0.1, math.prod(shape)).astype("<f2").tobytes()
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, start + len(blob)]}
        blobs.append(blob)
        start += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(blobs)


def encoder_card(**changes: Any) -> EncoderCard:
    """A card that is not published yet."""
    card = EncoderCard(
        name="tiny", spec=ENCODER_SPEC, license="CC0-1.0", provenance="random numbers", created="2026-11-20"
    )
    return dataclasses.replace(card, **changes)


def task_card(
    task: str = "liver", organs: Mapping[str, int] | None = None, *, encoder_sha256: str = "0" * 64, **changes: Any
) -> TaskCard:
    """A card that is not published yet; ``organs`` are names and label values."""
    made = tuple(make_organ(name, label) for name, label in (organs or {"liver": 5, "x_cyst": 10000}).items())
    card = TaskCard(
        task=TaskId(task),
        organs=made,
        spec=decoder_spec(len(made)),
        encoder_sha256=encoder_sha256,
        training_cases=7,
        license="CC0-1.0",
        provenance="random numbers",
        created="2026-11-20",
    )
    return dataclasses.replace(card, **changes)


def new_registry(root: Path, *, seed: int = 0) -> Registry:
    """A registry with an encoder and no task."""
    registry = Registry(root)
    weights = root.parent / f"{root.name}-encoder-{seed}.safetensors"
    weights.write_bytes(safetensors_bytes(encoder_shapes(ENCODER_SPEC), seed=seed))
    registry.publish_encoder(StagedEncoder(card=encoder_card(), weights=weights))
    return registry


def stage_task(
    registry: Registry, task: str = "liver", organs: Mapping[str, int] | None = None, *, seed: int = 1, **changes: Any
) -> StagedTask:
    """A task for the encoder of ``registry``, its weights beside the registry."""
    card = task_card(task, organs, encoder_sha256=registry.encoder_card().weights_sha256, **changes)
    weights = registry.root.parent / f"{task}-{seed}.safetensors"
    weights.write_bytes(safetensors_bytes(decoder_shapes(card.spec, ENCODER_SPEC), seed=seed))
    return StagedTask(card=card, weights=weights)


def publish(
    registry: Registry, task: str = "liver", organs: Mapping[str, int] | None = None, *, seed: int = 1, **changes: Any
) -> TaskCard:
    """Stage and publish a task."""
    return registry.publish(stage_task(registry, task, organs, seed=seed, **changes))
