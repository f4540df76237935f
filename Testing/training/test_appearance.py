"""From tissue labels to Hounsfield units."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage

from wbcss_training.appearance import TissueTable, add_metal, draw_mean_hu, gaussian_blur, paint_hu, scan
from wbcss_training.atlas import AtlasLabel


def row(label: int, name: str, hu_mean: float = 40.0, hu_sd: float = 10.0) -> AtlasLabel:
    return AtlasLabel(
        label=label,
        name=name,
        kind="organ",
        tasks=("wholebody",),
        wholebody_class=name,
        hu_mean=hu_mean,
        hu_sd=hu_sd,
        enhancement_arterial_hu=0.0,
        enhancement_portal_hu=0.0,
    )


def tissues(*names: str, hu_mean: float = 40.0) -> TissueTable:
    return TissueTable.from_atlas({n: row(n, name, hu_mean) for n, name in enumerate(names, start=1)})


@pytest.mark.parametrize("sigma", [(1.0, 1.0, 1.0), (0.5, 2.0, 0.0), (0.0, 0.0, 1.4)])
def test_blur_equals_scipy_with_repeated_edges(rng: np.random.Generator, sigma: tuple[float, float, float]) -> None:
    volume = rng.normal(size=(9, 11, 13)).astype(np.float32)
    expected = volume.astype(np.float64)
    for axis, width in enumerate(sigma):
        if width:
            radius = int(np.ceil(2.5 * width))
            expected = ndimage.gaussian_filter1d(expected, width, axis=axis, mode="nearest", radius=radius)
    np.testing.assert_allclose(gaussian_blur(torch.from_numpy(volume), sigma).numpy(), expected, atol=1e-5)


def test_a_blur_of_almost_nothing_is_left_out(rng: np.random.Generator) -> None:
    volume = torch.from_numpy(rng.normal(size=(3, 4, 5)).astype(np.float32))
    assert torch.equal(gaussian_blur(volume, (0.19, 0.1, 0.0)), volume)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("kidney_left", "kidney_right"),
        ("vertebrae_L1", "vertebrae_T12"),
        ("rib_left_3", "rib_right_9"),
        ("lung_upper_lobe_left", "lung_upper_lobe_right"),
    ],
)
def test_left_and_right_belong_to_one_family(one: str, other: str) -> None:
    table = tissues(one, other, "liver")
    assert table.family[1] == table.family[2] != table.family[3]


def test_members_of_a_family_vary_together(rng: np.random.Generator) -> None:
    table = tissues("kidney_left", "kidney_right", "liver")
    drawn = np.stack([draw_mean_hu(table, rng) for _ in range(300)])
    together = np.corrcoef(drawn[:, 1], drawn[:, 2])[0, 1]
    apart = np.corrcoef(drawn[:, 1], drawn[:, 3])[0, 1]
    assert together > 0.8
    assert abs(apart) < 0.25


def test_means_scatter_about_the_table(rng: np.random.Generator) -> None:
    drawn = np.stack([draw_mean_hu(tissues("liver", "spleen"), rng) for _ in range(400)])
    np.testing.assert_allclose(drawn[:, 1:].mean(axis=0), [40, 40], atol=3)
    assert (drawn[:, 0] >= -1010).all()
    assert (drawn[:, 0] <= -980).all()


def test_contrast_only_ever_brightens_an_organ_that_takes_it_up() -> None:
    plain, enhanced = row(1, "aorta"), dataclasses.replace(row(1, "aorta"), enhancement_arterial_hu=250.0)
    for seed in range(30):
        without, with_contrast = (
            draw_mean_hu(TissueTable.from_atlas({1: label}), np.random.default_rng(seed))[1]
            for label in (plain, enhanced)
        )
        assert with_contrast >= without


def test_bone_is_denser_at_its_surface_than_in_its_marrow(rng: np.random.Generator) -> None:
    labels = torch.ones(12, 12, 12, dtype=torch.int64)
    depth = torch.full((12, 12, 12), 60, dtype=torch.uint8)
    depth[:6] = 1
    no_end = torch.zeros_like(depth, dtype=torch.bool)
    hu = paint_hu(labels, depth, no_end, tissues=tissues("vertebrae_L1", hu_mean=180), spacing_mm=3.0, rng=rng)
    assert float(hu[:6].mean()) > float(hu[6:].mean()) + 50


def test_the_ends_of_a_long_bone_are_spongy_and_its_shaft_is_fatty() -> None:
    """Deep in the bone: marrow of -40 to 120 HU in the shaft, at least 0.35 of the table's mean in the end."""
    labels = torch.ones(12, 12, 12, dtype=torch.int64)
    depth = torch.full((12, 12, 12), 120, dtype=torch.uint8)
    end = torch.zeros(12, 12, 12, dtype=torch.bool)
    end[6:] = True
    table = tissues("femur_left", hu_mean=400)
    drawn = [
        paint_hu(labels, depth, end, tissues=table, spacing_mm=3.0, rng=np.random.default_rng(seed))
        for seed in range(30)
    ]
    shaft, ends = (torch.stack([hu[part].mean() for hu in drawn]) for part in (slice(0, 6), slice(6, 12)))
    assert -60 < float(shaft.mean()) < 130
    assert float(ends.mean()) > 0.5 * 400


def test_metal_is_bright_and_starts_in_the_body(rng: np.random.Generator) -> None:
    inside = torch.zeros(16, 16, 16, dtype=torch.bool)
    inside[5:11, 5:11, 5:11] = True
    implant = torch.nonzero(add_metal(torch.zeros(16, 16, 16), inside, rng=rng) >= 1800).float()
    assert len(implant) > 0
    i, j, _ = implant.mean(dim=0).round().long().tolist()
    assert bool(inside[i, j].any())


def test_metal_needs_a_body(rng: np.random.Generator) -> None:
    hu = torch.zeros(4, 4, 4)
    assert torch.equal(add_metal(hu, torch.zeros(4, 4, 4, dtype=torch.bool), rng=rng), hu)


def test_a_scan_keeps_the_mean_of_a_uniform_body() -> None:
    for seed in range(10):
        out = scan(torch.full((16, 16, 16), 50.0), spacing_mm=3.0, rng=np.random.default_rng(seed))
        assert out.shape == (16, 16, 16)
        assert float(out.mean()) == pytest.approx(50.0, abs=6.0)
        assert float(out.std()) > 0.5


def test_thick_slices_keep_the_number_of_planes() -> None:
    shapes = {
        tuple(scan(torch.zeros(8, 8, 9), spacing_mm=3.0, rng=np.random.default_rng(seed)).shape) for seed in range(30)
    }
    assert shapes == {(8, 8, 9)}
