"""Muscles with a name, and the fat between the others."""

from __future__ import annotations

from .limbs import HIP_CENTER
from .parts import SIDES, Part, sided_tube
from .shapes import AllOf, AnyOf, Ellipsoid, Grown, Shape, Slab, loft

# Back muscles beside the spine: z, center x, half width, back y, front y.
_BACK = (
    (930, 14, 12, -120, -98), (970, 24, 22, -118, -82), (1010, 34, 31, -106, -66), (1060, 36, 33, -101, -58),
    (1120, 36, 33, -101, -60), (1180, 34, 31, -106, -74), (1240, 30, 27, -110, -82), (1300, 27, 25, -112, -84),
    (1370, 24, 22, -106, -74), (1425, 20, 18, -86, -54), (1470, 19, 17, -68, -34), (1520, 20, 18, -62, -34),
    (1552, 19, 16, -66, -46),
)  # fmt: skip


def muscle_parts() -> list[Part]:
    """Gluteal muscles and the muscles along the spine."""
    parts: list[Part] = []
    for name, side in SIDES:
        parts += [
            Part(organ=f"autochthon_{name}", shape=_beside_spine(side), look="muscle"),
            Part(organ=f"gluteus_maximus_{name}", shape=_gluteus_maximus(side), look="muscle"),
            Part(organ="", shape=_gluteus_medius(side, 4.0), look="fat"),
            Part(organ=f"gluteus_medius_{name}", shape=_gluteus_medius(side, 0.0), look="muscle"),
            Part(organ="", shape=_gluteus_minimus(side, 2.5), look="fat"),
            Part(organ=f"gluteus_minimus_{name}", shape=_gluteus_minimus(side, 0.0), look="muscle"),
        ]
    return parts


def iliopsoas_parts() -> list[Part]:
    """Iliopsoas on both sides; it lies in the cavity of the belly, behind the bowel."""
    return [Part(organ=f"iliopsoas_{name}", shape=_iliopsoas(side), look="muscle") for name, side in SIDES]


def _beside_spine(side: int) -> Shape:
    column = loft([(z, side * x, half, back, front) for z, x, half, back, front in _BACK], power=2.6)
    return AllOf((column, Slab((-float(side), 0.0, 0.0), -2.0)))


def _gluteus_maximus(side: int) -> Shape:
    plate = Ellipsoid((side * 76.0, -76.0, 895.0), (72.0, 46.0, 84.0))
    return AllOf(
        (plate, Slab((side * 0.42, 0.9, 0.12), 0.42 * 92 - 0.9 * 44 + 0.12 * 890), Slab((-float(side), 0, 0), -5.0))
    )


def _gluteus_medius(side: int, margin_mm: float) -> Shape:
    shape = AnyOf(
        (
            Ellipsoid((side * 133.0, 4.0, 975.0), (22, 54, 52)),
            Ellipsoid((side * 104.0, -44.0, 972.0), (34, 30, 48)),
            sided_tube([(136, 4, 945, 20), (138, -4, 905, 13)], side),
        ),
        12.0,
    )
    return Grown(shape, margin_mm)


def _gluteus_minimus(side: int, margin_mm: float) -> Shape:
    shape = AnyOf(
        (
            Ellipsoid((side * 122.0, 10.0, 958.0), (13, 40, 36)),
            sided_tube([(124, 14, 940, 12), (130, 8, 900, 8)], side),
        ),
        10.0,
    )
    return Grown(shape, margin_mm)


def _iliopsoas(side: int) -> Shape:
    z = HIP_CENTER[2]
    psoas = sided_tube(
        [
            (24, -30, 1160, 8), (34, -26, 1115, 15), (43, -20, 1060, 20), (52, -6, 1010, 22), (64, 24, 966, 20),
            (72, 46, z + 43, 17), (80, 56, z + 19, 15), (88, 57, z - 6, 14), (96, 42, z - 31, 12), (104, 10, z - 50, 9),
        ],
        side,
    )  # fmt: skip
    iliacus = Ellipsoid(
        (side * 104.0, 4.0, 985.0),
        (22, 52, 46),
        ((0.9, side * 0.25, side * 0.357), (-side * 0.268, 0.963, 0.0), (-side * 0.344, -0.0957, 0.934)),
    )
    # The iliacus fills the hollow of the iliac wing, on its inner side only.
    inner = Slab((side * 0.803, -0.394, -0.447), -353.0)
    return AnyOf((psoas, AllOf((iliacus, inner))), 8.0)
