"""The harness itself: it is strict, it says why it cannot start, and it starts Slicer with the right flags."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import widget_hosts
from project_tree import ROOT

pytestmark = [pytest.mark.scene, pytest.mark.timeout(600)]

OWN_CASES = ROOT / "Testing" / "scene" / "harness_cases.py"
FAKE_SLICER = """#!{python}
import os, sys
flags, rest = sys.argv[1:{count}], sys.argv[{count}:]
assert flags == {flags!r}, flags
assert "PYTHONPATH" not in os.environ and "QT_QPA_PLATFORM" not in os.environ
os.environ.update({environment!r})
os.execv(sys.executable, [sys.executable, "-m", "slicerharness", *rest])
"""


@pytest.mark.parametrize("case", widget_hosts.cases_of(OWN_CASES))
def test_the_harness_is_strict(case: str) -> None:
    widget_hosts.check_case(widget_hosts.HARNESS, OWN_CASES, case)


def test_an_exception_that_qt_swallowed_fails_the_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import qt\nb = qt.QPushButton()\nb.connect('clicked()', lambda: 1 / 0)\nb.click()\n")
    done = widget_hosts.run_script(widget_hosts.HARNESS, script)
    assert done.returncode == widget_hosts.SWALLOWED
    assert done.stderr.splitlines()[-1].endswith("the last: ZeroDivisionError: division by zero")


def test_a_panel_may_be_polled_for_a_long_time(tmp_path: Path) -> None:
    """Each of these calls takes a reference from None, which CPython before 3.12 does not survive."""
    script = tmp_path / "script.py"
    script.write_text("import qt\nlabel = qt.QLabel()\nfor number in range(50000):\n    label.setText(str(number))\n")
    done = widget_hosts.run_script(widget_hosts.HARNESS, script)
    assert done.returncode == 0, widget_hosts.tail(done)


def test_a_crash_is_told_with_the_case_that_it_hit(tmp_path: Path) -> None:
    file = tmp_path / "CrashTest.py"
    file.write_text(
        "import ctypes, unittest\n"
        "class CrashTest(unittest.TestCase):\n"
        "    def test_a(self): pass\n"
        "    def test_b(self): ctypes.string_at(0)\n"
    )
    with pytest.raises(pytest.fail.Exception, match=r"(?s)the process died during this case; exit code -"):
        widget_hosts.check_case(widget_hosts.HARNESS, file, "CrashTest.test_b")


def test_missing_system_libraries_are_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "PySide6").mkdir()
    message = "libEGL.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "PySide6/__init__.py").write_text(f"raise ImportError({message!r})\n")
    monkeypatch.setattr(widget_hosts, "FIRST_ON_PATH", (tmp_path,))
    with pytest.raises(pytest.fail.Exception) as failed:
        widget_hosts.run_script(widget_hosts.HARNESS, OWN_CASES)
    (line,) = str(failed.value).splitlines()
    assert line.startswith(f"the harness cannot start: {message}; on Debian: apt-get install libegl1")


def test_a_missing_platform_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "nosuchplatform")
    with pytest.raises(pytest.fail.Exception) as failed:
        widget_hosts.run_script(widget_hosts.HARNESS, OWN_CASES)
    (line,) = str(failed.value).splitlines()
    assert "no Qt platform plugin could be initialized" in line


def test_without_slicer_its_cases_are_skipped_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLICER_EXECUTABLE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="set SLICER_EXECUTABLE to its program"):
        widget_hosts.run_script(widget_hosts.SLICER, OWN_CASES)


@pytest.mark.skipif(os.name == "nt", reason="the fake Slicer is a script that begins with #!")
def test_slicer_is_started_with_its_flags_and_reports_its_cases(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flags = list(widget_hosts.SLICER_FLAGS)
    fake = tmp_path / "Slicer"
    text = FAKE_SLICER.format(
        python=sys.executable,
        count=1 + len(flags),
        flags=flags,
        environment=widget_hosts.environment(widget_hosts.HARNESS),
    )
    fake.write_text(text, encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("SLICER_EXECUTABLE", str(fake))
    file = widget_hosts.CASES / "PythonQtIdiomsTest.py"
    widget_hosts.check_case(widget_hosts.SLICER, file, "PythonQtIdiomsTest.test_expressionsHaveTheirValues")
