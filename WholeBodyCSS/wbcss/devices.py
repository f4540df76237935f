"""Device strings, CPU threads, and the steps down when memory runs out."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from .errors import DeviceError, InputError
from .tiling import shrink_tile
from .volume import Shape3

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

GPU_BATCH = 4
CPU = torch.device("cpu")


def resolve_device(text: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` stands for on this machine.

    Raises InputError for another text, DeviceError (naming what exists) for a device this machine lacks.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise InputError(f"device must be auto, cpu, cuda or cuda:N, got {text!r}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "cpu" or (text == "auto" and count == 0):
        return CPU
    index = int(text[5:]) if ":" in text else 0
    if index >= count:
        there = ", ".join(["cpu", *(f"cuda:{n}" for n in range(count))])
        raise DeviceError(f"device {text!r} is not on this machine; it has {there}; use --device auto to take the best")
    return torch.device("cuda", index)


@contextlib.contextmanager
def limited_threads(threads: int | None) -> Iterator[None]:
    """Let torch use ``threads`` CPU threads within the block, and as many as before afterwards."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Step:
    """One way to run: where, how many tiles at once, and how large they are."""

    device: torch.device
    batch: int
    tile: Shape3

    def __str__(self) -> str:
        size = "x".join(str(n) for n in self.tile)
        return f"{self.device}, {self.batch} tile{'s' if self.batch > 1 else ''} of {size} at once"


def ladder(device: torch.device, tile: Shape3, divisor: Shape3) -> tuple[Step, ...]:
    """What to try in order: smaller batches, then smaller tiles (multiples of ``divisor``), then the CPU.

    The CPU has only its own step: what fits no memory there does not become smaller by swapping.
    """
    if device.type == "cpu":
        return (Step(device, 1, tile),)
    batches = [Step(device, batch, tile) for batch in (GPU_BATCH, 2, 1)]
    sizes = dict.fromkeys(shrink_tile(tile, divisor, share) for share in (0.75, 0.5))
    smaller = [Step(device, 1, size) for size in sizes if size != tile]
    return (*batches, *smaller, Step(CPU, 1, tile))


def descend(
    steps: tuple[Step, ...],
    attempt: Callable[[Step], Result],
    announce: Callable[[str], None],
    *,
    advice: str = "segment fewer tasks at once",
) -> tuple[Result, tuple[str, ...]]:
    """Try each step until one does not run out of memory; returns its result and the announced way down.

    Only ``torch.OutOfMemoryError`` leads to the next step. Raises DeviceError when the last one runs out too;
    ``advice`` is what a user can do then beside closing other programs.
    """
    taken: list[str] = []
    for number, step in enumerate(steps):
        if number > 0:
            taken.append(f"out of memory; continuing with {step}")
            announce(taken[-1])
            _log.warning("%s", taken[-1])
        try:
            return attempt(step), tuple(taken)
        except torch.OutOfMemoryError:
            # The exception's traceback holds the tensors of the attempt; they are free once it is left.
            pass
        if step.device.type == "cuda":
            torch.cuda.empty_cache()
    raise DeviceError(
        f"memory ran out at every step, the last one being {steps[-1]}; close other programs, or {advice}"
    )
