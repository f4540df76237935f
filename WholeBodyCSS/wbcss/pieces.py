"""Connected pieces of one organ, within its bounding box and in bounded memory."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .volume import LabelMap

Box = tuple[slice, slice, slice]
"""Half-open ranges start, stop along i, j, k."""

BOX_VOXELS = 2_000_000
"""Boxes larger than this are looked at in blocks of voxels."""


Middle = tuple[float, float, float]
"""Mean place of voxels, i, j, k."""


def large_pieces(
    labels: LabelMap, label: int, box: Box, *, smallest_voxels: float, box_voxels: int = BOX_VOXELS
) -> tuple[Middle, ...]:
    """Middles of the connected pieces of an organ that have at least ``smallest_voxels`` voxels, the largest first.

    Voxels that share a face, an edge or a corner are connected. A box of more than ``box_voxels`` voxels is reduced to
    blocks first, which bounds memory and time: then pieces less than a block apart count as one, so that a large
    organ is never torn apart by the reduction.

    Args:
        labels: (I, J, K) label values.
        label: The organ.
        box: Where the organ lies; voxels outside are not looked at.
        smallest_voxels: Size of the smallest piece that counts.
        box_voxels: Largest number of blocks to label at once.
    """
    from scipy import ndimage

    size = math.prod(s.stop - s.start for s in box)
    edge = max(1, math.ceil((size / box_voxels) ** (1 / 3)))
    crop = labels[box]
    order = np.argsort(crop.strides)[::-1] if edge > 1 else np.arange(3)
    counts = _block_counts(crop.transpose(order), label, edge)
    pieces, num_pieces = ndimage.label(counts > 0, structure=np.ones((3, 3, 3), int))
    voxels = np.bincount(pieces.ravel(), counts.ravel(), num_pieces + 1)
    large = [number for number in np.argsort(-voxels[1:], kind="stable") + 1 if voxels[number] >= smallest_voxels]
    starts = np.array([s.start for s in box])
    middles = []
    for middle in ndimage.center_of_mass(counts, pieces, large) if large else ():
        at = np.empty(3)
        at[order] = (np.asarray(middle) + 0.5) * edge - 0.5
        i, j, k = (at + starts).tolist()
        middles.append((i, j, k))
    return tuple(middles)


def _block_counts(crop: LabelMap, label: int, edge: int) -> npt.NDArray[np.int64]:
    """Voxels of ``label`` in every block of ``edge`` voxels a side; the last may be thinner.

    The slowest axis comes first, so that every plane is one run of memory.
    """
    if edge <= 1:
        return np.asarray(crop == label, np.int64)
    i, j, k = (range(0, n, edge) for n in crop.shape)
    counts = np.zeros((len(i), len(j), len(k)), np.int64)
    for block, start in enumerate(i):
        plane = np.count_nonzero(crop[start : start + edge] == label, axis=0)
        counts[block] = np.add.reduceat(np.add.reduceat(plane, j, axis=0), k, axis=1)
    return counts
