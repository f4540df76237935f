"""A run from the click to the result, against a scripted worker and a scene without Slicer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from wbcss import protocol
from wbcss.arrayfile import ArrayFile
from wbcss.errors import GeometryError
from WholeBodyCSSLib.SegmentLogic import SegmentLogic

ROWS = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
LIVER = protocol.OrganItem(
    name="liver",
    label=5,
    display_name="Liver",
    group="abdomen",
    color_rgb=(221, 130, 101),
    terminology="",
    tasks=("wholebody",),
)


class ScriptedProcess:
    """Remembers what was sent; ``poll`` hands out what the test put into ``replies``."""

    def __init__(self) -> None:
        self.sent: list[protocol.Request] = []
        self.replies: list[protocol.Reply] = []
        self.stopped = False

    def send(self, request: protocol.Request) -> None:
        self.sent.append(request)

    def poll(self) -> list[protocol.Reply]:
        replies, self.replies = self.replies, []
        return replies

    def stop(self, timeout_s: float = 2.0) -> None:
        self.stopped = True


class SmallScene:
    """Volumes are names; a file of one byte stands for the voxels on disk."""

    def __init__(self) -> None:
        self.nodes = {"ct"}
        self.written: list[Path] = []
        self.shown: list[tuple[ArrayFile, tuple[protocol.OrganItem, ...], Any]] = []

    def writeVolume(self, volumeNode: Any, path: Path) -> ArrayFile:
        if volumeNode == "bent":
            raise GeometryError("bent must lie under linear transforms")
        path.write_bytes(b"x")
        self.written.append(path)
        return ArrayFile(path=str(path), shape=(1, 1, 1), dtype="int16", affine=ROWS)

    def showOrgans(self, labels: ArrayFile, organs: Sequence[protocol.OrganItem], volumeNode: Any) -> Any:
        self.shown.append((labels, tuple(organs), volumeNode))
        return "segmentation"

    def isInScene(self, node: Any) -> bool:
        return node in self.nodes


class Run:
    """A logic with its collaborators and everything it reported."""

    def __init__(self) -> None:
        self.process, self.scene = ScriptedProcess(), SmallScene()
        self.logic = SegmentLogic(self.process, self.scene)
        self.progress: list[tuple[float, str, float | None]] = []
        self.finished: list[tuple[Any, tuple[str, ...]]] = []
        self.failed: list[str] = []
        self.logic.onProgress = lambda fraction, stage, remaining_s: self.progress.append(
            (fraction, stage, remaining_s)
        )
        self.logic.onFinished = lambda node, warnings: self.finished.append((node, warnings))
        self.logic.onFailed = self.failed.append

    def start(self) -> None:
        """Up to where the worker segments."""
        self.logic.start("ct")
        (listing,) = self.process.sent
        assert isinstance(listing, protocol.ListOrgans)
        self.answer(protocol.Organs(id=listing.id, organs=(LIVER,)))

    @property
    def request(self) -> protocol.SegmentRequest:
        (request,) = (r for r in self.process.sent if isinstance(r, protocol.SegmentRequest))
        return request

    def answer(self, *replies: protocol.Reply) -> None:
        self.process.replies.extend(replies)
        self.logic.poll()

    def result(self, warnings: tuple[str, ...] = ()) -> protocol.Result:
        labels = ArrayFile(path=self.request.output, shape=(1, 1, 1), dtype="uint16", affine=ROWS)
        return protocol.Result(id=self.request.id, files={}, labels=labels, warnings=warnings)


@pytest.fixture
def run() -> Run:
    return Run()


def test_a_run_writes_asks_reports_shows_and_cleans_up(run: Run) -> None:
    run.start()
    assert run.logic.isRunning
    assert isinstance(run.request.input, ArrayFile)
    assert run.request.input.path == str(run.scene.written[0])
    run.answer(protocol.Progress(id=run.request.id, fraction=0.5, stage="network", remaining_s=3.0))
    assert run.progress == [(0.5, "network", 3.0)]
    result = run.result(("a slice is missing",))
    run.answer(result)
    assert run.scene.shown == [(result.labels, (LIVER,), "ct")]
    assert run.finished == [("segmentation", ("a slice is missing",))]
    assert run.failed == []
    assert not run.logic.isRunning
    assert not run.scene.written[0].parent.exists()


def test_an_error_of_the_worker_reaches_the_user_once(run: Run) -> None:
    run.start()
    error = protocol.ErrorReply(id=run.request.id, kind="device", message="the card ran out of memory")
    run.answer(error, error)
    assert run.failed == ["the card ran out of memory"]
    assert not run.scene.written[0].parent.exists()


def test_a_lost_worker_ends_the_run(run: Run) -> None:
    run.start()
    run.answer(protocol.ErrorReply(kind="worker_lost", message="the segmentation process ended: exit code -9"))
    assert run.failed == ["the segmentation process ended: exit code -9"]
    assert not run.logic.isRunning


def test_cancelling_asks_the_worker_and_leaves_the_scene_alone(run: Run) -> None:
    run.start()
    run.logic.cancel()
    assert run.process.sent[-1] == protocol.Cancel(id=run.request.id)
    assert run.logic.isRunning, "it has ended when the worker says so"
    run.answer(
        protocol.Cancelling(id=run.request.id, running=True),
        protocol.ErrorReply(id=run.request.id, kind="cancelled", message="cancelled", exit_code=130),
    )
    assert run.failed == [""]
    assert run.scene.shown == []


def test_cancelling_nothing_says_nothing(run: Run) -> None:
    run.logic.cancel()
    assert run.process.sent == []


def test_the_result_of_a_removed_volume_is_dropped(run: Run) -> None:
    run.start()
    run.scene.nodes.clear()
    run.answer(run.result())
    assert run.scene.shown == []
    assert len(run.failed) == 1
    assert "removed" in run.failed[0]


def test_a_second_click_while_running_starts_nothing(run: Run) -> None:
    run.logic.start("ct")
    run.logic.start("ct")
    assert len(run.scene.written) == 1


def test_a_late_answer_to_an_earlier_run_is_ignored(run: Run) -> None:
    run.start()
    late = run.result()
    run.logic.close()
    run.process.sent.clear()
    run.start()
    run.answer(late)
    assert run.logic.isRunning
    assert run.scene.shown == []


def test_cancelling_before_the_worker_began_ends_at_once(run: Run) -> None:
    run.logic.start("ct")
    (listing,) = run.process.sent
    run.logic.cancel()
    assert run.failed == [""]
    run.answer(protocol.Organs(id=listing.id, organs=(LIVER,)))
    assert run.process.sent == [listing]


def test_a_volume_that_cannot_be_written_stops_the_run_before_it_starts(run: Run) -> None:
    with pytest.raises(GeometryError, match="bent must lie under linear transforms"):
        run.logic.start("bent")
    assert not run.logic.isRunning
    assert run.process.sent == []


def test_closing_the_scene_stops_the_worker_without_a_word(run: Run) -> None:
    run.logic.start("ct")
    run.logic.close()
    assert run.process.stopped
    assert not run.logic.isRunning
    assert not run.scene.written[0].parent.exists()
    assert run.failed == []
