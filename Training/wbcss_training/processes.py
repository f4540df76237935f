"""What a command needs to be one of several processes that torchrun started, and to stop tidily when it is told to."""

from __future__ import annotations

import datetime
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from wbcss.devices import resolve_device
from wbcss.progress import never

_PATIENCE = datetime.timedelta(days=1)
"""How long processes wait for one: the first one validates while the others do, which may take hours."""


def process_rank() -> int:
    """Number of this process among those that train together; 0 for a process on its own."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def process_count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def wait_for_all() -> None:
    """Return when every process has come here."""
    if distributed.is_initialized():
        distributed.barrier()


def any_process(stopping: bool) -> bool:
    """Whether any process wants to stop: all must stop after the same step, or the others wait for ever."""
    if process_count() == 1:
        return stopping
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    votes = torch.tensor(float(stopping), device=device)
    distributed.all_reduce(votes)
    return bool(votes > 0)


def process_device(name: str) -> torch.device:
    """The device of this process; with several processes on GPUs, ``auto`` and ``cuda`` give each its own."""
    device = resolve_device(name)
    if device.type == "cuda" and distributed.is_initialized() and ":" not in name:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    return device


@contextmanager
def process_group() -> Iterator[None]:
    """Join torchrun's processes, if there are any."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def terminated() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM came, so that the run can write a checkpoint before it goes."""
    asked = False

    def ask(signum: int, frame: object) -> None:
        nonlocal asked
        asked = True

    try:
        previous = signal.signal(signal.SIGTERM, ask)
    except ValueError:  # not the main thread: nobody can signal it
        yield never
        return
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGTERM, previous)
