from __future__ import annotations

import pytest
import torch

from wbcss.devices import Step, descend, ladder, limited_threads, resolve_device
from wbcss.errors import DeviceError, InputError

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_an_error() -> None:
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    with pytest.raises(DeviceError, match=r"device 'cuda' is not on this machine; it has cpu; use --device auto"):
        resolve_device("cuda")


@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_found_by_number() -> None:
    assert resolve_device("auto") == resolve_device("cuda") == GPU
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cpu") == CPU
    with pytest.raises(DeviceError, match=r"'cuda:2' is not on this machine; it has cpu, cuda:0, cuda:1"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:x", "", "mps", "CPU"])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=rf"device must be auto, cpu, cuda or cuda:N, got '{text}'"):
        resolve_device(text)


def test_threads_are_limited_inside_and_restored_even_after_an_error() -> None:
    before = torch.get_num_threads()
    seen = []

    def fail() -> None:
        with limited_threads(3):
            seen.append(torch.get_num_threads())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [3]
    assert torch.get_num_threads() == before
    with limited_threads(None):
        assert torch.get_num_threads() == before


def test_the_ladder_goes_from_batches_to_smaller_tiles_to_the_cpu() -> None:
    assert [str(step) for step in ladder(GPU, (96, 96, 112), (16, 16, 16))] == [
        "cuda:0, 4 tiles of 96x96x112 at once",
        "cuda:0, 2 tiles of 96x96x112 at once",
        "cuda:0, 1 tile of 96x96x112 at once",
        "cuda:0, 1 tile of 64x64x80 at once",
        "cuda:0, 1 tile of 48x48x48 at once",
        "cpu, 1 tile of 96x96x112 at once",
    ]
    assert ladder(CPU, (96, 96, 112), (16, 16, 16)) == (Step(CPU, 1, (96, 96, 112)),)


def test_running_out_of_memory_goes_down_and_every_step_is_announced() -> None:
    announced: list[str] = []
    tried: list[Step] = []

    def attempt(step: Step) -> str:
        tried.append(step)
        if step.tile[0] > 48:
            raise torch.OutOfMemoryError("full")
        return "done"

    steps = ladder(GPU, (96, 96, 96), (16, 16, 16))
    result, taken = descend(steps, attempt, announced.append)
    assert result == "done"
    assert tried == list(steps[:5])
    assert list(taken) == announced
    assert len(taken) == 4
    assert taken[-1] == "out of memory; continuing with cuda:0, 1 tile of 48x48x48 at once"


def test_memory_that_suffices_at_once_is_not_mentioned() -> None:
    assert descend(ladder(CPU, (16, 16, 16), (2, 2, 2)), lambda step: step.batch, lambda text: None) == (1, ())


def test_when_every_step_runs_out_the_last_one_is_named() -> None:
    def attempt(step: Step) -> None:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(DeviceError, match=r"memory ran out at every step, the last one being cpu, 1 tile of 32x32x32"):
        descend(ladder(GPU, (32, 32, 32), (2, 2, 2)), attempt, lambda text: None)


def test_another_error_is_not_taken_for_lack_of_memory() -> None:
    def attempt(step: Step) -> None:
        raise RuntimeError("out of memory, it seems")

    with pytest.raises(RuntimeError, match="it seems"):
        descend(ladder(GPU, (32, 32, 32), (2, 2, 2)), attempt, lambda text: None)
