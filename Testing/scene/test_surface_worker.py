"""The surface process: asked over its pipes, cancelled in the middle, gone with its parent."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wbcss import protocol
from wbcss.arrayfile import ArrayFile, write_array
from wbcss.errors import Cancelled, OutputError, ProtocolError
from wbcss.protocol import ErrorReply, Goodbye, Progress, Reply, Result
from WholeBodyCSSLib.EngineProcess import EngineProcess, workerCommand, workerEnvironment
from WholeBodyCSSLib.SurfaceMessages import SurfaceRequest, parseSurfaceMessage
from WholeBodyCSSLib.SurfaceWorker import SurfaceWorker, makeSurfaces

MODULE = "WholeBodyCSSLib.SurfaceWorker"
ROWS = ((1.0, 0.0, 0.0, 5.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
PATIENCE_S = 60.0


def _labels(folder: Path, count: int = 3, side: int = 8) -> ArrayFile:
    """``count`` cubes in a row, of growing label value."""
    labels = np.zeros((side * count, side, side), dtype=np.uint16)
    for number in range(count):
        labels[number * side + 2 : (number + 1) * side - 1, 2:-1, 2:-1] = number + 1
    return write_array(folder / "labels.npy", labels, np.eye(4))


def _request(place: Path, labels: ArrayFile, values: tuple[int, ...] = (1, 2, 3, 9), **changes: Any) -> SurfaceRequest:
    return SurfaceRequest(
        **{"id": "s", "labels": labels, "values": values, "affine": ROWS, "folder": str(place)} | changes
    )


def test_a_request_survives_the_pipe_and_nonsense_is_refused(tmp_path: Path) -> None:
    request = _request(tmp_path, _labels(tmp_path))
    assert parseSurfaceMessage(protocol.encode(request).encode()) == request
    with pytest.raises(ProtocolError, match="folder must be an absolute path, got 'here'"):
        _request(tmp_path, _labels(tmp_path), folder="here")
    with pytest.raises(ProtocolError, match="affine must be four rows of four"):
        _request(tmp_path, _labels(tmp_path), affine=((1.0, 0.0), (0.0, 1.0)))
    with pytest.raises(ProtocolError, match="type must be one of surfaces, cancel, shutdown, got 'hello'"):
        parseSurfaceMessage(protocol.encode(protocol.Hello()).encode())


@pytest.mark.scene
def test_surfaces_are_written_for_the_labels_that_are_there(tmp_path: Path) -> None:
    from WholeBodyCSSLib.SurfaceFiles import readSurface

    seen: list[float] = []
    files = makeSurfaces(_request(tmp_path, _labels(tmp_path)), report=seen.append, cancelled=lambda: False)
    assert sorted(files) == [1, 2, 3], "label 9 has no voxels"
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    bounds = readSurface(files[2]).GetBounds()
    np.testing.assert_allclose(bounds, [5 + 9.5, 5 + 14.5, 1.5, 6.5, 1.5, 6.5], atol=0.6)


@pytest.mark.scene
def test_a_missing_folder_is_refused_and_a_cancel_stops_between_organs(tmp_path: Path) -> None:
    labels = _labels(tmp_path)
    with pytest.raises(OutputError, match=r"folder that is there, got .*nowhere"):
        makeSurfaces(_request(tmp_path / "nowhere", labels), report=lambda f: None, cancelled=lambda: False)
    seen: list[float] = []
    with pytest.raises(Cancelled):
        makeSurfaces(_request(tmp_path, labels), report=seen.append, cancelled=lambda: len(seen) == 2)
    assert len(seen) == 2


@pytest.mark.scene
def test_a_file_that_is_no_surface_is_refused(tmp_path: Path) -> None:
    import vtk

    from wbcss.errors import VolumeFileError
    from WholeBodyCSSLib.SurfaceFiles import readSurface, writeSurface

    with pytest.raises(VolumeFileError, match=r"7\.vtp must be a surface, got no file"):
        readSurface(tmp_path / "7.vtp")
    (tmp_path / "8.vtp").write_text("no surface")
    with pytest.raises(VolumeFileError, match=r"8\.vtp must hold a closed surface, got none"):
        readSurface(tmp_path / "8.vtp")
    writeSurface(tmp_path / "9.vtp", vtk.vtkPolyData())
    with pytest.raises(VolumeFileError, match=r"9\.vtp must hold a closed surface, got none"):
        readSurface(tmp_path / "9.vtp")


class Pipe(io.RawIOBase):
    """A host's lines, one as soon as the one before was answered."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.more = threading.Condition()

    def readline(self, size: int | None = -1) -> bytes:  # type: ignore[override]
        with self.more:
            while not self.lines:
                self.more.wait()
            return self.lines.pop(0)

    def push(self, line: bytes) -> None:
        with self.more:
            self.lines.append(line)
            self.more.notify()


