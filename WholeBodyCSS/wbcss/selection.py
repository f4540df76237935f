"""From what the user asked for to the tasks to run and the organs to write. No torch."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .cards import TaskCard
from .catalogue import Organ, suggest
from .errors import InputError
from .labels import OrganName, TaskId


@dataclass(frozen=True)
class Selection:
    """What a run computes and writes.

    Attributes:
        tasks: Tasks to run, in registry order.
        organs: Organs to write, in the order of the tasks' channels.
    """

    tasks: tuple[TaskId, ...]
    organs: tuple[Organ, ...]

    @property
    def names(self) -> frozenset[OrganName]:
        """Names of ``organs``."""
        return frozenset(organ.name for organ in self.organs)


def select(
    cards: Mapping[TaskId, TaskCard],
    *,
    organs: Iterable[OrganName] | None = None,
    tasks: Iterable[TaskId] | None = None,
) -> Selection:
    """Choose tasks and organs; a task that knows none of the organs asked for is not run.

    A task on request runs when it is named, or an organ that only tasks on request know: naming an organ that others
    know as well is no request, so that such a task changes nothing for those who did not ask for it.

    Args:
        cards: The loaded tasks, in registry order.
        organs: What to write; all that the tasks know by default.
        tasks: Where to look for it; by default all loaded tasks but those that run on request.

    Raises InputError for an unknown name (with the nearest known ones), or if nothing was asked for.
    """
    named = None if organs is None else set(organs)
    allowed = _unnamed(cards, named) if tasks is None else list(tasks)
    for task in allowed:
        if task not in cards:
            raise InputError(_unknown("task", task, difflib.get_close_matches(task, cards), list(cards)))
    known = {organ.name: organ for task in cards if task in allowed for organ in cards[task].organs}
    wanted = set(known) if named is None else named
    for name in sorted(wanted - set(known)):
        # Near names come from every task that might have been meant, also from those on request.
        near = known if tasks is not None else {o.name: o for card in cards.values() for o in card.organs}
        raise InputError(_unknown("organ", name, suggest(name, among=near), sorted(near)))
    if not wanted:
        raise InputError("at least one organ or task must be asked for, got none")
    running = tuple(task for task in cards if task in allowed and any(o.name in wanted for o in cards[task].organs))
    return Selection(running, tuple(organ for name, organ in known.items() if name in wanted))


def left_out_note(cards: Iterable[TaskCard]) -> str:
    """What a run of all tasks says of those on request: which they are and how to run them too; "" without any."""
    cards = list(cards)
    left = [f"{card.task} ({_listed([organ.name for organ in card.organs])})" for card in cards if card.on_request]
    if not left:
        return ""
    everything = ",".join(card.task for card in cards)
    return f"left out, because it runs on request: {', '.join(left)}; to run everything: --tasks {everything}"


def _unnamed(cards: Mapping[TaskId, TaskCard], wanted: Collection[OrganName] | None) -> list[TaskId]:
    """The tasks that may run for ``wanted`` (None: everything) when none is named."""
    usual = [task for task, card in cards.items() if not card.on_request]
    if wanted is None:
        if cards and not usual:
            raise InputError(
                f"every task here runs on request only, got no name; name one with --tasks, such as {next(iter(cards))}"
            )
        return usual
    plain = {organ.name for task in usual for organ in cards[task].organs}
    asked = set(wanted) - plain
    return [task for task, card in cards.items() if not card.on_request or any(o.name in asked for o in card.organs)]


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = "" if len(names) <= most else f" and {len(names) - most} more"
    return f"{', '.join(names[:most])}{more}"


def _unknown(kind: str, got: str, near: Sequence[str], known: Sequence[str]) -> str:
    hint = f"did you mean {' or '.join(near)}?" if near else f"the loaded model knows {_listed(known)}"
    return f"unknown {kind} {got!r}; {hint}"
