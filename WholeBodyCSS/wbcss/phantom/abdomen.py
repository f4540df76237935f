"""Organs of abdomen and pelvis."""

from __future__ import annotations

import numpy as np

from .chest import liver_vessels
from .muscles import iliopsoas_parts
from .outline import belly, diaphragm
from .parts import SIDES, Part, Row4, sided_tube
from .plan import BodyPlan
from .shapes import AllOf, AnyOf, Ellipsoid, Grown, Shape, Slab, Tube, Without, smooth_tube

_COLON: tuple[Row4, ...] = (
    (76, 52, 984, 20), (89, 32, 1004, 26), (97, -2, 1045, 24), (97, -4, 1085, 22), (88, 14, 1112, 22),
    (70, 40, 1098, 20),
    (36, 68, 1090, 20), (0, 74, 1078, 19), (-36, 68, 1090, 19), (-68, 50, 1120, 18), (-92, 20, 1158, 19),
    (-106, -8, 1152, 17), (-109, -20, 1115, 16), (-107, -16, 1060, 15.5), (-100, 12, 1008, 15.5), (-86, 42, 977, 16),
    (-56, 44, 958, 16.5), (-26, 22, 948, 16.5), (8, -2, 946, 16.5), (14, -32, 950, 17), (3, -50, 936, 18),
)  # fmt: skip
_RECTUM: tuple[Row4, ...] = (
    (3, -50, 936, 18), (0, -54, 905, 20), (0, -52, 876, 19), (0, -34, 848, 14), (0, -40, 822, 10),
)  # fmt: skip
_STOMACH: tuple[Row4, ...] = (
    (-62, -22, 1228, 20), (-70, -10, 1212, 34), (-74, 12, 1184, 33), (-66, 38, 1152, 27), (-42, 54, 1128, 23),
    (-12, 54, 1124, 20), (14, 46, 1132, 16), (28, 40, 1138, 10),
)  # fmt: skip
_DUODENUM: tuple[Row4, ...] = (
    (28, 40, 1138, 12), (46, 28, 1144, 13), (54, 12, 1126, 13), (54, 8, 1092, 12.5), (44, 14, 1070, 12),
    (16, 28, 1066, 11.5), (-12, 28, 1070, 11.5), (-28, 20, 1090, 11), (-34, 28, 1106, 11),
)  # fmt: skip
_PANCREAS: tuple[Row4, ...] = (
    (36, 20, 1090, 12), (38, 22, 1110, 16), (26, 30, 1126, 13), (6, 34, 1138, 11), (-20, 27, 1150, 12),
    (-50, 4, 1162, 12), (-82, -26, 1174, 9),
)  # fmt: skip


def abdomen_parts(plan: BodyPlan) -> list[Part]:
    """Visceral fat, bowel, the solid organs, then the colon, which presses into them, and the gallbladder between."""
    parts = [Part(organ="", shape=belly(plan), look="visceral_fat"), *iliopsoas_parts()]
    parts.append(Part(organ="small_bowel", shape=_small_bowel(plan), look="small_bowel"))
    parts.append(Part(organ="duodenum", shape=smooth_tube(_DUODENUM), look="duodenum"))
    parts += _pelvis()
    parts += _glands()
    inside = AllOf((Grown(belly(plan), -2.5), diaphragm(plan, above=False, margin_mm=3.0)))
    stomach = AllOf((smooth_tube(_STOMACH), inside))
    spleen = Ellipsoid(
        (-102.0, -44.0, 1176.0), (30, 48, 56), ((0.9, 0.35, 0.26), (-0.36, 0.93, 0.0), (-0.242, -0.094, 0.966))
    )
    parts += [
        Part(organ="stomach", shape=stomach, look="stomach"),
        Part(organ="spleen", shape=AllOf((spleen, inside)), look="spleen", moves=True),
        Part(organ="liver", shape=AllOf((_liver(), inside)), look="liver", moves=True),
    ]
    gall = Ellipsoid((50.0, 54.0, 1133.0), (14, 16, 30), _TILT)
    parts += [*liver_vessels(plan), *_kidneys(plan), *_colon()]
    return [*parts, Part(organ="gallbladder", shape=gall, look="gallbladder")]


_TILT = ((0.95, 0.0, 0.31), (0.12, 0.92, -0.37), (-0.285, 0.39, 0.876))


