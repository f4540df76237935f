from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import ENCODER, write_list

from wbcss.errors import Cancelled, SpecError
from wbcss.io.writing import write_volume
from wbcss.labels import OrganName
from wbcss.nn.encoder import Encoder, freeze
from wbcss.preprocess import AIR_HU
from wbcss_training.bodylevels import ANCHORS_CM
from wbcss_training.layouts import read_case_list
from wbcss_training.levelsamples import CaseLevels, LevelPatch, cut, encode_all, encode_levels, turned

CPU = torch.device("cpu")
L1, L3 = OrganName("vertebrae_L1"), OrganName("vertebrae_L3")


@pytest.fixture
def encoder() -> Encoder:
    made = Encoder(ENCODER)
    freeze(made)
    return made


def a_patch(seed: int = 0) -> LevelPatch:
    """Noise; the lower half of it is body."""
    generator = torch.Generator().manual_seed(seed)
    body = torch.zeros(ENCODER.tile, dtype=torch.bool)
    body[2:10, 3:12, :9] = True
    return LevelPatch(
        torch.randn(ENCODER.tile, generator=generator) * 200,
        body,
        70 - 0.4 * torch.arange(16.0) + torch.randn(ENCODER.tile, generator=generator),
        4.0 * torch.arange(16.0),
    )


class Patches:
    """Different patches, and how many were asked for."""

    seed = 3

    def __init__(self) -> None:
        self.asked: list[int] = []

    def patch(self, index: int) -> LevelPatch:
        self.asked.append(index)
        return a_patch(index)


def test_a_slab_has_the_mean_level_of_its_body(encoder: Encoder) -> None:
    patch = a_patch()
    sample = encode_levels(patch, encoder, device=CPU)
    assert sample.deep.shape == (4, 4, 4, 4)
    assert sample.has_body.tolist() == [True, True, True, False]
    for slab in range(3):
        planes = slice(4 * slab, 4 * slab + 4)
        inside = patch.body[:, :, planes]
        assert sample.levels_cm[slab] == pytest.approx(float(patch.levels_cm[:, :, planes][inside].mean()), rel=1e-5)
    assert torch.isnan(sample.levels_cm[3])
    assert sample.heights_mm.tolist() == [6.0, 22.0, 38.0, 54.0]


def test_patches_are_turned_with_their_levels_and_some_are_not(rng: np.random.Generator) -> None:
    patch = a_patch()
    kinds = {"as it is": 0, "mirrored": 0, "upside down": 0}
    for _ in range(300):
        made = turned(patch, rng)
        if made is patch:
            kinds["as it is"] += 1
            continue
        axes = (2,) if torch.equal(made.hu, patch.hu.flip(2)) else (0, 2)
        kinds["mirrored" if axes == (2,) else "upside down"] += 1
        assert torch.equal(made.hu, patch.hu.flip(axes))
        assert torch.equal(made.levels_cm, patch.levels_cm.flip(axes))
        assert torch.equal(made.body, patch.body.flip(axes))
        assert torch.equal(made.heights_mm, patch.heights_mm.flip(0))
    assert all(count > 30 for count in kinds.values()), kinds


def test_some_patches_keep_a_box_only_with_the_levels_that_are_there(rng: np.random.Generator) -> None:
    patch = a_patch()
    kept = []
    for _ in range(200):
        made = cut(patch, rng, spacing_mm=(20.0, 20.0, 20.0))
        if made is patch:
            continue
        outside = made.hu != patch.hu
        assert bool((made.hu[outside] == AIR_HU).all())
        assert torch.equal(made.body, patch.body & ~outside)
        assert bool(made.body.any())
        inside = torch.nonzero(~outside)
        sides = inside.amax(dim=0) - inside.amin(dim=0) + 1
        assert len(inside) == int(sides.prod()), "what stays is a box"
        assert all(1 <= side <= 18 for side in sides.tolist())
        assert made.levels_cm is patch.levels_cm
        kept.append(sides.tolist())
    assert 20 < len(kept) < 70
    assert len({tuple(sides) for sides in kept}) > 15


def test_a_patch_without_body_is_not_cut(rng: np.random.Generator) -> None:
    patch = a_patch()
    empty = LevelPatch(patch.hu, torch.zeros_like(patch.body), patch.levels_cm, patch.heights_mm)
    assert all(cut(empty, rng, spacing_mm=(20.0, 20.0, 20.0)) is empty for _ in range(20))


def test_a_case_is_cut_with_the_levels_of_its_vertebrae(tmp_path: Path) -> None:
    hu = np.full((20, 20, 60), 40, np.int16)
    labels = np.zeros(hu.shape, np.uint8)
    labels[8:12, 8:12, 25:30], labels[8:12, 8:12, 12:17] = 1, 2  # about planes 27 and 14: 5.2 cm apart
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    write_volume(tmp_path / "a.nii.gz", hu, affine)
    write_volume(tmp_path / "a_seg.nii.gz", labels, affine)
    path = write_list(tmp_path, [{"image": "a.nii.gz", "labels": "a_seg.nii.gz"}], organs={"1": str(L1), "2": str(L3)})
    source = CaseLevels(cases=tuple(read_case_list(path)), encoder=ENCODER, seed=4)
    for index in range(3):
        patch = source.patch(index)
        assert patch.hu.shape == ENCODER.tile
        levels = patch.levels_cm[0, 0].numpy()
        expected = ANCHORS_CM[L1] + (27 * 4.0 - patch.heights_mm.numpy()) / 10
        np.testing.assert_allclose(levels, expected, atol=1.0)
        assert torch.equal(patch.body, patch.hu > -500)
    assert not torch.equal(source.patch(0).heights_mm, source.patch(1).heights_mm)


def test_what_is_encoded_stays_and_is_not_drawn_again(encoder: Encoder, tmp_path: Path) -> None:
    source = Patches()
    first = encode_all([source], encoder, tmp_path, count=4, device=CPU)
    assert source.asked == [0, 1, 2, 3]
    (tmp_path / "000002.safetensors").write_bytes(b"cut")
    again = encode_all([source], encoder, tmp_path, count=4, device=CPU)
    assert source.asked == [0, 1, 2, 3, 2]
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.deep, other.deep)
        torch.testing.assert_close(one.levels_cm, other.levels_cm, equal_nan=True)


def test_encoding_that_is_stopped_goes_on_where_it_was(encoder: Encoder, tmp_path: Path) -> None:
    source = Patches()
    with pytest.raises(Cancelled, match="after 2 of 4 patches; go on with --resume"):
        encode_all([source], encoder, tmp_path, count=4, device=CPU, cancelled=lambda: len(source.asked) == 2)
    encode_all([source], encoder, tmp_path, count=4, device=CPU)
    assert source.asked == [0, 1, 2, 3]


def test_nothing_cannot_be_encoded(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="at least 2 patches of at least 1 source, got 1 of 1"):
        encode_all([Patches()], encoder, tmp_path, count=1, device=CPU)
    with pytest.raises(SpecError, match="got 4 of 0"):
        encode_all([], encoder, tmp_path, count=4, device=CPU)
