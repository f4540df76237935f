"""Skull, brain, eyes, glands and airways of the head."""

from __future__ import annotations

import numpy as np

from .grid import Field
from .parts import SIDES, Part, sided_rod, sided_tube
from .shapes import AllOf, AnyOf, Ellipsoid, Grown, Shape, Under, loft, rod, smooth_tube

_CRANIUM = (
    (1562, 40, -72, -20), (1575, 56, -78, 20), (1590, 66, -83, 60), (1610, 71, -86, 84), (1640, 72, -87, 90),
    (1665, 68, -81, 86), (1685, 57, -67, 73), (1700, 42, -49, 55), (1710, 22, -26, 30), (1713, 6, -8, 12),
)  # fmt: skip
_BRAIN_FLOOR_Y = (-100, -70, -40, -16, 0, 18, 28, 42, 100)
_BRAIN_FLOOR_Z = (1588, 1573, 1566, 1570, 1582, 1588, 1592, 1608, 1613)


def _floor(margin_mm: float, *, above: bool) -> Under:
    """The floor of the skull: low at the back, one step up at the temples, another above the eyes."""

    def height(x: Field, y: Field) -> Field:
        level = np.interp(y, _BRAIN_FLOOR_Y, _BRAIN_FLOOR_Z).astype(np.float32)
        temple = 10 * np.exp(-(((y - 22) / np.float32(22)) ** 2)) * np.tanh((np.abs(x) - 24) / np.float32(8))
        result: Field = level + np.float32(margin_mm) - temple
        return result

    return Under(height, above=above)


def _vault() -> Shape:
    return loft(_CRANIUM, power=2.1)


def head_parts() -> list[Part]:
    """From the flesh of the face inward: glands, bones, airways, brain, eyes."""
    parts = _soft_parts()
    shell = AllOf((_vault(), _floor(-9.0, above=True)))
    parts.append(Part(organ="skull", shape=_face(), look="face_bone"))
    parts.append(Part(organ="skull", shape=shell, look="skull"))
    parts += [Part(organ="skull", shape=_teeth(z, y), look="teeth") for z, y in ((1547, 78), (1537, 76))]
    parts += _airways()
    parts += _brain()
    for name, side in SIDES:
        socket = AnyOf(
            (
                Ellipsoid((side * 32.0, 74.0, 1602.0), (17, 22, 16)),
                sided_rod([(30, 70, 1602, 14), (16, 38, 1600, 5)], side),
            )
        )
        parts += [
            Part(organ="", shape=socket, look="fat"),
            Part(
                organ="",
                shape=sided_tube([(32, 66, 1602, 2.5), (24, 50, 1602, 2.5), (12, 34, 1602, 2.5)], side),
                look="soft_tissue",
            ),
            Part(organ=f"eye_{name}", shape=Ellipsoid((side * 32.0, 80.0, 1602.0), (12.2, 12.2, 12.2)), look="eye"),
            Part(organ=f"eye_{name}", shape=Ellipsoid((side * 32.0, 88.0, 1602.0), (4.5, 2.4, 4.5)), look="lens"),
        ]
    return parts


def _soft_parts() -> list[Part]:
    parts = [
        Part(organ="tongue", shape=Ellipsoid((0.0, 48.0, 1534.0), (21, 33, 17)), look="tongue", moves=True),
    ]
    for name, side in SIDES:
        parts += [
            Part(organ="", shape=Ellipsoid((side * 52.0, 36.0, 1550.0), (9, 24, 26)), look="fat"),
            Part(
                organ="",
                shape=sided_tube([(50, 34, 1570, 8), (51, 26, 1545, 10), (48, 18, 1522, 8)], side),
                look="muscle",
            ),
            Part(
                organ=f"parotid_gland_{name}",
                shape=Ellipsoid((side * 54.0, 2.0, 1551.0), (12, 19, 27)),
                look="salivary",
                moves=True,
            ),
            Part(
                organ=f"submandibular_gland_{name}",
                shape=Ellipsoid((side * 32.0, 30.0, 1513.0), (10, 16, 12)),
                look="salivary",
                moves=True,
            ),
        ]
    return parts


