"""The organs of a registry as hosts list them: how to show, find and ask for each, and the tasks that segment it."""

from __future__ import annotations

from collections.abc import Collection

from .labels import TaskId
from .protocol import OrganItem
from .registry import Registry


def organ_items(registry: Registry, *, without: Collection[TaskId] = ()) -> tuple[OrganItem, ...]:
    """Every organ that ``registry`` segments, in its order, leaving out the tasks of ``without``.

    Raises RegistryError if a card cannot be read.
    """
    cards = [card for card in registry.tasks() if card.task not in without]
    asked_for = {card.task for card in cards if card.on_request}
    tasks: dict[str, list[TaskId]] = {}
    for card in cards:
        for organ in card.organs:
            tasks.setdefault(organ.name, []).append(card.task)
    return tuple(
        OrganItem(
            name=organ.name,
            label=organ.label,
            display_name=organ.display_name,
            group=organ.group,
            color_rgb=organ.color_rgb,
            terminology=organ.terminology,
            tasks=tuple(tasks[organ.name]),
            synonyms=organ.synonyms,
            on_request=tuple(task for task in tasks[organ.name] if task in asked_for),
        )
        for organ in registry.organs()
        if organ.name in tasks
    )
