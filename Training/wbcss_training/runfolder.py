"""The folder of an enrolment: what was asked, how far it got, what came out. Any file is whole or not there."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from wbcss import __version__
from wbcss.errors import RunError, SpecError
from wbcss.io.atomic import write_text

RECORD = "run.json"
BEFORE = "before.json"
"""Snapshot of the registry before the run, as ``wbcss tasks verify --since`` reads it."""

DECODER = "decoder.safetensors"
TRAINED = "trained.json"
VALIDATION = "validation.json"
TRIM = "trim"
"""Folder of a run that holds its smaller decoders."""

REPORT = "report.json"
CARD = "card.json"
"""The card that is published, or would be."""

EVIDENCE, EVIDENCE_FACTS = "evidence.safetensors", "evidence.json"
"""What lies beside the decoder that is published, and what its card says of that."""

FEATURES = "features"
OVERLAYS = "overlays"
SPLIT = "split.json"
CHECKED = "checked.json"
_SECONDS = "seconds.json"
_LADDER = "ladder.json"


class RunFolder:
    """Reads and writes the state of one enrolment under ``root``. No file names a case or its path."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def is_begun(self) -> bool:
        """Whether a run was started here."""
        return (self.root / RECORD).is_file()

    def begin(self, identity: Mapping[str, Any], *, steps: int, estimate: Mapping[str, Any]) -> None:
        """Record what a new run is. Raises OutputError."""
        self.root.mkdir(parents=True, exist_ok=True)
        versions = {"wbcss": __version__, "torch": torch.__version__, "python": platform.python_version()}
        self.write(
            RECORD, {"versions": versions, "identity": dict(identity), "steps": steps, "estimate": dict(estimate)}
        )

    def recorded_steps(self, identity: Mapping[str, Any]) -> int:
        """Steps of the run that was begun here.

        Raises:
            SpecError: it was begun for something else; the message names the first thing that differs.
            RunError: the record cannot be read.
        """
        record = self.read(RECORD)
        try:
            known, steps = record["identity"], int(record["steps"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{RECORD} of the run must hold identity and steps, got an error: {error}") from error
        asked = json.loads(json.dumps(identity))
        for name in {**known, **asked}:
            if known.get(name) != asked.get(name):
                raise SpecError(
                    f"the run in {self.root} was begun with {name} {known.get(name)!r}, got {asked.get(name)!r}; "
                    "resume it as it was begun, or name another run folder"
                )
        return steps

    def recorded_start(self) -> str | None:
        """Title of the published task that the run begun here starts from; None if it starts from none.

        Raises RunError if the record cannot be read.
        """
        try:
            start = self.read(RECORD)["identity"]["start"]
        except (KeyError, TypeError) as error:
            raise RunError(f"{RECORD} of the run must say what it starts from, got an error: {error}") from error
        return None if start is None else str(start)

    def recorded_published(self) -> str | None:
        """Title of the published task that the run begun here makes smaller; None if it learns one.

        Raises RunError if the record cannot be read.
        """
        try:
            published = self.read(RECORD)["identity"].get("published")
        except (KeyError, AttributeError) as error:
            raise RunError(f"{RECORD} of the run must hold an identity, got an error: {error}") from error
        return None if published is None else str(published)

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the run. Raises RunError if it is gone or damaged."""
        try:
            values = json.loads((self.root / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{name} of the run must be readable JSON, got {error}; start a new run folder") from error
        if not isinstance(values, dict):
            raise RunError(f"{name} of the run must hold a JSON object, got {type(values).__name__}")
        return values

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a JSON file of the run whole or not at all. Raises OutputError."""
        write_text(self.root / name, json.dumps(values, indent=1, allow_nan=False) + "\n")

    def has(self, name: str) -> bool:
        """Whether a file of the run is there."""
        return (self.root / name).is_file()

    def ladder(self) -> tuple[str, ...]:
        """Steps that were taken after running out of memory."""
        return tuple(self.read(_LADDER)["taken"]) if self.has(_LADDER) else ()

    def descended(self, taken: tuple[str, ...]) -> None:
        """Remember ``taken``, so that a resumed run does not run out of memory again."""
        self.write(_LADDER, {"taken": list(taken)})

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall time of the block to ``stage``, whether it ends well or not."""
        started = time.monotonic()
        try:
            yield
        finally:
            seconds = self.seconds()
            seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - started
            self.write(_SECONDS, seconds)

    def seconds(self) -> dict[str, float]:
        """Wall time by stage, over all calls; what a killed call spent is not known."""
        return {str(k): float(v) for k, v in self.read(_SECONDS).items()} if self.has(_SECONDS) else {}
