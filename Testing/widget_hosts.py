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
CANNOT_START = 70
TIMEOUT_S = 110.0
SYSTEM_LIBRARIES = "libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1 fonts-dejavu-core"


@dataclass(frozen=True)
class Outcome:
    """How one case ended, as RunCases.py reports it."""

    status: str
    text: str


def case_files() -> list[Path]:
    """Every file of cases, sorted."""
    return sorted(CASES.glob("*Test.py"))


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
    outcome = run_cases(host, file).get(case)
    if outcome is None:
        pytest.fail(f"{file.name} did not report {case}", pytrace=False)
    if outcome.status == "skipped":
        pytest.skip(outcome.text)
    if outcome.status != "passed":
        pytest.fail(outcome.text, pytrace=False)


@functools.cache
def run_cases(host: str, file: Path, timeout_s: float = TIMEOUT_S) -> dict[str, Outcome]:
    """Run all cases of ``file`` once and return how each ended; fails the test if the process gave no report."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        done = run_script(host, RUN_CASES, str(report), str(file), timeout_s=timeout_s)
        if not report.is_file():
            pytest.fail(f"{file.name} gave no report in {host}:\n{tail(done)}", pytrace=False)
        found = json.loads(report.read_text(encoding="utf-8"))
    return {name: Outcome(status=case["status"], text=case["text"]) for name, case in found.items()}


def run_script(
    host: str, script: Path, *arguments: str, timeout_s: float = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run any script with the module loaded. Skips without Slicer; fails in one line where Qt cannot start."""
    command = [*_command(host), str(script), *arguments]
    try:
        done = subprocess.run(
            command,
            env=_environment(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"")[-2000:]
        pytest.fail(f"{script.name} did not end within {timeout_s:g} s in {host}; it said: {output!r}", pytrace=False)
    if host == HARNESS and (done.returncode == CANNOT_START or "could not load the Qt platform plugin" in done.stderr):
        pytest.fail(f"{_last_line(done.stderr)}; on Debian: apt-get install {SYSTEM_LIBRARIES}", pytrace=False)
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


def _environment() -> dict[str, str]:
    folders = [ROOT / "Testing", MODULE, CASES, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "PYTHONIOENCODING": "utf-8",
        "QT_QPA_PLATFORM": os.environ.get("QT_QPA_PLATFORM", "offscreen"),
        "QT_LOGGING_RULES": "qt.qpa.*=false",
        "OMP_NUM_THREADS": "1",
    }


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if "cannot start" in line or "platform plugin" in line]
    return lines[-1] if lines else "Qt cannot start"
