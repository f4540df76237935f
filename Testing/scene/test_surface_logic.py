"""Surfaces from the finished result to the segments, against a scripted process and a scene without Slicer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mrml_nodes import organ_item

from wbcss.arrayfile import AffineRows, ArrayFile
from wbcss.errors import OutputError, RunError, VolumeFileError
from wbcss.protocol import ErrorReply, Message, Progress, Reply, Result
from WholeBodyCSSLib import SurfaceLogic as module
from WholeBodyCSSLib.SurfaceLogic import SurfaceLogic
from WholeBodyCSSLib.SurfaceMessages import SurfaceRequest

ROWS = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
ORGANS = (organ_item("liver", 5), organ_item("spleen", 1))


class ScriptedProcess:
    """Remembers what was sent; ``poll`` hands out what the test put into ``replies``."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.replies: list[Reply] = []
        self.kills = 0
        self.isBroken = False

    def send(self, request: Message) -> None:
        if self.isBroken:
            raise RunError("the surface process cannot be started")
        self.sent.append(request)

    def poll(self) -> list[Reply]:
        replies, self.replies = self.replies, []
        return replies

    def kill(self) -> None:
        self.kills += 1


class SmallScene:
    """Nodes are names."""

    def __init__(self) -> None:
        self.nodes = {"organs"}
        self.attached: list[tuple[Any, dict[str, str], dict[str, int], Any]] = []
        self.isUnreadable = False
        self.labelsWereThere = False

    def isInScene(self, node: Any) -> bool:
        return node in self.nodes

    def frameOf(self, segmentationNode: Any, segmentId: str) -> AffineRows:
        return ROWS

    def stampOf(self, segmentationNode: Any, segmentId: str) -> Any:
        return f"stamp of {segmentId}"

    def attach(
        self, segmentationNode: Any, files: Mapping[str, Path], labels: ArrayFile, values: Mapping[str, int], stamp: Any
    ) -> int:
        if self.isUnreadable:
            raise VolumeFileError("5.vtp must be a surface, got no file or another kind of file")
        self.labelsWereThere = Path(labels.path).read_bytes() == b"labels"
        names = {name: path.name for name, path in files.items()}
        self.attached.append((segmentationNode, names, dict(values), stamp))
        return len(files)


class Run:
    """A logic with its collaborators and everything it reported."""

    def __init__(self, folder: Path) -> None:
        self.process, self.scene = ScriptedProcess(), SmallScene()
        self.logic = SurfaceLogic(self.process, self.scene)
        self.progress: list[float] = []
        self.finished: list[tuple[Any, int]] = []
        self.failed: list[str] = []
        self.logic.onProgress = self.progress.append
        self.logic.onFinished = lambda node, count: self.finished.append((node, count))
        self.logic.onFailed = self.failed.append
        path = folder / "labels.npy"
        path.write_bytes(b"labels")
        self.labels = ArrayFile(path=str(path), shape=(1, 1, 1), dtype="uint16", affine=ROWS)

    def start(self) -> SurfaceRequest:
        """Start, and remove the labels as the segmentation does when it has ended."""
        self.logic.start("organs", self.labels, ORGANS)
        Path(self.labels.path).unlink()
        request = self.process.sent[-1]
        assert isinstance(request, SurfaceRequest)
        return request

    def answer(self, *replies: Reply) -> None:
        self.process.replies.extend(replies)
        self.logic.poll()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path / "temporary"))
    return Run(tmp_path)


def _leftovers(tmp_path: Path, expected: int = 0) -> list[Path]:
    """Temporary folders, once there are as few as ``expected``: they are removed aside."""
    deadline = time.monotonic() + 10.0
    while len(found := list((tmp_path / "temporary").iterdir())) > expected and time.monotonic() < deadline:
        time.sleep(0.005)
    return found


