"""Boxes and sampling points of the phantom's grid, in the standard body's millimeters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]
Point_mm = tuple[float, float, float]
Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Box:
    """Axis-aligned box in millimeters, ``low`` to ``high``."""

    low: Point_mm
    high: Point_mm

    @classmethod
    def around(cls, points: npt.ArrayLike, margin_mm: float | Vector = 0.0) -> Box:
        """Smallest box holding ``points`` (N, 3), grown by ``margin_mm`` (a number or one per point)."""
        rows = np.atleast_2d(np.asarray(points, dtype=np.float64))
        margin = np.broadcast_to(np.asarray(margin_mm, dtype=np.float64), (len(rows),))[:, None]
        return cls(to_point((rows - margin).min(axis=0)), to_point((rows + margin).max(axis=0)))

    @property
    def center(self) -> Point_mm:
        """Its middle."""
        return to_point(0.5 * (np.array(self.low) + np.array(self.high)))

    def grown(self, margin_mm: float) -> Box:
        """This box with ``margin_mm`` more on every side."""
        return Box(to_point(np.array(self.low) - margin_mm), to_point(np.array(self.high) + margin_mm))

    def union(self, other: Box) -> Box:
        """Smallest box holding both."""
        return Box(to_point(np.minimum(self.low, other.low)), to_point(np.maximum(self.high, other.high)))

    def common(self, other: Box) -> Box:
        """The part inside both; may be empty (low > high)."""
        return Box(to_point(np.maximum(self.low, other.low)), to_point(np.minimum(self.high, other.high)))


EVERYWHERE = Box((-1e6, -1e6, -1e6), (1e6, 1e6, 1e6))


def to_point(values: npt.ArrayLike) -> Point_mm:
    """Three plain numbers."""
    x, y, z = (float(v) for v in np.asarray(values))
    return x, y, z


@dataclass(frozen=True, eq=False)
class Points:
    """Voxel centers of a grid whose slices may be shifted against each other.

    Attributes:
        xs, ys, zs: Ascending coordinates along i, j, k, in millimeters.
        shift_x, shift_y: Shape (K,), subtracted from ``xs`` and ``ys`` in every slice.
    """

    xs: Field
    ys: Field
    zs: Field
    shift_x: Field
    shift_y: Field

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of points along i, j, k."""
        return len(self.xs), len(self.ys), len(self.zs)

    @cached_property
    def x(self) -> Field:
        """Shape (I, 1, K)."""
        return self.xs[:, None, None] - self.shift_x[None, None, :]

    @cached_property
    def y(self) -> Field:
        """Shape (1, J, K)."""
        return self.ys[None, :, None] - self.shift_y[None, None, :]

    @cached_property
    def z(self) -> Field:
        """Shape (1, 1, K)."""
        return self.zs[None, None, :]

    @cached_property
    def box(self) -> Box:
        """Where the points lie."""
        if not min(self.shape):
            return Box((1.0, 1.0, 1.0), (-1.0, -1.0, -1.0))
        low = (self.xs[0] - self.shift_x.max(), self.ys[0] - self.shift_y.max(), self.zs[0])
        return Box(
            to_point(low), to_point((self.xs[-1] - self.shift_x.min(), self.ys[-1] - self.shift_y.min(), self.zs[-1]))
        )

    def within(self, box: Box) -> tuple[Slices, Points]:
        """The index ranges of the points inside ``box``, and those points. The ranges may be empty."""
        k = slice(*np.searchsorted(self.zs, (box.low[2], box.high[2])).tolist())
        i = _span(self.xs, box.low[0], box.high[0], self.shift_x[k])
        j = _span(self.ys, box.low[1], box.high[1], self.shift_y[k])
        return (i, j, k), Points(self.xs[i], self.ys[j], self.zs[k], self.shift_x[k], self.shift_y[k])

    def moved(self, center_mm: Point_mm, scale: float, offset_mm: Point_mm) -> Points:
        """These points as seen by a shape that was scaled about ``center_mm`` and then moved by ``offset_mm``."""
        (cx, cy, cz), (dx, dy, dz) = center_mm, offset_mm
        inverse = np.float32(1.0 / scale)
        xs = (self.xs - np.float32(cx + dx)) * inverse + np.float32(cx)
        ys = (self.ys - np.float32(cy + dy)) * inverse + np.float32(cy)
        zs = (self.zs - np.float32(cz + dz)) * inverse + np.float32(cz)
        return Points(xs, ys, zs, self.shift_x * inverse, self.shift_y * inverse)


def _span(values: Field, low: float, high: float, shift: Field) -> slice:
    if not len(shift):
        return slice(0, 0)
    return slice(*np.searchsorted(values, (low + float(shift.min()), high + float(shift.max()))).tolist())
