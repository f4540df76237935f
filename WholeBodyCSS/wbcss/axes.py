"""Anatomical names of directions: R, A, S and their opposites L, P, I."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import numpy.typing as npt

from .volume import Affine

TOWARD = "RAS"
AWAY = "LPI"

_OBLIQUE = 0.26
"""A direction is named by every axis it leans toward by more than 15 degrees."""


def axes_of(affine: Affine) -> str:
    """Where i, j and k point, as "RAS" or "LPS": for oblique grids the nearest ones, each anatomical axis once."""
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    columns = np.arange(3)
    worlds = max(permutations(range(3)), key=lambda order: float(np.abs(cosines[list(order), columns]).sum()))
    return "".join((TOWARD if cosines[world, axis] > 0 else AWAY)[world] for axis, world in enumerate(worlds))


def direction_letters(direction: npt.NDArray[np.float64]) -> str:
    """Letters of a RAS ``direction`` (3,), the strongest first: "A", or "AR" if it leans clearly to the right."""
    unit = direction / np.linalg.norm(direction)
    order = sorted(range(3), key=lambda world: -abs(float(unit[world])))
    named = [world for n, world in enumerate(order) if n == 0 or abs(float(unit[world])) > _OBLIQUE]
    return "".join((TOWARD if unit[world] > 0 else AWAY)[world] for world in named)
