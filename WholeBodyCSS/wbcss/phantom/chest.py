"""Lungs with their vessels, heart, airways, esophagus and the glands of neck and chest."""

from __future__ import annotations

import numpy as np

from .grid import Field, Vector
from .outline import cage, diaphragm, thorax
from .parts import SIDES, Part, sided, sided_tube
from .plan import BodyPlan
from .shapes import AllOf, AnyOf, Ellipsoid, Grown, Shape, Slab, Tube, Under, Without, loft, smooth_tube

_LOBES = {
    "right": ("lung_upper_lobe_right", "lung_middle_lobe_right", "lung_lower_lobe_right"),
    "left": ("lung_upper_lobe_left", "lung_lower_lobe_left"),
}
_MEDIASTINUM = (
    (1150, 33, -72, 92), (1200, 33, -70, 88), (1250, 31, -66, 80), (1300, 27, -64, 62), (1345, 28, -60, 50),
    (1380, 31, -58, 42), (1410, 34, -56, 34), (1445, 36, -54, 28),
)  # fmt: skip
_HEART_AXIS = ((-0.62, 0.56, -0.55), (0.67, 0.742, 0.0), (0.408, -0.3685, -0.835))


def chest_parts(plan: BodyPlan) -> list[Part]:
    """Mediastinal fat, lungs, lung vessels, esophagus, heart, airways, glands; the great vessels are elsewhere."""
    parts = [Part(organ="", shape=thorax(plan), look="visceral_fat")]
    parts += _lungs(plan)
    parts += [
        Part(organ="thymus", shape=Ellipsoid((0.0, 34.0, 1352.0), (15, 6, 22)), look="visceral_fat", moves=True),
        Part(organ="esophagus", shape=_esophagus(), look="esophagus"),
        Part(organ="", shape=_thin(_esophagus()), look="sinus", keeps_label=True),
    ]
    parts += _heart()
    parts += _airway()
    for _, side in SIDES:
        lobe = sided_tube([(15, 14, 1446, 5), (18, 14, 1460, 8.5), (18, 12, 1478, 5)], side)
        parts.append(Part(organ="thyroid_gland", shape=lobe, look="thyroid"))
    isthmus = smooth_tube([(-15, 20, 1454, 4), (0, 25, 1453, 4), (15, 20, 1454, 4)])
    parts.append(Part(organ="thyroid_gland", shape=isthmus, look="thyroid"))
    return parts


def _lungs(plan: BodyPlan) -> list[Part]:
    parts: list[Part] = []
    center = AnyOf((loft(_MEDIASTINUM, power=2.2), Grown(_heart_shape(), 3.0)))
    for name, side in SIDES:
        room = AllOf((Grown(cage(), -7.0), diaphragm(plan, above=True, margin_mm=2.0), Slab((-float(side), 0, 0), 0.0)))
        lung = Without(room, center)
        upper = AllOf((lung, _fissure(1372.0, -1.16, plan.breath_mm, above=True)))
        lobes = _LOBES[name]
        parts.append(Part(organ=lobes[0], shape=upper, look="lung"))
        if name == "right":
            flat = _fissure(1302.0, -0.12, plan.breath_mm, above=False)
            parts.append(Part(organ=lobes[1], shape=AllOf((upper, flat)), look="lung"))
        parts.append(
            Part(
                organ=lobes[-1], shape=AllOf((lung, _fissure(1372.0, -1.16, plan.breath_mm, above=False))), look="lung"
            )
        )
        rng = plan.rng(f"lung vessels {name}")
        for _ in range(2):
            tree = _tree(
                rng, np.array([side * 30.0, -14.0, 1318.0]), [(side * x, y, z) for x, y, z in _LUNG_ROOTS], 5.2
            )
            parts.append(Part(organ="", shape=tree, look="lung_vessel", over=lobes, keeps_label=True))
    return parts


_LUNG_ROOTS = (
    (0.45, -0.1, 0.9),
    (0.75, 0.55, 0.3),
    (0.85, -0.35, 0.15),
    (0.6, 0.45, -0.6),
    (0.55, -0.3, -0.8),
    (0.3, -0.75, -0.6),
)


def _fissure(z_mm: float, slope: float, breath_mm: float, *, above: bool) -> Under:
    """Below (or above) a gently waved plane that meets the back (y = -80) at ``z_mm``."""

    def height(x: Field, y: Field) -> Field:
        bow = 5 * np.sin((x + y) / np.float32(38)) + 4 * np.sin(y / np.float32(30))
        result: Field = np.float32(z_mm + 0.3 * breath_mm) + np.float32(slope) * (y + 80) + bow
        return result

    return Under(height, above=above)


def _tree(rng: np.random.Generator, root: Vector, roots: list[tuple[float, float, float]], radius: float) -> AnyOf:
    """Branching vessels from ``root`` along the directions of ``roots``."""
    tubes: list[Shape] = []

    def grow(start: Vector, heading: Vector, width: float, length: float, left: int) -> None:
        turn = heading + rng.normal(0, 0.16, 3)
        end = start + length * turn / np.linalg.norm(turn)
        tubes.append(Tube(np.stack([start, end]), np.array([width, 0.8 * width]), 1.0))
        if not left:
            return
        axis = rng.normal(0, 1, 3)
        axis -= heading * (axis @ heading)
        axis /= np.linalg.norm(axis)
        for sign in (-1, 1):
            spread = heading + sign * axis * rng.uniform(0.35, 0.75)
            grow(end, spread / np.linalg.norm(spread), 0.72 * width, length * rng.uniform(0.72, 0.92), left - 1)

    for direction in roots:
        heading = np.array(direction) + rng.normal(0, 0.12, 3)
        grow(root, heading / np.linalg.norm(heading), radius * rng.uniform(0.8, 1.1), 35.0, 5)
    return AnyOf(tuple(tubes))


