"""Cards: everything known about an encoder or a task without reading its weights. No torch."""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from .catalogue import Organ
from .errors import InputError, RegistryError
from .labels import LabelSpace, TaskId, parse_task_id
from .schemas import check_seal, read_document, seal
from .specs import DecoderSpec, EncoderSpec, spec_from_json, spec_to_json

DecoderKind = Literal["own", "prior", "prompt"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_sha256(text: str, *, name: str, empty: bool = False) -> None:
    """Raise RegistryError unless ``text`` is a SHA-256 in lower-case hex (or empty where that is allowed)."""
    if not (_SHA256.fullmatch(text) or (empty and not text)):
        raise RegistryError(f"{name} must be 64 lower-case hexadecimal digits, got {text!r}")


def _check_date(text: str, *, name: str) -> None:
    try:
        datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise RegistryError(f"{name} must be an ISO date such as 2026-11-20, got {text!r}") from None


def _check_count(value: int, *, name: str, least: int) -> None:
    if type(value) is not int or value < least:
        raise RegistryError(f"{name} must be a whole number of at least {least}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class EncoderCard:
    """What is known about the frozen encoder of a registry.

    Attributes:
        name: Name of the encoder, free text.
        version: Counted from 1.
        spec: Architecture and input.
        weights_sha256: SHA-256 of ``encoder.safetensors``, the identity every task card names. Empty in a card that
            is not published yet.
        license: SPDX expression or text.
        provenance: What it was trained on, in words.
        training: Free JSON about the training; no patient identifiers.
        created: ISO date.
    """

    name: str
    version: int = 1
    spec: EncoderSpec
    weights_sha256: str = ""
    license: str
    provenance: str
    training: Mapping[str, Any] = field(default_factory=dict)
    created: str

    def __post_init__(self) -> None:
        if not self.name:
            raise RegistryError(f"an encoder needs a name, got {self.name!r}")
        _check_count(self.version, name="version of the encoder", least=1)
        check_sha256(self.weights_sha256, name="weights_sha256", empty=True)
        _check_date(self.created, name="created")


@dataclass(frozen=True, kw_only=True)
class TaskCard:
    """What is known about one version of a task.

    Attributes:
        task: Name of the task.
        version: Counted from 1; 0 in a card that is not published yet means "the next one".
        sequence: Position in the order of publication, counted from 1 over all tasks of a registry; 0 until
            published, and in packages.
        kind: Own decoder, prior decoder or promptable decoder.
        organs: Channel order: decoder channel ``c + 1`` is ``organs[c]``; channel 0 is background.
        spec: Architecture of the decoder.
        encoder_sha256: SHA-256 of the encoder weights that the decoder was made for.
        weights_sha256: SHA-256 of ``decoder.safetensors``; empty until published.
        evidence_sha256: SHA-256 of ``evidence.safetensors``; empty if there is none, as in older cards.
        training_cases: Number of cases it was learned from.
        validation: Free JSON: metrics on held-out cases.
        calibration: At least ``temperature``, by which logits are divided before the softmax.
        body_part: Body-part ranges, free JSON.
        confidence: How well its confidence was calibrated: ``ece_before``, ``ece_after``, ``reliability``; see
            ``wbcss_training.certainty``.
        anomaly: ``threshold`` and ``false_alarm_rate`` of the distance to the training data, ``volume_ml`` per organ
            as sums, and ``pathological``, the organs learned with their lesions. Never images or identifiers.
        license: SPDX expression or text.
        provenance: What it was trained on, in words.
        created: ISO date.
        limits: What it cannot do, in words.
        on_request: Whether it runs only when somebody names it or an organ that no other kind of task knows; for
            tasks that may mislead those who did not ask for them. Not in older cards.
    """

    task: TaskId
    version: int = 0
    sequence: int = 0
    kind: DecoderKind = "own"
    organs: tuple[Organ, ...]
    spec: DecoderSpec
    encoder_sha256: str
    weights_sha256: str = ""
    evidence_sha256: str = ""
    training_cases: int
    validation: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 1.0})
    body_part: Mapping[str, Any] = field(default_factory=dict)
    confidence: Mapping[str, Any] = field(default_factory=dict)
    anomaly: Mapping[str, Any] = field(default_factory=dict)
    license: str
    provenance: str
    created: str
    limits: str = ""
    on_request: bool = False

    def __post_init__(self) -> None:
        parse_task_id(self.task)
        _check_count(self.version, name=f"version of task {self.task!r}", least=0)
        _check_count(self.sequence, name=f"sequence of task {self.task!r}", least=0)
        _check_count(self.training_cases, name=f"training_cases of task {self.task!r}", least=0)
        if self.kind not in get_args(DecoderKind):
            raise RegistryError(f"kind of task {self.task!r} must be own, prior or prompt, got {self.kind!r}")
        if len(self.organs) != self.spec.num_organs:
            raise RegistryError(
                f"task {self.task!r} must list as many organs as its decoder has channels ({self.spec.num_organs}), "
                f"got {len(self.organs)}"
            )
        names = [organ.name for organ in self.organs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise RegistryError(f"task {self.task!r} may list an organ once, got {', '.join(twice)} more than once")
        LabelSpace({organ.name: organ.label for organ in self.organs})
        check_sha256(self.encoder_sha256, name="encoder_sha256")
        check_sha256(self.weights_sha256, name="weights_sha256", empty=True)
        check_sha256(self.evidence_sha256, name="evidence_sha256", empty=True)
        self._check_temperature()
        if not isinstance(self.on_request, bool):
            raise RegistryError(f"on_request of task {self.task!r} must be true or false, got {self.on_request!r}")
        _check_date(self.created, name="created")

    def _check_temperature(self) -> None:
        value = self.calibration.get("temperature", 1.0)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value <= 0:
            raise RegistryError(
                f"calibration.temperature of task {self.task!r} must be a positive number, got {value!r}"
            )

    @property
    def label_space(self) -> LabelSpace:
        """Global label value of every organ."""
        return LabelSpace({organ.name: organ.label for organ in self.organs})

    @property
    def temperature(self) -> float:
        """Logits are divided by it before the softmax."""
        return float(self.calibration.get("temperature", 1.0))

    @property
    def title(self) -> str:
        """How people see it, as in ``liver@2``."""
        return f"{self.task}@{self.version}"


def encoder_card_to_bytes(card: EncoderCard) -> bytes:
    """The sealed ``card.json``. Raises RegistryError if the card does not fit its schema."""
    values = {"format": "wbcss-encoder-card", "format_version": 1, **_fields(card)}
    return _sealed(values, schema="encoder_card")


def task_card_to_bytes(card: TaskCard) -> bytes:
    """The sealed ``card.json``. Raises RegistryError if the card does not fit its schema."""
    values = {"format": "wbcss-task-card", "format_version": 1, **_fields(card)}
    values["organs"] = [organ.to_json() for organ in card.organs]
    values["calibration"] = {"temperature": 1.0, **card.calibration}
    for name in ("evidence_sha256", "on_request"):
        if not values[name]:
            del values[name]  # so that older cards keep their bytes
    return _sealed(values, schema="task_card")


def encoder_card_from_bytes(data: bytes, *, source: str) -> EncoderCard:
    """Read a sealed ``card.json``. Raises RegistryError naming ``source``, the field and the value."""
    values = _open(data, schema="encoder_card", source=source)
    try:
        return EncoderCard(**{**values, "spec": spec_from_json(EncoderSpec, values["spec"])})
    except InputError as error:
        raise RegistryError(f"{source}: {error}") from error


def task_card_from_bytes(data: bytes, *, source: str) -> TaskCard:
    """Read a sealed ``card.json``. Raises RegistryError naming ``source``, the field and the value."""
    values = _open(data, schema="task_card", source=source)
    try:
        organs = tuple(Organ.from_json(organ) for organ in values["organs"])
        return TaskCard(**{**values, "organs": organs, "spec": spec_from_json(DecoderSpec, values["spec"])})
    except InputError as error:
        raise RegistryError(f"{source}: {error}") from error


def _fields(card: EncoderCard | TaskCard) -> dict[str, Any]:
    values = {item.name: getattr(card, item.name) for item in dataclasses.fields(card)}
    values["spec"] = spec_to_json(card.spec)
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}


def _sealed(values: dict[str, Any], *, schema: str) -> bytes:
    data = seal(values, name="card.json")
    # Reading back what was just made keeps a card that could not be read later from ever being published.
    read_document(data, schema=schema, source="card.json")
    return data


def _open(data: bytes, *, schema: str, source: str) -> dict[str, Any]:
    values = read_document(data, schema=schema, source=source)
    check_seal(data, source=source)
    return {name: value for name, value in values.items() if name not in ("format", "format_version", "card_sha256")}
