"""Encoded patches on disk: what the encoder says, in float16, computed once."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
import tiny_training
import torch

from wbcss.errors import Cancelled, RunError, SpecError
from wbcss.nn.encoder import Encoder, freeze
from wbcss_training.features import (
    FeaturePool,
    FeatureSpec,
    encode_patch,
    encode_pool,
    patch_bytes,
    pool_key,
    read_features,
    write_features,
)
from wbcss_training.patches import Patch

SPEC = FeatureSpec(patch=tiny_training.ENCODER.tile, num_skips=3, autocast=False)
CPU = torch.device("cpu")
BOXES = tiny_training.BoxPatches()


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(tiny_training.ENCODER)
    freeze(encoder)
    return encoder


class Counting:
    """A PatchSource that says which patches were drawn."""

    task, organs = BOXES.task, BOXES.organs

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def patch(self, index: int) -> Patch:
        self.drawn.append(index)
        return BOXES.patch(index)


def test_a_pool_holds_the_encoders_answer_in_float16(encoder: Encoder, tmp_path: Path) -> None:
    pool = encode_pool(BOXES, encoder, tmp_path, count=1, spec=SPEC, device=CPU)
    patch, encoded = BOXES.patch(0), pool.patch(0)
    with torch.no_grad():
        skips = encoder(patch.image[None])
    assert [skip.dtype for skip in encoded.skips] == [torch.float16] * 3
    for half, skip in zip(encoded.skips, skips, strict=True):
        torch.testing.assert_close(half.float(), skip[0], atol=1e-5, rtol=2**-10)
    assert torch.equal(encoded.labels, patch.labels)
    assert torch.equal(encoded.annotated, patch.annotated)


def test_a_shallow_decoder_keeps_only_the_skips_it_reads(encoder: Encoder, tmp_path: Path) -> None:
    spec = FeatureSpec(patch=SPEC.patch, num_skips=2, autocast=False)
    pool = encode_pool(BOXES, encoder, tmp_path, count=1, spec=spec, device=CPU)
    assert [tuple(skip.shape) for skip in pool.patch(0).skips] == [(2, 16, 16, 16), (3, 8, 8, 8)]


@pytest.mark.parametrize("num_skips", [1, 2, 3])
def test_the_size_on_disk_is_known_beforehand(encoder: Encoder, tmp_path: Path, num_skips: int) -> None:
    spec = FeatureSpec(patch=SPEC.patch, num_skips=num_skips, autocast=False)
    encode_pool(BOXES, encoder, tmp_path, count=1, spec=spec, device=CPU)
    (path,) = tmp_path.iterdir()
    promised = patch_bytes(tiny_training.ENCODER, spec)
    assert promised <= path.stat().st_size < promised + 1000  # and a header


def test_a_pool_that_was_begun_is_finished_and_nothing_is_encoded_twice(encoder: Encoder, tmp_path: Path) -> None:
    asked = iter([False, False, True])
    with pytest.raises(Cancelled, match=r"the encoding was stopped after 2 of 4 patches; go on with --resume"):
        encode_pool(BOXES, encoder, tmp_path, count=4, spec=SPEC, device=CPU, cancelled=lambda: next(asked))
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    os.truncate(tmp_path / "000001.safetensors", 500)  # as a full disk might leave it
    source = Counting()
    encode_pool(source, encoder, tmp_path, count=4, spec=SPEC, device=CPU)
    assert source.drawn == [1, 2, 3]
    assert (tmp_path / "000000.safetensors").stat().st_mtime_ns == before["000000.safetensors"]
    whole = tmp_path / "whole"
    encode_pool(BOXES, encoder, whole, count=4, spec=SPEC, device=CPU)
    assert [path.read_bytes() for path in sorted(whole.iterdir())] == [
        path.read_bytes() for path in sorted(tmp_path.glob("*.safetensors"))
    ]


def test_every_epoch_reads_every_patch_once_in_an_order_of_its_own(encoder: Encoder, tmp_path: Path) -> None:
    pool = encode_pool(BOXES, encoder, tmp_path, count=5, spec=SPEC, device=CPU)
    names = {pool.patch(index).skips[0].numpy().tobytes(): index for index in range(5)}
    assert len(names) == 5
    epochs = [[names[pool.patch(5 * epoch + n).skips[0].numpy().tobytes()] for n in range(5)] for epoch in range(4)]
    assert all(Counter(epoch) == Counter(range(5)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_part_of_a_pool_reads_its_own_patches_only(encoder: Encoder, tmp_path: Path) -> None:
    pool = encode_pool(BOXES, encoder, tmp_path, count=5, spec=SPEC, device=CPU)
    stored = [read_features(path).skips[0] for path in sorted(tmp_path.iterdir())]
    part = pool.part(1, 5).part(1, 3)  # patches 2 and 3
    drawn = [part.patch(n).skips[0] for n in range(2)]
    assert [sum(torch.equal(stored[at], skip) for skip in drawn) for at in range(5)] == [0, 0, 1, 1, 0]
    with pytest.raises(SpecError, match="a part of a pool of 2 patches must lie within it, got 1 to 3"):
        part.part(1, 3)


def test_the_name_of_a_pool_changes_with_all_that_changes_its_bits() -> None:
    keys = [
        pool_key("encoder", ["a", "b"], {"seed": 0}),
        pool_key("another", ["a", "b"], {"seed": 0}),
        pool_key("encoder", ["a", "c"], {"seed": 0}),
        pool_key("encoder", ["a", "b"], {"seed": 1}),
    ]
    assert len(set(keys)) == 4
    assert keys[0] == pool_key("encoder", ("a", "b"), {"seed": 0})


def test_an_encoder_that_overflows_is_told(encoder: Encoder) -> None:
    with torch.no_grad():
        encoder.stages[0][0].norm.weight.fill_(1e6)  # type: ignore[index,union-attr,operator]
    with pytest.raises(RunError, match=r"must be finite and within \+-65504 to be stored, got .*e\+06 at stage 0"):
        encode_patch(BOXES.patch(0), encoder, spec=SPEC, device=CPU)


def test_patches_of_another_shape_are_refused(encoder: Encoder) -> None:
    with pytest.raises(SpecError, match=r"must have the shape \(8, 8, 8\), got \(16, 16, 16\)"):
        encode_patch(BOXES.patch(0), encoder, spec=FeatureSpec(patch=(8, 8, 8), num_skips=1), device=CPU)


@pytest.mark.parametrize(
    ("count", "num_skips", "message"),
    [(0, 3, "a pool needs at least 1 patch, got 0"), (1, 4, r"num_skips must be in 1\.\.3, got 4")],
)
def test_a_pool_that_cannot_be_is_refused(
    encoder: Encoder, tmp_path: Path, count: int, num_skips: int, message: str
) -> None:
    spec = FeatureSpec(patch=SPEC.patch, num_skips=num_skips)
    with pytest.raises(SpecError, match=message):
        encode_pool(BOXES, encoder, tmp_path, count=count, spec=spec, device=CPU)


def test_a_damaged_patch_is_named(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "000000.safetensors"
    write_features(path, encode_patch(BOXES.patch(0), encoder, spec=SPEC, device=CPU))
    os.truncate(path, 300)
    with pytest.raises(RunError, match=r"the encoded patch 000000\.safetensors must be readable, got .*resume the run"):
        read_features(path)
    path.unlink()
    with pytest.raises(RunError, match=r"the encoded patch 000000\.safetensors must be readable, got .*No such file"):
        FeaturePool(task=BOXES.task, folder=tmp_path, count=1).patch(0)
