"""Slices with gaps, tilt, copies or varied spacing become a volume on a rectangular, regular grid, or are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_slices import COLUMNS, EXPECTED_AFFINE, ROWS, SPACING_COLUMNS, SPACING_ROWS, dataset, save, save_series, scan

from wbcss.errors import GeometryError
from wbcss.io.dicomstack import AIR_HU
from wbcss.io.reading import read_volume


def test_one_missing_slice_is_filled_in_between_its_neighbors(tmp_path: Path, rng: np.random.Generator) -> None:
    hu = scan(rng, 8)
    z = np.arange(8) * 2.5 - 100
    save_series(tmp_path, np.delete(hu, 4, axis=0), z=np.delete(z, 4))
    result = read_volume(tmp_path)
    assert result.warnings == (
        "1 missing slice(s) filled in from both neighbors (between -92.5 and -87.5 mm); check there",
    )
    assert result.volume.shape == (COLUMNS, ROWS, 8)
    assert np.allclose(result.volume.affine, EXPECTED_AFFINE)
    kept = [n for n in range(8) if n != 4]
    assert np.array_equal(result.volume.voxels[:, :, kept], hu[kept].T)
    middle = np.rint((hu[3].astype(float) + hu[5]) / 2)
    assert np.array_equal(result.volume.voxels[:, :, 4], middle.T)
    assert len(result.source_files) == 7


def test_a_longer_gap_is_refused_by_its_place(tmp_path: Path, rng: np.random.Generator) -> None:
    save_series(tmp_path, scan(rng, 6), z=[-100, -97.5, -95, -87.5, -85, -82.5])
    with pytest.raises(GeometryError, match=r"2 slices are missing in a row, between -95\.0 and -87\.5 mm") as caught:
        read_volume(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")


def test_too_many_single_gaps_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    z = np.delete(np.arange(12) * 2.5, [2, 5, 8])
    save_series(tmp_path, scan(rng, 9), z=z)
    with pytest.raises(GeometryError, match="3 slices are missing beside the 9 that are there"):
        read_volume(tmp_path)


def test_varied_spacing_is_resampled_to_a_regular_grid(tmp_path: Path) -> None:
    # A ramp along z is reproduced exactly by linear interpolation.
    z = np.array([0.0, 2, 4, 7, 10, 13])
    hu = np.broadcast_to((z * 10 - 1000)[:, None, None], (6, ROWS, COLUMNS)).astype(np.int16)
    save_series(tmp_path, hu, z=z)
    result = read_volume(tmp_path)
    spacing = 13 / round(13 / 2)
    assert result.warnings == (
        f"the distance between slices varies from 2.00 to 3.00 mm; resampled every {spacing:.2f} mm: "
        "the result lies on this regular grid",
    )
    heights = result.volume.affine[2, 3] + result.volume.affine[2, 2] * np.arange(result.volume.shape[2])
    assert np.allclose(heights, np.arange(7) * 13 / 6)
    assert np.abs(result.volume.voxels[3, 4] - (heights * 10 - 1000)).max() <= 0.5


def test_wildly_varied_spacing_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    save_series(tmp_path, scan(rng, 6), z=[0, 1, 2.3, 3, 15.2, 16])
    with pytest.raises(GeometryError, match=r"12\.20 mm lie between the slices at 3\.0 and 15\.2 mm, elsewhere 0\.70"):
        read_volume(tmp_path)


def test_rounded_positions_are_regular(tmp_path: Path, rng: np.random.Generator) -> None:
    hu = scan(rng, 20)
    save_series(tmp_path, hu, z=np.round(np.arange(20) * 1.25 - 333.3, 1))
    result = read_volume(tmp_path)
    assert result.warnings == ()
    assert np.array_equal(result.volume.voxels, hu.T)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_tilted_gantry_is_straightened(tmp_path: Path, sign: float) -> None:
    """A vertical rod drawn into tilted slices stands upright again, at its place in the patient."""
    tilt = np.tan(np.radians(20.0)) * sign
    num, rows, columns = 12, 60, 12
    z = np.arange(num) * 2.0
    y = 30.0 + tilt * z[:, None] + SPACING_ROWS * np.arange(rows)  # (slices, rows), LPS mm
    rod_y = float(np.mean([y.max(axis=1).min(), y.min(axis=1).max()]))
    profile = np.clip(1 - np.abs(y - rod_y) / 4.0, 0, None) * 1000 - 1000
    hu = np.broadcast_to(profile[:, :, None], (num, rows, columns)).astype(np.int16)
    save_series(tmp_path, hu, z=z, shift=(0.0, tilt))
    result = read_volume(tmp_path)
    assert result.warnings == (
        "gantry tilt of 20.0 degrees corrected: every slice was shifted in its plane onto a rectangular grid, and the "
        "result lies on that corrected grid",
    )
    voxels, affine = result.volume.voxels, result.volume.affine
    assert np.allclose(affine[:3, :3], np.diag([-0.6, -0.8, 2.0]))
    # Every voxel against the rod where the affine says the voxel is; linear interpolation rounds its tip.
    y_ras = affine[1, 3] + affine[1, 1] * np.arange(voxels.shape[1])
    expected = np.clip(1 - np.abs(-y_ras - rod_y) / 4.0, 0, None) * 1000 - 1000
    inside = np.abs(-y_ras - rod_y) < 6
    assert np.abs(voxels[5][inside] - expected[inside, None]).max() < 110
    weight = (voxels[5] + 1000.0).clip(0) * inside[:, None]
    centers = (weight * y_ras[:, None]).sum(axis=0) / weight.sum(axis=0)
    assert np.abs(-centers - rod_y).max() < 0.1
    assert voxels.min() == AIR_HU


def test_a_shift_by_whole_pixels_keeps_every_value(tmp_path: Path, rng: np.random.Generator) -> None:
    hu = scan(rng, 4)
    save_series(tmp_path, hu, shift=(2 * SPACING_COLUMNS / 2.5, SPACING_ROWS / 2.5))
    voxels = read_volume(tmp_path).volume.voxels
    assert voxels.shape == (COLUMNS + 6, ROWS + 3, 4)
    for n in range(4):
        part = (slice(2 * n, 2 * n + COLUMNS), slice(n, n + ROWS), n)
        assert np.array_equal(voxels[part], hu[n].T)
        outside = np.ones(voxels.shape[:2], bool)
        outside[part[:2]] = False
        assert (voxels[:, :, n][outside] == AIR_HU).all()


def test_a_slice_displaced_alone_is_put_where_it_says(tmp_path: Path, rng: np.random.Generator) -> None:
    hu = scan(rng, 5)
    for n, plane in enumerate(hu):
        save(dataset(plane, (-20.0 + (3.0 if n == 2 else 0.0), 30, -100 + 2.5 * n)), tmp_path / str(n))
    result = read_volume(tmp_path)
    assert result.warnings[0].startswith("slices are displaced sideways by up to 3.0 mm")
    assert np.array_equal(result.volume.voxels[5 : 5 + COLUMNS, :, 2], hu[2].T)
    assert np.array_equal(result.volume.voxels[:COLUMNS, :, 1], hu[1].T)


def test_a_single_slice_takes_its_thickness(tmp_path: Path, rng: np.random.Generator) -> None:
    hu = scan(rng, 1)
    save_series(tmp_path, hu)
    result = read_volume(tmp_path)
    assert np.array_equal(result.volume.voxels, hu.T)
    assert result.volume.spacing_mm == pytest.approx((0.6, 0.8, 2.5))
    assert result.warnings == ("a single slice, taken as 2.5 mm thick",)


def test_copies_of_a_slice_are_left_out(tmp_path: Path, rng: np.random.Generator) -> None:
    hu = scan(rng, 3)
    save_series(tmp_path, hu)
    (tmp_path / "im001 (copy)").write_bytes((tmp_path / "im001").read_bytes())
    result = read_volume(tmp_path)
    assert np.array_equal(result.volume.voxels, hu.T)
    assert result.warnings == ("left out 1 file(s) that repeat a slice",)


def test_two_acquisitions_of_one_place_give_the_longer_one(tmp_path: Path, rng: np.random.Generator) -> None:
    late = scan(rng, 5)
    save_series(tmp_path, scan(rng, 3), prefix="a")
    save_series(tmp_path, late, prefix="b", AcquisitionNumber=2)
    result = read_volume(tmp_path)
    assert np.array_equal(result.volume.voxels, late.T)
    assert result.warnings == (
        "the series holds 2 scans of the same place; used the one with 5 slices (acquisition 2)",
    )


def test_slices_of_one_place_that_nothing_tells_apart_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    save_series(tmp_path, scan(rng, 3), prefix="a")
    save_series(tmp_path, scan(rng, 3), prefix="b")
    with pytest.raises(GeometryError, match=r"3 slices lie where another one lies \(the first at -100\.0 mm"):
        read_volume(tmp_path)


def test_directions_that_are_none_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    save_series(tmp_path, scan(rng, 2), ImageOrientationPatient=[1, 0, 0, 1, 0, 0])
    with pytest.raises(GeometryError, match=r"perpendicular unit vectors, got \[1\.0, 0\.0, 0\.0\] and \[1\.0, 0\.0"):
        read_volume(tmp_path)


def test_a_spacing_of_zero_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    save_series(tmp_path, scan(rng, 2), PixelSpacing=[0, 0.5])
    with pytest.raises(GeometryError, match=r"spacing must be above 0 mm, got 0\.5x0x2\.5 mm"):
        read_volume(tmp_path)
