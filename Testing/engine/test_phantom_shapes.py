"""Analytic shapes against naive formulas, point by point."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from wbcss.phantom.grid import Box, Points
from wbcss.phantom.looks import Look, intensities
from wbcss.phantom.shapes import (
    FAR_MM,
    AllOf,
    AnyOf,
    Drum,
    Ellipsoid,
    Grown,
    Slab,
    Tube,
    Under,
    Without,
    loft,
    rod,
    smooth_tube,
)


def _grid(low: float = -30.0, high: float = 30.0, step: float = 3.0) -> Points:
    axis = np.arange(low, high + step / 2, step, dtype=np.float32)
    shift = np.zeros_like(axis)
    return Points(axis, axis, axis, shift, shift)


def _everywhere(points: Points, formula: Callable[[float, float, float], float]) -> np.ndarray:
    """The slow version: one call per point."""
    result = np.empty(points.shape)
    for i, j, k in np.ndindex(points.shape):
        x = points.xs[i] - points.shift_x[k]
        y = points.ys[j] - points.shift_y[k]
        result[i, j, k] = formula(float(x), float(y), float(points.zs[k]))
    return result


def test_a_ball_has_the_distance_to_its_center() -> None:
    points = _grid(step=7.0)
    naive = _everywhere(points, lambda x, y, z: np.sqrt((x - 2) ** 2 + (y + 3) ** 2 + z**2) - 11)
    assert np.allclose(Ellipsoid((2.0, -3.0, 0.0), (11.0, 11.0, 11.0)).distance(points), naive, atol=1e-4)


def test_a_turned_ellipsoid_holds_the_points_of_its_equation() -> None:
    turn = np.radians(30)
    axes = ((np.cos(turn), np.sin(turn), 0.0), (-np.sin(turn), np.cos(turn), 0.0), (0.0, 0.0, 1.0))
    radii = (20.0, 8.0, 12.0)
    points = _grid()

    def value(x: float, y: float, z: float) -> float:
        return sum((float(np.dot(axis, (x, y, z))) / r) ** 2 for axis, r in zip(axes, radii, strict=True)) - 1

    inside = Ellipsoid((0.0, 0.0, 0.0), radii, axes).distance(points) < 0
    assert np.array_equal(inside, _everywhere(points, value) < 0)
    assert inside.any()


def test_a_tube_is_as_far_as_its_nearest_piece() -> None:
    corners = np.array([[-15.0, 0.0, -10.0], [5.0, 4.0, 0.0], [12.0, -8.0, 14.0]])
    radii = np.array([4.0, 6.0, 3.0])

    def distance(x: float, y: float, z: float) -> float:
        best = FAR_MM
        for a, b, ra, rb in zip(corners, corners[1:], radii, radii[1:], strict=False):
            share = np.clip(np.dot((x, y, z) - a, b - a) / np.dot(b - a, b - a), 0, 1)
            best = min(best, float(np.linalg.norm((x, y, z) - a - share * (b - a)) - (ra + share * (rb - ra))))
        return best

    points = _grid()
    naive = _everywhere(points, distance)
    near = naive < 3.0
    result = Tube(corners, radii).distance(points)
    assert np.allclose(result[near], naive[near], atol=1e-3)
    assert (result[~near] >= 2.9).all()


def test_a_smooth_tube_passes_through_its_rows() -> None:
    rows = [(0.0, 0.0, 0.0, 3.0), (10.0, 5.0, 10.0, 5.0), (12.0, 20.0, 25.0, 4.0)]
    tube = smooth_tube(rows, step_mm=0.5)
    for *place, radius in rows:
        nearest = np.linalg.norm(tube.points - place, axis=1).argmin()
        assert np.linalg.norm(tube.points[nearest] - place) < 0.5
        assert tube.radii[nearest] == pytest.approx(radius, abs=0.2)


def test_a_loft_is_an_ellipse_at_every_height() -> None:
    shape = loft([(-20, 10, -8, 12), (0, 10, -8, 12), (20, 10, -8, 12)])
    points = _grid()
    inside = shape.distance(points) < 0
    naive = _everywhere(points, lambda x, y, z: max((x / 10) ** 2 + ((y - 2) / 10) ** 2 - 1, abs(z) - 20))
    assert np.array_equal(inside, naive < 0)
    assert shape.distance(points)[10, 10, 10] == pytest.approx(-8, abs=0.2)


def test_a_dent_pushes_the_back_in_at_the_center_line_only() -> None:
    rows = [(-20, 25, -20, 20), (20, 25, -20, 20)]
    plain, dented = loft(rows), loft(rows, dent_mm=9.0, dent_width_mm=6.0)
    at = {place: (plain.distance(_one(*place)).item(), dented.distance(_one(*place)).item()) for place in
          ((0.0, -15.0, 0.0), (0.0, 15.0, 0.0), (20.0, -5.0, 0.0))}  # fmt: skip
    assert at[(0.0, -15.0, 0.0)][0] < 0 < at[(0.0, -15.0, 0.0)][1]
    assert at[(0.0, 15.0, 0.0)][0] == at[(0.0, 15.0, 0.0)][1]
    assert at[(20.0, -5.0, 0.0)][0] == pytest.approx(at[(20.0, -5.0, 0.0)][1], abs=0.01)


def _one(x: float, y: float, z: float) -> Points:
    xs, ys, zs = (np.array([v], np.float32) for v in (x, y, z))
    return Points(xs, ys, zs, np.zeros(1, np.float32), np.zeros(1, np.float32))


def test_a_drum_is_waisted_between_its_ends() -> None:
    drum = Drum((0.0, 0.0, 0.0), 10.0, 8.0, 6.0)
    assert drum.distance(_one(9.5, 0, 0)).item() > 0
    assert drum.distance(_one(9.5, 0, 5.9)).item() < 0
    assert drum.distance(_one(0, 0, 6.5)).item() > 0
    tilted = Drum((0.0, 0.0, 0.0), 10.0, 8.0, 6.0, tilt_rad=float(np.radians(40)))
    assert tilted.distance(_one(0, 4.5, 4.5)).item() < 0 < tilted.distance(_one(0, 4.5, -4.5)).item()


def test_unions_cuts_and_growth_follow_set_algebra() -> None:
    points = _grid()
    a, b = Ellipsoid((-5.0, 0.0, 0.0), (12.0, 12.0, 12.0)), Ellipsoid((7.0, 2.0, 0.0), (10.0, 10.0, 10.0))
    in_a, in_b = a.distance(points) < 0, b.distance(points) < 0
    assert np.array_equal(AnyOf((a, b)).distance(points) < 0, in_a | in_b)
    assert np.array_equal(AllOf((a, b)).distance(points) < 0, in_a & in_b)
    assert np.array_equal(Without(a, b).distance(points) < 0, in_a & ~in_b)
    assert np.allclose(
        Grown(a, 4.0).distance(points), Ellipsoid((-5.0, 0.0, 0.0), (16.0,) * 3).distance(points), atol=1e-3
    )
    blended = AnyOf((a, b), 8.0).distance(points) < 0
    assert ((in_a | in_b) <= blended).all()
    assert blended.sum() > (in_a | in_b).sum()


def test_half_spaces_keep_their_side() -> None:
    points = _grid()
    assert np.array_equal(Slab((0.6, 0.0, 0.8), 5.0).distance(points) < 0,
                          _everywhere(points, lambda x, _y, z: 0.6 * x + 0.8 * z - 5) < -1e-5)  # fmt: skip
    below, above = (Under(lambda x, y: x + y, above=side).distance(points) for side in (False, True))
    assert np.array_equal(below, -above)
    assert np.array_equal(below < 0, _everywhere(points, lambda x, y, z: z - x - y) < 0)


def test_points_within_a_box_follow_the_shift_of_every_slice() -> None:
    axis = np.arange(0, 50, 1, dtype=np.float32)
    shift = np.where(axis < 25, 0, 10).astype(np.float32)
    points = Points(axis, axis, axis, shift, np.zeros_like(axis))
    where, sub = points.within(Box((5.0, 5.0, 20.0), (8.0, 8.0, 30.0)))
    assert where[0] == slice(5, 18 + 1) or where[0] == slice(5, 18)
    assert where[2] == slice(20, 30)
    assert sub.x[:, 0, 0].min() <= 5
    assert sub.x[:, 0, -1].max() >= 7
    empty, nothing = points.within(Box((5.0, 5.0, 90.0), (8.0, 8.0, 95.0)))
    assert 0 in nothing.shape
    assert axis[empty[2]].size == 0


def test_moved_points_see_the_shape_scaled_and_shifted() -> None:
    points = _grid(step=2.0)
    ball = Ellipsoid((3.0, 0.0, 0.0), (8.0, 8.0, 8.0))
    moved = points.moved((3.0, 0.0, 0.0), 1.5, (-4.0, 2.0, 6.0))
    expected = Ellipsoid((-1.0, 2.0, 6.0), (12.0, 12.0, 12.0)).distance(points) < 0
    assert np.array_equal(ball.distance(moved) < 0, expected)


def test_a_rod_reaches_from_end_to_end() -> None:
    points = _grid()
    inside = rod([(-10, 0, 0, 5), (10, 0, 0, 5)]).distance(points) < 0
    naive = _everywhere(points, lambda x, y, z: np.hypot(max(abs(x) - 10, 0), np.hypot(y, z)) - 5)
    assert np.array_equal(inside, naive < 0)


def test_a_rim_surrounds_the_inside_and_gas_collects_in_front(rng: np.random.Generator) -> None:
    count = 4000
    xyz = tuple(rng.uniform(-200, 200, count).astype(np.float32) for _ in range(3))
    depth = rng.uniform(0, 12, count).astype(np.float32)
    front = rng.uniform(-1, 1, count).astype(np.float32)
    phases = np.zeros(3, np.float32)
    bone = intensities(Look(hu=100, rim_hu=900, rim_mm=3.0, texture_hu=0), depth, xyz, front, phases)
    assert (bone[depth < 2.9] == 900).all()
    assert (bone[depth > 4.2] == 100).all()
    bowel = intensities(Look(hu=30, gas=0.4, texture_hu=0), depth, xyz, front, phases)
    gas = bowel < -900
    assert 0.05 < gas.mean() < 0.7
    assert gas[front > 0.5].mean() > gas[front < -0.5].mean() + 0.2
