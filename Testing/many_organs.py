"""A label array with as many organs as a whole body has, made in a moment, for tests and measurements of speed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wbcss.catalogue import Organ, catalogue
from wbcss.protocol import OrganItem

CELLS = (6, 6, 4)
"""Boxes along i, j, k; each holds one organ."""

NUM_ORGANS = 143


def many_organs(side: int, organs: list[Organ]) -> npt.NDArray[np.uint16]:
    """A cube of ``side`` voxels, i fastest in memory as the worker writes it, with one wavy ball per organ."""
    labels = np.zeros((side,) * 3, dtype=np.uint16, order="F")
    size = tuple(side // count for count in CELLS)
    axes = [np.linspace(-1, 1, count) for count in size]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    wave = np.sin(5 * np.arctan2(y, x)) * np.cos(4 * z)
    ball = np.sqrt(x * x + y * y + z * z) < 0.85 * (1 + 0.12 * wave)
    places = np.ndindex(CELLS)
    for organ, place in zip(organs, places, strict=False):
        box = tuple(slice(n * step, (n + 1) * step) for n, step in zip(place, size, strict=True))
        labels[box][ball] = organ.label
    return labels


def first_organs(count: int = NUM_ORGANS) -> list[Organ]:
    """The first ``count`` organs of the catalogue."""
    return list(catalogue().values())[:count]


def items_of(organs: list[Organ]) -> tuple[OrganItem, ...]:
    """``organs`` as the worker tells of them."""
    return tuple(
        OrganItem(
            name=organ.name,
            label=organ.label,
            display_name=organ.display_name,
            group=organ.group,
            color_rgb=organ.color_rgb,
            terminology=organ.terminology,
            tasks=("wholebody",),
        )
        for organ in organs
    )
