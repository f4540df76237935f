"""The outer form of the body, its fat, and the cavities of the trunk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from .grid import Box, Field, Points
from .parts import SIDES, Row4, sided
from .plan import BodyPlan
from .shapes import FAR_MM, AllOf, AnyOf, Grown, Loft, Shape, Under, loft, rod, smooth_tube

SKIN_MM = 2.0
_BLEND_MM = 14.0

# Rows of lofts: z, half width, back y, front y (muscle surface, without fat and skin).
_TRUNK = (
    (798, 16, -34, 16), (815, 62, -74, 42), (836, 122, -102, 58), (862, 156, -114, 66), (900, 166, -120, 74),
    (950, 160, -116, 82),
    (1000, 148, -106, 89), (1050, 139, -101, 92), (1090, 138, -101, 94), (1130, 146, -106, 97), (1180, 154, -110, 100),
    (1230, 157, -113, 99), (1280, 159, -115, 94), (1330, 163, -114, 84), (1370, 168, -110, 72), (1398, 158, -102, 58),
    (1420, 120, -90, 46), (1438, 80, -76, 40), (1460, 60, -66, 38),
)  # fmt: skip
_NECK = (
    (1425, 66, -74, 44), (1450, 57, -66, 44), (1480, 53, -62, 46), (1510, 53, -60, 50), (1540, 56, -62, 40),
    (1570, 58, -66, 30),
)  # fmt: skip
_FACE = (
    (1486, 18, 38, 76), (1494, 36, 8, 90), (1510, 50, -8, 96), (1535, 58, -20, 98), (1560, 63, -35, 98),
    (1590, 66, -50, 100), (1620, 68, -60, 101), (1650, 64, -60, 94),
)  # fmt: skip
_CRANIUM = (
    (1562, 48, -72, 20), (1580, 66, -84, 60), (1610, 74, -91, 96), (1640, 76, -92, 99), (1665, 72, -86, 94),
    (1685, 61, -72, 80), (1700, 46, -54, 62), (1711, 28, -34, 42), (1717, 8, -10, 18),
)  # fmt: skip
_LEG = (
    (55, 88, 30, -38, 24), (90, 87, 31, -46, 22), (130, 87, 34, -48, 20), (220, 88, 44, -60, 24),
    (340, 90, 54, -70, 32),
    (420, 89, 52, -62, 36), (480, 88, 54, -52, 48), (540, 88, 58, -54, 54), (640, 91, 70, -66, 66),
    (740, 92, 78, -78, 72), (815, 92, 79, -90, 70), (850, 89, 74, -90, 64), (880, 84, 60, -70, 50),
    (900, 80, 34, -40, 28),
)  # fmt: skip
_FOOT = (
    (88, -22, 62, 30),
    (90, 20, 62, 34),
    (94, 55, 38, 30),
    (98, 90, 12, 24),
    (101, 118, -12, 18),
    (102, 132, -26, 11),
)
_ARM_DOWN = (
    (166, -30, 1384, 46),
    (186, -28, 1330, 48),
    (208, -26, 1240, 45),
    (228, -22, 1130, 41),
    (240, -15, 1075, 42),
)
_FOREARM_DOWN = ((240, -15, 1075, 42), (250, -5, 1010, 41), (262, 10, 910, 30), (268, 16, 845, 26), (272, 22, 800, 27))
_HAND_DOWN = ((270, 20, 830, 24), (274, 26, 780, 25), (274, 32, 730, 20), (272, 36, 690, 12), (270, 38, 662, 8))
_ARM_UP = ((152, -30, 1388, 46), (172, -18, 1450, 44), (188, -4, 1540, 42), (190, 4, 1640, 40), (180, 6, 1690, 40))
_FOREARM_UP = ((180, 6, 1690, 40), (140, 12, 1730, 38), (80, 18, 1775, 29), (46, 22, 1800, 25), (26, 24, 1815, 25))
_HAND_UP = ((40, 22, 1805, 24), (4, 26, 1830, 23), (-36, 32, 1850, 17), (-70, 36, 1862, 9))

# The rib cage at the middle of the ribs, and the cavity of the belly below it.
_CAGE = (
    (1442, 34, -52, 10), (1425, 54, -62, 24), (1400, 82, -76, 38), (1370, 106, -86, 50), (1330, 126, -94, 63),
    (1280, 137, -98, 77), (1230, 142, -98, 87), (1180, 142, -95, 92), (1130, 136, -91, 91), (1090, 129, -87, 88),
)  # fmt: skip
_BELLY = (
    (1060, 124, -78, 82), (1020, 120, -74, 79), (980, 112, -72, 75), (945, 88, -72, 69), (915, 54, -70, 54),
    (885, 42, -66, 42), (855, 34, -58, 28), (830, 24, -50, 10),
)  # fmt: skip

# Fat under the skin relative to the belly: z, factor.
_FAT_Z = (-80, 60, 300, 480, 620, 800, 900, 980, 1060, 1200, 1330, 1420, 1470, 1520, 1720)
_FAT = (0.12, 0.2, 0.4, 0.35, 0.6, 0.95, 1.15, 1.1, 1.0, 0.7, 0.65, 0.45, 0.3, 0.16, 0.1)
_ARM_FAT = 0.4


@cache
def cage() -> Loft:
    """The rib cage, at the middle of the ribs."""
    return loft(_CAGE, power=2.25, dent_mm=24, dent_width_mm=34)


def diaphragm(plan: BodyPlan, *, above: bool, margin_mm: float = 0.0) -> Under:
    """What lies below (or above) the diaphragm, ``margin_mm`` away from it."""
    offset = plan.breath_mm + (margin_mm if above else -margin_mm)

    def height(x: Field, y: Field) -> Field:
        side = np.abs(x) - np.float32(67)
        lean = np.where(side > 0, side / np.float32(72), side / np.float32(170))
        fall = lean * lean + ((y - 5) / np.float32(95)) ** 2
        peak = np.float32(1249 + offset) + 7 * np.tanh(x / np.float32(30))
        result: Field = peak - 90 * np.maximum(fall, np.float32(1e-6)) ** np.float32(1.25)
        return result

    return Under(height, above=above)


def thorax(plan: BodyPlan) -> Shape:
    """The inside of the rib cage above the diaphragm."""
    return AllOf((Grown(cage(), -6.5), diaphragm(plan, above=True)))


def belly(plan: BodyPlan) -> Shape:
    """The cavity of abdomen and pelvis, up to the diaphragm."""
    inner = [(z, half - 8, back + 8, front - 8) for z, half, back, front in _CAGE if z > 1100]
    return AllOf((loft([*inner, *_BELLY], power=2.3, dent_mm=16, dent_width_mm=40), diaphragm(plan, above=False)))


@dataclass(frozen=True)
class Outline:
    """The whole surface of the body.

    ``limbs`` are the shapes of arms and hands, whose fat is thin; ``core`` is everything else.
    """

    core: tuple[Shape, ...]
    limbs: tuple[Shape, ...]
    fat_mm: float

    @property
    def rest_y(self) -> float:
        """Y of the couch: the seat is pressed flat so that the back lies on it too."""
        return -(122.0 + 0.72 * self.fat_mm)

    @cached_property
    def box(self) -> Box:
        """Where the body lies, skin included."""
        return AnyOf((*self.core, *self.limbs)).box.grown(1.3 * self.fat_mm + SKIN_MM)

    def distances(self, points: Points) -> tuple[Field, Field]:
        """Distance to the skin's surface and to the muscle surface below the fat, each (I, J, K)."""
        skin = np.full(points.shape, FAR_MM, dtype=np.float32)
        muscle = skin.copy()
        for shapes, share in ((self.core, 1.0), (self.limbs, _ARM_FAT)):
            if not shapes:
                continue
            where, sub = points.within(AnyOf(shapes).box.grown(1.3 * self.fat_mm * share + SKIN_MM + _BLEND_MM))
            if not min(sub.shape):
                continue
            margin = 1.3 * self.fat_mm * share + SKIN_MM
            flesh = AnyOf(tuple(_Reaching(shape, margin) for shape in shapes), _BLEND_MM).distance(sub)
            np.minimum(muscle[where], flesh, out=muscle[where])
            np.minimum(skin[where], flesh - self._fat(sub, share) - np.float32(SKIN_MM), out=skin[where])
        return np.maximum(skin, np.float32(self.rest_y) - points.y), muscle

    def _fat(self, points: Points, share: float) -> Field:
        factor = np.interp(points.zs, _FAT_Z, _FAT) if share == 1.0 else np.full(len(points.zs), share)
        thickness = (self.fat_mm * factor).astype(np.float32)[None, None, :]
        if share != 1.0:
            return thickness
        # Bellies and buttocks carry more than flanks and shins.
        bulge = np.exp(-(((points.z - 1030) / np.float32(110)) ** 2)) * np.tanh(points.y / np.float32(60))
        seat = np.exp(-(((points.z - 890) / np.float32(60)) ** 2)) * np.tanh(-points.y / np.float32(50))
        result: Field = thickness * (1 + np.float32(0.2) * bulge + np.float32(0.25) * seat)
        return result


