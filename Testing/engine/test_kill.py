"""Killed at any moment, a segmentation leaves nothing half-written: no half file, no labels without all the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_scan import fix_backend, make_registry, write_scan

from wbcss.cli.main import main
from wbcss.io.labelmap import read_labels
from wbcss.registry import Registry
from wbcss.resume import file_sha256

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
ROOM = Path(__file__).resolve().parents[2] / "WholeBodyCSS"
SHAPE = (24, 24, 32)


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    fix_backend(monkeypatch)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path / "models" / "registry")


def _arguments(tmp_path: Path, registry: Registry) -> list[str]:
    (tmp_path / "out").mkdir(exist_ok=True)
    scan = write_scan(tmp_path / "ct.nii.gz", SHAPE)
    options = ["--statistics", "--preview", "--confidence", "--quiet", "--threads", "1"]
    return ["segment", str(scan), "-o", str(tmp_path / "out" / "ct.nii.gz"), "--registry", str(registry.root), *options]


def _fork(arguments: list[str]) -> int:
    """Run the command in a child that already has every library loaded; its process id."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = main(arguments)
        finally:
            os._exit(code)
    return child


def _visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".wbcss-")}


def _check_whole(folder: Path) -> bool:
    """Whether there is a result; if so it must be complete, readable and of one piece."""
    if "ct.nii.gz" not in _visible(folder):
        return False
    assert _visible(folder) == {
        "ct.nii.gz",
        "ct.labels.json",
        "ct.report.json",
        "ct.statistics.csv",
        "ct.preview.png",
        "ct.confidence.nii.gz",
    }
    labels = read_labels(folder / "ct.nii.gz").labels
    assert labels.shape == SHAPE
    made_from = json.loads((folder / "ct.report.json").read_text())["made_from"]
    assert made_from["labels_sha256"] == file_sha256(folder / "ct.nii.gz")
    counts = {line.split(",")[0]: int(line.split(",")[1]) for line in _rows(folder / "ct.statistics.csv")}
    assert counts["liver"] == int(np.count_nonzero(labels == 5))
    return True


def _rows(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:]


@pytest.mark.slow
def test_killed_at_ten_random_moments_nothing_half_written_remains(
    tmp_path: Path, registry: Registry, rng: np.random.Generator
) -> None:
    arguments = _arguments(tmp_path, registry)
    out = tmp_path / "out"
    started_s = time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(_fork(arguments), 0)[1]) == 0
    whole_s = time.monotonic() - started_s
    assert _check_whole(out)
    for path in out.iterdir():
        path.unlink()
    killed = 0
    for moment in rng.uniform(0, 1, 10):
        child = _fork(arguments)
        time.sleep(moment * whole_s)
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        if not _check_whole(out):
            assert _visible(out) == set()
    assert killed >= 5
    assert main(arguments) == 0
    assert _check_whole(out)
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []
    assert registry.verify() == []


COMMIT = """
import os, pathlib, sys
from wbcss.outputs import OutputPaths, commit, staging_folder
labels, die_after = pathlib.Path(sys.argv[1]), int(sys.argv[2])
replace, moves = pathlib.Path.replace, 0
def counted(self, target):
    global moves
    if moves == die_after:
        os.kill(os.getpid(), 9)
    moves += 1
    return replace(self, target)
pathlib.Path.replace = counted
paths = OutputPaths(labels)
with staging_folder(paths) as folder:
    for path in (paths.labels, paths.report, paths.statistics):
        (folder / path.name).write_text("new")
    commit(folder, paths)
"""


@pytest.mark.parametrize("moves", [0, 1, 2, 3])
def test_killed_between_two_moves_the_labels_are_there_only_with_all_the_rest(tmp_path: Path, moves: int) -> None:
    labels = tmp_path / "ct.nii.gz"
    environment = {**os.environ, "PYTHONPATH": str(ROOM)}
    code = subprocess.run([sys.executable, "-c", COMMIT, str(labels), str(moves)], check=False, env=environment)
    assert code.returncode == (0 if moves == 3 else -signal.SIGKILL)
    assert len(_visible(tmp_path)) == moves
    assert labels.exists() == (moves == 3)


LIMITED = """
import resource, signal, sys
import wbcss.backend_openvino
wbcss.backend_openvino.is_installed = lambda: False
from wbcss.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit_bytes", [100, 1500])
def test_a_disk_that_takes_no_more_is_one_line_and_no_file(
    tmp_path: Path, registry: Registry, limit_bytes: int
) -> None:
    arguments = _arguments(tmp_path, registry)
    process = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit_bytes), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOM), "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 2, process.stderr
    assert len(process.stderr.splitlines()) == 1
    assert process.stderr.startswith("wbcss: cannot write ")
    assert ".wbcss-" not in process.stderr
    assert list((tmp_path / "out").iterdir()) == []
