"""Levels of the body as the atlas defines them: cm below the top of its head, measured along its axis."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from wbcss.labels import OrganName
from wbcss.levels import MM_PER_CM, LevelCurve, LevelRange, fit_curve, learned_range

from .atlas import PreparedAtlas

REGIONS_CM: Mapping[str, LevelRange] = {
    "head": (0.0, 17.6),
    "neck": (17.6, 27.8),
    "chest": (27.8, 56.4),
    "abdomen": (56.4, 71.0),
    "pelvis": (71.0, 88.8),
    "legs": (88.8, 171.6),
}
"""Down to the lower ends of the atlas, the middle of T1, of T12 and of L5, the lower end of the hip bones, the soles.

Measured on the atlas; ``anchors_of`` gives the vertebrae.
"""

ANCHORS_CM: Mapping[OrganName, float] = {
    OrganName(name): level
    for name, level in (
        *(("brain", 6.7), ("brainstem", 13.5), ("eye_left", 12.2), ("eye_right", 12.2), ("mandible", 18.1)),
        *(("parotid_gland_left", 17.4), ("parotid_gland_right", 17.4), ("larynx", 22.7)),
        *(("vertebrae_C1", 16.8), ("vertebrae_C2", 18.5), ("vertebrae_C3", 20.9), ("vertebrae_C4", 22.2)),
        *(("vertebrae_C5", 23.4), ("vertebrae_C6", 24.6), ("vertebrae_C7", 26.2), ("vertebrae_T1", 27.8)),
        *(("vertebrae_T2", 29.7), ("vertebrae_T3", 31.8), ("vertebrae_T4", 34.1), ("vertebrae_T5", 37.1)),
        *(("vertebrae_T6", 40.1), ("vertebrae_T7", 43.0), ("vertebrae_T8", 45.6), ("vertebrae_T9", 48.4)),
        *(("vertebrae_T10", 51.1), ("vertebrae_T11", 53.8), ("vertebrae_T12", 56.4), ("vertebrae_L1", 59.7)),
        *(("vertebrae_L2", 62.4), ("vertebrae_L3", 65.1), ("vertebrae_L4", 67.9), ("vertebrae_L5", 71.0)),
        *(("hip_left", 78.6), ("hip_right", 78.6), ("patella_left", 125.9), ("patella_right", 125.9)),
    )
}
"""Middle between the upper and the lower end in the atlas, of organs that lie at the same level in everybody."""

_ELSEWHERE = re.compile(r"^(scapula|clavicula|deltoid|axillary|biceps_brachii|triceps_brachii|brachialis|forearm)")
"""What goes up when the arms do, beside the arms themselves: the atlas, arms down, cannot say where it may be."""

_EXTRA_CM = 3.0


def vertex_voxel(atlas: PreparedAtlas) -> int:
    """Topmost plane of the padded atlas that holds body."""
    return next(k for k in reversed(range(atlas.labels.shape[2])) if atlas.labels[:, :, k].any())


def levels_of_voxels(z_voxel: npt.ArrayLike, atlas: PreparedAtlas) -> npt.NDArray[np.float64]:
    """Levels in cm of coordinates along the third axis of the padded atlas."""
    below = vertex_voxel(atlas) - np.asarray(z_voxel, np.float64)
    levels: npt.NDArray[np.float64] = below * atlas.spacing_mm / MM_PER_CM
    return levels


def anchors_of(atlas: PreparedAtlas) -> dict[OrganName, float]:
    """``ANCHORS_CM`` measured on ``atlas``; what it lacks is left out."""
    found = {}
    for label, row in atlas.table.items():
        planes = atlas.sites[atlas.sites[:, 0] == label, 3]
        if row.name in ANCHORS_CM and len(planes):
            ends = levels_of_voxels([planes.min(), planes.max()], atlas)
            found[OrganName(row.name)] = float(ends.mean())
    return found


def atlas_ranges(atlas: PreparedAtlas, classes: Sequence[Mapping[int, str]]) -> dict[OrganName, LevelRange]:
    """Where the organs of ``classes`` (atlas label to organ, as ``synthesis.atlas_classes``) may be, widened.

    One body of one size says little of others, so by more than METHOD 1.4 asks: 3 cm beyond. Free arms, and what
    goes with them, may be anywhere.
    """
    labels: dict[OrganName, set[int]] = {}
    for members in classes:
        for label, name in members.items():
            labels.setdefault(OrganName(name), set()).add(label)
    ranges = {}
    for name, mine in labels.items():
        if _ELSEWHERE.match(name) or any(atlas.table[label].is_arm for label in mine):
            continue
        planes = np.unique(atlas.sites[np.isin(atlas.sites[:, 0], sorted(mine)), 3])
        if len(planes):
            first, last = learned_range(levels_of_voxels(planes, atlas))
            ranges[name] = (first - _EXTRA_CM, last + _EXTRA_CM)
    return ranges


def curve_of_case(channels: npt.NDArray[np.uint8], organs: Sequence[OrganName], spacing_mm: float) -> LevelCurve | None:
    """Levels of a scan by its annotated organs of known level; None if it shows none of them whole.

    Args:
        channels: (I, J, K) decoder channels on the model grid, axes along R, A, S.
        organs: Of channels 1, 2, ...
        spacing_mm: Along S.
    """
    heights, levels = [], []
    for channel, organ in enumerate(organs, start=1):
        planes = np.flatnonzero((channels == channel).any(axis=(0, 1))) if organ in ANCHORS_CM else np.zeros(0)
        is_whole = len(planes) > 0 and planes[0] > 0 and planes[-1] < channels.shape[2] - 1
        if is_whole:
            heights.append((planes[0] + planes[-1]) / 2 * spacing_mm)
            levels.append(ANCHORS_CM[organ])
    return fit_curve(heights, levels, np.ones(len(heights)))