@dataclass(frozen=True)
class _Reaching:
    """A shape that is asked for its distance ``margin_mm`` farther out than it needs for itself."""

    shape: Shape
    margin_mm: float

    @property
    def box(self) -> Box:
        return self.shape.box.grown(self.margin_mm)

    def distance(self, points: Points) -> Field:
        return self.shape.distance(points)


def arm_rows(plan: BodyPlan) -> dict[str, list[Row4]]:
    """Center line and muscle radius of the right upper arm, forearm and hand; empty without arms."""
    if plan.arms == "none":
        return {}
    down = plan.arms == "down"
    pieces = (_ARM_DOWN, _FOREARM_DOWN, _HAND_DOWN) if down else (_ARM_UP, _FOREARM_UP, _HAND_UP)
    rows: dict[str, list[Row4]] = {}
    for name, piece in zip(("arm", "forearm", "hand"), pieces, strict=True):
        # Fat at the flank pushes the hanging arm outward; the shoulder stays.
        push = [0.9 * plan.fat_mm * min(1.0, (1384 - z) / 200) if down else 0.0 for _, _, z, _ in piece]
        rows[name] = [(x + p, y, z, r) for (x, y, z, r), p in zip(piece, push, strict=True)]
    return rows


def outline(plan: BodyPlan) -> Outline:
    """The surface of the body of ``plan``."""
    reach = 1.3 * plan.fat_mm + SKIN_MM + _BLEND_MM
    core: list[Shape] = [
        loft(_TRUNK, power=2.4),
        loft(_NECK),
        loft(_FACE, power=2.3),
        loft(_CRANIUM, power=2.1),
        rod([(0, 88, 1566, 9), (0, 106, 1556, 9), (0, 97, 1590, 5)], reach_mm=reach),
    ]
    limbs: list[Shape] = []
    for _, side in SIDES:
        core.append(loft([(z, side * x, half, back, front) for z, x, half, back, front in _LEG]))
        core.append(smooth_tube(sided(_FOOT, side), reach_mm=reach))
        limbs += [smooth_tube(sided(rows, side), reach_mm=reach) for rows in arm_rows(plan).values()]
    return Outline(tuple(core), tuple(limbs), plan.fat_mm)
