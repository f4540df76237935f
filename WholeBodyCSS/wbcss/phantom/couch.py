"""The table the patient lies on: a curved carbon shell around foam."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .grid import Box, Field, Points
from .parts import Part

_HALF_WIDTH_MM = 210.0
_THICKNESS_MM = 42.0
_SHELL_MM = 4.0
_CURVE_MM = 22.0


@dataclass(frozen=True)
class _Couch:
    """Inside the table top, ``shrink_mm`` away from its surface; its lowest line lies at ``top_y``."""

    top_y: float
    shrink_mm: float

    @property
    def box(self) -> Box:
        low = (-_HALF_WIDTH_MM - 5, self.top_y - _THICKNESS_MM - 5, -1e6)
        return Box(low, (_HALF_WIDTH_MM + 5, self.top_y + _CURVE_MM + 5, 1e6))

    def distance(self, points: Points) -> Field:
        share = np.clip(np.abs(points.x) / np.float32(_HALF_WIDTH_MM), 0, 1.2)
        top = np.float32(self.top_y) + np.float32(_CURVE_MM) * share**2
        # A lens: full thickness in the middle, thin at the sides.
        bottom = np.float32(self.top_y) - np.float32(_THICKNESS_MM) * (1 - share**4)
        height = np.maximum(points.y - top, bottom - points.y)
        result = np.maximum(height, np.abs(points.x) - np.float32(_HALF_WIDTH_MM)) + np.float32(self.shrink_mm)
        return np.broadcast_to(result, points.shape)


def couch_parts(top_y: float) -> list[Part]:
    """Shell and foam of a table whose middle touches ``top_y``."""
    return [
        Part(organ="", shape=_Couch(top_y, 0.0), look="couch_shell"),
        Part(organ="", shape=_Couch(top_y, _SHELL_MM), look="couch_foam"),
    ]
