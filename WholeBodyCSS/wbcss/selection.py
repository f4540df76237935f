"""From what the user asked for to the tasks to run and the organs to write. No torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
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

    Args:
        cards: The loaded tasks, in registry order.
        organs: What to write; all that the tasks know by default.
        tasks: Where to look for it; all loaded tasks by default.

    Raises InputError for an unknown name (with the nearest known ones), or if nothing was asked for.
    """
    allowed = list(cards) if tasks is None else list(tasks)
    for task in allowed:
        if task not in cards:
            raise InputError(_unknown("task", task, difflib.get_close_matches(task, cards), list(cards)))
    known = {organ.name: organ for task in cards if task in allowed for organ in cards[task].organs}
    wanted = set(known) if organs is None else set(organs)
    for name in sorted(wanted - set(known)):
        raise InputError(_unknown("organ", name, suggest(name, among=known), sorted(known)))
    if not wanted:
        raise InputError("at least one organ or task must be asked for, got none")
    running = tuple(task for task in cards if task in allowed and any(o.name in wanted for o in cards[task].organs))
    return Selection(running, tuple(organ for name, organ in known.items() if name in wanted))


def _unknown(kind: str, got: str, near: Sequence[str], known: Sequence[str]) -> str:
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        more = "" if len(known) <= 8 else f" and {len(known) - 8} more"
        hint = f"the loaded model knows {', '.join(known[:8])}{more}"
    return f"unknown {kind} {got!r}; {hint}"
