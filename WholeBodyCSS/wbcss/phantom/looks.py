"""Hounsfield units of every tissue, by contrast phase.

Values are textbook ranges for 120 kV (soft tissues 30 to 60, fat about -100, trabecular bone 100 to 300, cortical bone
above 600, aerated lung about -850) and what iodine adds in the arterial and portal venous phase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .grid import Field
from .plan import Phase


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a tissue appears.

    Attributes:
        hu: Inside of the shape.
        texture_hu, texture_mm: Amplitude and length of its slow variation.
        rim_hu, rim_mm: Value and thickness of a cortex or wall, if ``rim_mm`` is above 0.
        gas: Share of the inside that is gas, as in bowel; gas collects in front, the patient lies on the back.
        slope_hu: Change per 100 mm toward the front; lungs are denser at the back.
    """

    hu: float
    texture_hu: float = 5.0
    texture_mm: float = 22.0
    rim_hu: float = 0.0
    rim_mm: float = 0.0
    gas: float = 0.0
    slope_hu: float = 0.0


GAS_HU = -960.0


def palette(phase: Phase) -> Mapping[str, Look]:
    """Every tissue of the phantom in ``phase``."""

    def by_phase(native: float, arterial: float, portal: float) -> float:
        return {"native": native, "arterial": arterial, "portal": portal}[phase]

    vein = by_phase(42, 60, 150)
    return {
        **_PLAIN,
        "liver": Look(hu=by_phase(57, 68, 112), texture_hu=4),
        "spleen": Look(hu=by_phase(48, 105, 122), texture_hu=by_phase(4, 22, 5), texture_mm=16),
        "kidney": Look(hu=by_phase(30, 70, 165), rim_hu=by_phase(34, 165, 185), rim_mm=9, texture_hu=6),
        "pancreas": Look(hu=by_phase(40, 100, 98), texture_hu=12, texture_mm=8),
        "adrenal": Look(hu=by_phase(28, 60, 68)),
        "thyroid": Look(hu=by_phase(105, 170, 150)),
        "salivary": Look(hu=by_phase(15, 45, 50), texture_hu=12, texture_mm=9),
        "bowel_wall": Look(hu=by_phase(38, 70, 85), texture_hu=8, texture_mm=9),
        "aorta": Look(hu=by_phase(42, 310, 155), texture_hu=3),
        "artery": Look(hu=by_phase(42, 300, 150), texture_hu=3),
        "vein": Look(hu=vein, texture_hu=4),
        "vena_cava": Look(hu=by_phase(42, 75, 140), texture_hu=8),
        "portal_vein": Look(hu=by_phase(42, 85, 175), texture_hu=4),
        "myocardium": Look(hu=by_phase(44, 105, 108), texture_hu=5),
        "heart_left": Look(hu=by_phase(42, 300, 150), texture_hu=4),
        "heart_right": Look(hu=by_phase(42, 210, 145), texture_hu=8),
        "pulmonary_artery": Look(hu=by_phase(42, 260, 148), texture_hu=4),
        "prostate": Look(hu=by_phase(38, 55, 75), texture_hu=9, texture_mm=9),
        "liver_vessel": Look(hu=by_phase(42, 78, 160), texture_hu=2),
        "lung_vessel": Look(hu=by_phase(20, 160, 100), texture_hu=5),
    }


