"""Cut the model grid into overlapping tiles that follow the body."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import torch

from .specs import TileSpec
from .volume import Shape3

Range = tuple[int, int]
"""Half-open (start, stop) in voxels."""

MIN_IMPORTANCE = 1e-4


class Extent(Protocol):
    """Where on the model grid there is something to segment."""

    def box(self, k: Range) -> tuple[Range, Range] | None:
        """Ranges along i and j of what lies in the planes ``k``, or None if nothing does."""

    def depth(self) -> Range | None:
        """Range along k of everything, or None if there is nothing."""

    def touches(self, i: Range, j: Range, k: Range) -> bool:
        """Whether the box holds anything."""


@dataclass(frozen=True)
class TileLayer:
    """All tiles that begin at the same plane.

    Attributes:
        k_start: Their first plane; negative only if the grid is thinner than a tile.
        starts_ij: First voxel of every tile along i and j.
    """

    k_start: int
    starts_ij: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TilePlan:
    """Every tile of a run, in the order of the sweep.

    Attributes:
        size: Tile shape.
        layers: Ordered by ``k_start``; layers without tiles are kept, as they let planes finish.
        box: Ranges along i, j, k, inside the grid, that the tiles span.
    """

    size: Shape3
    layers: tuple[TileLayer, ...]
    box: tuple[Range, Range, Range]

    @property
    def num_tiles(self) -> int:
        """How many tiles will be run."""
        return sum(len(layer.starts_ij) for layer in self.layers)


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """First voxel of each tile along one axis: they cover [0, length), evenly spread, none twice.

    A length of at most ``tile`` needs one tile, which begins at 0.
    """
    if length <= tile:
        return [0]
    step = max(1, int(tile * (1 - overlap)))
    last = math.ceil((length - tile) / step)
    return [round(n * (length - tile) / last) for n in range(last + 1)]


def fit_range(wanted: Range, size: int, tile: int) -> Range:
    """The range to tile so that ``wanted`` is covered: at least one tile long, inside [0, size) wherever that fits."""
    if size <= tile:
        start = -((tile - size) // 2)
        return start, start + tile
    length = max(wanted[1] - wanted[0], tile)
    start = wanted[0] - (length - (wanted[1] - wanted[0])) // 2
    start = min(max(start, 0), size - length)
    return start, start + length


def plan_tiles(shape: Shape3, spec: TileSpec, extent: Extent) -> TilePlan | None:
    """Tiles that cover ``extent`` on a grid of ``shape``, or None if there is nothing to cover.

    Every layer is fitted to what its own planes hold (PERF idea 4), and a tile that holds nothing is left out.
    """
    depth = extent.depth()
    if depth is None:
        return None
    k_first, k_last = fit_range(depth, shape[2], spec.size[2])
    layers = []
    for offset in tile_starts(k_last - k_first, spec.size[2], spec.overlap):
        k_start = k_first + offset
        layers.append(TileLayer(k_start, _layer_starts(shape, spec, extent, k_start)))
    return TilePlan(spec.size, tuple(layers), _span(shape, spec.size, layers))


def _layer_starts(shape: Shape3, spec: TileSpec, extent: Extent, k_start: int) -> tuple[tuple[int, int], ...]:
    k_range = (k_start, k_start + spec.size[2])
    box = extent.box(k_range)
    if box is None:
        return ()
    starts = []
    for axis in range(2):
        first, last = fit_range(box[axis], shape[axis], spec.size[axis])
        starts.append([first + start for start in tile_starts(last - first, spec.size[axis], spec.overlap)])
    return tuple(
        (i, j) for i, j in product(*starts) if extent.touches((i, i + spec.size[0]), (j, j + spec.size[1]), k_range)
    )


def _span(shape: Shape3, size: Shape3, layers: Sequence[TileLayer]) -> tuple[Range, Range, Range]:
    starts = torch.tensor([(i, j, layer.k_start) for layer in layers for i, j in layer.starts_ij])
    low = starts.amin(dim=0).clamp_min(0)
    high = torch.minimum(starts.amax(dim=0) + torch.tensor(size), torch.tensor(shape))
    i, j, k = ((int(first), int(last)) for first, last in zip(low, high, strict=True))
    return i, j, k


def shrink_tile(tile: Shape3, divisor: Shape3, share: float) -> Shape3:
    """A smaller tile: about ``share`` of every axis, multiples of ``divisor``.

    ``tile`` itself if one voxel would be left at the bottom of the encoder, where nothing can be normalized.
    """
    i, j, k = (max(d, int(t * share) // d * d) for t, d in zip(tile, divisor, strict=True))
    return tile if (i, j, k) == divisor else (i, j, k)


def importance(size: Shape3, *, sigma_scale: float = 0.125) -> torch.Tensor:
    """Gaussian weight of each voxel of a tile, shape (I, J, K), float32, largest in the middle and never 0."""
    weight = torch.ones(())
    for length in size:
        middle = (length - 1) / 2
        axis = torch.exp(-0.5 * ((torch.arange(length) - middle) / (length * sigma_scale)) ** 2)
        weight = weight[..., None] * axis
    return weight.clamp_min(MIN_IMPORTANCE)
