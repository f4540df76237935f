"""A ``wbcss`` command in the background: its answer, its complaint, its end."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest
from tiny_registry import new_registry, publish

from wbcss.errors import EXIT_CANCELLED, EXIT_INPUT, RunError
from WholeBodyCSSLib import CommandJob as module
from WholeBodyCSSLib.CommandJob import CommandJob

LIMIT_S = 60.0


def test_the_answer_is_the_json_it_printed(tmp_path: Path) -> None:
    registry = new_registry(tmp_path / "Régistre 1")
    publish(registry)
    job = CommandJob(["tasks", "list", "--registry", str(registry.root), "--json"])
    end = job.wait(LIMIT_S)
    assert end.isDone
    assert [row["task"] for row in end.output["tasks"]] == ["liver"]
    assert job.poll() is end


def test_a_refusal_comes_in_the_words_of_the_engine(tmp_path: Path) -> None:
    end = CommandJob(["tasks", "import", str(tmp_path / "no.wbtask"), "--registry", str(tmp_path)]).wait(LIMIT_S)
    assert end.exitCode == EXIT_INPUT
    assert end.message == f"a task package (.wbtask) must exist, got {tmp_path / 'no.wbtask'}"
    assert end.output == {}


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_cancelling_ends_the_process_and_its_children_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with Slicer's Python launcher, which starts the real Python as a child."""
    launcher = tmp_path / "PythonSlicer"
    launcher.write_text("#!/bin/sh\nsleep 100 &\necho $! > child\nwait\n", encoding="ascii")
    launcher.chmod(0o755)
    monkeypatch.setattr(module, "pythonCommand", lambda: str(launcher))
    monkeypatch.chdir(tmp_path)
    job = CommandJob(["phantom"])
    deadline_s = time.monotonic() + LIMIT_S
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text(encoding="ascii"):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    child = psutil.Process(int((tmp_path / "child").read_text(encoding="ascii")))
    began_s = time.monotonic()
    job.cancel()
    assert time.monotonic() - began_s < 1.0
    end = job.poll()
    assert end is not None
    assert (end.exitCode, end.message) == (EXIT_CANCELLED, "")
    _gone, alive = psutil.wait_procs([child], timeout=5)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def test_a_command_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    job = CommandJob(["tasks", "list", "--registry", str(tmp_path)])
    with pytest.raises(RunError, match="must end within 0 s, it was stopped"):
        job.wait(0.0)


def test_a_python_that_cannot_be_started_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "pythonCommand", lambda: str(tmp_path / "gone"))
    with pytest.raises(RunError, match=r"the command wbcss tasks cannot be started by .*gone: "):
        CommandJob(["tasks"])
