"""A table of how long every part of a decoder takes: measured once per machine, kept as JSON, checked when read."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from wbcss.errors import Cancelled, ProtocolError, SpecError
from wbcss.io.atomic import write_text
from wbcss.jsontypes import build
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.specs import EncoderSpec, Stride3
from wbcss.storage import sha256_bytes
from wbcss.volume import Shape3

from .measuring import Machine, measure_part
from .parts import Part

FORMAT = "wbcss-latency"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Time of one part for one tile."""

    part: Part
    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise SpecError(f"a part takes more than 0 seconds, got {self.seconds}")


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Measured parts of decoders on one encoder, one tile and one machine.

    Attributes:
        machine: Where they were measured.
        tile: Tile shape in voxels along (R, A, S).
        strides, stage_channels: Of the encoder: they say how large the parts are.
        timings: One per part.
    """

    machine: Machine
    tile: Shape3
    strides: tuple[Stride3, ...]
    stage_channels: tuple[int, ...]
    timings: tuple[Timing, ...] = ()

    @property
    def seconds(self) -> Mapping[Part, float]:
        """Time by part."""
        return {timing.part: timing.seconds for timing in self.timings}

    @property
    def file_name(self) -> str:
        """Name of the file that keeps it: another machine, tile or encoder gives another name."""
        facts = dataclasses.asdict(dataclasses.replace(self, timings=()))
        return f"latency-{sha256_bytes(json.dumps(facts, sort_keys=True).encode())[:16]}.json"

    def with_times(self, seconds: Mapping[Part, float]) -> LatencyTable:
        """The table with these parts too."""
        added = tuple(Timing(part=part, seconds=taken) for part, taken in seconds.items())
        return dataclasses.replace(self, timings=(*self.timings, *added))


def empty_table(encoder: EncoderSpec, device: torch.device, *, tile: Shape3 | None = None) -> LatencyTable:
    """A table of this machine in which nothing is measured yet; ``tile`` defaults to that of the encoder."""
    return LatencyTable(
        machine=Machine.of(device),
        tile=tile or encoder.tile,
        strides=encoder.strides,
        stage_channels=encoder.stage_channels,
    )


def measured_table(
    parts: Iterable[Part],
    encoder: EncoderSpec,
    *,
    device: torch.device,
    folder: Path,
    tile: Shape3 | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> LatencyTable:
    """The table of this machine with all of ``parts``; what ``folder`` does not know is measured and kept there.

    Raises:
        SpecError: the file in ``folder`` is damaged.
        OutputError: it cannot be written.
        Cancelled: ``cancelled`` returned true; what was measured is kept.
    """
    table = empty_table(encoder, device, tile=tile)
    path = folder / table.file_name
    if path.is_file():
        table = read_table(path)
    known = table.seconds
    missing = [part for part in dict.fromkeys(parts) if part not in known]
    if not missing:
        return table
    found: dict[Part, float] = {}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for number, part in enumerate(missing):
            if cancelled():
                raise Cancelled(f"the measuring was stopped after {number} of {len(missing)} parts; run it again")
            progress(number / len(missing), f"measured {number} of {len(missing)} parts of decoders on this machine")
            found[part] = measure_part(part, encoder, table.tile, table.machine, device)
    finally:
        table = table.with_times(found)
        write_table(table, path)
    progress(1.0, f"measured {len(missing)} parts of decoders on this machine")
    return table


def write_table(table: LatencyTable, path: Path) -> None:
    """Write a table as JSON. Raises OutputError."""
    values = {"format": FORMAT, "format_version": 1, **dataclasses.asdict(table)}
    write_text(path, json.dumps(values, allow_nan=False) + "\n")


def read_table(path: Path) -> LatencyTable:
    """Read a table. Raises SpecError naming the file and what is wrong with it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = (values.pop("format", None), values.pop("format_version", None)) if isinstance(values, dict) else None
        if found != (FORMAT, 1):
            raise ProtocolError(f"it must have the format {FORMAT}, version 1, got {found}")
        return build(LatencyTable, values, where="the table")
    except (OSError, ValueError) as error:
        raise SpecError(f"{path.name} is no table of measured times: {error}; delete it to measure again") from error


def cache_folder() -> Path:
    """Where the system wants what can be made again: the measured tables of this machine."""
    home = Path.home()
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "wbcss"
