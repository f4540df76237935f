"""The great vessels, drawn as tubes along their course."""

from __future__ import annotations

from .parts import SIDES, Part, Row4, sided_tube
from .shapes import smooth_tube

_AORTA: tuple[Row4, ...] = (
    (-8, 14, 1288, 14), (10, 22, 1308, 15), (17, 20, 1338, 15), (9, 14, 1365, 14), (-9, 1, 1375, 13),
    (-27, -24, 1362, 12.5), (-28, -34, 1325, 12), (-25, -34, 1270, 11.5), (-17, -25, 1225, 11), (-7, -12, 1180, 10.5),
    (-4, -5, 1147, 10), (-3, 2, 1112, 9.5), (-2, 7, 1078, 9), (-2, 7, 1046, 8.5),
)  # fmt: skip
_VENA_CAVA_INFERIOR: tuple[Row4, ...] = (
    (24, 8, 1254, 12), (25, -2, 1218, 12), (23, -10, 1180, 12), (21, -7, 1145, 11), (19, 2, 1110, 11),
    (18, 6, 1070, 10.5), (15, 6, 1040, 10), (10, 2, 1023, 9),
)  # fmt: skip

_SINGLE: dict[tuple[str, str], tuple[Row4, ...]] = {
    ("inferior_vena_cava", "vena_cava"): _VENA_CAVA_INFERIOR,
    ("superior_vena_cava", "vein"): ((30, 13, 1374, 9), (31, 13, 1340, 10), (28, 9, 1304, 10)),
    ("brachiocephalic_vein_right", "vein"): ((41, 16, 1416, 7), (36, 17, 1396, 7.5), (30, 14, 1372, 8)),
    ("brachiocephalic_vein_left", "vein"): (
        (-41, 16, 1416, 6.5), (-26, 24, 1400, 7), (4, 29, 1387, 7), (29, 17, 1374, 7.5),
    ),
    ("azygos_vein", "vein"): (
        (8, -28, 1190, 3), (10, -36, 1260, 3.5), (10, -34, 1320, 4), (18, -24, 1348, 4.5), (28, 4, 1350, 4.5),
    ),
    ("brachiocephalic_trunk", "artery"): ((10, 8, 1376, 7.5), (17, 13, 1394, 6.8), (24, 9, 1412, 6)),
    ("common_carotid_artery_right", "artery"): (
        (24, 9, 1412, 4), (23, 7, 1440, 3.8), (25, 8, 1480, 3.8), (27, 8, 1513, 4.2),
    ),
    ("common_carotid_artery_left", "artery"): (
        (-6, 4, 1384, 4.8), (-13, 5, 1405, 4.2), (-20, 6, 1440, 3.8), (-25, 8, 1480, 3.8), (-27, 8, 1513, 4.2),
    ),
    ("subclavian_artery_right", "artery"): (
        (24, 9, 1411, 5.5), (44, 0, 1428, 5), (78, 4, 1424, 4.8), (108, -8, 1404, 4.5), (130, -20, 1390, 4.2),
    ),
    ("subclavian_artery_left", "artery"): (
        (-14, -15, 1378, 5.5), (-24, -11, 1405, 5.2), (-44, -4, 1428, 5), (-78, 4, 1424, 4.8), (-108, -8, 1404, 4.5),
        (-130, -20, 1390, 4.2),
    ),
    ("portal_vein_and_splenic_vein", "portal_vein"): (
        (8, 20, 1142, 7), (20, 15, 1158, 6.8), (38, 11, 1177, 6.5), (52, 12, 1189, 5),
    ),
    ("celiac_trunk", "artery"): ((-4, 0, 1152, 3.2), (-3, 16, 1158, 3.2), (-14, 22, 1160, 2.6)),
    ("superior_mesenteric_artery", "artery"): (
        (-3, 8, 1132, 3.5), (0, 26, 1112, 3.4), (4, 34, 1080, 3.2), (8, 42, 1045, 2.6),
    ),
    ("superior_mesenteric_vein", "portal_vein"): (
        (9, 22, 1140, 5), (11, 33, 1110, 5), (13, 38, 1075, 4.6), (16, 46, 1042, 3.2),
    ),
    ("renal_artery_right", "artery"): ((2, -2, 1122, 3), (24, -14, 1117, 3), (44, -30, 1110, 2.6)),
    ("renal_artery_left", "artery"): ((-6, -2, 1122, 3), (-26, -20, 1124, 3), (-44, -32, 1122, 2.6)),
    ("renal_vein_right", "vein"): ((22, 0, 1116, 5), (36, -16, 1113, 4.6), (46, -28, 1110, 4)),
    ("renal_vein_left", "vein"): ((14, 8, 1119, 4.6), (-4, 15, 1121, 4), (-24, 0, 1123, 4.6), (-46, -28, 1122, 4)),
    ("iliac_vena_right", "vein"): (
        (11, 3, 1026, 8), (21, -6, 1003, 7.5), (32, -15, 980, 7), (39, -2, 952, 6.5), (51, 27, 920, 6),
        (60, 50, 896, 6),
    ),
    ("iliac_vena_left", "vein"): (
        (9, 3, 1026, 8), (-8, -4, 1006, 7.5), (-28, -15, 981, 7), (-39, -2, 952, 6.5), (-51, 27, 920, 6),
        (-60, 50, 896, 6),
    ),
}  # fmt: skip

_PAIRED: dict[tuple[str, str], tuple[Row4, ...]] = {
    ("iliac_artery", "artery"): (
        (0, 7, 1046, 6), (18, 4, 1016, 6), (34, -4, 988, 5.6), (44, 10, 958, 5), (57, 36, 925, 4.8),
        (71, 54, 898, 4.6),
    ),
    ("femoral_vein", "vein"): (
        (60, 50, 896, 6), (72, 50, 868, 6), (82, 34, 790, 5.5), (78, 10, 680, 5), (84, -22, 560, 4.6),
        (88, -34, 500, 4.6),
    ),
    ("femoral_artery", "artery"): (
        (71, 54, 898, 4.6), (83, 54, 866, 4.6), (88, 40, 790, 4.2), (84, 16, 680, 4), (88, -16, 560, 3.8),
        (88, -28, 500, 3.6),
    ),
    ("internal_jugular_vein", "vein"): (
        (34, 4, 1560, 4.5), (35, 6, 1510, 5.5), (36, 10, 1450, 6.2), (39, 15, 1420, 6.5),
    ),
    ("subclavian_vein", "vein"): ((41, 17, 1416, 6), (78, 18, 1414, 5.6), (112, 4, 1398, 5), (132, -10, 1388, 4.8)),
}  # fmt: skip

_SPLENIC_VEIN: tuple[Row4, ...] = ((8, 20, 1142, 5.5), (-22, 15, 1153, 5), (-58, -10, 1166, 4.4), (-84, -32, 1178, 4))


def vessel_parts() -> list[Part]:
    """Veins first, so that arteries cross in front of them; the aorta last."""
    parts = [Part(organ="portal_vein_and_splenic_vein", shape=smooth_tube(_SPLENIC_VEIN), look="portal_vein")]
    for arterial in (False, True):
        for (organ, look), rows in _SINGLE.items():
            if (look == "artery") == arterial:
                parts.append(Part(organ=organ, shape=smooth_tube(rows), look=look))
        for (stem, look), rows in _PAIRED.items():
            if (look == "artery") == arterial:
                parts += [Part(organ=f"{stem}_{name}", shape=sided_tube(rows, side), look=look) for name, side in SIDES]
    parts.append(Part(organ="aorta", shape=smooth_tube(_AORTA), look="aorta"))
    return parts
