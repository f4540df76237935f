"""A small space of decoders, a table of invented times, and encoded patches on which a search takes seconds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tiny_training
import torch

from wbcss.nn.encoder import Encoder, freeze
from wbcss.specs import DecoderSpec, EncoderSpec
from wbcss_training.config import TrainConfig
from wbcss_training.features import FeaturePool, FeatureSpec, encode_pool
from wbcss_training.search.costmodel import CostModel
from wbcss_training.search.expected import Budget, LevelProbabilities, space_parts
from wbcss_training.search.latency import LatencyTable
from wbcss_training.search.measuring import Machine
from wbcss_training.search.parts import Part
from wbcss_training.search.run import SearchJob
from wbcss_training.search.searcher import SearchConfig
from wbcss_training.search.space import SearchSpace

ENCODER = EncoderSpec(
    stage_channels=(4, 6, 8),
    strides=((1, 1, 1), (2, 2, 2), (1, 2, 2)),
    kernels=((3, 3, 3),) * 3,
    convs_per_stage=(1, 1, 1),
    spacing_mm=(4.0, 4.0, 4.0),
    tile=(16, 16, 16),
)
FULL = DecoderSpec(stage_channels=(4, 6), kernels=((3, 3, 3),) * 2, convs_per_stage=(2, 1), num_organs=3)
SPACE = SearchSpace(encoder=ENCODER, full=FULL)
MACHINE = Machine(kind="cpu", name="made up", threads=1, precision="float32")
FEATURES = FeatureSpec(patch=ENCODER.tile, num_skips=3, autocast=False)


def seconds_of(part: Part) -> float:
    """An invented time: what a machine of a million multiply-accumulates per second and 0.1 ms per call takes."""
    return 1e-4 + part.macs(ENCODER, ENCODER.tile) / 1e6


def table(space: SearchSpace = SPACE) -> LatencyTable:
    """All parts of ``space`` with their invented times."""
    empty = LatencyTable(
        machine=MACHINE,
        tile=ENCODER.tile,
        strides=space.encoder.strides,
        stage_channels=space.encoder.stage_channels,
    )
    return empty.with_times({part: seconds_of(part) for part in space_parts(space)})


def model() -> CostModel:
    """Costs by the invented times."""
    return CostModel(table(), ENCODER)


def probabilities(rng: np.random.Generator, space: SearchSpace = SPACE) -> list[LevelProbabilities]:
    """Random probabilities of every choice."""

    def group(size: int) -> torch.Tensor:
        return torch.from_numpy(rng.dirichlet(np.ones(size)))

    return [
        LevelProbabilities(group(len(space.widths(n))), group(len(space.kernels)), group(len(space.counts(n))))
        for n in range(space.num_levels)
    ]


def job(*, train: TrainConfig | None = None, **search: Any) -> SearchJob:
    """A search of a few steps."""
    settings = SearchConfig(**{"budget": 0.4, **search})
    config = train or tiny_training.config(steps=12, checkpoint_every=5, log_every=4, learning_rate=1e-2)
    return SearchJob(
        space=SPACE, budget=Budget.of(SPACE, model(), share=settings.budget), train=config, search=settings
    )


def frozen_encoder() -> Encoder:
    """An encoder of random weights, the same in every call."""
    torch.manual_seed(4)
    encoder = Encoder(ENCODER)
    freeze(encoder)
    return encoder


def pool(folder: Path, *, count: int = 4, seed: int = 5) -> FeaturePool:
    """Encoded patches of boxes."""
    source = dataclasses.replace(tiny_training.BoxPatches(), seed=seed)
    return encode_pool(source, frozen_encoder(), folder, count=count, spec=FEATURES, device=torch.device("cpu"))
