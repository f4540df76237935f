"""One row of the anatomy tables: a shape, the organ it belongs to and the tissue it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .grid import Point_mm
from .shapes import Shape, Tube, rod, smooth_tube

SIDES: tuple[tuple[str, int], ...] = (("right", 1), ("left", -1))
"""Name of a side and the sign of its x: right is +x."""

Row4 = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A shape to paint. Later parts cover earlier ones.

    Attributes:
        organ: Catalogue name; "" is tissue without a label, which clears the label below it.
        shape: In the standard body's millimeters.
        look: Tissue, a key of ``looks.palette``.
        over: If given, only voxels of these organs are painted.
        keeps_label: Paint the intensity only.
        moves: A soft organ, whose size and place differ a little between bodies.
    """

    organ: str
    shape: Shape
    look: str
    over: tuple[str, ...] = ()
    keeps_label: bool = False
    moves: bool = False


def sided(rows: Sequence[Row4], side: int) -> list[Row4]:
    """Tube rows (x, y, z, radius) written for the right side, put on ``side`` (+1 right, -1 left)."""
    return [(side * x, y, z, r) for x, y, z, r in rows]


def sided_tube(rows: Sequence[Row4], side: int) -> Tube:
    """A smooth tube of rows written for the right side."""
    return smooth_tube(sided(rows, side))


def sided_rod(rows: Sequence[Row4], side: int) -> Tube:
    """A straight tube of rows written for the right side."""
    return rod(sided(rows, side))


def sided_points(points: Sequence[Point_mm], side: int) -> list[Point_mm]:
    """Points written for the right side, put on ``side``."""
    return [(side * x, y, z) for x, y, z in points]
