"""Runs widget tests in a process of their own: on the stand-ins of ``slicerharness``, and in 3D Slicer if it is there.

The same files run in both. A process per file, because PySide6's classes are changed for good by the harness, and
because a crash of Qt must not take the other tests down.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from project_tree import MODULE, ROOT

CASES = MODULE / "Testing" / "Python"
RUN_CASES = CASES / "RunCases.py"
HARNESS, SLICER = "harness", "slicer"
HOSTS = (HARNESS, SLICER)
SLICER_FLAGS = (
    "--no-splash", "--testing", "--ignore-slicerrc", "--disable-settings", "--no-main-window",
    "--additional-module-paths", str(MODULE), "--python-script",
)  # fmt: skip
CANNOT_START, SWALLOWED = 70, 71
TIMEOUT_S = 570.0
"""For all cases of a file together, on a busy machine; a case that waits gives up much earlier by itself."""
FIRST_ON_PATH: tuple[Path, ...] = ()
"""Folders that come before all others in the harness; for tests that plant something."""
SYSTEM_LIBRARIES = "libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1 fonts-dejavu-core"


@dataclass(frozen=True)
class Outcome:
    """How one case ended, as RunCases.py reports it."""

    status: str
    text: str
    ended: bool


@dataclass(frozen=True)
class FileRun:
    """How the cases of one file ended, and their process."""

    outcomes: dict[str, Outcome]
    code: int
    end: str


def case_files() -> list[Path]:
    """Every file of cases, sorted; the module's own file holds those of *Reload and Test*."""
    return [*sorted(CASES.glob("*Test.py")), MODULE / "WholeBodyCSS.py"]


def cases_of(file: Path) -> list[str]:
    """``Class.test_name`` of each case, read without importing the file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [
        f"{item.name}.{method.name}"
        for item in tree.body
        if isinstance(item, ast.ClassDef)
        for method in item.body
        if isinstance(method, ast.FunctionDef) and method.name.startswith("test")
    ]


def check_case(host: str, file: Path, case: str) -> None:
    """Pass, fail or skip the running pytest test as ``case`` did in ``host``."""
    run = _run_cases(host, file)
    outcome = run.outcomes.get(case)
    if outcome is None:
        pytest.fail(f"{file.name} did not report {case}; {run.end}", pytrace=False)
    if outcome.status == "skipped":
        pytest.skip(outcome.text)
    if outcome.status != "passed":
        pytest.fail(outcome.text if outcome.ended else f"{outcome.text}; {run.end}", pytrace=False)
    if run.code not in {0, 1}:
        pytest.fail(f"{case} passed, but the process ended badly: {run.end}", pytrace=False)


@functools.cache
def _run_cases(host: str, file: Path) -> FileRun:
    """Run all cases of ``file`` once."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        done = run_script(host, RUN_CASES, str(report), str(file))
        found = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
    outcomes = {
        name: Outcome(status=case["status"], text=case["text"], ended=case["ended"]) for name, case in found.items()
    }
    return FileRun(outcomes=outcomes, code=done.returncode, end=tail(done))


def run_script(
    host: str, script: Path, *arguments: str, timeout_s: float = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run any script with the module loaded. Skips without Slicer; fails in one line where Qt cannot start."""
    command = [*_command(host), str(script), *arguments]
    try:
        done = subprocess.run(
            command,
            env=environment(host),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"")[-2000:]
        pytest.fail(f"{script.name} did not end within {timeout_s:g} s in {host}; it said: {output!r}", pytrace=False)
    reason = _cannot_start(done) if host == HARNESS else None
    if reason is not None:
        pytest.fail(f"{reason}; on Debian: apt-get install {SYSTEM_LIBRARIES}", pytrace=False)
    return done


def tail(done: subprocess.CompletedProcess[str]) -> str:
    """The end of what a process said, and how it ended."""
    return f"exit code {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-4000:]}"


def _command(host: str) -> list[str]:
    if host == HARNESS:
        return [sys.executable, "-X", "faulthandler", "-m", "slicerharness"]
    executable = os.environ.get("SLICER_EXECUTABLE", "")
    if not executable:
        pytest.skip("3D Slicer is not here: set SLICER_EXECUTABLE to its program to run the same cases inside it")
    return [executable, *SLICER_FLAGS]


def environment(host: str) -> dict[str, str]:
    """Variables of a process in ``host``."""
    common = {**os.environ, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}
    if host == SLICER:  # its own Python and its own Qt
        return {name: value for name, value in common.items() if name not in {"PYTHONPATH", "QT_QPA_PLATFORM"}}
    folders = [*FIRST_ON_PATH, ROOT / "Testing", MODULE, CASES, *filter(None, [os.environ.get("PYTHONPATH")])]
    platform = os.environ.get("QT_QPA_PLATFORM", "offscreen")
    return {**common, "PYTHONPATH": os.pathsep.join(map(str, folders)), "QT_QPA_PLATFORM": platform}


def _cannot_start(done: subprocess.CompletedProcess[str]) -> str | None:
    """The line that says why Qt or slicer-core does not load."""
    lines = [line.strip() for line in done.stderr.splitlines()]
    if done.returncode == CANNOT_START:
        return lines[-1]
    return next((line for line in lines if "no Qt platform plugin could be initialized" in line), None)
