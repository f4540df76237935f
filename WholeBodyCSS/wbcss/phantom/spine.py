"""Vertebrae, discs, sacrum, spinal cord, ribs, rib cartilage and sternum."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from .outline import cage
from .parts import SIDES, Part, sided, sided_rod
from .shapes import AllOf, AnyOf, Drum, Shape, Slab, Tube, Without, loft, rod, smooth_tube

_VERTEBRAE = (
    # name, z, half width, half depth, half height, canal radius, spinous length, spinous drop, transverse reach
    ("C2", 1537, 10, 8, 9, 9.5, 24, 6, 22),
    ("C3", 1518, 11, 8, 6.6, 8.5, 22, 5, 24),
    ("C4", 1500, 11.5, 8, 6.6, 8.5, 22, 6, 25),
    ("C5", 1482, 12, 8.5, 6.6, 8.5, 24, 7, 26),
    ("C6", 1464.5, 13, 8.5, 6.6, 8.5, 28, 8, 28),
    ("C7", 1447, 14, 9, 7.2, 8.5, 35, 9, 33),
    ("T1", 1428, 15, 9.5, 8.2, 8.2, 35, 12, 36),
    ("T2", 1408, 14.5, 10, 8.8, 8, 34, 16, 33),
    ("T3", 1387.5, 14.5, 11, 9.2, 8, 34, 19, 31),
    ("T4", 1366.5, 14.5, 11.5, 9.6, 8, 34, 22, 31),
    ("T5", 1345, 15, 12.5, 10, 8, 34, 24, 31),
    ("T6", 1323, 15.5, 13, 10.2, 8, 34, 25, 31),
    ("T7", 1300.5, 16, 13.5, 10.5, 8, 33, 25, 31),
    ("T8", 1277.5, 16.5, 14, 10.8, 8, 33, 24, 30),
    ("T9", 1254, 17.5, 14.5, 11.2, 8, 32, 21, 29),
    ("T10", 1229.5, 18.5, 15, 11.6, 8.2, 31, 17, 27),
    ("T11", 1204, 20, 15.5, 12.2, 8.8, 29, 11, 24),
    ("T12", 1177, 21.5, 16, 12.8, 9.5, 28, 7, 24),
    ("L1", 1147, 22.5, 16.5, 13.2, 10, 30, 4, 36),
    ("L2", 1114, 23, 17, 13.5, 10, 31, 3, 40),
    ("L3", 1079.5, 24, 17.5, 13.8, 10, 31, 3, 45),
    ("L4", 1044.5, 25, 17.5, 13.8, 10.2, 29, 4, 43),
    ("L5", 1009.5, 26, 17.5, 13.8, 10.5, 25, 6, 42),
)  # fmt: skip

# The line through the centers of the vertebral bodies: neck and loin bend forward, chest and sacrum back.
_SPINE_Z = (858, 880, 920, 962, 985, 1010, 1045, 1080, 1115, 1150, 1200, 1260, 1320, 1380, 1430, 1465, 1500, 1540, 1570)
_SPINE_Y = (-66, -80, -82, -62, -44, -29, -21, -20, -25, -34, -46, -54, -55, -46, -30, -17, -9, -8, -12)

_RIBS = (
    # drop from back to front, angle of the front end (180 is the breastbone)
    (24, 138), (48, 150), (66, 153), (82, 153), (95, 151), (107, 148), (117, 143), (120, 134), (114, 124), (100, 112),
    (70, 84), (42, 56),
)  # fmt: skip
_STERNAL_ENDS = (
    (23, 40, 1386), (17, 48, 1357), (16, 57, 1334), (16, 66, 1311), (17, 73, 1289), (17, 78, 1268), (12, 82, 1250),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Level:
    """One vertebra of the table, in millimeters."""

    name: str
    z: float
    half_width: float
    half_depth: float
    half_height: float
    canal: float
    spinous: float
    drop: float
    reach: float

    @property
    def y(self) -> float:
        return spine_y(self.z)

    @property
    def tilt_rad(self) -> float:
        return float(np.arctan((spine_y(self.z + 12) - spine_y(self.z - 12)) / 24))

    @property
    def canal_y(self) -> float:
        return self.y - self.half_depth - 0.75 * self.canal


_LEVELS = tuple(
    _Level(name=n, z=z, half_width=w, half_depth=d, half_height=h, canal=c, spinous=s, drop=p, reach=t)
    for n, z, w, d, h, c, s, p, t in _VERTEBRAE
)


def spine_y(z: float) -> float:
    """Y of the center of the vertebral bodies at height ``z``, in millimeters."""
    return float(np.interp(z, _SPINE_Z, _SPINE_Y))


def canal() -> Tube:
    """The spinal canal from the skull to the sacrum."""
    rows = [(0.0, level.canal_y, level.z, level.canal) for level in _LEVELS]
    return smooth_tube([(0.0, -24.0, 1575.0, 11.0), *rows, (0.0, -70.0, 962.0, 9.0), (0.0, -97.0, 915.0, 5.0)])


def spine_parts() -> list[Part]:
    """Discs first, then sacrum and vertebrae, then the canal with the cord."""
    parts = [Part(organ="intervertebral_discs", shape=_disc(a, b), look="disc") for a, b in _neighbors()]
    parts += [
        Part(organ="sacrum", shape=_sacrum(), look="spongy_bone"),
        Part(organ="vertebrae_S1", shape=AllOf((_sacrum(), Slab((0.0, -0.68, -0.73), -664.0))), look="vertebra"),
    ]
    parts += [Part(organ=f"vertebrae_{level.name}", shape=_vertebra(level), look="vertebra") for level in _LEVELS[::-1]]
    parts.append(Part(organ="vertebrae_C1", shape=_atlas(), look="vertebra"))
    cord = [(0.0, level.canal_y, level.z, 0.62 * level.canal) for level in _LEVELS if level.name != "L5"]
    parts += [
        Part(organ="", shape=canal(), look="csf"),
        Part(organ="spinal_cord", shape=smooth_tube([(0, -23, 1570, 6.5), *cord]), look="spinal_cord"),
    ]
    return parts


def _neighbors() -> list[tuple[_Level, _Level]]:
    return list(itertools.pairwise(_LEVELS))


def _disc(upper: _Level, lower: _Level) -> Drum:
    z = 0.5 * (upper.z - upper.half_height + lower.z + lower.half_height)
    tilt = 0.5 * (upper.tilt_rad + lower.tilt_rad)
    height = 0.5 * (upper.z - upper.half_height - lower.z - lower.half_height) + 1.5
    return Drum((0.0, spine_y(z), z), 0.97 * lower.half_width, 0.97 * lower.half_depth, height, -tilt)


def _vertebra(level: _Level) -> Shape:
    y, z, back = level.y, level.z, level.canal_y - level.canal
    neck = level.name.startswith("C")
    thick = 4.2 if neck else 5.5
    pieces: list[Shape] = [
        Drum((0.0, y, z), level.half_width, level.half_depth, level.half_height, -level.tilt_rad),
        rod([(0, back - 1, z - 2, thick), (0, back - 0.55 * level.spinous, z - 0.5 * level.drop, 3.6),
             (0, back - 0.8 * level.spinous, z - level.drop, 4.2)]),
    ]  # fmt: skip
    if level.name == "C2":
        pieces.append(rod([(0, y + 1, z + 4, 6.5), (0, y + 2, z + 22, 5)]))
    for _, side in SIDES:
        edge = level.canal + 3.0
        pieces += [
            sided_rod([(0.7 * level.half_width, y - 0.7 * level.half_depth, z + 2, thick),
                       (edge, level.canal_y, z + 1, thick), (0.4 * edge, back + 1, z - 3, thick - 0.8),
                       (0, back - 1, z - 3, thick - 0.8)], side),
            sided_rod([(edge, level.canal_y - (0 if neck else 3), z + 1, thick),
                       (level.reach, level.canal_y - (-7 if neck else 8), z + 2, 4.0)], side),
            sided_rod([(edge, level.canal_y - 3, z + level.half_height + 2, 4.5),
                       (edge, level.canal_y - 4, z - level.half_height - 2, 4.5)], side),
        ]  # fmt: skip
    return Without(AnyOf(tuple(pieces), 2.0), canal())


def _atlas() -> Shape:
    y, z = spine_y(1554), 1555.0
    ring = [
        (0, y + 11, z, 4),
        (12, y + 7, z, 5),
        (18, y - 4, z, 8),
        (17, y - 15, z, 5),
        (9, y - 30, z, 4),
        (0, y - 33, z, 4.5),
    ]
    pieces = [sided_rod(ring, side) for _, side in SIDES]
    pieces += [sided_rod([(18, y - 4, z, 7), (37, y - 6, z - 1, 4.5)], side) for _, side in SIDES]
    dens = rod([(0, spine_y(1537) + 1, 1541, 7.5), (0, spine_y(1537) + 2, 1562, 6)])
    return Without(Without(AnyOf(tuple(pieces)), dens), canal())


def _sacrum() -> Shape:
    body = loft(
        [
            (846, 7, -58, -44), (862, 12, -74, -58), (885, 24, -94, -72), (920, 40, -106, -76), (950, 50, -98, -60),
            (968, 53, -86, -42), (982, 48, -68, -28), (992, 28, -46, -25),
        ],
        power=2.6,
    )  # fmt: skip
    crest = rod([(0, -88, 975, 6), (0, -107, 940, 6), (0, -110, 905, 5)])
    return Without(AnyOf((body, crest), 4.0), canal())


def _rib_curve(number: int, side: int) -> Tube:
    """Rib ``number`` (1 to 12): from its vertebra back to the angle, then round the cage, falling toward the front."""
    level = _LEVELS[5 + number]
    drop, end_deg = _RIBS[number - 1]
    z0 = level.z + (4 if number < 11 else 0)
    head = (level.half_width - 2, level.y - 0.55 * level.half_depth, z0)
    neck = (level.reach - 2, level.canal_y - 12, z0 + 3)
    angles = np.radians(np.linspace(28 if number > 1 else 40, end_deg, 18))
    share = (angles - angles[0]) / (angles[-1] - angles[0])
    zs = z0 + 2 - drop * share**1.15
    rows = [(*head, 4.0), (*neck, 4.6)]
    rows += [(*_on_cage(float(a), float(z)), 5.2 if number > 1 else 4.6) for a, z in zip(angles, zs, strict=True)]
    if number >= 11:
        rows[-1] = (*rows[-1][:3], 3.2)
    return smooth_tube(sided(rows, side))


def _on_cage(angle: float, z: float) -> tuple[float, float, float]:
    """The point of the rib cage at ``angle`` from the back's center line, at height ``z``."""
    table = cage().rows
    half, back, front = (float(np.interp(z, table[:, 0], table[:, c])) for c in (2, 3, 4))
    depth, power = 0.5 * (front - back), 2 / cage().power
    x = half * abs(np.sin(angle)) ** power
    y = 0.5 * (back + front) - depth * np.sign(np.cos(angle)) * abs(np.cos(angle)) ** power
    dent = cage().dent_mm * np.exp(-((x / cage().dent_width_mm) ** 2)) if np.cos(angle) > 0 else 0.0
    return float(x), float(y + dent), z


