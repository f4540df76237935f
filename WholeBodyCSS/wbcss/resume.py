"""Which inputs of a batch are already done: the same input, model and options, and the outputs still there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .cards import TaskCard
from .errors import VolumeFileError
from .labels import TaskId
from .levelstore import level_card
from .outputs import OutputPaths
from .registry import Registry

_BLOCK_BYTES = 1 << 20


def file_sha256(path: Path) -> str:
    """SHA-256 of the bytes of ``path``."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def input_sha256(path: Path) -> str:
    """Fingerprint of an input file, or of all files of a DICOM folder whatever their names and order.

    Raises VolumeFileError if something cannot be read.
    """
    try:
        if not path.is_dir():
            return file_sha256(path)
        parts = sorted(file_sha256(file) for file in path.rglob("*") if file.is_file())
    except OSError as error:
        raise VolumeFileError(f"cannot read {path}: {error.strerror or error}") from error
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def model_hashes(registry: Registry, tasks: Sequence[TaskId], *, body_part: bool = True) -> dict[str, str]:
    """SHA-256 of the encoder and of the decoders of ``tasks``, by ``encoder`` and ``TASK@VERSION``.

    With ``body_part`` that of the level head too, as ``body_part``, where there is one.
    """
    cards = {card.task: card for card in registry.tasks()}
    decoders = {f"{task}@{cards[task].version}": cards[task].weights_sha256 for task in tasks}
    levels = level_card(registry) if body_part else None
    head = {} if levels is None else {"body_part": levels.weights_sha256}
    return {"encoder": registry.encoder_card().weights_sha256, **head, **decoders, **_evidence_hashes(cards, tasks)}


def _evidence_hashes(cards: Mapping[TaskId, TaskCard], tasks: Sequence[TaskId]) -> dict[str, str]:
    chosen = [cards[task] for task in tasks if cards[task].evidence_sha256]
    return {f"{card.title} evidence": card.evidence_sha256 for card in chosen}


def is_finished(paths: OutputPaths, expected: Mapping[str, Any], outputs: Sequence[Path]) -> bool:
    """Whether ``outputs`` are there and were made as ``expected``, by the ``made_from`` section of the report.

    Labels that do not match the report count as finished only if they are younger than it: somebody corrected them by
    hand, and his work is not overwritten. Older ones are what a run killed in its last instant left.
    """
    try:
        report = json.loads(paths.report.read_text(encoding="utf-8"))
        made_from = dict(report["made_from"])
        labels_sha256 = made_from.pop("labels_sha256")
        if made_from != json.loads(json.dumps(expected)) or not all(path.is_file() for path in outputs):
            return False
        if file_sha256(paths.labels) == labels_sha256:
            return True
        return paths.labels.stat().st_mtime > paths.report.stat().st_mtime
    except (OSError, ValueError, KeyError, TypeError):
        return False
