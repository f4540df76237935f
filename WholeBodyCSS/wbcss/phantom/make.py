"""Draw a body, put it on a grid, scan it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np

from ..catalogue import Organ, catalogue
from ..errors import InputError
from ..labels import OrganName
from ..progress import IsCancelled, Progress, never, silent
from ..volume import Affine, LabelMap, Spacing_mm, Volume
from .abdomen import abdomen_parts
from .chest import chest_parts
from .couch import couch_parts
from .grid import Points
from .head import head_parts
from .limbs import limb_parts
from .looks import palette
from .muscles import muscle_parts
from .outline import Outline, outline
from .painter import Scene, paint
from .parts import Part
from .plan import BodyPlan, Region
from .spine import rib_parts, spine_parts
from .vessels import vessel_parts

MIN_SPACING_MM, MAX_SPACING_MM = 0.5, 20.0
_MAX_VOXELS = 1_200_000_000

# Bottom and top of what each region shows, and half of its width and depth, in the standard body's millimeters.
_REGION_Z = {"chest": (1120.0, 1465.0), "abdomen": (812.0, 1290.0), "head_neck": (1385.0, 1730.0)}
_REGION_HALF_WIDTH = {"chest": 235.0, "abdomen": 215.0, "head_neck": 190.0}
_Z_ORIGIN_MM = 1100.0
"""Height of the standard body that becomes z = 0 in RAS."""


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic CT and its truth.

    Attributes:
        volume: int16 HU; i to the right, j to the front, k to the head.
        labels: Shape of the volume, uint16 label values of the catalogue.
        organs: Those with at least one voxel, by label value.
        plan: What was drawn for this body.
    """

    volume: Volume
    labels: LabelMap
    organs: tuple[Organ, ...]
    plan: BodyPlan


def make_phantom(
    region: Region = "whole",
    *,
    seed: int = 0,
    spacing_mm: Spacing_mm = (3.0, 3.0, 3.0),
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> Phantom:
    """A synthetic CT of ``region`` of the body of ``seed``.

    The same arguments give the same bytes. Regions of one seed and spacing are cut from the same body.
    Raises InputError for an unknown region, a negative seed or a spacing outside 0.5 to 20 mm, and Cancelled.
    """
    _check(region, spacing_mm)
    plan = BodyPlan.draw(seed)
    body = outline(plan)
    parts = anatomy(plan)
    organs = catalogue()
    points, affine = _grid(region, plan, body, spacing_mm)
    scene = Scene(
        plan=plan,
        body=body,
        parts=parts,
        looks=palette(plan.phase),
        labels={part.organ: organs[OrganName(part.organ)].label for part in parts if part.organ},
        couch=couch_parts(body.rest_y),
    )
    hu, labels = paint(scene, points, spacing_mm, progress=progress, cancelled=cancelled)
    present = set(np.unique(labels).tolist())
    shown = sorted((organ for organ in organs.values() if organ.label in present), key=lambda organ: organ.label)
    return Phantom(Volume(hu, affine), labels, tuple(shown), plan)


def anatomy(plan: BodyPlan) -> list[Part]:
    """Every part of the body, in the order of painting."""
    return [
        *muscle_parts(),
        *chest_parts(plan),
        *abdomen_parts(plan),
        *vessel_parts(),
        *limb_parts(plan),
        *rib_parts(),
        *spine_parts(),
        *head_parts(),
    ]


def _check(region: str, spacing_mm: Spacing_mm) -> None:
    if region not in get_args(Region):
        raise InputError(f"the phantom's region must be {', '.join(get_args(Region))}, got {region!r}")
    if any(not MIN_SPACING_MM <= s <= MAX_SPACING_MM for s in spacing_mm):
        raise InputError(
            f"the phantom's spacing must be {MIN_SPACING_MM:g} to {MAX_SPACING_MM:g} mm on every axis, got {spacing_mm}"
        )


def _grid(region: str, plan: BodyPlan, body: Outline, spacing_mm: Spacing_mm) -> tuple[Points, Affine]:
    """Voxel centers at whole multiples of the spacing, so that regions of one body share one lattice."""
    box = body.box
    z_low, z_high = _REGION_Z.get(region, (box.low[2] - 12, box.high[2] + 12))
    half = min(_REGION_HALF_WIDTH.get(region, 1e6), max(-box.low[0], box.high[0]) + 15)
    y_low = body.rest_y - 55
    y_high = box.high[1] + 15 if region == "whole" else 125 + 1.3 * plan.fat_mm
    low = np.array([-half, y_low, z_low - _Z_ORIGIN_MM]) * plan.scale
    high = np.array([half, y_high, z_high - _Z_ORIGIN_MM]) * plan.scale
    first = [math.ceil(a / s) for a, s in zip(low, spacing_mm, strict=True)]
    last = [math.floor(b / s) for b, s in zip(high, spacing_mm, strict=True)]
    if math.prod(b - a + 1 for a, b in zip(first, last, strict=True)) > _MAX_VOXELS:
        raise InputError(f"a spacing of {spacing_mm} mm makes the {region} phantom larger than {_MAX_VOXELS} voxels")
    ras = [np.arange(a, b + 1) * s for a, b, s in zip(first, last, spacing_mm, strict=True)]
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = [axis[0] for axis in ras]
    xs, ys, zs = (axis / factor for axis, factor in zip(ras, plan.scale, strict=True))
    zs = zs + _Z_ORIGIN_MM
    bow = np.sin((zs - 850) / 700 * 2 * np.pi) * np.clip((zs - 850) / 100, 0, 1)
    shift_x = plan.lean_rad * np.clip(zs - 850, 0, None) + plan.curve_mm * bow
    shift = shift_x.astype(np.float32)
    points = Points(xs.astype(np.float32), ys.astype(np.float32), zs.astype(np.float32), shift, np.zeros_like(shift))
    return points, affine
