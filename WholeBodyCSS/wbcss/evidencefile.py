"""The optional file beside a decoder: how sure it is and what its organs look like, checked and copied. No torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import BinaryIO

from . import storage, weights
from .cards import TaskCard
from .errors import RegistryError
from .layout import EVIDENCE

MAX_EVIDENCE_BYTES = 256 << 20


def check_evidence(path: Path, card: TaskCard) -> None:
    """Raise RegistryError if an evidence file does not have the tensors that the decoder of ``card`` asks for."""
    found = weights.read_header(path)
    expected = weights.evidence_shapes(card.spec, found)
    if not expected:
        raise RegistryError(f"{EVIDENCE} must hold tensors of confidence or anomaly, got {', '.join(found) or 'none'}")
    weights.check_shapes(found, expected, source=EVIDENCE)


def stage_evidence(folder: Path, card: TaskCard, stream: BinaryIO | None) -> TaskCard:
    """Copy the evidence of ``card`` into ``folder``, check it, and put its hash on the card.

    Raises RegistryError if the card promises another file, or the file does not fit the decoder.
    """
    if stream is None:
        if card.evidence_sha256:
            raise RegistryError(f"the card of task {card.task!r} names an {EVIDENCE}, got none; give it too")
        return card
    promised = card.evidence_sha256
    sha256 = storage.write_promised(folder / EVIDENCE, stream, max_bytes=MAX_EVIDENCE_BYTES, promised=promised)
    check_evidence(folder / EVIDENCE, card)
    return dataclasses.replace(card, evidence_sha256=sha256)
