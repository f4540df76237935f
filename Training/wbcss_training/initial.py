"""Starting a run from what is published: an encoder, decoders, and a new task's decoder from its nearest relative."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from wbcss.cards import TaskCard
from wbcss.errors import SpecError
from wbcss.labels import OrganName, TaskId
from wbcss.loading import load_model
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
        start_decoder(
            learner.model.decoder(task),
            published.network.decoder(task).state_dict(),
            card=published.cards[task],
            organs=organs[task],
        )
    return continued


def nearest_relative(cards: Iterable[TaskCard], organs: Sequence[OrganName]) -> TaskCard | None:
    """The task to start a decoder for ``organs`` from: it knows most of them, and among equals most organs at all.

    What a decoder has learned about reading the frozen features serves other organs too, so any relative is better
    than none; None only for no cards.
    """
    wanted = set(organs)
    return max(
        cards,
        key=lambda card: (sum(organ.name in wanted for organ in card.organs), len(card.organs), card.task),
        default=None,
    )


def start_decoder(
    decoder: nn.Module, theirs: Mapping[str, torch.Tensor], *, card: TaskCard, organs: Sequence[OrganName]
) -> None:
    """Copy the weights ``theirs`` of the published task ``card`` into ``decoder``, which learns ``organs``.

    Rows of the head are matched by organ name; an organ that the published task does not know keeps its fresh row.
    Raises SpecError if the architectures differ.
    """
    ours = decoder.state_dict()
    known = [organ.name for organ in card.organs]
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
                f"a decoder that starts from {card.title} needs {name} of shape {tuple(value.shape)}, the registry "
                f"holds {got}; copy the decoder's spec from its card"
            )
