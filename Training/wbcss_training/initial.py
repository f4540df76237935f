"""Starting a run from a published model: its encoder, and every decoder whose shape and organs still fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from wbcss.errors import SpecError
from wbcss.labels import OrganName, TaskId
from wbcss.loading import LoadedModel, load_model
from wbcss.registry import Registry

from .learner import Learner

_HEAD = "head."


def start_from(learner: Learner, registry_path: Path, organs: Mapping[TaskId, tuple[OrganName, ...]]) -> list[TaskId]:
    """Copy the weights of the registry at ``registry_path`` into ``learner``; returns the tasks that were continued.

    A published decoder may know fewer organs than the run trains: rows of its head are matched by organ name, and an
    organ it does not know keeps its fresh row. Tasks that the registry lacks start fresh.

    Raises:
        RegistryError: the registry cannot be read.
        SpecError: its encoder, or a decoder of the same task, has another architecture than the run's.
    """
    published = load_model(Registry(registry_path))
    encoder = learner.model.encoder
    if encoder.spec != published.encoder_card.spec:
        raise SpecError(
            f"a run that starts from {registry_path.name} must train the encoder published there, "
            f"{published.encoder_card.spec}, got {encoder.spec}; copy its spec into the plan"
        )
    encoder.load_state_dict(published.network.encoder.state_dict())
    continued = [task for task in organs if task in published.cards]
    for task in continued:
        _start_decoder(learner.model.decoder(task), published, task, organs[task])
    return continued


def _start_decoder(decoder: nn.Module, published: LoadedModel, task: TaskId, organs: tuple[OrganName, ...]) -> None:
    theirs = published.network.decoder(task).state_dict()
    ours = decoder.state_dict()
    known = [organ.name for organ in published.cards[task].organs]
    rows = [(0, 0)] + [(1 + organs.index(organ), 1 + row) for row, organ in enumerate(known) if organ in organs]
    to, of = (torch.tensor(numbers) for numbers in zip(*rows, strict=True))
    for name, value in ours.items():
        other = theirs.get(name)
        if name.startswith(_HEAD) and other is not None and other.shape[1:] == value.shape[1:]:
            value[to] = other[of]
        elif other is not None and other.shape == value.shape:
            value.copy_(other)
        else:
            got = "nothing" if other is None else str(tuple(other.shape))
            raise SpecError(
                f"decoder {task!r} of the run needs {name} of shape {tuple(value.shape)}, the registry holds {got}; "
                "copy the decoder's spec from its card into the plan"
            )
