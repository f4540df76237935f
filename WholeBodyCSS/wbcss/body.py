"""Find the patient in a CT, coarsely: enough to fit tiles to the body and to leave air and couch out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from .preprocess import AxisMap, ModelGrid
from .tiling import Range
from .volume import Shape3, Spacing_mm

BODY_HU = -500.0
"""Fat and soft tissue lie above, air, foam and a hollow couch below, once averaged over a cell."""

CELL_MM = 6.0

VOXELS_PER_STEP = 2**23
"""Native voxels held as float32 at once."""

COUCH_MIN_WIDTH_MM = 200.0
COUCH_MAX_THICKNESS_MM = 30.0
MIN_PART = 0.002
"""Smallest separate part kept, as a fraction of the largest: a hand held away from the trunk is above, noise below."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class BodyExtent:
    """Where the patient is on the model grid, in cells of a few millimeters. Serves as ``tiling.Extent``.

    Attributes:
        cells: (A, B, C) bool along R, A, S.
        ranges: Per axis, the half-open model range of every cell, (cells, 2) ints.
    """

    cells: Mask
    ranges: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]

    def depth(self) -> Range | None:
        """Model planes that hold body, or None if there is none."""
        return self._covered(np.any(self.cells, axis=(0, 1)), axis=2)

    def box(self, k: Range) -> tuple[Range, Range] | None:
        """Model ranges along R and A of the body within the planes ``k``, or None if there is none."""
        layer: Mask = np.any(self.cells[:, :, self._cells(k, axis=2)], axis=2)
        i = self._covered(np.any(layer, axis=1), axis=0)
        j = self._covered(np.any(layer, axis=0), axis=1)
        return None if i is None or j is None else (i, j)

    def touches(self, i: Range, j: Range, k: Range) -> bool:
        """Whether any of the body lies in the box."""
        return bool(self.cells[self._cells(i, axis=0), self._cells(j, axis=1), self._cells(k, axis=2)].any())

    def _cells(self, voxels: Range, *, axis: int) -> slice:
        ranges = self.ranges[axis]
        first = int(np.searchsorted(ranges[:, 1], voxels[0], side="right"))
        last = int(np.searchsorted(ranges[:, 0], voxels[1], side="left"))
        return slice(first, last)

    def _covered(self, occupied: Mask, *, axis: int) -> Range | None:
        where = np.flatnonzero(occupied)
        if len(where) == 0:
            return None
        return int(self.ranges[axis][where[0], 0]), int(self.ranges[axis][where[-1], 1])


def find_body(voxels: npt.NDArray[Any], spacing_mm: Spacing_mm, grid: ModelGrid) -> BodyExtent:
    """Where the patient is; empty for a scan of air only.

    Args:
        voxels: (I, J, K) HU in canonical orientation.
        spacing_mm: Of ``voxels``, along R, A, S.
        grid: The model grid of the same volume.
    """
    i, j, k = (min(n, max(1, round(CELL_MM / s))) for n, s in zip(voxels.shape, spacing_mm, strict=True))
    size = (i, j, k)
    dense = cell_means(voxels, size) > BODY_HU
    cell_mm = (i * spacing_mm[0], j * spacing_mm[1], k * spacing_mm[2])
    body = body_of(dense, cell_mm)
    ranges = [_model_ranges(axis, n, c) for axis, n, c in zip(grid.axes, size, body.shape, strict=True)]
    return BodyExtent(body, (ranges[0], ranges[1], ranges[2]))


