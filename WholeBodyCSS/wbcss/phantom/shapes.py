"""Analytic shapes the phantom is built from: each knows its box and its distance to any point of a grid.

All coordinates are the standard body's own millimeters: +x to the patient's right, +y to the front, +z to the head,
z = 0 at the soles. A distance is negative inside, positive outside, and close to millimeters near the surface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

from .grid import EVERYWHERE, Box, Field, Point_mm, Points, Vector, to_point

FAR_MM = 1000.0
"""Distance reported where nothing was evaluated."""

_REACH_MM = 4.0
"""How far outside its surface a shape still answers with a distance."""


class Shape(Protocol):
    """Something with an inside."""

    @property
    def box(self) -> Box:
        """Where the shape and a small margin around it lie."""
        ...

    def distance(self, points: Points) -> Field:
        """Distance in millimeters, shape (I, J, K), negative inside; FAR_MM where not evaluated."""
        ...


def _nothing(points: Points) -> Field:
    return np.full(points.shape, FAR_MM, dtype=np.float32)


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid; ``axes`` are its three unit directions (rows), the body's own axes if not given."""

    center: Point_mm
    radii: Point_mm
    axes: tuple[Point_mm, Point_mm, Point_mm] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    @property
    def box(self) -> Box:
        extent = np.sqrt(((np.array(self.axes) * np.array(self.radii)[:, None]) ** 2).sum(axis=0)) + _REACH_MM
        return Box(to_point(np.array(self.center) - extent), to_point(np.array(self.center) + extent))

    def distance(self, points: Points) -> Field:
        x, y, z = (v - np.float32(c) for v, c in zip((points.x, points.y, points.z), self.center, strict=True))
        near = np.zeros(points.shape, dtype=np.float32)
        slope = np.zeros(points.shape, dtype=np.float32)
        for axis, radius in zip(self.axes, self.radii, strict=True):
            along = (x * np.float32(axis[0]) + y * np.float32(axis[1]) + z * np.float32(axis[2])) / np.float32(radius)
            along *= along
            near += along
            slope += along / np.float32(radius * radius)
        near = np.sqrt(near)
        # First-order distance: the implicit value over the length of its gradient.
        result: Field = near * (near - 1) / np.maximum(np.sqrt(slope), np.float32(1e-6))
        result[near < 1e-4] = -min(self.radii)
        return result


@dataclass(frozen=True, eq=False)
class Tube:
    """A round tube along a broken line.

    Attributes:
        points: Shape (N, 3).
        radii: Shape (N,), millimeters.
        reach_mm: How far outside the surface distances are still evaluated.
    """

    points: Vector
    radii: Vector
    reach_mm: float = _REACH_MM

    @cached_property
    def box(self) -> Box:
        return Box.around(self.points, self.radii + self.reach_mm)

    def distance(self, points: Points) -> Field:
        result = _nothing(points)
        low, high = self._piece_boxes
        seen = points.box
        near = (low <= seen.high).all(axis=1) & (high >= seen.low).all(axis=1)
        for n in np.flatnonzero(near):
            where, sub = points.within(Box(to_point(low[n]), to_point(high[n])))
            if min(sub.shape):
                piece = _to_segment(sub, *self.points[n : n + 2], *self.radii[n : n + 2])
                np.minimum(result[where], piece, out=result[where])
        return result

    @cached_property
    def _piece_boxes(self) -> tuple[Vector, Vector]:
        """Lowest and highest corner of every piece, each (N - 1, 3)."""
        margin = (np.maximum(self.radii[1:], self.radii[:-1]) + self.reach_mm)[:, None]
        a, b = self.points[:-1], self.points[1:]
        return np.minimum(a, b) - margin, np.maximum(a, b) + margin


def _to_segment(points: Points, a: Vector, b: Vector, radius_a: float, radius_b: float) -> Field:
    x, y, z = points.x - np.float32(a[0]), points.y - np.float32(a[1]), points.z - np.float32(a[2])
    ab = (b - a).astype(np.float32)
    share = (x * ab[0] + y * ab[1] + z * ab[2]) / np.float32(max(float(ab @ ab), 1e-6))
    np.clip(share, 0, 1, out=share)
    square = (x - share * ab[0]) ** 2
    square += (y - share * ab[1]) ** 2
    square += (z - share * ab[2]) ** 2
    result: Field = np.sqrt(square) - (np.float32(radius_a) + share * np.float32(radius_b - radius_a))
    return result


