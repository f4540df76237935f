"""``wbcss-train`` as a process: a job that ends with Slicer, a run that outlives it, and what both leave in files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_cases import write_list

from wbcss.errors import RunError
from WholeBodyCSSLib import TrainProcess
from WholeBodyCSSLib.TrainProcess import DetachedRun, JobEnd, LineReader, TrainJob, lastComplaint

SAYS = """
import json, sys
print(json.dumps({"fraction": 0.5, "stage": "half"}), flush=True)
print("a library prints", flush=True)
print(json.dumps({"format": "answer", "arguments": sys.argv[1:]}), flush=True)
sys.stderr.write("warning: something\\nwbcss-train: expected 3, got 2\\n")
sys.exit(2)
"""
SLEEPS = "import time; print('{\"pid\": %d}' % __import__('os').getpid(), flush=True); time.sleep(60)"
STARTS_AND_LEAVES = """
import sys
from pathlib import Path
from WholeBodyCSSLib import TrainProcess
TrainProcess.workerCommand = lambda module: [sys.executable, "-c", sys.argv[2]]
TrainProcess.DetachedRun([], Path(sys.argv[1]))
"""


def playing(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Run ``script`` instead of the back end."""
    monkeypatch.setattr(TrainProcess, "workerCommand", lambda module: [sys.executable, "-c", script])


def ended(job: TrainJob, timeout_s: float = 60.0) -> JobEnd:
    give_up_s = time.monotonic() + timeout_s
    while (end := job.poll()) is None:
        assert time.monotonic() < give_up_s
        time.sleep(0.02)
    return end


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_a_job_hands_over_lines_progress_and_its_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    playing(monkeypatch, SAYS)
    job = TrainJob(["check", "--json"])
    end = ended(job)
    assert (end.exitCode, end.message) == (2, "expected 3, got 2")
    assert end.lines == ({"format": "answer", "arguments": ["check", "--json"]},)
    assert job.progress == (0.5, "half")
    assert job.poll() is end


def test_a_job_that_dies_silently_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    playing(monkeypatch, "import os; os._exit(7)")
    assert ended(TrainJob([])).message == "the training process ended with code 7 and said nothing"


def test_a_cancelled_job_has_ended_on_return(monkeypatch: pytest.MonkeyPatch) -> None:
    playing(monkeypatch, SLEEPS)
    job = TrainJob([])
    started_s = time.monotonic()
    job.cancel()
    end = job.poll()
    assert end is not None
    assert end.isCancelled
    assert time.monotonic() - started_s < 10


@pytest.mark.skipif(os.name == "nt", reason="looks at the process table as POSIX has it")
def test_a_run_outlives_the_program_that_started_it(tmp_path: Path) -> None:
    starter = [sys.executable, "-c", STARTS_AND_LEAVES, str(tmp_path), SLEEPS]
    environment = TrainProcess.trainEnvironment(os.environ)
    subprocess.run(starter, env=environment, check=True, timeout=60)
    reader = LineReader(tmp_path / TrainProcess.OUTPUT)
    give_up_s = time.monotonic() + 30
    while not (lines := reader.read()):
        assert time.monotonic() < give_up_s
        time.sleep(0.02)
    pid = int(lines[0]["pid"])
    assert is_alive(pid)
    os.kill(pid, 9)


def test_what_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(TrainProcess, "workerCommand", lambda module: ["/nowhere/PythonSlicer"])
    with pytest.raises(RunError, match="the training process cannot be started by /nowhere/PythonSlicer: "):
        TrainJob([])
    with pytest.raises(RunError, match="cannot be started"):
        DetachedRun([], tmp_path / "run")


def test_the_last_complaint_is_the_programs_own_or_the_last_line(tmp_path: Path) -> None:
    path = tmp_path / "errors.log"
    assert lastComplaint(path) == ""
    path.write_text("encoded 1 of 4\rencoded 2 of 4\nwbcss-train: got 3\nTraceback: noise\n")
    assert lastComplaint(path) == "got 3"
    path.write_text("Killed\n\n")
    assert lastComplaint(path) == "Killed"


def test_an_installation_without_the_back_end_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    TrainProcess.checkBackend()
    monkeypatch.setattr(TrainProcess, "trainingFolder", lambda: tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RunError, match=rf"training needs the package wbcss_training in {tmp_path}, which is not there"):
        TrainJob([])


@pytest.mark.slow
def test_the_real_back_end_answers(tmp_path: Path) -> None:
    end = ended(TrainJob(["check", "--cases", str(write_list(tmp_path)), "--names", "--json"]))
    assert end.exitCode == 0, end.message
    assert [row["name"] for row in end.lines[0]["names"]] == ["kidney_left", "kidney_right", "liver"]
