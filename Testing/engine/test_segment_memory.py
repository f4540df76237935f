"""Memory of a run: flat in the number of organs, and a longer scan adds its own arrays only."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from analytic_model import random_model, ras_affine

from wbcss import body, preprocess
from wbcss import segment as segment_module
from wbcss.catalogue import catalogue
from wbcss.labels import TaskId
from wbcss.segment import Segmentation, segment
from wbcss.specs import EncoderSpec
from wbcss.volume import Volume


class _Stub:
    """A network that costs no memory of its own: smooth features, the same for every tile."""

    name = "stub"

    def __init__(self, width: int, tile: tuple[int, int, int]) -> None:
        self.num_calls = 0
        low = torch.randn(1, width, 4, 4, 4)
        self._features = torch.nn.functional.interpolate(low, size=tile, mode="trilinear")

    def features(self, tiles: torch.Tensor, cancelled: object) -> dict[TaskId, torch.Tensor]:
        self.num_calls += 1
        return {TaskId("wholebody"): self._features.expand(len(tiles), -1, -1, -1, -1)}


def run_stubbed(num_organs: int, planes: int, monkeypatch: pytest.MonkeyPatch) -> Segmentation:
    tile = (32, 32, 32)
    encoder = EncoderSpec(
        stage_channels=(1, 1),
        strides=((1, 1, 1), (2, 2, 2)),
        kernels=((1, 1, 1), (1, 1, 1)),
        convs_per_stage=(1, 1),
        spacing_mm=(3.0, 3.0, 3.0),
        tile=tile,
    )
    names = [str(name) for name in catalogue()][:num_organs]
    model = random_model(encoder, {"wholebody": (names, 16)})
    stub = _Stub(16, tile)
    monkeypatch.setattr(segment_module, "choose_backend", lambda *_: stub)
    voxels = np.zeros((48, 48, planes), np.int16)
    return segment(Volume(voxels, ras_affine((3.0, 3.0, 3.0))), model)


class _Memory(torch.utils._python_dispatch.TorchDispatchMode):
    """The largest tensor that any operation makes, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("num_organs", [20, 143])
def test_no_array_of_organs_times_volume_ever_exists(num_organs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ring of features is the largest tensor, whatever the number of organs."""
    memory = _Memory()
    with memory:
        run_stubbed(num_organs, 64, monkeypatch)
    ring = 48 * 48 * 32 * 16 * 2
    assert memory.largest == ring
    assert memory.largest < num_organs * 48 * 48 * 64 * 2


def peak_of_numpy(num_organs: int, planes: int, monkeypatch: pytest.MonkeyPatch) -> int:
    tracemalloc.start()
    try:
        run_stubbed(num_organs, planes, monkeypatch)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_outside_torch_is_flat_in_the_number_of_organs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    run_stubbed(20, 40, monkeypatch)
    few, many = (peak_of_numpy(number, 40, monkeypatch) for number in (20, 143))
    assert many < 1.1 * few


def test_a_longer_scan_adds_input_labels_and_confidence_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "VOXELS_PER_STEP", 2**15)
    monkeypatch.setattr(body, "VOXELS_PER_STEP", 2**15)
    run_stubbed(20, 40, monkeypatch)
    short, long = (peak_of_numpy(20, planes, monkeypatch) for planes in (100, 200))
    # A half more for the body mask, which at this spacing has a cell for every eight voxels.
    assert long - short < 1.5 * 48 * 48 * 100 * (2 + 2 + 2)