def _face() -> Shape:
    pieces: list[Shape] = [
        loft(
            [
                (1549, 22, 34, 82),
                (1556, 27, 30, 86),
                (1575, 36, 34, 82),
                (1592, 44, 40, 84),
                (1606, 50, 44, 90),
                (1618, 54, 40, 92),
            ],
            power=2.6,
        ),
        loft([(1568, 24, 4, 36), (1580, 30, -2, 40), (1600, 30, 0, 44)], power=2.8),
        rod([(0, 92, 1590, 4), (0, 90, 1604, 6), (0, 90, 1618, 8)]),
        sided_rod([(0, 76, 1506, 8), (0, 80, 1516, 7)], 1),
    ]
    for _, side in SIDES:
        pieces += [
            sided_tube(
                [
                    (0, 80, 1508, 7.5),
                    (20, 72, 1509, 7.5),
                    (36, 46, 1513, 7),
                    (46, 14, 1522, 6.5),
                    (49, 12, 1545, 5.5),
                    (50, 13, 1576, 6),
                ],
                side,
            ),
            sided_tube([(0, 78, 1522, 6), (20, 68, 1523, 5.5), (36, 42, 1527, 5)], side),
            sided_tube([(48, 38, 1556, 3.5), (47, 28, 1574, 3.5)], side),
            sided_tube([(44, 72, 1584, 7), (58, 56, 1582, 4.5), (64, 30, 1582, 4), (62, 6, 1583, 5)], side),
            sided_tube([(46, 72, 1586, 5), (50, 70, 1602, 4.5), (49, 74, 1618, 6)], side),
            sided_rod([(58, -14, 1586, 13), (54, -16, 1566, 9)], side),
            sided_tube([(58, -10, 1584, 11), (38, 2, 1583, 10), (16, 10, 1580, 8)], side),
            sided_rod([(17, -12, 1566, 7), (17, -20, 1568, 8)], side),
        ]
    return AnyOf(tuple(pieces), 3.0)


def _teeth(z: float, front: float) -> Shape:
    arc = [(0, front + 3, z, 4.2), (12, front, z, 4.2), (20, front - 12, z, 4.4), (25, front - 32, z, 4.8)]
    return AnyOf(tuple(sided_tube(arc, side) for _, side in SIDES))


def _airways() -> list[Part]:
    nose = loft([(1556, 12, 34, 84), (1575, 13, 26, 84), (1598, 8, 34, 84)], power=2.4)
    throat = smooth_tube([(0, 24, 1582, 9), (0, 15, 1560, 10), (0, 10, 1530, 9), (0, 12, 1502, 8), (0, 16, 1490, 6)])
    parts = [
        Part(organ="", shape=nose, look="sinus"),
        Part(
            organ="",
            shape=AllOf((nose, rod([(0, 30, 1560, 2), (0, 84, 1560, 2), (0, 84, 1590, 2), (0, 34, 1594, 2)]))),
            look="soft_tissue",
        ),
        Part(organ="", shape=throat, look="airway"),
        Part(organ="", shape=Ellipsoid((0.0, 24.0, 1588.0), (11, 12, 9)), look="sinus"),
    ]
    for _, side in SIDES:
        parts += [
            Part(organ="", shape=Ellipsoid((side * 6.0, 40.0, 1574.0), (3.5, 34, 13)), look="soft_tissue"),
            Part(organ="skull", shape=Ellipsoid((side * 27.0, 58.0, 1571.0), (13, 18, 15)), look="sinus"),
            Part(organ="skull", shape=Ellipsoid((side * 12.0, 84.0, 1624.0), (10, 5, 9)), look="sinus"),
            Part(organ="skull", shape=Ellipsoid((side * 56.0, -16.0, 1578.0), (8, 10, 12)), look="mastoid"),
            Part(organ="", shape=sided_rod([(46, 1, 1586, 3), (70, -2, 1587, 3.5)], side), look="sinus"),
        ]
    return parts


def _brain() -> list[Part]:
    space = AllOf((Grown(_vault(), -6.5), _floor(-1.5, above=True)))
    brain = AllOf((Grown(_vault(), -10.0), _floor(2.0, above=True)))
    stem = smooth_tube([(0, 6, 1606, 15), (0, 2, 1592, 14), (0, -8, 1578, 9), (0, -20, 1566, 7)])
    fissure = AllOf((brain, Ellipsoid((0.0, 0.0, 1690.0), (1.8, 120, 62))))
    parts = [
        Part(organ="", shape=space, look="csf"),
        Part(organ="brain", shape=brain, look="brain"),
        Part(organ="brain", shape=stem, look="brainstem"),
        Part(organ="brain", shape=fissure, look="csf"),
        Part(organ="brain", shape=Ellipsoid((0.0, -8.0, 1618.0), (2.2, 14, 9)), look="csf"),
        Part(organ="brain", shape=Ellipsoid((0.0, -28.0, 1580.0), (6, 5, 8)), look="csf"),
    ]
    for _, side in SIDES:
        horn = smooth_tube(
            [
                (side * x, y, z, r)
                for x, y, z, r in (
                    (10, 44, 1632, 3.5),
                    (9, 20, 1638, 5),
                    (13, -16, 1641, 5),
                    (24, -42, 1630, 6),
                    (28, -22, 1614, 4),
                )
            ]
        )
        parts.append(Part(organ="brain", shape=horn, look="csf"))
    return parts
