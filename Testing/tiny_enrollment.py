"""A registry with an encoder and an earlier task, annotated scans, and a request that enrolls them in seconds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import tiny_cases
import torch

from wbcss.cards import EncoderCard, TaskCard
from wbcss.catalogue import find
from wbcss.io.reading import read_volume
from wbcss.io.writing import write_volume
from wbcss.labels import OrganName, TaskId
from wbcss.loading import save_weights
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import Encoder
from wbcss.registry import Registry, StagedEncoder, StagedTask
from wbcss.segment import SegmentOptions
from wbcss.specs import DecoderSpec, EncoderSpec, spec_to_json
from wbcss_training.annotation import image_hash
from wbcss_training.cases import read_case_list
from wbcss_training.config import TrainConfig
from wbcss_training.enrollment import EnrollmentRequest

TASK = TaskId("belly")
ORGANS = (OrganName("kidney_left"), OrganName("kidney_right"), OrganName("liver"))
ENCODER = EncoderSpec(
    stage_channels=(4, 6, 8),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 3,
    convs_per_stage=(1, 1, 1),
    spacing_mm=(6.0, 6.0, 6.0),
    windows_hu=((-1000.0, 1000.0), (-160.0, 240.0)),
    tile=(16, 16, 16),
)
DECODER = DecoderSpec(stage_channels=(4, 4), kernels=((3, 3, 3),) * 2, convs_per_stage=(1, 1), num_organs=3)
CONFIG = TrainConfig(
    steps=8,
    batch_size=2,
    learning_rate=1e-2,
    warmup_steps=2,
    ema_decay=0.5,
    sampled_voxels=512,
    deep_supervision=2,
    checkpoint_every=2,
    log_every=1,
    autocast=False,
)
CONTRAST = np.array([0, 180, 110, 50], np.int16)
"""HU that the values of ``tiny_cases.labels`` add, so that organs can be told from the rest."""

SEGMENTATION = SegmentOptions(device="cpu", backend="torch", overlap=0.0, threads=1)


def registry_with_earlier_task(root: Path) -> Registry:
    """An encoder of random weights and a task ``spine`` on it."""
    registry = Registry(root)
    torch.manual_seed(11)
    weights = root.parent / f"{root.name}.safetensors"
    save_weights(Encoder(ENCODER).state_dict(), weights)
    card = EncoderCard(name="tiny", spec=ENCODER, license="CC0-1.0", provenance="random numbers", created="2026-11-20")
    encoder = registry.publish_encoder(StagedEncoder(card=card, weights=weights))
    spec = dataclasses.replace(DECODER, num_organs=1)
    save_weights(Decoder(spec, ENCODER).state_dict(), weights)
    task = TaskCard(
        task=TaskId("spine"),
        organs=find(["vertebrae_L1"]),
        spec=spec,
        encoder_sha256=encoder.weights_sha256,
        training_cases=1,
        license="CC0-1.0",
        provenance="random numbers",
        created="2026-11-20",
    )
    registry.publish(StagedTask(card=task, weights=weights))
    weights.unlink()
    return registry


def write_pairs(folder: Path, *, count: int) -> list[dict[str, str]]:
    """The patients of ``tiny_cases`` with organs that can be told from the rest; returns the entries of their list."""
    entries = tiny_cases.write_pairs(folder, count=count)
    for number, entry in enumerate(entries):
        hu = tiny_cases.hu(number) + CONTRAST[tiny_cases.labels()]
        write_volume(folder / entry["image"], hu, tiny_cases.AFFINE)
    return entries


def request(folder: Path, *, count: int = 4, num_validation: int = 1, **changes: Any) -> EnrollmentRequest:
    """``count`` new scans in ``folder``, the last ``num_validation`` of which are held out."""
    tiny_cases.write_list(folder, write_pairs(folder, count=count))
    return request_of(folder, num_validation=num_validation, **changes)


def request_of(folder: Path, *, num_validation: int = 1, **changes: Any) -> EnrollmentRequest:
    """The scans that lie in ``folder``."""
    cases = read_case_list(folder / "list.json")
    ids = tuple(image_hash(read_volume(case.image_path).volume) for case in cases)
    at = len(cases) - num_validation
    made = EnrollmentRequest(
        task=TASK,
        organs=ORGANS,
        training=cases[:at],
        validation=cases[at:],
        training_ids=ids[:at],
        validation_ids=ids[at:],
        decoder=DECODER,
        train=CONFIG,
        cache_gib=0.01,
        segmentation=SEGMENTATION,
        license="CC0-1.0",
        provenance="tiny bodies",
        limits="knows blocks only",
    )
    return dataclasses.replace(made, **changes)


def command(folder: Path, cases: Path, registry: Registry) -> list[str]:
    """Arguments of a quick ``wbcss-train enroll`` whose run folder is ``folder/run``."""
    (folder / "schedule.json").write_text(json.dumps(spec_to_json(CONFIG)))
    (folder / "decoder.json").write_text(json.dumps(spec_to_json(DECODER)))
    options = {
        "--cases": cases,
        "--task": TASK,
        "--registry": registry.root,
        "--run": folder / "run",
        "--config": folder / "schedule.json",
        "--decoder": folder / "decoder.json",
        "--cache-gib": 0.01,
        "--workers": 0,
        "--device": "cpu",
        "--threads": 1,
        "--license": "CC0-1.0",
        "--provenance": "tiny bodies",
    }
    return [str(word) for pair in options.items() for word in pair]
