"""A trained decoder before it is published: calibrated and measured on held-out cases, as the product will run it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wbcss.cards import EncoderCard, TaskCard
from wbcss.loading import LoadedModel, load_weights
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import Encoder, freeze
from wbcss.nn.model import WholeBodyModel
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.segment import SegmentOptions
from wbcss.storage import sha256_file
from wbcss.weights import decoder_shapes

from .annotation import Case
from .calibration import Calibration, Voxels, calibrate, draw_organ_voxels
from .evaluate import evaluate, report_json
from .features import FeaturePool
from .overlays import WorstCases
from .scoring import held_out_summary, without_validation

_UNCALIBRATED = Calibration(temperature=1.0, ece_before=0.0, ece_after=0.0, num_voxels=0)


def load_staged(path: Path, card: TaskCard, encoder: Encoder) -> Decoder:
    """The decoder of ``card`` with the weights at ``path``: rounded to float16, as everybody will load them."""
    decoder = Decoder(card.spec, encoder.spec)
    shapes = decoder_shapes(card.spec, encoder.spec)
    decoder.load_state_dict(load_weights(path, sha256=sha256_file(path), shapes=shapes))
    freeze(decoder)
    return decoder


def calibrate_on(decoder: Decoder, pool: FeaturePool | None) -> Calibration:
    """Temperature and calibration error on held-out patches; temperature 1 where they hold no organ or are none."""
    if pool is None:
        return _UNCALIBRATED
    groups: list[Voxels] = [draw_organ_voxels(decoder, pool.patch(n), seed=n) for n in range(pool.count)]
    return calibrate(groups) if any(len(group.labels) for group in groups) else _UNCALIBRATED


def calibration_json(calibration: Calibration) -> dict[str, Any]:
    """For the card: the temperature, and the errors with their reliability diagrams if they were measured."""
    if not calibration.num_voxels:
        return {"temperature": 1.0, "note": "not calibrated: no held-out voxel of these organs"}
    facts = dataclasses.asdict(calibration)
    tables = {side: list(facts.pop(side)) for side in ("before", "after")}
    return {
        **{name: round(value, 5) if isinstance(value, float) else value for name, value in facts.items()},
        "reliability": tables,
        "note": "on voxels of held-out cases that the reference or the decoder gives to an organ",
    }


def judge(
    decoder: Decoder,
    encoder: Encoder,
    *,
    card: TaskCard,
    encoder_card: EncoderCard,
    cases: tuple[Case, ...],
    pool: FeaturePool | None,
    options: SegmentOptions,
    chosen_on_them: bool,
    pictures: Path | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> Mapping[str, Any]:
    """What held-out cases say, as JSON: ``held_out`` and ``calibration`` for the card, ``scores`` of every case.

    The task is run alone, by the product's own inference: this is what its decoder can do. What other tasks of the
    registry take from it where they overlap is the merge's doing.

    Args:
        decoder, encoder: As they will be loaded from the registry.
        card: Draft of the task's card.
        encoder_card: Of the registry.
        cases: Held out; may be none.
        pool: Encoded patches of ``cases``, to calibrate on.
        options: How to segment.
        chosen_on_them: Whether the same cases decided when training stopped.
        pictures: Folder for pictures of the worst cases, whose names are in ``overlays``; None draws none.
        progress: Told after every case.
        cancelled: Asked before every tile.
    """
    calibration = calibration_json(calibrate_on(decoder, pool))
    if not cases:
        return {"held_out": without_validation(), "calibration": calibration, "scores": [], "overlays": []}
    network = WholeBodyModel(encoder, {card.task: decoder})
    model = LoadedModel(network, encoder_card, {card.task: replace(card, calibration=calibration)})
    worst = None if pictures is None else WorstCases(pictures)
    evaluation = evaluate(model, cases, options=options, watcher=worst, progress=progress, cancelled=cancelled)
    return {
        "held_out": held_out_summary(evaluation, chosen_on_them=chosen_on_them),
        "calibration": calibration,
        "scores": report_json(evaluation)["cases"],
        "overlays": [] if worst is None else list(worst.names),
    }
