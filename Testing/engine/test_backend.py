from __future__ import annotations

import dataclasses
import importlib.util
import threading
import time
from collections.abc import Mapping

import pytest
import torch
from analytic_model import random_model

from wbcss import backend_choice, backend_openvino
from wbcss.backend import TorchBackend
from wbcss.backend_choice import (
    BackendRequest,
    Kind,
    candidates,
    choose_backend,
    has_fast_bfloat16,
    make_backend,
    measure,
)
from wbcss.backend_openvino import OpenVinoBackend
from wbcss.errors import Cancelled, DeviceError
from wbcss.heads import TaskHead, channel_labels
from wbcss.labels import TaskId
from wbcss.nn.model import WholeBodyModel, build_model
from wbcss.progress import IsCancelled, never
from wbcss.specs import EncoderSpec

CPU = torch.device("cpu")
A, B = TaskId("a"), TaskId("b")
TILE = (16, 16, 24)

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="OpenVINO is an optional accelerator"
)


@pytest.fixture
def network() -> WholeBodyModel:
    encoder = EncoderSpec(
        stage_channels=(4, 8, 8),
        strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
        kernels=((3, 3, 3), (1, 3, 3), (3, 3, 3)),
        convs_per_stage=(1, 2, 1),
        windows_hu=((-1000.0, 1000.0), (-160.0, 240.0)),
        tile=TILE,
    )
    return random_model(encoder, {"a": (["liver", "spleen"], 4), "b": (["aorta"], 6)}).network


def request(network: WholeBodyModel, **changes: object) -> BackendRequest:
    values = {"network": network, "tasks": (A, B), "device": CPU, "tile": TILE, "num_tiles": 9} | changes
    return BackendRequest(**values)  # type: ignore[arg-type]


def heads_of(network: WholeBodyModel) -> dict[TaskId, TaskHead]:
    return {
        task: TaskHead.of(network.decoder(task), channel_labels(labels), temperature=1.0, device=CPU)
        for task, labels in ((A, [5, 1]), (B, [52]))
    }


def test_torch_gives_the_networks_own_features(network: WholeBodyModel) -> None:
    tiles = torch.randn(2, 2, *TILE)
    backend = TorchBackend(network, (A, B), CPU, torch.float32)
    expected = network.features(tiles, (A, B))
    found = backend.features(tiles, never)
    assert {task: values.shape[1] for task, values in found.items()} == {A: 4, B: 6}
    for task in (A, B):
        torch.testing.assert_close(found[task], expected[task])
    assert backend.name == "torch-float32"


def test_bfloat16_leaves_the_network_as_it_was(network: WholeBodyModel) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tiles = torch.randn(1, 2, *TILE)
    found = TorchBackend(network, (A,), CPU, torch.bfloat16).features(tiles, never)[A]
    assert found.dtype == torch.bfloat16
    assert (found.float() - network.features(tiles, (A,))[A]).abs().mean() < 0.05
    for name, value in network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


def test_the_encoder_runs_once_per_call_whatever_the_number_of_tasks(network: WholeBodyModel) -> None:
    runs: list[int] = []
    network.encoder.register_forward_hook(lambda *_: runs.append(1))
    backend = TorchBackend(network, (A, B), CPU, torch.float32)
    backend.features(torch.randn(1, 2, *TILE), never)
    assert len(runs) == backend.num_calls == 1


def test_a_decoder_that_was_not_selected_is_never_run(network: WholeBodyModel) -> None:
    runs: list[str] = []
    for task in (A, B):
        network.decoder(task).stages[0].register_forward_hook(lambda *_, task=task: runs.append(task))
    TorchBackend(network, (B,), CPU, torch.float32).features(torch.randn(1, 2, *TILE), never)
    assert runs == [B]


def test_a_cancel_within_a_tile_stops_before_the_next_block_and_leaves_no_hook(network: WholeBodyModel) -> None:
    blocks: list[int] = []
    network.encoder.stages[0].register_forward_hook(lambda *_: blocks.append(1))
    backend = TorchBackend(network, (A, B), CPU, torch.float32)
    with pytest.raises(Cancelled):
        backend.features(torch.randn(1, 2, *TILE), lambda: len(blocks) > 0)
    assert len(blocks) == 1
    backend.features(torch.randn(1, 2, *TILE), never)


@needs_openvino
def test_openvino_agrees_with_torch(network: WholeBodyModel) -> None:
    tiles = torch.randn(1, 2, *TILE)
    backend = OpenVinoBackend(network, (A, B), tile=TILE, threads=1)
    found = backend.features(tiles, never)
    for task, expected in network.features(tiles, (A, B)).items():
        assert found[task].shape == expected.shape
        assert (found[task] - expected).abs().mean() < 0.02 * expected.abs().mean() + 0.01
    assert backend.name.startswith("openvino-")
    assert backend.num_calls == 1


@needs_openvino
def test_openvino_agrees_with_torch_on_a_level_without_convolutions(network: WholeBodyModel) -> None:
    bare = dataclasses.replace(network.decoder(A).spec, convs_per_stage=(0, 1))
    other = build_model(network.encoder.spec, {A: bare}).eval()
    tiles = torch.randn(1, 2, *TILE)
    found = OpenVinoBackend(other, (A,), tile=TILE, threads=1).features(tiles, never)[A]
    with torch.no_grad():
        expected = other.features(tiles, (A,))[A]
    assert found.shape == expected.shape
    assert (found - expected).abs().mean() < 0.02 * expected.abs().mean() + 0.01


