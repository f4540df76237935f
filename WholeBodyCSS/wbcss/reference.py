"""Agreement of a segmentation with reference labels: Dice per organ, matched by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .catalogue import Organ, catalogue
from .errors import InputError
from .io.labelmap import read_labels
from .io.voxels import slabs
from .labels import OrganName
from .volume import Affine, LabelMap, Shape3, Volume, spacing_of

GRID_TOLERANCE = 0.1
"""Largest distance between the corners of two grids that count as one, in voxels."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Labels to compare with.

    Attributes:
        labels: (I, J, K) uint16 in the reference's own numbering.
        values: Its label value of every organ it knows by name.
    """

    labels: LabelMap
    values: Mapping[OrganName, int]


def read_reference(path: Path, volume: Volume) -> Reference:
    """Read reference labels that lie on the grid of ``volume``.

    Organs are matched by the names beside or inside the file; a file without names is taken to be numbered like the
    catalogue (1 to 117 as TotalSegmentator). Raises InputError if the grid differs, and what reading raises.
    """
    labels, affine, names = read_labels(path)
    i, j, k = labels.shape
    check_same_grid((i, j, k), affine, volume)
    if not names:
        return Reference(labels, {organ.name: organ.label for organ in catalogue().values()})
    by_title = {_key(organ.display_name): organ.name for organ in catalogue().values()}
    values = {by_title.get(_key(name), OrganName(name)): value for value, name in names.items()}
    return Reference(labels, values)


def _key(name: str) -> str:
    return name.strip().casefold().replace("_", " ")


def check_same_grid(shape: Shape3, affine: Affine, volume: Volume) -> None:
    """Refuse reference labels of another shape, or whose corners lie elsewhere in the patient. Raises InputError."""
    if shape != volume.shape:
        raise InputError(f"the reference must have the shape of the input, {volume.shape}, got {shape}")
    corners = np.array([(i, j, k, 1) for i in (0, shape[0]) for j in (0, shape[1]) for k in (0, shape[2])], float)
    offsets_mm = np.linalg.norm((corners @ (affine - volume.affine).T)[:, :3], axis=1)
    if float(offsets_mm.max()) > GRID_TOLERANCE * min(spacing_of(volume.affine)):
        raise InputError(
            f"the reference must lie on the grid of the input, but its corners are up to {offsets_mm.max():.1f} mm away"
        )


def dice_per_organ(labels: LabelMap, organs: Sequence[Organ], reference: Reference) -> dict[OrganName, float]:
    """Dice of every organ that occurs in the reference and belongs to ``organs``, in their order.

    Args:
        labels: (I, J, K) uint16, numbered by ``organ.label``.
        organs: Those that were asked for.
        reference: Labels on the same grid.

    Dice is 2 |A and B| / (|A| + |B|) in voxels. An organ that the reference does not hold is left out: it may not
    have been annotated. One pass over the voxels, a slab at a time, however many organs there are.
    """
    to_ours = np.zeros(int(reference.labels.max(initial=0)) + 1, np.uint16)
    for organ in organs:
        value = reference.values.get(organ.name)
        if value is not None and value < len(to_ours):
            to_ours[value] = organ.label
    size = max((organ.label for organ in organs), default=0) + 1
    ours, theirs, both = (np.zeros(size, np.int64) for _ in range(3))
    for part, found in slabs(labels):
        expected = to_ours[reference.labels[:, :, part]]
        ours += np.bincount(found.ravel(), minlength=size)[:size]
        theirs += np.bincount(expected.ravel(), minlength=size)[:size]
        both += np.bincount(found[found == expected], minlength=size)[:size]
    return {
        organ.name: float(2 * both[organ.label] / (ours[organ.label] + theirs[organ.label]))
        for organ in organs
        if theirs[organ.label] > 0
    }
