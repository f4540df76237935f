"""Parameters, multiply-accumulates and Dice of every task's decoder, as published and as it was full."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from wbcss.cards import TaskCard
from wbcss.errors import RegistryError, SpecError
from wbcss.labels import TaskId
from wbcss.registry import Registry
from wbcss.specs import DecoderSpec, EncoderSpec, spec_from_json

from ..continual.cost import Cost, decoder_cost, encoder_cost, total
from ..search.space import full_decoder

FullSource = Literal["card", "registry", "itself"]
"""Where the full decoder is known from: the record of its trimming, another registry, or it was never trimmed."""


@dataclass(frozen=True, kw_only=True)
class DecoderSize:
    """One decoder.

    Attributes:
        spec: Architecture.
        cost: With its last layer, for one tile.
        dice: Mean over organs of held-out cases, in [0, 1]; None if the card has none.
    """

    spec: DecoderSpec
    cost: Cost
    dice: float | None


@dataclass(frozen=True, kw_only=True)
class TaskSize:
    """One task.

    Attributes:
        title: As in ``liver@2``.
        published: Its decoder.
        full: The one that it was made from.
        source: Where that is known from.
        on_request: Whether it runs only when it is asked for.
    """

    title: str
    published: DecoderSize
    full: DecoderSize
    source: FullSource
    on_request: bool = False

    @property
    def times_fewer_macs(self) -> float:
        """Multiply-accumulates of the full decoder over those of the published one."""
        return self.full.cost.macs / self.published.cost.macs

    @property
    def dice_lost(self) -> float | None:
        """Dice of the full decoder minus that of the published one; below 0 if it became better."""
        if self.full.dice is None or self.published.dice is None:
            return None
        return self.full.dice - self.published.dice


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """A whole registry.

    Attributes:
        encoder: Architecture of the frozen encoder.
        encoder_cost: Of it, for one tile of its own.
        base_cost: Of it and a full decoder, as wide as the encoder and with the organs of the task that has most:
            one nnU-Net.
        tasks: In registry order.
    """

    encoder: EncoderSpec
    encoder_cost: Cost
    base_cost: Cost
    tasks: tuple[TaskSize, ...]

    @property
    def published_cost(self) -> Cost:
        """All decoders together."""
        return total(task.published.cost for task in self.tasks)

    @property
    def full_cost(self) -> Cost:
        """All decoders together as they were full."""
        return total(task.full.cost for task in self.tasks)


def model_size(registry: Registry, *, full: Registry | None = None, tasks: Iterable[TaskId] | None = None) -> ModelSize:
    """Sizes of ``tasks`` (default: all visible ones) from their cards; no weights are read.

    Args:
        registry: Holds the published tasks.
        full: Holds full decoders of some of them, on the same encoder; they go before what the cards say.
        tasks: Which.

    Raises:
        RegistryError: there is no such task, or none at all.
        SpecError: ``full`` has another encoder, or a card's record of its trimming cannot be read.
    """
    encoder = registry.encoder_card().spec
    _check_same_encoder(registry, full)
    cards = list(registry.tasks()) if tasks is None else [registry.card(task) for task in dict.fromkeys(tasks)]
    if not cards:
        raise RegistryError(f"no task is published in the registry {registry.root}; import or enroll one first")
    most = max(card.spec.num_organs for card in cards)
    base = decoder_cost(full_decoder(encoder, num_organs=most), encoder)
    own = encoder_cost(encoder)
    return ModelSize(
        encoder=encoder,
        encoder_cost=own,
        base_cost=own + base,
        tasks=tuple(_task_size(card, encoder, full) for card in cards),
    )


def _check_same_encoder(registry: Registry, full: Registry | None) -> None:
    if full is None:
        return
    ours, theirs = registry.encoder_card().weights_sha256, full.encoder_card().weights_sha256
    if ours != theirs:
        raise SpecError(
            f"the full decoders must be of the encoder {ours[:12]}..., got a registry with {theirs[:12]}...; name the "
            "one that they were enrolled in"
        )


def _task_size(card: TaskCard, encoder: EncoderSpec, full: Registry | None) -> TaskSize:
    published = _decoder_size(card.spec, encoder, _dice(card.validation.get("held_out")))
    source: FullSource
    other = next((known for known in full.tasks() if known.task == card.task), None) if full is not None else None
    record = card.validation.get("trimming")
    whole, source = published, "itself"
    if other is not None:
        whole, source = _decoder_size(other.spec, encoder, _dice(other.validation.get("held_out"))), "registry"
    elif record is not None:
        whole, source = _recorded(record, card, encoder), "card"
    return TaskSize(title=card.title, published=published, full=whole, source=source, on_request=card.on_request)


def _recorded(record: Any, card: TaskCard, encoder: EncoderSpec) -> DecoderSize:
    """The full decoder of ``trimming.outcome``'s summary, as ``enrolling`` writes it on the card."""
    try:
        return _decoder_size(spec_from_json(DecoderSpec, record["full"]["spec"]), encoder, _dice(record["full"]))
    except (KeyError, TypeError, AttributeError, SpecError) as error:
        raise SpecError(
            f"the card of {card.title} must say of its trimming what the full decoder was, got {error!r}; name the "
            "registry that holds the full one with --full"
        ) from error


def _decoder_size(spec: DecoderSpec, encoder: EncoderSpec, dice: float | None) -> DecoderSize:
    return DecoderSize(spec=spec, cost=decoder_cost(spec, encoder), dice=dice)


def _dice(verdict: Any) -> float | None:
    """Mean Dice of a verdict of held-out cases; None if there is no verdict, or it has none."""
    if verdict is None:
        return None
    dice = verdict["mean"]["dice"]
    return None if dice is None else float(dice)
