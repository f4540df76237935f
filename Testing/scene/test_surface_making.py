"""Surfaces of shapes whose volume, center and extent are known in closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from mrml_nodes import LEFT_HANDED, OBLIQUE

pytestmark = pytest.mark.scene

FLAT = np.diag([0.8, 0.8, 4.0, 1.0])


def _ball(shape: tuple[int, int, int], center: tuple[float, float, float], radius: float) -> npt.NDArray[np.uint16]:
    distance = [(np.arange(side) - middle) / radius for side, middle in zip(shape, center, strict=True)]
    inside = sum(d**2 for d in np.meshgrid(*distance, indexing="ij", sparse=True)) <= 1
    return np.where(inside, 7, 0).astype(np.uint16)


def _surface(labels: npt.NDArray[Any], affine: npt.NDArray[Any], value: int = 7) -> Any:
    from WholeBodyCSSLib.SurfaceMaking import boxes, organSurface

    ((found, box),) = boxes(labels, [value])
    assert found == value
    return organSurface(labels, value, box, affine)


def _points(surface: Any) -> npt.NDArray[np.float64]:
    from vtk.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(surface.GetPoints().GetData()).astype(np.float64)


def _triangles(surface: Any) -> npt.NDArray[Any]:
    from vtk.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3)


def _volume(surface: Any) -> float:
    """Signed: positive only if the corners of every triangle run counter-clockwise seen from outside."""
    a, b, c = (_points(surface)[_triangles(surface)[:, corner]] for corner in range(3))
    return float((np.cross(a, b) * c).sum() / 6)


def _is_closed(surface: Any) -> bool:
    """Whether every edge belongs to exactly two triangles that run along it in opposite directions."""
    triangles = _triangles(surface)
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    return {tuple(edge) for edge in edges.tolist()} == {tuple(edge) for edge in edges[:, ::-1].tolist()}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "affine", [np.eye(4), OBLIQUE, LEFT_HANDED, FLAT], ids=["plain", "oblique", "left-handed", "flat"]
)
def test_a_ball_becomes_a_closed_smooth_ball_at_its_place(affine: npt.NDArray[Any], order: Any) -> None:
    center, radius = (14.0, 16.0, 12.0), 9.0
    labels = np.array(_ball((30, 33, 28), center, radius), order=order)
    surface = _surface(labels, affine)
    assert _is_closed(surface)
    exact = 4 / 3 * math.pi * radius**3 * abs(np.linalg.det(affine[:3, :3]))
    assert _volume(surface) == pytest.approx(exact, rel=0.03)
    ijk = (np.linalg.inv(affine) @ np.vstack([_points(surface).T, np.ones(surface.GetNumberOfPoints())]))[:3].T
    np.testing.assert_allclose(np.linalg.norm(ijk - center, axis=1), radius, atol=0.5)
    np.testing.assert_allclose(ijk.mean(axis=0), center, atol=0.1)


@pytest.mark.parametrize("affine", [OBLIQUE, LEFT_HANDED], ids=["oblique", "left-handed"])
def test_normals_look_outward(affine: npt.NDArray[Any]) -> None:
    from vtk.util.numpy_support import vtk_to_numpy

    center = np.array([9.0, 9.0, 9.0])
    surface = _surface(_ball((19, 19, 19), (9.0, 9.0, 9.0), 6.0), affine)
    normals = vtk_to_numpy(surface.GetPointData().GetNormals())
    outward = _points(surface) - (affine[:3, :3] @ center + affine[:3, 3])
    assert ((normals * outward).sum(axis=1) > 0).all()


def test_a_large_organ_gets_few_triangles_and_keeps_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    from WholeBodyCSSLib import SurfaceMaking

    center, radius = (40.0, 40.0, 40.0), 36.0
    labels = _ball((81, 81, 81), center, radius)
    fine = _surface(labels, np.eye(4))
    monkeypatch.setattr(SurfaceMaking, "MAX_TRIANGLES", 4000)
    monkeypatch.setattr(SurfaceMaking, "MAX_EDGE_MM", 10.0)
    coarse = _surface(labels, np.eye(4))
    assert coarse.GetNumberOfPolys() < 0.25 * fine.GetNumberOfPolys()
    assert coarse.GetNumberOfPolys() < 6000
    assert _is_closed(coarse)
    assert _volume(coarse) == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.02)
    np.testing.assert_allclose(np.linalg.norm(_points(coarse) - center, axis=1), radius, atol=1.0)


def test_a_thin_organ_is_never_sampled_coarser_than_it_is_thick(monkeypatch: pytest.MonkeyPatch) -> None:
    from WholeBodyCSSLib import SurfaceMaking

    monkeypatch.setattr(SurfaceMaking, "MAX_TRIANGLES", 10)
    monkeypatch.setattr(SurfaceMaking, "MAX_EDGE_MM", 10.0)
    sheet = np.zeros((40, 40, 9), dtype=np.uint16)
    sheet[2:-2, 2:-2, 4] = 7
    assert _volume(_surface(sheet, np.eye(4))) > 0.5 * 36 * 36
    i, j, k = SurfaceMaking.blockSize(1e4, 12.0, np.array([1.0, 1.0, 3.0]))
    assert (i, j) == (6, 6)
    assert k == 2, "12 mm thick, 3 mm a slice: two blocks of two slices"
    assert SurfaceMaking.blockSize(1e4, 1.0, np.ones(3)) == (1, 1, 1)
    monkeypatch.setattr(SurfaceMaking, "MAX_EDGE_MM", 2.5)
    assert SurfaceMaking.blockSize(1e9, 100.0, np.array([0.5, 1.0, 3.0])) == (5, 2, 1), "2.5 mm, whatever the size"


def test_an_organ_of_one_voxel_and_one_cut_off_by_the_scan_are_closed() -> None:
    one = np.zeros((3, 3, 3), dtype=np.uint16)
    one[1, 1, 1] = 7
    surface = _surface(one, np.eye(4))
    assert _is_closed(surface)
    assert 0.15 < _volume(surface) < 1.0
    np.testing.assert_allclose(_points(surface).mean(axis=0), [1, 1, 1], atol=1e-3)
    full = np.full((12, 12, 12), 7, dtype=np.uint16)
    surface = _surface(full, np.eye(4))
    assert _is_closed(surface)
    assert _volume(surface) == pytest.approx(12**3, rel=0.05)


def test_a_vessel_of_two_voxels_keeps_most_of_its_volume() -> None:
    vessel = np.zeros((60, 6, 6), dtype=np.uint16)
    vessel[2:58, 2:4, 2:4] = 7
    surface = _surface(vessel, np.eye(4))
    assert _is_closed(surface)
    assert _volume(surface) == pytest.approx(56 * 4, rel=0.2)


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_box_of_each_label_is_found(rng: np.random.Generator, order: Any) -> None:
    from WholeBodyCSSLib.SurfaceMaking import boxes

    labels = np.array(rng.choice([0, 0, 0, 0, 3, 9, 300], (6, 7, 8)).astype(np.uint16), order=order)
    labels[labels == 3] = 0
    labels[2, 3:5, 1] = 3
    found = dict(boxes(labels, [300, 3, 9, 4, 500]))
    assert sorted(found) == [3, 9, 300], "absent labels are left out"
    for value, box in found.items():
        places = np.argwhere(labels == value)
        assert [(side.start, side.stop) for side in box] == list(
            zip(places.min(axis=0).tolist(), (places.max(axis=0) + 1).tolist(), strict=True)
        )
    assert dict(boxes(labels, [])) == {}