def smooth_tube(
    rows: Sequence[tuple[float, float, float, float]], *, step_mm: float = 7.0, reach_mm: float = _REACH_MM
) -> Tube:
    """A tube along a smooth curve through ``rows`` of (x, y, z, radius), all in millimeters."""
    table = np.asarray(rows, dtype=np.float64)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(table[:, :3], axis=0), axis=1))])
    count = max(2, round(float(length[-1]) / step_mm) + 1)
    dense = PchipInterpolator(length, table, axis=0)(np.linspace(0.0, length[-1], count))
    return Tube(dense[:, :3], dense[:, 3], reach_mm)


def rod(rows: Sequence[tuple[float, float, float, float]], *, reach_mm: float = _REACH_MM) -> Tube:
    """A tube along straight pieces through ``rows`` of (x, y, z, radius), all in millimeters."""
    table = np.asarray(rows, dtype=np.float64)
    return Tube(table[:, :3], table[:, 3], reach_mm)


def fan(edge_a: npt.ArrayLike, edge_b: npt.ArrayLike, radius_mm: float, *, step_mm: float = 6.0) -> AnyOf:
    """A curved plate between two curves (N, 3) and (M, 3), made of rods from one to the other."""
    ends = [np.asarray(edge, dtype=np.float64) for edge in (edge_a, edge_b)]
    longest = max(float(np.linalg.norm(np.diff(edge, axis=0), axis=1).sum()) for edge in ends)
    count = max(2, round(longest / step_mm) + 1)
    a, b = (_resampled(edge, count) for edge in ends)
    radii = np.full(2, radius_mm)
    return AnyOf(tuple(Tube(np.stack([p, q]), radii) for p, q in zip(a, b, strict=True)))


def _resampled(curve: Vector, count: int) -> Vector:
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    if length[-1] == 0:
        return np.repeat(curve[:1], count, axis=0)
    result: Vector = PchipInterpolator(length, curve, axis=0)(np.linspace(0.0, length[-1], count))
    return result


@dataclass(frozen=True, eq=False)
class Loft:
    """A stack of superellipses along z.

    Attributes:
        rows: Shape (N, 5), ascending z: z, center x, half width, back y, front y.
        power: 2 is an ellipse, more is boxier.
        dent_mm, dent_width_mm: How far, and over which half width, the back is pushed in at the center line.
    """

    rows: Vector
    power: float = 2.0
    dent_mm: float = 0.0
    dent_width_mm: float = 40.0

    @cached_property
    def box(self) -> Box:
        z, cx, half, back, front = self.rows.T
        low = ((cx - half).min() - _REACH_MM, back.min() - _REACH_MM, z[0])
        return Box(to_point(low), to_point(((cx + half).max() + _REACH_MM, front.max() + _REACH_MM, z[-1])))

    @cached_property
    def _dense(self) -> Vector:
        z = np.linspace(self.rows[0, 0], self.rows[-1, 0], max(2, int(np.ptp(self.rows[:, 0]) / 2)))
        result: Vector = np.column_stack([z, PchipInterpolator(self.rows[:, 0], self.rows[:, 1:], axis=0)(z)])
        return result

    def _sections(self, zs: Field) -> tuple[Field, ...]:
        dense = self._dense
        radius = dense[:, 2] + 0.5 * (dense[:, 4] - dense[:, 3])
        slope = np.gradient(0.5 * radius, dense[:, 0])
        columns = (*dense[:, 1:].T, 1 / np.sqrt(1 + np.minimum(slope**2, 1.0)))
        return tuple(np.interp(zs, dense[:, 0], c).astype(np.float32)[None, None, :] for c in columns)

    def distance(self, points: Points) -> Field:
        cx, half, back, front, upright = self._sections(points.zs)
        x, y = points.x - cx, points.y - 0.5 * (back + front)
        depth = 0.5 * (front - back)
        power = np.float32(self.power)
        share_y = np.abs(y) / depth
        if self.dent_mm:
            dent = self.dent_mm * np.exp(-((points.x / np.float32(self.dent_width_mm)) ** 2))
            share_y = share_y * np.where(y < 0, depth / (depth - np.minimum(dent, 0.8 * depth)), np.float32(1))
        norm = (np.abs(x) / half) ** power + share_y**power
        norm = np.sqrt(norm) if self.power == 2 else norm ** (1 / power)
        radial = np.maximum(np.sqrt(x * x + y * y), np.float32(0.01))
        # Radial distance to the outline, shortened where the outline leans along z.
        result: Field = (radial - radial / np.maximum(norm, np.float32(1e-4))) * upright
        low, high = np.float32(self.rows[0, 0]), np.float32(self.rows[-1, 0])
        capped: Field = np.maximum(result, np.maximum(low - points.z, points.z - high))
        return capped