def liver_vessels(plan: BodyPlan) -> list[Part]:
    """Hepatic and portal veins inside the liver."""
    parts = []
    for topic, root, roots in (
        ("hepatic veins", (24.0, -2.0, 1232.0), [(0.9, -0.1, -0.3), (0.6, 0.6, -0.3), (-0.5, 0.75, -0.2)]),
        ("portal branches", (48.0, 12.0, 1188.0), [(0.85, -0.3, 0.2), (0.75, 0.4, -0.3), (-0.7, 0.5, 0.3)]),
    ):
        tree = _tree(plan.rng(topic), np.array(root), roots, 4.5)
        parts.append(Part(organ="", shape=tree, look="liver_vessel", over=("liver",), keeps_label=True))
    return parts


def _esophagus() -> Tube:
    rows = [(0, 3, 1470, 6), (-4, -6, 1440, 6.5), (-8, -17, 1405, 6.5), (-9, -27, 1362, 6.5), (-2, -28, 1315, 7.5)]
    return smooth_tube([*rows, (-4, -24, 1272, 7.5), (-13, -8, 1240, 7.5), (-24, 0, 1215, 8), (-42, 2, 1202, 8)])


def _thin(tube: Tube) -> Tube:
    """The little air in the upper esophagus."""
    return Tube(tube.points[2:12] + np.array([0.0, 1.5, 0.0]), np.full(len(tube.points[2:12]), 1.6))


def _heart_shape() -> Shape:
    return AnyOf(
        (
            Ellipsoid((-24.0, 22.0, 1266.0), (65, 50, 45), _HEART_AXIS),
            Ellipsoid((22.0, 14.0, 1275.0), (24, 28, 34)),
            Ellipsoid((-6.0, -16.0, 1288.0), (34, 20, 23)),
        ),
        10.0,
    )


def _heart() -> list[Part]:
    chambers = (
        ("heart_left", Ellipsoid((-40.0, 18.0, 1262.0), (40, 22, 22), _HEART_AXIS)),
        ("heart_left", Ellipsoid((-6.0, -15.0, 1289.0), (30, 16, 19))),
        (
            "heart_right",
            AnyOf(
                (
                    Ellipsoid((-12.0, 46.0, 1260.0), (40, 18, 24), _HEART_AXIS),
                    Ellipsoid((-10.0, 48.0, 1288.0), (15, 13, 20)),
                ),
                8.0,
            ),
        ),
        ("heart_right", Ellipsoid((22.0, 14.0, 1275.0), (20, 24, 30))),
    )
    parts = [Part(organ="heart", shape=_heart_shape(), look="myocardium")]
    parts += [Part(organ="heart", shape=shape, look=look, over=("heart",)) for look, shape in chambers]
    ear = smooth_tube([(-32, -4, 1302, 7), (-42, 12, 1306, 8), (-44, 24, 1302, 5)])
    parts.append(Part(organ="atrial_appendage_left", shape=ear, look="heart_left"))
    for _, side in SIDES:
        upper = sided([(14, -18, 1296, 8), (34, -16, 1306, 7), (48, -12, 1318, 5)], side)
        lower = sided([(18, -24, 1280, 8), (36, -30, 1274, 7), (50, -36, 1264, 5)], side)
        shift = -10.0 if side < 0 else 0.0
        tubes = tuple(smooth_tube([(x + shift, y, z, r) for x, y, z, r in rows]) for rows in (upper, lower))
        parts.append(Part(organ="pulmonary_vein", shape=AnyOf(tubes), look="heart_left"))
    trunk = smooth_tube([(-12, 46, 1304, 13), (-14, 34, 1322, 14), (-13, 14, 1336, 14), (-10, 2, 1338, 12)])
    right = smooth_tube([(-10, 4, 1336, 11), (10, -4, 1333, 10.5), (32, -10, 1328, 9), (44, -14, 1320, 7)])
    left = smooth_tube([(-12, 4, 1338, 11), (-30, -14, 1342, 10), (-44, -22, 1332, 7)])
    parts.append(Part(organ="pulmonary_artery", shape=AnyOf((trunk, right, left), 4.0), look="pulmonary_artery"))
    return parts


def _airway() -> list[Part]:
    larynx = loft([(1470, 14, 6, 32), (1482, 17, 4, 38), (1496, 18, 6, 38), (1504, 14, 10, 30)], power=2.4)
    pipe = smooth_tube([(0, 18, 1472, 8.5), (0, 10, 1440, 9), (4, -4, 1395, 9), (6, -16, 1366, 9), (5, -17, 1350, 10)])
    tubes = [
        smooth_tube([(7, -17, 1350, 8), (18, -16, 1334, 7.5), (32, -17, 1320, 6.5)]),
        smooth_tube([(3, -17, 1350, 7.5), (-16, -16, 1332, 6.5), (-38, -19, 1318, 6)]),
    ]
    lumen = smooth_tube([(0, 20, 1506, 5), (0, 20, 1488, 4), (0, 18, 1472, 7)])
    return [
        Part(organ="larynx", shape=larynx, look="larynx"),
        Part(organ="", shape=lumen, look="sinus", keeps_label=True),
        Part(organ="trachea", shape=AnyOf((pipe, *tubes)), look="airway"),
    ]
