"""Shoulder girdle, arms, pelvis, legs and feet."""

from __future__ import annotations

from .outline import arm_rows
from .parts import SIDES, Part, Row4, sided, sided_points, sided_rod, sided_tube
from .plan import BodyPlan
from .shapes import AllOf, AnyOf, Ellipsoid, Shape, Slab, Tube, Without, fan, smooth_tube

HIP_CENTER = (90.0, 8.0, 893.0)
"""Center of the right femoral head."""


def limb_parts(plan: BodyPlan) -> list[Part]:
    """Every bone of the limbs and of the girdles that carry them."""
    parts: list[Part] = []
    for name, side in SIDES:
        parts += [
            Part(organ=f"scapula_{name}", shape=_scapula(side), look="flat_bone"),
            Part(organ=f"clavicula_{name}", shape=_clavicle(side), look="small_bone"),
            Part(organ=f"hip_{name}", shape=_hip(side), look="joint_bone"),
            Part(organ=f"femur_{name}", shape=_femur_shaft(side), look="long_bone"),
            Part(organ=f"femur_{name}", shape=_femur_ends(side), look="joint_bone"),
        ]
        parts += _arm_parts(plan, name, side) + _leg_parts(name, side)
    return parts


def _clavicle(side: int) -> Tube:
    rows = [(20, 38, 1399, 9), (34, 40, 1404, 6.5), (72, 34, 1416, 5.8), (112, -2, 1424, 5.5), (150, -30, 1424, 6.5)]
    return sided_tube(rows, side)


def _scapula(side: int) -> Shape:
    medial = [(84, -92, 1418), (80, -103, 1390), (84, -112, 1340), (100, -113, 1288)]
    lateral = [(110, -70, 1414), (141, -52, 1398), (140, -60, 1368), (112, -108, 1288)]
    spine_base = [(82, -103, 1394), (118, -84, 1402), (142, -72, 1408)]
    spine_tip = [(84, -110, 1396), (126, -103, 1410), (164, -66, 1422)]
    pieces: list[Shape] = [
        fan(sided_points(medial, side), sided_points(lateral, side), 3.6, step_mm=5),
        fan(sided_points(spine_base, side), sided_points(spine_tip, side), 3.4, step_mm=5),
        sided_tube([(84, -110, 1396, 4), (130, -101, 1411, 5), (164, -66, 1424, 7), (166, -44, 1424, 6)], side),
        sided_rod([(142, -51, 1394, 11), (141, -54, 1376, 11)], side),
        sided_tube([(138, -46, 1404, 7), (136, -30, 1412, 6), (146, -14, 1400, 5)], side),
        sided_tube([(140, -60, 1368, 5), (124, -92, 1325, 5), (104, -112, 1288, 5)], side),
    ]
    return AnyOf(tuple(pieces), 3.0)


def _hip(side: int) -> Shape:
    crest = [(120, 62, 972), (136, 44, 1006), (140, 10, 1032), (122, -32, 1040), (84, -66, 1022), (50, -88, 982)]
    waist = [(94, 32, 930), (92, 24, 934), (88, 10, 938), (80, -8, 940), (66, -38, 942), (52, -74, 948)]
    x, y, z = HIP_CENTER
    wing = fan(sided_points(crest, side), sided_points(waist, side), 4.4, step_mm=5)
    rim = sided_tube([(*p, 6.5) for p in crest], side)
    socket = Ellipsoid((side * (x - 4), y - 2, z + 3), (35, 36, 36))
    pieces: list[Shape] = [
        wing,
        rim,
        socket,
        sided_tube([(94, 30, 930, 11), (84, 6, 938, 14), (66, -40, 945, 10), (50, -72, 955, 8)], side),
        sided_tube([(76, 28, 900, 12), (44, 50, 892, 8.5), (14, 58, 886, 9.5), (7, 58, 872, 8.5)], side),
        sided_tube([(8, 56, 864, 8), (28, 34, 842, 6.5), (52, -22, 830, 10)], side),
        sided_tube([(78, -18, 880, 15), (66, -34, 856, 14), (55, -34, 834, 15)], side),
    ]
    ball = Ellipsoid((side * x, y, z), (28.5, 28.5, 28.5))
    opening = Slab((side * 0.80, 0.25, -0.55), 0.80 * x + 0.25 * y - 0.55 * z + 10.0)
    return AllOf((Without(AnyOf(tuple(pieces), 3.0), ball), AnyOf((opening, _above_hip(side)))))


def _above_hip(side: int) -> Shape:
    """Where the opening of the hip socket does not cut: the wing of the ilium and the front of the pelvis."""
    return AnyOf((Ellipsoid((side * 90.0, -12.0, 1000.0), (80, 120, 78)), Ellipsoid((0.0, 30.0, 868.0), (60, 80, 60))))


def _femur_shaft(side: int) -> Tube:
    rows = [(122, 4, 850, 15.5), (116, 12, 780, 14), (105, 16, 670, 13.5), (95, 10, 560, 15), (89, 2, 515, 20)]
    return sided_tube(rows, side)


def _femur_ends(side: int) -> Shape:
    x, y, z = HIP_CENTER
    hip = AnyOf(
        (
            Ellipsoid((side * x, y, z), (24.5, 24.5, 24.5)),
            sided_rod([(x + 6, y, z - 5, 17), (x + 32, y - 4, z - 25, 17)], side),
            Ellipsoid((side * 129.0, -6.0, 880.0), (15, 19, 24)),
            sided_tube([(127, -6, 880, 16), (124, 0, 858, 16.5), (122, 4, 844, 15.5)], side),
            sided_rod([(112, -12, 846, 9), (106, -16, 838, 7)], side),
        ),
        6.0,
    )
    knee = AnyOf(
        (
            Ellipsoid((side * 66.0, -4.0, 494.0), (17, 28, 19)),
            Ellipsoid((side * 110.0, -4.0, 494.0), (17, 28, 19)),
            Ellipsoid((side * 88.0, 2.0, 506.0), (32, 20, 20)),
        ),
        6.0,
    )
    return AnyOf((hip, knee))