_PLAIN: Mapping[str, Look] = {
    "fat": Look(hu=-103, texture_hu=7, texture_mm=18),
    "visceral_fat": Look(hu=-98, texture_hu=10, texture_mm=14),
    "skin": Look(hu=25, texture_hu=12, texture_mm=9),
    "muscle": Look(hu=56, texture_hu=7, texture_mm=14),
    "soft_tissue": Look(hu=42, texture_hu=9, texture_mm=14),
    "disc": Look(hu=80, texture_hu=8),
    "cartilage": Look(hu=110, texture_hu=30, texture_mm=12),
    "vertebra": Look(hu=175, rim_hu=420, rim_mm=2.2, texture_hu=25, texture_mm=11),
    "rib": Look(hu=190, rim_hu=620, rim_mm=2.2, texture_hu=40, texture_mm=12),
    "spongy_bone": Look(hu=200, rim_hu=560, rim_mm=2.5, texture_hu=35, texture_mm=12),
    "sternum": Look(hu=130, rim_hu=330, rim_mm=2.2, texture_hu=30, texture_mm=10),
    "flat_bone": Look(hu=320, rim_hu=620, rim_mm=2.0, texture_hu=50, texture_mm=10),
    "joint_bone": Look(hu=290, rim_hu=620, rim_mm=2.2, texture_hu=35, texture_mm=12),
    "long_bone": Look(hu=20, rim_hu=1150, rim_mm=6.0, texture_hu=35, texture_mm=16),
    "small_bone": Look(hu=330, rim_hu=750, rim_mm=2.0, texture_hu=50, texture_mm=9),
    "skull": Look(hu=700, rim_hu=1050, rim_mm=2.0, texture_hu=90, texture_mm=12),
    "face_bone": Look(hu=420, rim_hu=850, rim_mm=2.2, texture_hu=120, texture_mm=9),
    "teeth": Look(hu=1900, texture_hu=250, texture_mm=7),
    "brain": Look(hu=30, rim_hu=38, rim_mm=5, texture_hu=3, texture_mm=12),
    "brainstem": Look(hu=31, texture_hu=2),
    "csf": Look(hu=8, texture_hu=2),
    "spinal_cord": Look(hu=38, texture_hu=3),
    "eye": Look(hu=12, rim_hu=45, rim_mm=1.6, texture_hu=2),
    "lens": Look(hu=95, texture_hu=5),
    "lung": Look(hu=-845, texture_hu=22, texture_mm=30, slope_hu=-45),
    "air": Look(hu=-995, texture_hu=2),
    "sinus": Look(hu=-985, rim_hu=-300, rim_mm=0.8, texture_hu=4),
    "airway": Look(hu=-985, rim_hu=-250, rim_mm=1.6, texture_hu=3),
    "mastoid": Look(hu=-150, rim_hu=500, rim_mm=3.0, texture_hu=420, texture_mm=5),
    "esophagus": Look(hu=38, texture_hu=10, texture_mm=9),
    "stomach": Look(hu=22, rim_hu=55, rim_mm=4.0, gas=0.35, texture_hu=14, texture_mm=20),
    "colon": Look(hu=35, rim_hu=50, rim_mm=2.6, gas=0.45, texture_hu=45, texture_mm=9),
    "rectum": Look(hu=30, rim_hu=48, rim_mm=4.0, gas=0.2, texture_hu=40, texture_mm=9),
    "small_bowel": Look(hu=24, rim_hu=58, rim_mm=2.8, gas=0.06, texture_hu=14, texture_mm=16),
    "duodenum": Look(hu=28, rim_hu=60, rim_mm=3.0, gas=0.08, texture_hu=14, texture_mm=16),
    "gallbladder": Look(hu=9, rim_hu=28, rim_mm=1.6, texture_hu=2),
    "bladder": Look(hu=6, rim_hu=34, rim_mm=3.2, texture_hu=2),
    "cyst": Look(hu=4, texture_hu=2),
    "couch_shell": Look(hu=60, texture_hu=5),
    "couch_foam": Look(hu=-945, texture_hu=6),
    "tongue": Look(hu=60, texture_hu=14, texture_mm=10),
    "larynx": Look(hu=55, rim_hu=140, rim_mm=3.0, texture_hu=25, texture_mm=9),
}


def waves(x: Field, y: Field, z: Field, length_mm: float, phases: Field) -> Field:
    """A smooth field of zero mean and about unit amplitude at points (N,), varying over ``length_mm``.

    Three skew plane waves of unlike length, each bent by the next: cheap, free of grids and the same at any spacing.
    """
    k = np.float32(2 * np.pi / length_mm)
    a = np.sin(k * (x * 0.83 + y * 0.41 - z * 0.37) + phases[0])
    b = np.sin(k * 1.31 * (y * 0.77 - x * 0.29 + z * 0.57) + phases[1] + 1.3 * a)
    c = np.sin(k * 0.71 * (z * 0.86 + x * 0.33 + y * 0.39) + phases[2] + 1.1 * b)
    result: Field = ((a + b + c) * np.float32(0.58)).astype(np.float32)
    return result


def intensities(look: Look, depth_mm: Field, xyz: tuple[Field, Field, Field], front: Field, phases: Field) -> Field:
    """HU of the points (N,) of one part.

    Args:
        depth_mm: How far inside the shape, positive.
        xyz: Coordinates in the standard body's millimeters.
        front: How far toward the front of its part each point lies, -1 to 1.
        phases: Shape (3,), makes the texture this body's own.
    """
    wave = waves(*xyz, look.texture_mm, phases)
    values = np.float32(look.hu) + np.float32(look.texture_hu) * wave
    if look.slope_hu:
        values += np.float32(look.slope_hu / 100) * xyz[1]
    if look.gas:
        pockets = waves(*xyz, 95.0, phases[::-1]) * np.float32(0.7) + front
        values = np.where(pockets > np.float32(1.5 - 2.4 * look.gas), np.float32(GAS_HU), values)
    if look.rim_mm:
        # The rim fades over the last third, as a cortex does into marrow.
        share = np.clip((np.float32(look.rim_mm) - depth_mm) / np.float32(0.35 * look.rim_mm) + 1, 0, 1)
        values = values + share * (np.float32(look.rim_hu) - values)
    result: Field = values.astype(np.float32)
    return result
