from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch

from wbcss import preprocess
from wbcss.errors import GeometryError
from wbcss.preprocess import AxisMap, ModelGrid, PlaneReader, canonical_orientation, hu_to_channels
from wbcss.volume import Volume

CPU = torch.device("cpu")


def all_orientations() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)]


@pytest.mark.parametrize(("order", "signs"), all_orientations())
def test_every_permutation_and_flip_is_brought_to_ras(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (row, sign) in enumerate(zip(order, signs, strict=True)):
        affine[row, axis] = sign * (axis + 1)
    position = np.stack(np.meshgrid(*(np.arange(n) for n in (3, 4, 5)), indexing="ij"), axis=-1) @ affine[:3, :3].T
    orientation = canonical_orientation(affine)
    for row in range(3):
        along = orientation.view(position[..., row])
        assert np.all(np.diff(along, axis=row) > 0), "positions must grow along their own axis"
        for other in {0, 1, 2} - {row}:
            assert np.all(np.diff(along, axis=other) == 0)
    assert orientation.shape((3, 4, 5)) == orientation.view(position[..., 0]).shape


def test_an_oblique_grid_takes_the_nearest_axes() -> None:
    angle = np.radians(30)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1, -1, 1])
    assert canonical_orientation(affine) == preprocess.Orientation((0, 1, 2), (True, True, False))


def test_at_45_degrees_every_axis_is_still_used_once() -> None:
    half = np.sqrt(0.5)
    affine = np.eye(4)
    affine[:3, :3] = [[half, -half, 0], [half, half, 0], [0, 0, 1]]
    assert sorted(canonical_orientation(affine).permutation) == [0, 1, 2]


def test_writing_to_the_canonical_view_writes_to_the_array() -> None:
    array = np.zeros((2, 3, 4))
    view = preprocess.Orientation((2, 0, 1), (False, True, False)).view(array)
    view[3, 0, 2] = 7
    assert array[1, 2, 3] == 7


@pytest.mark.parametrize(("native", "spacing", "model"), [(10, 1.0, 3.0), (7, 5.0, 3.0), (1, 5.0, 3.0), (64, 0.7, 1.5)])
def test_both_grids_share_their_middle_and_map_back_and_forth(native: int, spacing: float, model: float) -> None:
    axis = AxisMap.between(native, spacing, model)
    assert axis.native_of((axis.model_size - 1) / 2) == pytest.approx((native - 1) / 2)
    indices = np.linspace(-1, 12, 9)
    np.testing.assert_allclose(axis.model_of(axis.native_of(indices)), indices, atol=1e-9)
    assert axis.model_size * model >= native * spacing - 0.01 * model


def test_a_grid_of_the_model_spacing_stays_as_it_is() -> None:
    axis = AxisMap.between(9, 3.0, 3.0)
    first, last, weights = axis.weights(2, 5)
    assert axis.aligned
    assert axis.model_size == 9
    np.testing.assert_array_equal(weights[:, 2 - first : 5 - first], np.eye(3))
    np.testing.assert_array_equal(weights.sum(axis=1), 1)
    assert last <= 9


@pytest.mark.parametrize("ratio", [0.2, 0.6, 1.0, 1.7, 4.3])
def test_resampling_keeps_constants_everywhere_and_ramps_inside(ratio: float) -> None:
    axis = AxisMap.between(40, 1.0, ratio)
    first, last, weights = axis.weights(0, axis.model_size)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    centers = axis.native_of(np.arange(axis.model_size))
    margin = 2 * max(1.0, ratio)
    inside = (centers > margin) & (centers < 39 - margin)
    ramp = weights @ np.arange(first, last)
    np.testing.assert_allclose(ramp[inside], centers[inside], atol=0.1 if ratio > 1 else 1e-4)


def test_a_finer_model_grid_interpolates_linearly(rng: np.random.Generator) -> None:
    values = rng.normal(size=12)
    axis = AxisMap.between(12, 5.0, 3.0)
    first, last, weights = axis.weights(0, axis.model_size)
    expected = np.interp(axis.native_of(np.arange(axis.model_size)), np.arange(12), values)
    np.testing.assert_allclose(weights @ values[first:last], expected, atol=1e-6)


