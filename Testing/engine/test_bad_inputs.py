"""Every mistake of the table: the right exit code, one line that quotes the mistake, nothing written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bad_inputs import BAD_INPUTS, BadInput, Place, applies

from wbcss.cli.main import main
from wbcss.registry import REGISTRY_VARIABLE

ROOM = Path(__file__).resolve().parents[2] / "WholeBodyCSS"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv(REGISTRY_VARIABLE, str(tmp_path / "registry"))
    return Place.furnish(tmp_path)


def _check_complaint(bad: BadInput, code: int, out: str, err: str, place: Place) -> None:
    assert code == bad.code, err
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("wbcss: ")
    assert re.search(bad.says, err), err
    assert [path.name for path in (place / "out").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: bad.what.replace(" ", "_"))
def test_a_mistake_gets_its_code_and_one_line(bad: BadInput, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    if not applies(bad):
        pytest.skip("no permission stops root")
    arguments = [str(argument) for argument in bad.make(place)]
    code = main(["segment", *arguments])
    told = capsys.readouterr()
    _check_complaint(bad, code, told.out, told.err, place)


def test_there_are_at_least_twenty_mistakes_and_no_two_alike() -> None:
    assert len({bad.what for bad in BAD_INPUTS}) == len(BAD_INPUTS) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("what", ["text renamed to .nii.gz", "unknown organ", "output in a missing folder"])
def test_a_process_of_its_own_answers_the_same(what: str, place: Place) -> None:
    bad = next(bad for bad in BAD_INPUTS if bad.what == what)
    arguments = [str(argument) for argument in bad.make(place)]
    process = subprocess.run(
        [sys.executable, "-m", "wbcss.cli.main", "segment", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOM)},
    )
    _check_complaint(bad, process.returncode, process.stdout, process.stderr, place)


@pytest.mark.parametrize("arguments", [[], ["explode"], ["segment"]])
def test_a_command_line_that_is_none_gets_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert told.rstrip().endswith("--help")
