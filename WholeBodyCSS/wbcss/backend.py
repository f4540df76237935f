"""What runs encoder and decoders on a batch of tiles: the interface, and torch."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from .labels import TaskId
from .nn.blocks import ConvBlock
from .nn.model import ChooseTasks, WholeBodyModel
from .progress import IsCancelled, check_cancelled


class TileEncoderDecoder(Protocol):
    """Features of tiles for the tasks it was made for; the encoder runs once per call, whatever their number."""

    @property
    def name(self) -> str:
        """Library and precision, as in ``torch-float32``."""

    @property
    def num_calls(self) -> int:
        """Encoder calls so far."""

    def features(
        self, tiles: torch.Tensor, cancelled: IsCancelled, choose: ChooseTasks | None = None
    ) -> Mapping[TaskId, torch.Tensor]:
        """(B, C, I, J, K) float32 on the run's device to (B, F, I, J, K) per task, any float type. Raises Cancelled.

        ``choose`` is called once, between encoder and decoders; tasks that it leaves out are left out of the answer.
        """


class TorchBackend:
    """Runs the network in torch, in float32 or under autocast.

    Args:
        network: Left untouched; it is copied if it must move or change its memory format.
        tasks: Tasks to decode; the others' decoders are never run.
        device: Where to run.
        precision: Of the convolutions.
    """

    def __init__(
        self, network: WholeBodyModel, tasks: Sequence[TaskId], device: torch.device, precision: torch.dtype
    ) -> None:
        self._tasks = tuple(tasks)
        self._device = device
        self._precision = precision
        self._autocast = precision != torch.float32
        self._format = torch.channels_last_3d if self._autocast else torch.contiguous_format
        if self._autocast or device.type != "cpu":
            chosen = WholeBodyModel(network.encoder, {task: network.decoder(task) for task in tasks})
            network = copy.deepcopy(chosen).to(device=device, memory_format=self._format)  # type: ignore[call-overload]
        self._network = network
        self._num_calls = 0

    @property
    def name(self) -> str:
        """Library and precision."""
        return f"torch-{str(self._precision).removeprefix('torch.')}"

    @property
    def num_calls(self) -> int:
        """Encoder calls so far."""
        return self._num_calls

    def features(
        self, tiles: torch.Tensor, cancelled: IsCancelled, choose: ChooseTasks | None = None
    ) -> Mapping[TaskId, torch.Tensor]:
        """As ``TileEncoderDecoder.features``; asks ``cancelled`` before every convolution block."""
        self._num_calls += 1
        tiles = tiles.to(self._device).contiguous(memory_format=self._format)
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, self._precision, enabled=self._autocast),
            _stopping(self._network, cancelled),
        ):
            skips = self._network.encoder(tiles)
            tasks = self._tasks if choose is None else choose(skips[-1])
            return {task: self._network.decoder(task).features(skips) for task in tasks}


@contextmanager
def _stopping(network: nn.Module, cancelled: IsCancelled) -> Iterator[None]:
    """Ask ``cancelled`` whenever a convolution block begins: a large tile takes seconds, a cancel must not."""

    def ask(module: nn.Module, inputs: Any) -> None:
        check_cancelled(cancelled)

    handles = [block.register_forward_pre_hook(ask) for block in network.modules() if isinstance(block, ConvBlock)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
