"""The evidence of a finished decoder, for its card and the file beside: how sure it is, how its organs look."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wbcss.cards import EncoderCard, TaskCard
from wbcss.loading import LoadedModel, TaskEvidence, save_evidence
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import Encoder
from wbcss.nn.model import WholeBodyModel
from wbcss.progress import IsCancelled, Progress, check_cancelled, never, silent
from wbcss.segment import SegmentOptions

from .annotation import Case
from .certainty import MAX_TRAINING_PATCHES, Certainty, ClaimedVoxels, draw_claimed_voxels, learn_certainty
from .features import FeaturePool
from .normality import NUM_DESCRIBED, describe_cases, normality


def gather_evidence(
    decoder: Decoder,
    encoder: Encoder,
    *,
    card: TaskCard,
    encoder_card: EncoderCard,
    training: tuple[Case, ...],
    held_out: tuple[Case, ...],
    training_pool: FeaturePool | None,
    held_out_pool: FeaturePool | None,
    options: SegmentOptions,
    path: Path,
    seconds: float = math.inf,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> Mapping[str, Any]:
    """Write the evidence of ``decoder`` to ``path``, if there is any, and return what belongs on the card.

    Args:
        decoder, encoder: As they will be loaded from the registry.
        card: Of the decoder, calibrated.
        encoder_card: Of the registry.
        training, held_out: Cases; of the former at most ``normality.NUM_DESCRIBED`` are segmented.
        training_pool, held_out_pool: Their encoded patches, or None.
        options: How to segment.
        path: Where the file goes.
        seconds: No further case is segmented when this time is over; held-out cases come first.
        progress: Told after every case.
        cancelled: Asked before every patch and tile.

    Returns:
        JSON for ``TaskCard.confidence`` and ``TaskCard.anomaly`` under these names, and ``is_written``.

    Raises:
        CaseError: a case cannot be used.
        Cancelled: ``cancelled`` returned true.
    """
    certainty = _certainty(decoder, card, training_pool, held_out_pool, cancelled)
    model = LoadedModel(WholeBodyModel(encoder, {card.task: decoder}), encoder_card, {card.task: card})
    shown = training[:NUM_DESCRIBED]
    described = describe_cases(
        model, card.task, (*held_out, *shown), options=options, seconds=seconds, progress=progress, cancelled=cancelled
    )
    reference, anomaly = normality(described[len(held_out) :], described[: len(held_out)], card.organs)
    evidence = TaskEvidence(certainty.head, reference)
    is_written = certainty.head is not None or reference is not None
    if is_written:
        save_evidence(evidence, path)
    progress(1.0, "evidence gathered")
    return {"confidence": certainty.facts, "anomaly": anomaly, "is_written": is_written}


def with_evidence(card: TaskCard, facts: Mapping[str, Any]) -> TaskCard:
    """``card`` with what ``gather_evidence`` found; what else its ``anomaly`` said stays."""
    return replace(card, confidence=dict(facts["confidence"]), anomaly={**card.anomaly, **facts["anomaly"]})


def _certainty(
    decoder: Decoder,
    card: TaskCard,
    training: FeaturePool | None,
    held_out: FeaturePool | None,
    cancelled: IsCancelled,
) -> Certainty:
    def drawn(pool: FeaturePool | None, most: int) -> list[ClaimedVoxels]:
        voxels = []
        for number in range(min(most, 0 if pool is None else pool.count)):
            check_cancelled(cancelled)
            assert pool is not None  # noqa: S101 -- the range is empty without one
            patch = pool.patch(number)
            voxels.append(draw_claimed_voxels(decoder, patch, temperature=card.temperature, seed=number))
        return voxels

    return learn_certainty(
        decoder,
        drawn(training, MAX_TRAINING_PATCHES),
        drawn(held_out, 2**31),
        temperature=card.temperature,
    )