def rib_parts() -> list[Part]:
    """Sternum, cartilage and the 24 ribs."""
    manubrium = loft([(1352, 15, 42, 54), (1375, 23, 36, 48), (1392, 31, 32, 45), (1402, 24, 30, 42)], power=2.6)
    blade = loft(
        [(1203, 5, 84, 91), (1225, 9, 80, 91), (1245, 18, 75, 88), (1300, 18, 62, 75), (1354, 14, 44, 56)], power=2.6
    )
    parts = [Part(organ="costal_cartilages", shape=_cartilages(side), look="cartilage") for _, side in SIDES]
    parts.append(Part(organ="sternum", shape=AnyOf((manubrium, blade)), look="sternum"))
    for name, side in SIDES:
        for number in range(12, 0, -1):
            parts.append(Part(organ=f"rib_{name}_{number}", shape=_rib_curve(number, side), look="rib"))
    return parts


def _cartilages(side: int) -> Shape:
    tubes: list[Shape] = []
    ends = {number: _rib_curve(number, 1).points[-1] for number in range(1, 11)}
    for number, sternal in enumerate(_STERNAL_ENDS, start=1):
        a, b = ends[number], np.array(sternal, dtype=float)
        bend = 0.5 * (a + b) + np.array([0.0, 4.0, -4.0 if number > 3 else 0.0])
        tubes.append(smooth_tube(sided([(*p, 5.2) for p in (a, bend, b)], side)))
    for number in (8, 9, 10):
        a, b = ends[number], ends[number - 1] * 0.4 + np.array([22.0, 84.0, 1240.0]) * 0.6
        joint = b if number == 8 else ends[number - 1] + np.array([-16.0, 6.0, 4.0])
        tubes.append(smooth_tube(sided([(*p, 4.6) for p in (a, 0.5 * (a + joint), joint)], side)))
    return AnyOf(tuple(tubes))
