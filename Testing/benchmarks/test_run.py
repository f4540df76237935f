"""The benchmark command itself, at toy size with whatever systems are installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(RUN), *arguments], capture_output=True, text=True, timeout=600)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_toy_run_writes_both_tables_and_agrees_with_full_averaging(tmp_path: Path) -> None:
    arguments = ("--scale", "toy", "--rows", "stub-large-143", "--out", str(tmp_path), "--python", sys.executable)
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    row = found["rows"]["stub-large-143"]
    same = [goal for goal in row["goals"] if goal["what"].startswith("labels of full logit averaging")]
    assert [goal["verdict"] for goal in same] == ["met"]
    assert same[0]["value"] >= 0.999
    systems = [number["result"]["job"]["system"] for number in row["numbers"]]
    assert systems[0] == "ours"
    assert "monai" in systems
    for number in row["numbers"]:
        result = number["result"]
        assert result["peak_mib"] >= result["before_mib"] > 0
        assert result["cpu_s"] >= result["work_cpu_s"] >= result["network_cpu_s"] > 0
        assert result["details"]["tiles"] == 8
    table = (tmp_path / "results.md").read_text()
    assert table in done.stdout
    lines = [line for line in table.splitlines() if line.startswith("| 143 organs, 48^3")]
    assert len(lines) == len(systems)
    assert len({line.count("|") for line in lines}) == 1

    again = run(*arguments)
    assert again.returncode == 0
    assert "CPU s," not in again.stdout  # nothing was measured again


def test_every_row_is_listed_with_a_sentence() -> None:
    done = run("--list")
    assert done.returncode == 0
    names = [line.split()[0] for line in done.stdout.splitlines() if line]
    assert "stub-large-143" in names
    assert len(names) == len(set(names)) == len(done.stdout.splitlines())


def test_an_unknown_row_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    done = run("--rows", "speed", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "got ['speed']" in done.stderr
    assert "stub-small-20" in done.stderr