@needs_openvino
def test_openvino_stops_when_cancelled(network: WholeBodyModel) -> None:
    backend = OpenVinoBackend(network, (A,), tile=TILE, threads=1)

    class Slow:
        """An infer request that is never done."""

        cancelled = False

        def start_async(self, inputs: object, *, share_inputs: bool) -> None:
            self.cancelled = False

        def wait_for(self, milliseconds: int) -> bool:
            return False

        def cancel(self) -> None:
            self.cancelled = True

        def wait(self) -> None:
            assert self.cancelled
            raise RuntimeError("Caught exception: Infer Request was canceled")

    backend._request = slow = Slow()
    with pytest.raises(Cancelled):
        backend.features(torch.randn(1, 2, *TILE), lambda: True)
    assert slow.cancelled


@needs_openvino
def test_openvino_stops_while_it_compiles(network: WholeBodyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compilation is left to end by itself; nobody waits for it."""
    released = threading.Event()
    monkeypatch.setattr(backend_openvino, "_graph", lambda *_: released.wait(60))
    started = time.monotonic()
    try:
        with pytest.raises(Cancelled):
            OpenVinoBackend(network, (A,), tile=TILE, threads=1, cancelled=lambda: True)
        assert time.monotonic() - started < 20
    finally:
        released.set()


def test_openvino_that_is_missing_says_what_to_install(
    network: WholeBodyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=r"needs the package openvino; pip install openvino, or use backend torch"):
        OpenVinoBackend(network, (A,), tile=TILE, threads=None)
    assert "openvino" not in candidates(request(network))


def test_openvino_on_a_gpu_is_refused(network: WholeBodyModel) -> None:
    with pytest.raises(DeviceError, match="backend openvino runs on the CPU only"):
        candidates(request(network, device=torch.device("cuda", 0), wanted="openvino"))


def test_what_can_run_depends_on_the_processor(network: WholeBodyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert has_fast_bfloat16()
    monkeypatch.setattr(backend_choice.backend_openvino, "is_installed", lambda: False)
    assert candidates(request(network)) == ("float32", "bfloat16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    assert candidates(request(network)) == ("float32",)
    monkeypatch.setattr(backend_choice.backend_openvino, "is_installed", lambda: True)
    assert candidates(request(network)) == ("float32", "openvino")
    assert candidates(request(network, wanted="torch")) == ("float32",)
    assert candidates(request(network, wanted="openvino")) == ("openvino",)


class Fake:
    """A backend of known speed and error; its clock is the test's."""

    def __init__(self, network: WholeBodyModel, seconds: float, error: float, clock: list[float]) -> None:
        self.name, self.num_calls = "fake", 0
        self._network, self._seconds, self._error, self._clock = network, seconds, error, clock

    def features(self, tiles: torch.Tensor, cancelled: IsCancelled) -> Mapping[TaskId, torch.Tensor]:
        self._clock[0] += self._seconds
        found = self._network.features(tiles, (A, B))
        return {task: values + self._error * torch.randn_like(values) for task, values in found.items()}


@pytest.fixture
def fakes(network: WholeBodyModel, monkeypatch: pytest.MonkeyPatch) -> dict[Kind, tuple[float, float]]:
    """Seconds and error per kind, to be set by the test."""
    table: dict[Kind, tuple[float, float]] = {}
    clock = [0.0]
    monkeypatch.setattr(backend_choice.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(backend_choice, "make_backend", lambda _, kind, cancelled: Fake(network, *table[kind], clock))
    return table


@pytest.mark.parametrize(
    ("seconds", "error", "best"), [(0.5, 0.0, "openvino"), (2.0, 0.0, "float32"), (0.5, 100.0, "float32")]
)
def test_the_faster_backend_is_taken_only_if_its_labels_agree(
    network: WholeBodyModel, fakes: dict[Kind, tuple[float, float]], seconds: float, error: float, best: str
) -> None:
    fakes.update({"float32": (1.0, 0.0), "openvino": (seconds, error)})
    kinds: tuple[Kind, ...] = ("float32", "openvino")
    assert measure(request(network), kinds, torch.randn(1, 2, 8, 8, 8), heads_of(network), never) == best


def test_it_is_measured_once_per_process_and_not_for_a_single_tile(
    network: WholeBodyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    monkeypatch.setattr(backend_choice, "candidates", lambda _: ("float32", "bfloat16"))
    monkeypatch.setattr(backend_choice, "measure", lambda *_: measured.append(1) or "bfloat16")
    heads = heads_of(network)

    def choose(num_tiles: int) -> str:
        return choose_backend(request(network, num_tiles=num_tiles), lambda: torch.zeros(0), heads, never).name

    assert choose(1) == "torch-float32"
    assert [choose(9), choose(9)] == ["torch-bfloat16"] * 2
    assert len(measured) == 1


@pytest.mark.parametrize("kind", ["float32", pytest.param("openvino", marks=needs_openvino)])
def test_tasks_that_are_not_chosen_are_left_out_after_the_encoder_was_seen(network: WholeBodyModel, kind: Kind) -> None:
    tiles = torch.randn(1, 2, *TILE)
    backend = make_backend(request(network, is_gated=True), kind)
    seen: list[torch.Tensor] = []

    def choose(deep: torch.Tensor) -> tuple[TaskId, ...]:
        seen.append(deep.float().clone())
        return (B,)

    found = backend.features(tiles, never, choose)
    assert list(found) == [B]
    assert backend.num_calls == 1
    assert (seen[0] - network.encoder(tiles)[-1]).abs().mean() < 0.05
    assert (found[B].float() - network.features(tiles, (B,))[B]).abs().mean() < 0.05
    assert backend.features(tiles, never, lambda deep: ()) == {}
    assert set(backend.features(tiles, never)) == {A, B}
