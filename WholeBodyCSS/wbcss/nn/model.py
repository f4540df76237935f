"""The whole-body model: one frozen encoder and one decoder per task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import nn

from ..errors import RegistryError
from ..labels import TaskId
from ..specs import DecoderSpec, EncoderSpec
from .decoder import Decoder
from .encoder import Encoder

ChooseTasks = Callable[[torch.Tensor], Sequence[TaskId]]
"""From the encoder's deepest features of a batch of tiles, (B, C, I, J, K), to the tasks worth decoding there."""


class WholeBodyModel(nn.Module):
    """Encodes once, decodes per task."""

    def __init__(self, encoder: Encoder, decoders: Mapping[TaskId, Decoder]) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoders = nn.ModuleDict({str(task): decoder for task, decoder in decoders.items()})

    @property
    def tasks(self) -> tuple[TaskId, ...]:
        """Tasks whose decoders are loaded, in registry order."""
        return tuple(TaskId(task) for task in self.decoders)

    def decoder(self, task: TaskId) -> Decoder:
        """The decoder of ``task``. Raises RegistryError naming the loaded tasks."""
        if task not in self.decoders:
            raise RegistryError(f"task {task!r} is not loaded; loaded tasks are {', '.join(self.tasks) or 'none'}")
        decoder = self.decoders[task]
        assert isinstance(decoder, Decoder)  # noqa: S101 -- narrows nn.Module for the type checker
        return decoder

    def forward(self, x: torch.Tensor, tasks: Iterable[TaskId]) -> dict[TaskId, torch.Tensor]:
        """(B, C_in, I, J, K) to logits (B, 1 + organs, I, J, K) per task; the encoder runs exactly once."""
        skips = self.encoder(x)
        return {task: self.decoder(task)(skips) for task in tasks}

    def features(self, x: torch.Tensor, tasks: Iterable[TaskId]) -> dict[TaskId, torch.Tensor]:
        """(B, C_in, I, J, K) to what each head reads, (B, F_task, I, J, K); the encoder runs exactly once."""
        skips = self.encoder(x)
        return {task: self.decoder(task).features(skips) for task in tasks}


def build_model(encoder: EncoderSpec, decoders: Mapping[TaskId, DecoderSpec]) -> WholeBodyModel:
    """Assemble a model with fresh random weights from its specs."""
    return WholeBodyModel(Encoder(encoder), {task: Decoder(spec, encoder) for task, spec in decoders.items()})