def _arm_parts(plan: BodyPlan, name: str, side: int) -> list[Part]:
    rows = arm_rows(plan)
    if not rows:
        return []
    upper, lower, hand = rows["arm"], rows["forearm"], rows["hand"]
    shaft = [(x, y, z, 11.5) for x, y, z, _ in upper[1:]]
    head = Ellipsoid((side * upper[0][0], upper[0][1], upper[0][2]), (24, 25, 25))
    start = (upper[0][0], upper[0][1], upper[0][2], 17.0)
    elbow = sided_rod([(shaft[-1][0] - 16, *shaft[-1][1:3], 14), (shaft[-1][0] + 14, *shaft[-1][1:3], 13)], side)
    neck = smooth_tube(sided([start, (*shaft[0][:3], 12.5)], side))
    return [
        Part(organ=f"humerus_{name}", shape=smooth_tube(sided([(*start[:3], 13), *shaft], side)), look="long_bone"),
        Part(organ=f"humerus_{name}", shape=AnyOf((head, neck, elbow), 6.0), look="joint_bone"),
        Part(organ=f"ulna_{name}", shape=_forearm(lower, -9, side), look="small_bone"),
        Part(organ=f"radius_{name}", shape=_forearm(lower, 11, side), look="small_bone"),
        *_hand_parts(hand, name, side),
    ]


def _forearm(rows: list[Row4], shift: float, side: int) -> Tube:
    first, *middle, last = [(x + shift, y - (4 if shift < 0 else -3), z, 7.0) for x, y, z, _ in rows]
    return smooth_tube(sided([(*first[:3], 11.0), *middle, (*last[:3], 9.0)], side))


def _hand_parts(rows: list[Row4], name: str, side: int) -> list[Part]:
    (ax, ay, az, _), (bx, by, bz, _), (cx, cy, cz, _) = rows[0], rows[1], rows[2]
    dx, dy, dz, _ = rows[-1]
    wrist = [
        Ellipsoid((side * (ax + 0.6 * (bx - ax) + o), ay + 0.6 * (by - ay), az + 0.6 * (bz - az)), (9, 10, 9))
        for o in (-11, 0, 11)
    ]
    palm, fingers = [], []
    for n in range(5):
        o = 10.0 * (n - 2)
        palm.append(sided_rod([(bx + 0.8 * o, by, bz, 4.5), (cx + o, cy, cz, 4)], side))
        fingers.append(sided_rod([(cx + o, cy, cz, 3.8), (dx + 0.9 * o, dy, dz, 3)], side))
    return [
        Part(organ=f"carpal_{name}", shape=AnyOf(tuple(wrist)), look="small_bone"),
        Part(organ=f"phalanges_hand_{name}", shape=AnyOf(tuple(fingers)), look="small_bone"),
        Part(organ=f"metacarpal_{name}", shape=AnyOf(tuple(palm)), look="small_bone"),
    ]


def _leg_parts(name: str, side: int) -> list[Part]:
    tibia = sided_tube(
        [(88, -4, 450, 22), (86, 2, 400, 15), (85, 0, 300, 12.5), (86, -8, 180, 11.5), (87, -14, 100, 14)], side
    )
    plateau = AnyOf(
        (
            Ellipsoid((side * 88.0, -6.0, 462.0), (36, 25, 12)),
            sided_tube([(88, -6, 458, 27), (88, -4, 438, 20)], side),
            sided_tube([(87, -14, 110, 14), (87, -15, 86, 17)], side),
        ),
        5.0,
    )
    fibula = [(122, -22, 446, 9), (122, -26, 380, 6.5), (118, -28, 240, 6), (112, -26, 110, 7.5), (113, -25, 76, 9)]
    ankle = AnyOf(
        (
            Ellipsoid((side * 88.0, -12.0, 62.0), (17, 25, 13)),
            Ellipsoid((side * 90.0, -34.0, 38.0), (15, 28, 19)),
            Ellipsoid((side * 90.0, 20.0, 50.0), (19, 24, 13)),
        ),
        3.0,
    )
    metatarsal = [sided_rod([(92 + 6.5 * n, 38, 44, 6), (95 + 11 * n, 88, 14, 5.5)], side) for n in range(-2, 3)]
    toes = [sided_rod([(95 + 11 * n, 94, 10, 4.5), (98 + 11 * n, 128, -20, 4)], side) for n in range(-2, 3)]
    return [
        Part(organ=f"tibia_{name}", shape=tibia, look="long_bone"),
        Part(organ=f"tibia_{name}", shape=plateau, look="joint_bone"),
        Part(organ=f"fibula_{name}", shape=sided_tube(fibula, side), look="small_bone"),
        Part(organ=f"patella_{name}", shape=Ellipsoid((side * 88.0, 39.0, 502.0), (21, 10, 21)), look="small_bone"),
        Part(organ=f"tarsal_{name}", shape=ankle, look="joint_bone"),
        Part(organ=f"metatarsal_{name}", shape=AnyOf(tuple(metatarsal)), look="small_bone"),
        Part(organ=f"phalanges_feet_{name}", shape=AnyOf(tuple(toes)), look="small_bone"),
    ]
