"""What differs from one phantom body to the next, drawn from the seed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..errors import InputError
from .grid import Point_mm

Region = Literal["whole", "chest", "head_neck", "abdomen"]
Phase = Literal["native", "arterial", "portal"]
Arms = Literal["down", "up", "none"]

_PHASES: tuple[Phase, ...] = get_args(Phase)
_MAX_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class BodyPlan:
    """One body. The standard body is 1.72 m tall; every field changes it in one way.

    Attributes:
        scale: Factors of the standard body along (x, y, z): breadth, depth, stature.
        fat_mm: Thickness of the fat under the skin of the belly; other places follow.
        phase: When the scan was taken after contrast: never, arterial or portal venous.
        arms: Beside the body, above the head, or outside the field of view.
        noise_hu: Standard deviation of the noise in a thin slice.
        breath_mm: How far the diaphragm stands above (+) or below (-) its usual height.
        lean_rad, curve_mm: Tilt of the trunk in the coronal plane, and its sideways bow.
    """

    seed: int
    scale: Point_mm
    fat_mm: float
    phase: Phase
    arms: Arms
    noise_hu: float
    breath_mm: float
    lean_rad: float
    curve_mm: float

    @classmethod
    def draw(cls, seed: int) -> BodyPlan:
        """The body of ``seed`` (0 or more); the same seed gives the same body for good."""
        if not 0 <= seed <= _MAX_SEED:
            raise InputError(f"the phantom's seed must be 0..{_MAX_SEED}, got {seed}")
        rng = np.random.default_rng([seed, 0x70686E74])
        stature = float(rng.uniform(0.91, 1.09))
        girth = float(rng.beta(1.6, 2.6))
        breadth = stature**0.6 * float(rng.uniform(0.95, 1.05)) * (1 + 0.03 * girth)
        depth = stature**0.6 * float(rng.uniform(0.94, 1.04)) * (1 + 0.06 * girth)
        return cls(
            seed=seed,
            scale=(breadth, depth, stature),
            fat_mm=6 + 34 * girth,
            phase=_PHASES[rng.choice(3, p=(0.3, 0.2, 0.5))],
            arms=("down", "up", "none")[rng.choice(3, p=(0.4, 0.4, 0.2))],
            noise_hu=float(rng.uniform(8, 22)),
            breath_mm=float(rng.uniform(-10, 12)),
            lean_rad=float(rng.normal(0, 0.012)),
            curve_mm=float(rng.normal(0, 4)),
        )

    def rng(self, topic: str) -> np.random.Generator:
        """A generator of its own for ``topic``, so that no part of the body depends on the order of painting."""
        return np.random.default_rng([self.seed, zlib.crc32(topic.encode())])

    def jitter(self, organ: str) -> tuple[float, Point_mm]:
        """Size factor and offset in millimeters of one soft organ."""
        rng = self.rng(f"jitter {organ}")
        dx, dy, dz = (float(v) for v in np.clip(rng.normal(0, (2.0, 2.0, 3.5)), -7, 7))
        return float(np.clip(rng.normal(1.0, 0.05), 0.9, 1.1)), (dx, dy, dz)