def test_a_coarser_model_grid_does_not_alias() -> None:
    stripes = np.where(np.arange(80) % 2, 1.0, -1.0)
    axis = AxisMap.between(80, 1.0, 4.0)
    first, last, weights = axis.weights(0, axis.model_size)
    assert np.abs((weights @ stripes[first:last])[2:-2]).max() < 0.02


def reader_of(
    volume: Volume, spacing: float, box: tuple[tuple[int, int], tuple[int, int]] | None = None
) -> PlaneReader:
    grid = ModelGrid.of(volume, (spacing, spacing, spacing))
    i, j, _ = grid.shape
    return PlaneReader(grid.orientation.view(volume.voxels), grid.axes, box or ((0, i), (0, j)), CPU)


def oracle(volume: Volume, spacing: float) -> np.ndarray:
    grid = ModelGrid.of(volume, (spacing, spacing, spacing))
    result = grid.orientation.view(volume.voxels).astype(np.float64)
    for number, axis in enumerate(grid.axes):
        first, last, weights = axis.weights(0, axis.model_size)
        part = np.moveaxis(result, number, 0)[first:last]
        result = np.moveaxis(np.tensordot(weights, part, axes=1), 0, number)
    return result.transpose(2, 0, 1)


@pytest.mark.parametrize("spacing", [1.0, 1.3, 3.0])
@pytest.mark.parametrize("order", ["C", "F"])
def test_planes_read_piece_by_piece_equal_the_whole(
    spacing: float, order: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preprocess, "VOXELS_PER_STEP", 2000)
    voxels = np.asarray(rng.integers(-1000, 2000, (15, 17, 21)).astype(np.int16), order=order)  # type: ignore[call-overload]
    volume = Volume(voxels, np.diag([1.0, -1.0, 1.0, 1.0]))
    whole = oracle(volume, spacing)
    reader = reader_of(volume, spacing)
    depth = whole.shape[0]
    starts = [0, depth // 3, depth // 2]
    for start in starts:
        stop = min(depth, start + depth // 2 + 1)
        np.testing.assert_allclose(reader.read(start, stop).numpy(), whole[start:stop], atol=1e-2)


def test_planes_that_tiles_share_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of(Volume(np.zeros((8, 8, 30), np.float32), np.eye(4)), 2.0)
    made: list[tuple[int, int]] = []
    make = reader._make
    monkeypatch.setattr(reader, "_make", lambda a, b: (made.append((a, b)), make(a, b))[1])
    reader.read(0, 8)
    reader.read(4, 12)
    assert made == [(0, 8), (8, 12)]


def test_only_the_box_is_resampled(rng: np.random.Generator) -> None:
    volume = Volume(rng.normal(size=(20, 24, 6)).astype(np.float32), np.eye(4))
    part = reader_of(volume, 2.0, ((3, 7), (1, 10))).read(0, 3).numpy()
    np.testing.assert_allclose(part, oracle(volume, 2.0)[:, 3:7, 1:10], atol=1e-5)


def test_windows_become_channels_between_minus_one_and_one() -> None:
    hu = torch.tensor([-2000.0, -160.0, 40.0, 240.0, 3000.0]).view(1, 5, 1, 1)
    channels = hu_to_channels(hu, ((-1000.0, 1000.0), (-160.0, 240.0)))
    assert channels.shape == (1, 2, 5, 1, 1)
    np.testing.assert_allclose(channels[0, 0, :, 0, 0], [-1, -0.16, 0.04, 0.24, 1], atol=1e-6)
    np.testing.assert_allclose(channels[0, 1, :, 0, 0], [-1, -1, 0, 1, 1], atol=1e-6)
    assert hu.flatten().tolist() == [-2000.0, -160.0, 40.0, 240.0, 3000.0], "the input is left as it was"


def test_a_volume_larger_than_any_patient_is_refused() -> None:
    volume = Volume(np.zeros((10, 10, 10), np.int16), np.diag([1000.0, 1.0, 1.0, 1.0]))
    with pytest.raises(GeometryError, match=r"at most 4000 mm along every axis, got 10000 x 10 x 10 mm"):
        ModelGrid.of(volume, (3.0, 3.0, 3.0))