def _liver() -> Shape:
    right = Ellipsoid((80.0, 0.0, 1190.0), (84, 96, 90))
    left = Ellipsoid((0.0, 44.0, 1204.0), (76, 40, 36), ((0.98, 0.0, -0.2), (0.0, 1.0, 0.0), (0.2, 0.0, 0.98)))
    visceral = Slab((-0.514, 0.0, -0.857), -988.0)
    hilum = Ellipsoid((32.0, -6.0, 1152.0), (17, 28, 30))
    return Without(AllOf((AnyOf((right, left), 24.0), visceral)), hilum)


def _kidneys(plan: BodyPlan) -> list[Part]:
    parts: list[Part] = []
    for name, side, z in (("right", 1, 1108.0), ("left", -1, 1122.0)):
        axes = ((0.97, 0.0, side * 0.24), (side * 0.05, 0.98, -0.19), (-side * 0.235, 0.19, 0.953))
        bean = Ellipsoid((side * 62.0, -37.0, z), (28.0, 24.0, 56.0), axes)
        sinus = Ellipsoid((side * 46.0, -33.0, z), (14.0, 10.0, 22.0), axes)
        kidney = Without(bean, sinus)
        parts.append(Part(organ=f"kidney_{name}", shape=kidney, look="kidney", moves=True))
        gland = AnyOf(
            tuple(
                sided_tube([(30, -20, z + 68, 4.2), (34, -32, z + 54, 4.2), (x, y, z + 40, 3.4)], side)
                for x, y in ((27, -42), (45, -40))
            )
        )
        parts.append(Part(organ=f"adrenal_gland_{name}", shape=gland, look="adrenal"))
        rng = plan.rng(f"cyst {name}")
        if rng.random() < 0.25:
            radius = float(rng.uniform(7, 16))
            cyst = Ellipsoid((side * 82.0, -44.0, z + float(rng.uniform(-34, 34))), (radius, radius, radius))
            parts.append(Part(organ=f"kidney_cyst_{name}", shape=cyst, look="cyst"))
    return parts


def _glands() -> list[Part]:
    return [Part(organ="pancreas", shape=smooth_tube(_PANCREAS), look="pancreas", moves=True)]


def _colon() -> list[Part]:
    return [
        Part(organ="colon", shape=_pouched(smooth_tube(_COLON)), look="colon"),
        Part(organ="colon", shape=smooth_tube(_RECTUM), look="rectum"),
    ]


def _pouched(tube: Tube) -> Tube:
    """Haustra: the radius of the colon rises and falls along its course."""
    dense = np.linspace(0, len(tube.points) - 1, 3 * len(tube.points))
    index = np.arange(len(tube.points))
    points = np.column_stack([np.interp(dense, index, tube.points[:, axis]) for axis in range(3)])
    radii = np.interp(dense, index, tube.radii) * (1 + 0.13 * np.sin(dense * 1.75))
    return Tube(points, radii, tube.reach_mm)


def _small_bowel(plan: BodyPlan) -> Shape:
    """One long tube that winds in rows through the middle of the belly, a little different in every body."""
    rng = plan.rng("small bowel")
    rows: list[Row4] = [(-34, 30, 1104, 12), (-52, 44, 1086, 12)]
    heading = 1
    for layer, y in enumerate((32.0, 58.0)):
        for level in range(5):
            z = 1062.0 - 24 * level if layer == 0 else 966.0 + 24 * level
            for x in np.linspace(-68, 68, 6)[::heading]:
                narrow = 1 - 0.1 * max(0.0, (1000 - z) / 24)
                dx, dy, dz = rng.normal(0, (5, 3, 3.5))
                rows.append((float(x * narrow + dx), y + float(dy), z + float(dz), float(rng.uniform(9.5, 12.0))))
            heading = -heading
    rows += [(60, 40, 990, 11), (76, 30, 990, 10)]
    return smooth_tube(rows)


def _pelvis() -> list[Part]:
    bladder = Ellipsoid((0.0, 18.0, 902.0), (40, 34, 30))
    parts = [Part(organ="urinary_bladder", shape=bladder, look="bladder", moves=True)]
    for name, side in SIDES:
        sac = sided_tube([(6, -14, 880, 5), (24, -22, 888, 5.5)], side)
        parts.append(Part(organ=f"seminal_vesicle_{name}", shape=sac, look="prostate"))
    parts.append(Part(organ="prostate", shape=Ellipsoid((0.0, 12.0, 864.0), (22, 17, 17)), look="prostate", moves=True))
    return parts
