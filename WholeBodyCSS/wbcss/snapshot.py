"""What a registry was at one time: the file that proves later that nothing old has changed. No torch."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import InputError
from .schemas import dump_document, read_document


@dataclass(frozen=True, kw_only=True)
class LogitHashes:
    """What every version of every task answers on the fixed tile of ``proof``.

    Attributes:
        machine: Processor and library that computed them. Another one may round differently, so hashes are
            comparable only between equal texts.
        tasks: SHA-256 of the logits by title, as ``liver@2``.
    """

    machine: str
    tasks: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Hashes of a registry.

    Attributes:
        files: SHA-256 of every published file, as of ``Registry.fingerprint``.
        logits: None if they were not asked for.
        created: When it was taken, ISO 8601 in UTC.
    """

    files: Mapping[str, str]
    logits: LogitHashes | None = None
    created: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    )


def snapshot_to_bytes(snapshot: Snapshot) -> bytes:
    """The snapshot as the JSON text that goes to disk."""
    values = {
        "format": "wbcss-registry-snapshot",
        "format_version": 1,
        "created": snapshot.created,
        "files": dict(snapshot.files),
    }
    if snapshot.logits is not None:
        values["logits"] = {"machine": snapshot.logits.machine, "tasks": dict(snapshot.logits.tasks)}
    return dump_document(values, name="the snapshot")


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot. Raises InputError if it cannot be read or is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the snapshot {path} cannot be read: {error.strerror or error}") from error
    values = read_document(data, schema="registry_snapshot", source=path.name)
    logits = values.get("logits")
    return Snapshot(
        files=values["files"], logits=None if logits is None else LogitHashes(**logits), created=values["created"]
    )


def changed_files(earlier: Mapping[str, str], now: Mapping[str, str], *, since: str) -> list[str]:
    """One sentence per file that is not what it was; new files are no change. ``since`` names the earlier time."""
    return [
        f"{name} {_difference(now.get(name), sha256, since)}"
        for name, sha256 in earlier.items()
        if now.get(name) != sha256
    ]


def changed_logits(earlier: LogitHashes, now: LogitHashes, *, since: str) -> list[str]:
    """One sentence per task version whose logits are not what they were, bit for bit.

    Raises InputError if the two were computed by different machines: then nothing can be said.
    """
    if earlier.machine != now.machine:
        raise InputError(
            f"the logits of {since} must be compared on the machine that computed them, {earlier.machine}, got "
            f"{now.machine}; the hashes of the files can be compared anywhere"
        )
    changed = [(title, then) for title, then in earlier.tasks.items() if now.tasks.get(title) != then]
    return [f"{title} {_difference(now.tasks.get(title), then, since, what='logits ')}" for title, then in changed]


def _difference(now: str | None, then: str, since: str, *, what: str = "") -> str:
    if now is None:
        return f"is gone since {since}"
    return f"{what}changed since {since}: SHA-256 was {then[:12]}..., is {now[:12]}..."