def test_surfaces_that_came_are_attached_and_nothing_stays_behind(run: Run, tmp_path: Path) -> None:
    request = run.start()
    assert request.values == (5, 1)
    assert run.logic.isRunning
    run.answer(Progress(id=request.id, fraction=0.5, stage="surfaces"))
    run.answer(Result(id=request.id, files={"5": f"{request.folder}/5.vtp"}))
    assert run.progress == [0.5]
    assert run.scene.attached == [("organs", {"liver": "5.vtp"}, {"liver": 5, "spleen": 1}, "stamp of liver")]
    assert run.scene.labelsWereThere, "although their owner removed them"
    assert run.finished == [("organs", 1)]
    assert not run.logic.isRunning
    assert run.process.kills == 1, "the process holds memory"
    assert _leftovers(tmp_path) == []


def test_labels_are_copied_where_a_file_cannot_have_two_names(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no links on this disk")

    monkeypatch.setattr(module.os, "link", refuse)
    request = run.start()
    assert Path(request.labels.path).read_bytes() == b"labels"
    run.logic.close()


def test_labels_that_are_gone_are_an_error_of_the_start(run: Run, tmp_path: Path) -> None:
    Path(run.labels.path).unlink()
    with pytest.raises(OutputError, match="the labels cannot be kept in"):
        run.logic.start("organs", run.labels, ORGANS)
    assert not run.logic.isRunning
    assert _leftovers(tmp_path) == []


def test_a_full_temporary_disk_is_an_error_of_the_start(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.tempfile, "mkdtemp", refuse)
    with pytest.raises(OutputError, match="must be writable, got No space left on device"):
        run.logic.start("organs", run.labels, ORGANS)


def test_a_process_that_cannot_start_is_an_error_of_the_start(run: Run, tmp_path: Path) -> None:
    run.process.isBroken = True
    with pytest.raises(RunError, match="cannot be started"):
        run.logic.start("organs", run.labels, ORGANS)
    assert not run.logic.isRunning
    assert _leftovers(tmp_path) == []


def test_no_organs_need_no_process(run: Run) -> None:
    run.logic.start("organs", run.labels, ())
    assert run.process.sent == []
    assert not run.logic.isRunning


@pytest.mark.parametrize("kind", ["worker_lost", "volume_file"])
def test_a_failure_is_told_once_and_the_organs_stay(run: Run, tmp_path: Path, kind: str) -> None:
    run.start()
    run.answer(ErrorReply(kind=kind, message="the surface process ended"))
    run.answer()
    assert run.failed == ["no 3D view of the organs: the surface process ended"]
    assert run.scene.attached == []
    assert _leftovers(tmp_path) == []


def test_a_surface_that_cannot_be_read_is_a_failure(run: Run, tmp_path: Path) -> None:
    request = run.start()
    run.scene.isUnreadable = True
    run.answer(Result(id=request.id, files={"5": f"{request.folder}/5.vtp"}))
    assert run.failed == ["no 3D view of the organs: 5.vtp must be a surface, got no file or another kind of file"]
    assert run.finished == []
    assert _leftovers(tmp_path) == []


@pytest.mark.parametrize("withResult", [False, True])
def test_organs_removed_meanwhile_end_it(run: Run, tmp_path: Path, withResult: bool) -> None:
    request = run.start()
    run.scene.nodes.clear()
    run.answer(*([Result(id=request.id, files={"5": "/5.vtp"})] if withResult else []))
    assert run.failed == ["the organs were removed while their surfaces were made"]
    assert run.scene.attached == []
    assert run.process.kills == 1
    assert _leftovers(tmp_path) == []


def test_a_new_result_takes_over_and_late_answers_are_not_its_own(run: Run, tmp_path: Path) -> None:
    first = run.start()
    Path(run.labels.path).write_bytes(b"labels")
    second = run.start()
    assert first.id != second.id
    assert run.process.kills == 1
    run.answer(Result(id=first.id, files={"5": "/5.vtp"}))
    assert run.scene.attached == []
    assert run.logic.isRunning
    assert len(_leftovers(tmp_path, expected=1)) == 1
    run.logic.close()
    assert run.failed == []
    assert _leftovers(tmp_path) == []
