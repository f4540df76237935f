"""Placement of patches in the atlas."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from wbcss_training.deformation import DeformationSpec, Swelling, patch_coordinates, rotation, smooth_field

RIGID = DeformationSpec(
    max_rotation_deg=0.0,
    log_scale_mean=0.0,
    log_scale_sd=0.0,
    log_axis_scale_sd=0.0,
    coarse_sd_mm=0.0,
    fine_sd_mm=0.0,
    num_zooms=0,
)


def coordinates(spec: DeformationSpec, rng: np.random.Generator, spacing_mm: float = 3.0) -> torch.Tensor:
    return patch_coordinates(
        (6, 5, 4),
        spacing_mm=spacing_mm,
        center_voxel=np.array([30.0, 20.0, 10.0]),
        atlas_spacing_mm=2.0,
        spec=spec,
        rng=rng,
    )


def test_without_deformation_a_patch_is_a_grid_around_its_center(rng: np.random.Generator) -> None:
    found = coordinates(RIGID, rng)
    axes = [1.5 * (np.arange(n) - (n - 1) / 2) for n in (6, 5, 4)]
    expected = np.stack(np.meshgrid(*axes, indexing="ij")) + np.array([30, 20, 10])[:, None, None, None]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_a_larger_body_comes_from_nearer_atlas_voxels(rng: np.random.Generator) -> None:
    larger = coordinates(dataclasses.replace(RIGID, log_scale_mean=float(np.log(1.5))), rng)
    assert torch.allclose(torch.diff(larger[0, :, 0, 0]), torch.ones(5), atol=1e-5)  # 3 mm / 2 mm / 1.5


def test_rotation_alone_keeps_distances_and_handedness(rng: np.random.Generator) -> None:
    matrix = rotation(rng.uniform(-np.pi, np.pi, 3))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("axis", "source", "target"),
    [(0, (0, 1, 0), (0, 0, 1)), (1, (0, 0, 1), (1, 0, 0)), (2, (1, 0, 0), (0, 1, 0))],
)
def test_a_quarter_turn_turns_right_handed(axis: int, source: tuple[int, ...], target: tuple[int, ...]) -> None:
    angles = np.zeros(3)
    angles[axis] = np.pi / 2
    np.testing.assert_allclose(rotation(angles) @ np.array(source), target, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_no_patch_is_ever_mirrored(seed: int) -> None:
    found = coordinates(DeformationSpec(coarse_sd_mm=0, fine_sd_mm=0), np.random.default_rng(seed)).numpy()
    jacobian = np.stack(
        [
            found[:, 1, 0, 0] - found[:, 0, 0, 0],
            found[:, 0, 1, 0] - found[:, 0, 0, 0],
            found[:, 0, 0, 1] - found[:, 0, 0, 0],
        ]
    )
    assert np.linalg.det(jacobian) > 0
    assert (np.diag(jacobian) > 0).all()


def test_a_smooth_field_is_linear_between_its_knots(rng: np.random.Generator) -> None:
    field = smooth_field((9, 9, 9), knots_every=8, rng=rng, channels=2)
    assert field.shape == (2, 9, 9, 9)
    bends = torch.diff(field[:, :5], n=2, dim=1)
    torch.testing.assert_close(bends, torch.zeros_like(bends), atol=1e-5, rtol=0)


def test_equal_streams_give_equal_fields() -> None:
    first, second = (smooth_field((8, 8, 8), knots_every=3, rng=np.random.default_rng(4)) for _ in range(2))
    assert torch.equal(first, second)


def test_a_spot_that_swells_magnifies_its_middle_and_leaves_the_far_side() -> None:
    still = dataclasses.replace(RIGID, num_zooms=1, max_log_zoom=0.0)
    swollen = dataclasses.replace(still, max_log_zoom=0.4)
    before, after = (coordinates(spec, np.random.default_rng(3)).numpy() for spec in (still, swollen))
    np.testing.assert_allclose(before, coordinates(RIGID, np.random.default_rng(3)).numpy(), atol=1e-4)
    moved = np.linalg.norm(after - before, axis=0)
    assert moved.min() < 1e-4  # the spot itself stays
    assert moved.max() > 0.1


def test_a_swelling_magnifies_its_own_place_only() -> None:
    """In the middle neighbors come from half as far apart; three sigmas away nothing moves."""
    center = np.array([30.0, 30.0, 30.0])
    swelling = Swelling(center_voxel=center, sigma_mm=16.0, log_size=float(np.log(2)))
    drawn = [
        patch_coordinates(
            (49, 9, 9),
            spacing_mm=2.0,
            center_voxel=center,
            atlas_spacing_mm=2.0,
            spec=RIGID,
            rng=np.random.default_rng(0),
            swelling=one,
        )[0, :, 4, 4]
        for one in (None, swelling)
    ]
    steps = [torch.diff(line) for line in drawn]
    assert torch.allclose(steps[0], torch.ones(48), atol=1e-5)
    assert float(steps[1][23:25].mean()) == pytest.approx(0.5, abs=0.02)
    assert bool((steps[1] > 0).all())  # one-to-one
    assert torch.allclose(drawn[1][[0, -1]], drawn[0][[0, -1]], atol=0.2)
