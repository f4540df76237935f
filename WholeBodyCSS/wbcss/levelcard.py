"""The card of a registry's level head: what the body-part check knows beside its weights. No torch."""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import RegistryError
from .labels import OrganName
from .levels import LevelRange
from .schemas import check_seal, read_document, seal
from .specs import EncoderSpec

_SCHEMA = "level_card"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FRAME = ("format", "format_version", "card_sha256")


@dataclass(frozen=True, kw_only=True)
class LevelCard:
    """What is known about the head that tells levels of the body from the features of one frozen encoder.

    Attributes:
        encoder_sha256: SHA-256 of the encoder weights that the head was made for.
        weights_sha256: SHA-256 of ``body_part.safetensors``; empty until published.
        hidden: Width of the head.
        regions_cm: Levels of the regions that a report names, from the head down.
        anchors_cm: Level of the middle of organs that lie at the same level in everybody, such as vertebrae.
        ranges_cm: Where organs may be that no task has learned a range for, already widened.
        scale_factor: By how much the head is too sure: that times the scale it tells is that of its errors, so that 95%
            of held-out slabs are off by less than log(20) times as much, as Laplace's law has it.
        margin_cm: What a curve may be off beyond the doubt about it, in 95% of the curves through one held-out tile.
        training: Free JSON about the training; no patient identifiers.
        validation: Free JSON: errors on held-out slabs.
        license: SPDX expression or text.
        provenance: What it was trained on, in words.
        created: ISO date.
    """

    encoder_sha256: str
    weights_sha256: str = ""
    hidden: int
    regions_cm: Mapping[str, LevelRange]
    anchors_cm: Mapping[OrganName, float]
    ranges_cm: Mapping[OrganName, LevelRange]
    scale_factor: float
    margin_cm: float
    training: Mapping[str, Any] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)
    license: str
    provenance: str
    created: str

    def __post_init__(self) -> None:
        for name, text in (("encoder_sha256", self.encoder_sha256), ("weights_sha256", self.weights_sha256)):
            if not (_SHA256.fullmatch(text) or (name == "weights_sha256" and not text)):
                raise RegistryError(f"{name} must be 64 lower-case hexadecimal digits, got {text!r}")
        if type(self.hidden) is not int or self.hidden < 1:
            raise RegistryError(f"a level head must be at least 1 wide, got {self.hidden!r}")
        for name, (first, last) in (*self.regions_cm.items(), *self.ranges_cm.items()):
            if not (math.isfinite(first) and math.isfinite(last) and first < last):
                raise RegistryError(f"the levels of {name} must be two numbers, first < last, got {first} and {last}")
        if not (math.isfinite(self.margin_cm) and self.margin_cm >= 0):
            raise RegistryError(f"margin_cm must be a number of at least 0, got {self.margin_cm}")
        if not (math.isfinite(self.scale_factor) and self.scale_factor > 0):
            raise RegistryError(f"scale_factor must be a number above 0, got {self.scale_factor}")
        try:
            datetime.datetime.fromisoformat(self.created)
        except (TypeError, ValueError):
            raise RegistryError(f"created must be an ISO date such as 2026-11-20, got {self.created!r}") from None


def level_card_to_bytes(card: LevelCard) -> bytes:
    """The sealed ``card.json``. Raises RegistryError if the card does not fit its schema."""
    values: dict[str, Any] = {"format": "wbcss-level-card", "format_version": 1}
    for item in dataclasses.fields(card):
        value = getattr(card, item.name)
        values[item.name] = dict(value) if isinstance(value, Mapping) else value
    data = seal(values, name="card.json")
    read_document(data, schema=_SCHEMA, source="card.json")
    return data


def level_card_from_bytes(data: bytes, *, source: str) -> LevelCard:
    """Read a sealed ``card.json``. Raises RegistryError naming ``source``, the field and the value."""
    values = read_document(data, schema=_SCHEMA, source=source)
    check_seal(data, source=source)
    facts = {name: value for name, value in values.items() if name not in _FRAME}
    for name in ("regions_cm", "ranges_cm"):
        facts[name] = {key: (float(first), float(last)) for key, (first, last) in facts[name].items()}
    try:
        return LevelCard(**facts)
    except RegistryError as error:
        raise RegistryError(f"{source}: {error}") from error


def level_head_shapes(card: LevelCard, encoder: EncoderSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight of ``nn.levelhead.LevelHead`` for ``card``."""
    channels, hidden = encoder.stage_channels[-1], card.hidden
    return {
        "answer.bias": (2,),
        "answer.weight": (2, hidden),
        "attend.bias": (1,),
        "attend.weight": (1, channels, 1, 1, 1),
        "embed.bias": (hidden,),
        "embed.weight": (hidden, channels, 1, 1, 1),
        "mix.bias": (hidden,),
        "mix.weight": (hidden, 2 * hidden),
    }


def ranges_of(body_part: Mapping[str, Any], card: LevelCard) -> dict[OrganName, LevelRange]:
    """Where the organs of a task may be, by the ``body_part`` of its card; else where ``card`` says.

    Ranges that were learned with another head say nothing about this one's levels. Raises RegistryError if they are
    no ranges.
    """
    ranges = dict(card.ranges_cm)
    if body_part.get("head_sha256") != card.weights_sha256:
        return ranges
    learned = body_part.get("ranges_cm")
    try:
        found = {OrganName(name): (float(first), float(last)) for name, (first, last) in dict(learned).items()}  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = {}
    if not found or not all(first < last for first, last in found.values()):
        raise RegistryError(f"body_part.ranges_cm must give every organ two numbers, first < last, got {learned!r}")
    return ranges | found
