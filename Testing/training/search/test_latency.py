"""The table of measured times: kept per machine, checked when read, measured once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_search
import torch

from wbcss.errors import Cancelled, SpecError
from wbcss.nn.decoder import Decoder
from wbcss_training.search import latency, measuring
from wbcss_training.search.latency import (
    LatencyTable,
    cache_folder,
    empty_table,
    measured_table,
    read_table,
    write_table,
)
from wbcss_training.search.measuring import Machine, measure_decoder, measure_part, shortest
from wbcss_training.search.parts import parts_of

CPU = torch.device("cpu")
PARTS = parts_of(tiny_search.FULL, tiny_search.ENCODER)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Parts that were measured; nothing is run."""
    parts: list[Any] = []

    def measure(part: Any, *_: Any) -> float:
        parts.append(part)
        return tiny_search.seconds_of(part)

    monkeypatch.setattr(latency, "measure_part", measure)
    return parts


def table_in(folder: Path, **changes: Any) -> LatencyTable:
    return measured_table(PARTS, tiny_search.ENCODER, device=CPU, folder=folder, **changes)


def test_parts_are_measured_once_per_machine_and_tile(measured: list[Any], tmp_path: Path) -> None:
    first = table_in(tmp_path)
    assert (len(measured), first.seconds) == (len(PARTS), {part: tiny_search.seconds_of(part) for part in PARTS})
    assert table_in(tmp_path) == first
    assert len(measured) == len(PARTS)
    table_in(tmp_path, tile=(16, 16, 32))
    assert len(measured) == 2 * len(PARTS)
    assert len(list(tmp_path.iterdir())) == 2


def test_only_what_is_missing_is_measured(measured: list[Any], tmp_path: Path) -> None:
    measured_table(PARTS[:2], tiny_search.ENCODER, device=CPU, folder=tmp_path)
    assert set(table_in(tmp_path).seconds) == set(PARTS)
    assert measured == list(PARTS)


def test_a_stopped_measuring_keeps_what_it_has(measured: list[Any], tmp_path: Path) -> None:
    asked = iter([False, False, True])
    with pytest.raises(Cancelled, match=rf"the measuring was stopped after 2 of {len(PARTS)} parts; run it again"):
        table_in(tmp_path, cancelled=lambda: next(asked))
    table_in(tmp_path)
    assert measured == list(PARTS)


def test_a_table_read_back_is_the_same(tmp_path: Path) -> None:
    write_table(tiny_search.table(), tmp_path / "t.json")
    assert read_table(tmp_path / "t.json") == tiny_search.table()


def test_another_machine_has_another_file() -> None:
    table = tiny_search.table()
    for change in ({"name": "other"}, {"threads": 2}, {"precision": "bfloat16"}, {"kind": "cuda"}):
        other = dataclasses.replace(table, machine=dataclasses.replace(table.machine, **change))
        assert other.file_name != table.file_name
    assert dataclasses.replace(table, timings=()).file_name == table.file_name


def spoil(values: dict[str, Any], field: str, value: Any) -> None:
    values["timings"][0][field] = value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(format="x"), r"must have the format wbcss-latency, version 1, got \('x', 1\)"),
        (lambda v: v.update(color=1), "the table has no field color"),
        (lambda v: v.pop("tile"), "the table needs the field tile"),
        (lambda v: v["machine"].update(threads="two"), "machine.threads must be .*got 'two'"),
        (lambda v: spoil(v, "seconds", -1.0), r"a part takes more than 0 seconds, got -1\.0"),
        (lambda v: spoil(v, "part", {"kind": "up"}), r"timings\[0\]\.part needs the field"),
    ],
)
def test_a_wrong_field_of_a_table_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = tmp_path / "t.json"
    write_table(tiny_search.table(), path)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(SpecError, match=rf"t\.json is no table of measured times: .*{message}.*; delete it to measure"):
        read_table(path)


@pytest.mark.parametrize("text", ["", "[]", '{"format": '])
def test_a_damaged_table_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(SpecError, match=r"t\.json is no table of measured times: "):
        read_table(path)


def test_the_shortest_run_counts_and_the_first_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a clock that runs says how long each call took."""
    now = 0.0
    lasts = iter([0.001, 0.5, 0.2, 0.3, 0.4, 0.7, 0.6])

    def run() -> None:
        nonlocal now
        now += next(lasts)

    monkeypatch.setattr(measuring, "_clock", lambda device: lambda: now)
    assert shortest(run, CPU) == pytest.approx(0.2)
    assert next(lasts) == 0.6  # six calls were enough


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_part_and_a_whole_decoder_can_be_measured(precision: Any) -> None:
    machine = dataclasses.replace(Machine.of(CPU), precision=precision)
    times = [measure_part(part, tiny_search.ENCODER, tiny_search.ENCODER.tile, machine, CPU) for part in PARTS]
    assert {part.kind for part in PARTS} == {"up", "join", "conv", "head"}
    decoder = Decoder(tiny_search.FULL, tiny_search.ENCODER)
    before = next(decoder.parameters()).data_ptr()
    whole = measure_decoder(decoder, tiny_search.ENCODER, tiny_search.ENCODER.tile, machine, CPU)
    assert min(times) > 0
    assert whole > max(times) / 10
    assert next(decoder.parameters()).data_ptr() == before  # a copy was laid out for speed


def test_a_new_table_is_of_this_machine_and_the_encoders_tile() -> None:
    table = empty_table(tiny_search.ENCODER, CPU)
    assert (table.machine.kind, table.machine.threads, table.tile) == ("cpu", 1, (16, 16, 16))
    assert "torch" in table.machine.name


@pytest.mark.skipif("sys.platform != 'linux'", reason="other systems have other folders")
def test_tables_are_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "wbcss"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "wbcss"