def test_a_cancel_is_taken_in_while_surfaces_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from WholeBodyCSSLib import SurfaceWorker as module

    requests, replies = Pipe(), io.BytesIO()

    def busy(request: SurfaceRequest, *, report: Any, cancelled: Any) -> dict[int, Path]:
        requests.push(protocol.encode(protocol.Cancel(id="s")).encode())
        deadline = time.monotonic() + PATIENCE_S
        while not cancelled() and time.monotonic() < deadline:
            time.sleep(0.001)
        requests.push(b"")
        raise Cancelled("cancelled; nothing was written")

    monkeypatch.setattr(module, "makeSurfaces", busy)
    requests.push(b"no message\n")
    requests.push(protocol.encode(_request(tmp_path, _labels(tmp_path))).encode())
    SurfaceWorker(requests, replies).serve()  # type: ignore[arg-type]
    answers = [protocol.parse_reply(line) for line in replies.getvalue().splitlines()]
    assert [answer.type for answer in answers] == ["error", "cancelling", "error", "goodbye"]
    assert isinstance(answers[2], ErrorReply)
    assert (answers[2].id, answers[2].kind) == ("s", "cancelled")


@pytest.fixture
def owner() -> Iterator[EngineProcess]:
    process = EngineProcess(workerCommand(MODULE), title="surface process")
    yield process
    process.stop(5.0)


def _wait(owner: EngineProcess, last: type[Any]) -> list[Reply]:
    """Poll until a reply of the kind ``last`` came."""
    replies: list[Reply] = []
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        replies += owner.poll()
        if replies and isinstance(replies[-1], last):
            return replies
        time.sleep(0.01)
    raise AssertionError(f"no {last.__name__} within {PATIENCE_S} s, got {replies}")


@pytest.mark.scene
def test_the_real_process_makes_surfaces_one_request_after_the_other(owner: EngineProcess, tmp_path: Path) -> None:
    folder = tmp_path / "Größe ض"
    folder.mkdir()
    for _ in range(2):
        owner.send(_request(folder, _labels(tmp_path)))
        *progress, result = _wait(owner, Result)
        assert {type(reply) for reply in progress} == {Progress}
        assert isinstance(result, Result)
        assert sorted(result.files) == ["1", "2", "3"]
        assert all(Path(path).is_file() for path in result.files.values())
    owner.send(_request(tmp_path, _labels(tmp_path), folder=str(tmp_path / "gone")))
    (error,) = _wait(owner, ErrorReply)
    assert isinstance(error, ErrorReply)
    assert "folder that is there" in error.message


@pytest.mark.scene
def test_the_process_needs_neither_slicer_nor_torch(tmp_path: Path) -> None:
    """It starts in a moment only if it imports nothing large, and PythonSlicer must not need the application."""
    script = (
        f"import sys, runpy\nimport {MODULE} as worker\nfrom WholeBodyCSSLib import SurfaceMaking, SurfaceFiles\n"
        "print([name for name in ('slicer', 'qt', 'torch', 'SimpleITK') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=workerEnvironment(os.environ), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


PARENT = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-m", "{MODULE}"], stdin=int(sys.argv[1]))
time.sleep(600)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows does not reparent orphans; there the end of the input tells")
def test_the_process_dies_with_its_parent_even_if_somebody_else_holds_its_input() -> None:
    request_end, requests = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(request_end)],
        stdout=subprocess.PIPE,
        pass_fds=[request_end],
        env=workerEnvironment(os.environ),
    ) as parent:
        os.close(request_end)
        assert parent.stdout is not None
        os.write(requests, b"anybody there?\n")
        answer = json.loads(parent.stdout.readline())
        assert answer["type"] == "error"
        parent.send_signal(signal.SIGKILL)
        parent.wait(PATIENCE_S)
        # The pipe of replies ends when the last process that holds it, the worker, is gone.
        assert isinstance(protocol.parse_reply(parent.stdout.readline()), Goodbye)
        assert parent.stdout.read() == b""
        os.close(requests)
