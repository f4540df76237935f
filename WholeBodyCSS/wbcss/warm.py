"""A model that stays loaded between jobs, and is loaded again when its registry has changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .errors import RegistryError
from .labels import OrganName, TaskId
from .levelstore import level_card
from .registry import Registry
from .selection import select

if TYPE_CHECKING:
    from .loading import LoadedModel


def needed_tasks(
    registry: Registry, *, organs: Iterable[OrganName] | None = None, tasks: Iterable[TaskId] | None = None
) -> tuple[TaskId, ...]:
    """The tasks whose decoders must run for ``organs`` and ``tasks`` (None: the usual ones), in registry order.

    Raises InputError with near names for one that the registry lacks, RegistryError if it has no task at all.
    """
    cards = {card.task: card for card in registry.tasks()}
    if not cards:
        raise RegistryError(
            f"the registry {registry.root} must hold at least one task, got none; publish or import one"
        )
    return select(cards, organs=organs, tasks=tasks).tasks


class WarmModel:
    """Holds the model of the last job.

    It serves the next one if that needs no other task and the files behind it are still those of the registry:
    publishing, importing or retiring a task is noticed by the hashes in its cards.
    """

    def __init__(self) -> None:
        self._model: LoadedModel | None = None
        self._state: frozenset[tuple[str, ...]] = frozenset()

    def load(self, registry: Registry, tasks: tuple[TaskId, ...]) -> LoadedModel:
        """The model of ``tasks``; it may hold further ones. Raises RegistryError if a file does not fit its card."""
        wanted = _state(registry, tasks)
        if self._model is None or not wanted <= self._state:
            from .loading import load_model

            self._model = None  # two models at a time would double the memory
            self._model = load_model(registry, tasks)
            self._state = wanted
        return self._model


def _state(registry: Registry, tasks: tuple[TaskId, ...]) -> frozenset[tuple[str, ...]]:
    encoder = registry.encoder_card().weights_sha256
    levels = level_card(registry)
    head = "" if levels is None else levels.weights_sha256
    cards = (card for card in registry.tasks() if card.task in tasks)
    return frozenset((encoder, head, card.task, str(card.version), card.weights_sha256) for card in cards)