def cell_means(voxels: npt.NDArray[Any], size: Shape3) -> npt.NDArray[np.float32]:
    """Mean of each cell of ``size`` voxels, (ceil(I / i), ceil(J / j), ceil(K / k)); the last cells may be cut."""
    rows, columns = (_mean_matrix(voxels.shape[axis], size[axis]) for axis in range(2))
    step = size[2] * max(1, VOXELS_PER_STEP // (voxels.shape[0] * voxels.shape[1] * size[2]))
    parts = []
    for k in range(0, voxels.shape[2], step):
        # Two matrix products with mostly zeros take a tenth of the time of pooling a single channel.
        block = torch.from_numpy(np.array(voxels[:, :, k : k + step], dtype=np.float32, order="K"))
        planes = torch.matmul(torch.matmul(rows, block.permute(2, 0, 1)), columns.t())
        layers = _mean_matrix(len(planes), size[2]) @ planes.reshape(len(planes), -1)
        parts.append(layers.view(-1, *planes.shape[1:]).permute(1, 2, 0).numpy())
    means: npt.NDArray[np.float32] = np.concatenate(parts, axis=2)
    return means


def _mean_matrix(length: int, cell: int) -> torch.Tensor:
    """(cells, length): averages runs of ``cell`` entries; the last run may be shorter."""
    cells = torch.arange(length) // cell
    matrix = torch.nn.functional.one_hot(cells).t().float()
    return matrix / matrix.sum(dim=1, keepdim=True)


def body_of(dense: Mask, cell_mm: Spacing_mm) -> Mask:
    """The patient among everything ``dense``: all parts of some size but the couch, cavities filled, one cell wider.

    Opening cuts thin shells and sheets; what it leaves is grown back into ``dense``, so that fingers are not lost.
    """
    cross = ndimage.generate_binary_structure(3, 1)
    opened = ndimage.binary_erosion(dense, cross, border_value=1)
    opened = ndimage.binary_dilation(opened, cross) & dense
    if not opened.any():
        opened = dense
    parts, count = ndimage.label(opened)
    if count == 0:
        return dense
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest = int(sizes.argmax())
    kept: list[int] = np.flatnonzero(sizes >= max(1.0, MIN_PART * sizes[largest])).tolist()
    boxes = ndimage.find_objects(parts)
    kept = [p for p in kept if p == largest or not _is_couch(parts[boxes[p - 1]] == p, cell_mm)]
    body = np.isin(parts, kept)
    body = ndimage.binary_dilation(body, cross, iterations=3) & dense
    return np.asarray(ndimage.binary_dilation(_fill_cavities(body), cross))


def _is_couch(part: Mask, cell_mm: Spacing_mm) -> bool:
    """A wide, thin sheet below or above the patient; ``part`` is cropped to its box."""
    width_mm = part.shape[0] * cell_mm[0]
    thickness_mm = float(part.sum() / part.any(axis=1).sum()) * cell_mm[1]
    return width_mm >= COUCH_MIN_WIDTH_MM and thickness_mm <= COUCH_MAX_THICKNESS_MM


def _fill_cavities(body: Mask) -> Mask:
    """Close lungs and bowel gas: whatever is enclosed in a slice of any of the three directions."""
    filled: Mask = body.copy()
    for axis in range(3):
        for n in range(body.shape[axis]):
            at = (slice(None),) * axis + (n,)
            filled[at] |= ndimage.binary_fill_holes(body[at])
    return filled


def _model_ranges(axis: AxisMap, cell: int, count: int) -> npt.NDArray[np.int64]:
    edges = np.minimum(np.arange(count + 1) * cell, axis.native_size) - 0.5
    model = axis.model_of(edges)
    first = np.floor(model[:-1] + 0.5 + 1e-6).astype(np.int64)
    last = np.ceil(model[1:] + 0.5 - 1e-6).astype(np.int64)
    limit = axis.model_size
    return np.stack([np.clip(first, 0, limit - 1), np.clip(np.maximum(last, first + 1), 1, limit)], axis=1)


def everything(grid: ModelGrid) -> BodyExtent:
    """An extent without air: the whole grid."""
    i, j, k = (np.array([[0, size]]) for size in grid.shape)
    return BodyExtent(np.ones((1, 1, 1), dtype=bool), (i, j, k))
