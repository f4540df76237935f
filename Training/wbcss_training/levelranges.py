"""Where in the body the organs of a task were seen: learned at enrolment from patches that are encoded anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wbcss.bodypart import levels_of_planes, may_decide, observation_weight
from wbcss.cards import TaskCard
from wbcss.labels import OrganName
from wbcss.levels import LevelCurve, fit_curve, learned_range
from wbcss.loading import LoadedLevelHead, load_level_head
from wbcss.registry import Registry
from wbcss.specs import EncoderSpec

from .features import FeaturePool
from .patches import FeaturePatch

MIN_PLANES = 10
"""An organ seen on fewer planes has no range: nothing is skipped or dropped for it."""


def with_ranges(card: TaskCard, registry: Registry, pool: FeaturePool | None) -> TaskCard:
    """``card`` with where its organs were seen in ``pool``, if ``registry`` has a level head and there is a pool."""
    levels = None if pool is None else load_level_head(registry)
    if pool is None or levels is None:
        return card
    organs = [organ.name for organ in card.organs]
    return replace(card, body_part=learn_ranges(levels, pool, organs, registry.encoder_card().spec))


def learn_ranges(
    levels: LoadedLevelHead, pool: FeaturePool, organs: Sequence[OrganName], encoder: EncoderSpec
) -> dict[str, Any]:
    """The ``body_part`` of a task's card, as ``levelcard.ranges_of`` reads it; empty if nothing could be learned.

    Every patch of the pool is placed by its own curve, and every plane that shows an organ adds a level to it.

    Args:
        levels: The registry's head.
        pool: Encoded patches of the training cases. Pools that lack the encoder's deepest stage teach nothing.
        organs: Of channels 1, 2, ...
        encoder: Of the registry.
    """
    seen: dict[int, list[npt.NDArray[np.float64]]] = {}
    for index in range(pool.count):
        patch = pool.patch(index)
        if len(patch.skips) < len(encoder.stage_channels):
            return {}
        curve = _curve_of(levels, patch, encoder)
        if curve is None or not may_decide(curve):
            continue
        labels = patch.labels.numpy()
        at = curve.at(np.arange(labels.shape[2]) * encoder.spacing_mm[2])
        for channel in np.unique(labels):
            seen.setdefault(int(channel), []).append(at[(labels == channel).any(axis=(0, 1))])
    ranges = {}
    for channel, organ in enumerate(organs, start=1):
        found = np.concatenate(seen.get(channel, [np.zeros(0)]))
        if len(found) >= MIN_PLANES:
            ranges[organ] = [round(level, 2) for level in learned_range(found)]
    return {"head_sha256": levels.card.weights_sha256, "ranges_cm": ranges} if ranges else {}


def _curve_of(levels: LoadedLevelHead, patch: FeaturePatch, encoder: EncoderSpec) -> LevelCurve | None:
    """Levels along a patch, from its bottom."""
    at_cm, scales = levels_of_planes(levels.head, patch.skips[-1])
    step = patch.labels.shape[2] // len(at_cm)
    heights = (np.arange(len(at_cm)) * step + (step - 1) / 2) * encoder.spacing_mm[2]
    weights = [
        observation_weight(level, scale, levels.card.scale_factor) for level, scale in zip(at_cm, scales, strict=True)
    ]
    return fit_curve(heights, at_cm, weights)
