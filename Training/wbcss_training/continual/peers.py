"""Outside programs beside the methods: rows read from a results file that a script of the benchmarks wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from wbcss.errors import SpecError

PEERS = "peers.json"
"""File of a run folder with rows of outside programs."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A program that learned the sequence's tasks elsewhere and was measured on the same validation.

    Attributes:
        dice: Mean of the tasks' mean Dice, as ``Forgetting.average``.
        parameters: Of all its networks.
        wall_s: Spent in training.
    """

    title: str
    dice: float | None
    parameters: int | None = None
    wall_s: float | None = None


def read_peers(path: Path) -> tuple[Peer, ...]:
    """Rows of ``{"peers": [{"title": ..., "dice": ..., "parameters": ..., "wall_s": ...}]}``; none without the file.

    Raises:
        SpecError: the file cannot be read.
    """
    if not path.is_file():
        return ()
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["peers"]
        return tuple(
            Peer(
                title=str(row["title"]),
                dice=_number(row["dice"]),
                parameters=None if row.get("parameters") is None else int(row["parameters"]),
                wall_s=_number(row.get("wall_s")),
            )
            for row in rows
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecError(f"{path.name} must hold 'peers' with 'title' and 'dice', got {error!r}") from error


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"a number or null, got {value!r}")
    return float(value)
