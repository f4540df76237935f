"""Models and scans whose levels are known in closed form: HU tell the level, and the level head reads it off them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from analytic_model import SHA, Thresholds, ras_affine, threshold_model

from wbcss.labels import OrganName
from wbcss.levelcard import LevelCard
from wbcss.levels import LevelRange
from wbcss.loading import LoadedLevelHead, LoadedModel
from wbcss.nn.encoder import freeze
from wbcss.nn.levelhead import LOG_SPAN, MIDDLE_CM, MIDDLE_SCALE_CM, UNIT_CM, LevelHead
from wbcss.volume import Volume

SPACING_MM = 3.0
REGIONS: dict[str, LevelRange] = {
    "head": (0, 17),
    "chest": (17, 54),
    "abdomen": (54, 70),
    "pelvis": (70, 89),
    "legs": (89, 172),
}
SCALE_CM = 0.6
"""How sure the head is."""


def hu_of(level_cm: float) -> float:
    """HU of a body at ``level_cm``; at 45 cm and above they are a body's."""
    return 10.0 * level_cm - 900.0


def level_card(ranges: Mapping[str, LevelRange] | None = None, **changes: object) -> LevelCard:
    """A card that is not published yet."""
    card = LevelCard(
        encoder_sha256=SHA,
        hidden=1,
        regions_cm=REGIONS,
        anchors_cm={OrganName("vertebrae_L1"): 60.0},
        ranges_cm={OrganName(name): levels for name, levels in (ranges or {}).items()},
        scale_factor=1.0,
        margin_cm=0.5,
        license="CC0-1.0",
        provenance="made by a test",
        created="2026-11-20",
    )
    return dataclasses.replace(card, **changes)  # type: ignore[arg-type]


def reading_head() -> LevelHead:
    """Reads the mean of the one deep channel, (HU + 1000) / 1000, as a level."""
    head = LevelHead(1, 1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        head.embed.weight.fill_(1.0)
        head.mix.weight[0, 0] = 1.0
        # HU = 10 level - 900, so the feature is level / 100 + 0.1.
        head.answer.weight[0, 0] = 100.0 / UNIT_CM
        head.answer.bias[0] = (-10.0 - MIDDLE_CM) / UNIT_CM
        head.answer.bias[1] = LOG_SPAN * float(np.arctanh(np.log(SCALE_CM / MIDDLE_SCALE_CM) / LOG_SPAN))
    freeze(head)
    return head


def level_model(
    tasks: Mapping[str, Thresholds], ranges: Mapping[str, LevelRange], *, tile: tuple[int, int, int] = (8, 8, 16)
) -> LoadedModel:
    """A threshold model whose deepest features hold the HU, and a head that reads levels off them."""
    model = threshold_model(tasks, spacing_mm=(SPACING_MM,) * 3, tile=tile)
    with torch.no_grad():
        model.network.encoder.stages[1][0].conv.weight.fill_(1.0)
    return dataclasses.replace(model, levels=LoadedLevelHead(reading_head(), level_card(ranges)))


def body(first_cm: float, num_planes: int, *, is_reversed: bool = False) -> Volume:
    """A block of body whose topmost plane lies at ``first_cm``, levels rising downwards by 1 cm per cm."""
    levels = first_cm + SPACING_MM / 10 * np.arange(num_planes)[::-1]
    planes = hu_of(levels[::-1] if is_reversed else levels)
    voxels = np.broadcast_to(planes, (10, 8, num_planes)).round().astype(np.int16)
    return Volume(np.ascontiguousarray(voxels), ras_affine((SPACING_MM,) * 3))


def levels_of(num_planes: int, first_cm: float) -> np.ndarray:
    """Level of every plane of ``body``."""
    return first_cm + SPACING_MM / 10 * np.arange(num_planes)[::-1]