def loft(
    rows: Sequence[tuple[float, ...]], *, power: float = 2.0, dent_mm: float = 0.0, dent_width_mm: float = 40.0
) -> Loft:
    """A Loft from rows of (z, half width, back y, front y) on the center line, or with the center x second."""
    table = np.asarray(sorted(rows), dtype=np.float64)
    if table.shape[1] == 4:
        table = np.insert(table, 1, 0.0, axis=1)
    return Loft(table, power, dent_mm, dent_width_mm)


@dataclass(frozen=True)
class Drum:
    """A short waisted elliptic cylinder, as a vertebral body: tilted about x by ``tilt_rad`` (front end up)."""

    center: Point_mm
    half_width: float
    half_depth: float
    half_height: float
    tilt_rad: float = 0.0

    @property
    def box(self) -> Box:
        return Box.around([self.center], max(self.half_width, self.half_depth, self.half_height) * 1.3 + _REACH_MM)

    def distance(self, points: Points) -> Field:
        x, y, z = (v - np.float32(c) for v, c in zip((points.x, points.y, points.z), self.center, strict=True))
        cos, sin = np.float32(np.cos(self.tilt_rad)), np.float32(np.sin(self.tilt_rad))
        depth, height = y * cos + z * sin, z * cos - y * sin
        waist = 1 - np.float32(0.1) * np.clip(1 - (height / np.float32(self.half_height)) ** 2, 0, 1)
        norm = np.sqrt((x / np.float32(self.half_width)) ** 2 + (depth / np.float32(self.half_depth)) ** 2) / waist
        side = (norm - 1) * np.float32(min(self.half_width, self.half_depth))
        result: Field = np.maximum(side, np.abs(height) - np.float32(self.half_height))
        return result


@dataclass(frozen=True)
class Slab:
    """The half space where ``normal . p`` is below ``offset_mm``; ``normal`` has length one."""

    normal: Point_mm
    offset_mm: float

    @property
    def box(self) -> Box:
        return EVERYWHERE

    def distance(self, points: Points) -> Field:
        a, b, c = (np.float32(v) for v in self.normal)
        result: Field = points.x * a + points.y * b + points.z * c - np.float32(self.offset_mm)
        return result


@dataclass(frozen=True)
class Under:
    """Everything below (or, with ``above``, above) the surface z = height(x, y)."""

    height: Callable[[Field, Field], Field]
    above: bool = False

    @property
    def box(self) -> Box:
        return EVERYWHERE

    def distance(self, points: Points) -> Field:
        result: Field = (points.z - self.height(points.x, points.y)) * np.float32(0.7)
        return -result if self.above else result


@dataclass(frozen=True)
class AnyOf:
    """Union. With ``blend_mm`` the pieces flow into each other over about that distance."""

    pieces: tuple[Shape, ...]
    blend_mm: float = 0.0

    @property
    def box(self) -> Box:
        box = self.pieces[0].box
        for piece in self.pieces[1:]:
            box = box.union(piece.box)
        return box.grown(self.blend_mm)

    def distance(self, points: Points) -> Field:
        result = _nothing(points)
        for piece in self.pieces:
            where, sub = points.within(piece.box.grown(self.blend_mm))
            if not min(sub.shape):
                continue
            other = piece.distance(sub)
            mine = result[where]
            if self.blend_mm:
                close = np.maximum(np.float32(self.blend_mm) - np.abs(mine - other), 0)
                other = np.minimum(mine, other) - close * close * np.float32(0.25 / self.blend_mm)
            np.minimum(mine, other, out=mine)
        return result


@dataclass(frozen=True)
class AllOf:
    """Intersection."""

    pieces: tuple[Shape, ...]

    @property
    def box(self) -> Box:
        box = self.pieces[0].box
        for piece in self.pieces[1:]:
            box = box.common(piece.box)
        return box

    def distance(self, points: Points) -> Field:
        result = self.pieces[0].distance(points)
        for piece in self.pieces[1:]:
            result = np.maximum(result, piece.distance(points))
        return result


@dataclass(frozen=True)
class Without:
    """``whole`` with ``hole``, grown by ``margin_mm``, taken out."""

    whole: Shape
    hole: Shape
    margin_mm: float = 0.0

    @property
    def box(self) -> Box:
        return self.whole.box

    def distance(self, points: Points) -> Field:
        result = self.whole.distance(points)
        where, sub = points.within(self.hole.box)
        if min(sub.shape):
            np.maximum(result[where], np.float32(self.margin_mm) - self.hole.distance(sub), out=result[where])
        return result


@dataclass(frozen=True)
class Grown:
    """``shape`` grown by ``margin_mm`` on every side (shrunk if negative)."""

    shape: Shape
    margin_mm: float

    @property
    def box(self) -> Box:
        return self.shape.box.grown(self.margin_mm)

    def distance(self, points: Points) -> Field:
        result: Field = self.shape.distance(points) - np.float32(self.margin_mm)
        return result
