"""Several segmentations one after another, against a scripted runner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_scan import write_scan

from wbcss.errors import GeometryError, OutputError, RunError
from WholeBodyCSSLib.SegmentLogic import Order, Outcome
from WholeBodyCSSLib.SegmentQueue import FrameItem, Row, SegmentQueue, Status, VolumeItem, fileItems

DONE, SKIPPED, FAILED, CANCELLED = Status.DONE, Status.SKIPPED, Status.FAILED, Status.CANCELLED
WAITING, RUNNING = Status.WAITING, Status.RUNNING


class Runner:
    """A SegmentLogic that ends when the test says so."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.isRunning = False
        self.isClosed = False
        self.onProgress: Callable[[float, str, float | None], None] = lambda fraction, stage, remaining_s: None
        self.onFinished: Callable[[Outcome], None] = lambda outcome: None
        self.onFailed: Callable[[str], None] = lambda message: None

    def start(self, order: Order) -> None:
        if order.volume == "bent":
            raise GeometryError("bent must lie under linear transforms")
        self.orders.append(order)
        self.isRunning = True

    def cancel(self) -> None:
        self.fail("")

    def close(self) -> None:
        self.isRunning, self.isClosed = False, True

    def poll(self) -> None: ...

    def finish(self, *, skipped: bool = False) -> None:
        self.isRunning = False
        self.onFinished(Outcome(order=self.orders[-1], segmentationNode="organs", skipped=skipped))

    def fail(self, message: str) -> None:
        if self.isRunning:
            self.isRunning = False
            self.onFailed(message)


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
def queue(runner: Runner) -> SegmentQueue:
    return SegmentQueue(runner)


def items(*names: str) -> list[VolumeItem]:
    return [VolumeItem(name=name, order=Order(volume=name, organs=())) for name in names]


def states(queue: SegmentQueue) -> list[Status]:
    return [row.status for row in queue.rows]


def test_items_run_one_after_another_and_the_end_is_told_once(queue: SegmentQueue, runner: Runner) -> None:
    ends: list[None] = []
    queue.onEnded = lambda: ends.append(None)
    queue.start(items("a", "b"))
    assert states(queue) == [RUNNING, WAITING]
    assert queue.number == 1
    runner.finish()
    queue.poll()
    assert states(queue) == [DONE, RUNNING]
    runner.finish(skipped=True)
    assert ends == []
    queue.poll()
    queue.poll()
    assert states(queue) == [DONE, SKIPPED]
    assert [order.volume for order in runner.orders] == ["a", "b"]
    assert len(ends) == 1
    assert not queue.isRunning


def test_a_bad_item_does_not_stop_the_others(queue: SegmentQueue, runner: Runner) -> None:
    queue.start(items("bent", "worse", "good"))
    queue.poll()
    runner.fail("the card ran out of memory")
    queue.poll()
    runner.finish()
    assert states(queue) == [FAILED, FAILED, DONE]
    assert [row.message for row in queue.rows] == [
        "bent must lie under linear transforms",
        "the card ran out of memory",
        "",
    ]


def test_a_cancel_ends_the_running_item_and_all_that_wait_and_resume_does_what_is_left(
    queue: SegmentQueue, runner: Runner
) -> None:
    queue.start(items("a", "b", "c"))
    runner.finish()
    queue.poll()
    queue.cancel()
    queue.poll()
    assert states(queue) == [DONE, CANCELLED, CANCELLED]
    assert queue.canResume
    queue.resume()
    runner.finish()
    queue.poll()
    runner.finish()
    queue.poll()
    assert [order.volume for order in runner.orders] == ["a", "b", "b", "c"]
    assert states(queue) == [DONE, DONE, DONE]
    assert not queue.canResume


def test_a_second_start_is_refused_and_the_first_goes_on(queue: SegmentQueue, runner: Runner) -> None:
    queue.start(items("a"))
    with pytest.raises(RunError, match="a segmentation is running; wait for it or cancel it"):
        queue.start(items("b"))
    assert [row.item.name for row in queue.rows] == ["a"]
    assert runner.isRunning


def test_an_empty_list_is_refused(queue: SegmentQueue) -> None:
    with pytest.raises(RunError, match="something to segment, got an empty list"):
        queue.start([])


def test_outcomes_are_handed_on_before_their_item_is_tidied_up(queue: SegmentQueue, runner: Runner) -> None:
    told: list[str] = []

    class Item(VolumeItem):
        def close(self, outcome: Outcome | None) -> None:
            told.append("tidy")

    queue.onOutcome = lambda outcome: told.append("outcome")
    queue.start([Item(name="a", order=Order(volume="a", organs=()))])
    runner.finish()
    assert told == ["outcome", "tidy"]


class Frames:
    """A sequence bridge over names."""

    def __init__(self, *, isFull: bool = False) -> None:
        self.kept: list[tuple[int, Any]] = []
        self.inScene: list[str] = []
        self._isFull = isFull

    def openFrame(self, sequenceNode: Any, number: int) -> str:
        self.inScene.append(f"frame {number}")
        return f"frame {number}"

    def keepFrame(self, sequenceNode: Any, number: int, segmentationNode: Any) -> None:
        if self._isFull:
            raise OutputError("the sequence takes no more")
        self.kept.append((number, segmentationNode))

    def closeFrame(self, volumeNode: Any) -> None:
        self.inScene.remove(volumeNode)


class Beating:
    def GetName(self) -> str:
        return "beating"


def frameItem(frames: Frames, number: int) -> FrameItem:
    return FrameItem(frames, Beating(), number, lambda node: Order(volume=node, organs=()))


def test_a_frame_is_in_the_scene_only_while_it_is_segmented(queue: SegmentQueue, runner: Runner) -> None:
    frames = Frames()
    queue.start([frameItem(frames, number) for number in range(2)])
    assert frames.inScene == ["frame 0"]
    runner.finish()
    assert frames.inScene == []
    queue.poll()
    assert frames.inScene == ["frame 1"]
    runner.fail("out of memory")
    assert frames.inScene == []
    assert frames.kept == [(0, "organs")]
    assert [row.item.name for row in queue.rows] == ["beating 1", "beating 2"]


def test_a_frame_whose_result_cannot_be_kept_counts_as_failed(queue: SegmentQueue, runner: Runner) -> None:
    frames = Frames(isFull=True)
    queue.start([frameItem(frames, 0)])
    runner.finish()
    assert queue.rows[0].status is FAILED
    assert queue.rows[0].message == "the sequence takes no more"
    assert frames.inScene == []


def test_closing_drops_everything_and_tidies_up_without_a_word(queue: SegmentQueue, runner: Runner) -> None:
    frames, said = Frames(), []
    queue.onEnded = lambda: said.append("ended")
    queue.start([frameItem(frames, number) for number in range(2)])
    queue.close()
    assert runner.isClosed
    assert frames.inScene == []
    assert queue.rows == ()
    assert not queue.isRunning
    assert said == []


def test_files_get_results_of_their_name_and_twins_a_number(tmp_path: Path) -> None:
    inputs = [write_scan(tmp_path / folder / name) for folder, name in (("a", "ct.nii.gz"), ("b", "ct.nii.gz"))]
    made = fileItems(inputs, tmp_path / "out", lambda path, output: Order(volume=path, organs=(), output=output))
    outputs = [item.order.output for item in made]
    assert outputs[0] == tmp_path / "out" / "ct.seg.nrrd"
    assert len(set(outputs)) == 2
    assert [item.name for item in made] == ["ct.nii.gz", "ct.nii.gz"]


def test_a_row_waits_at_first() -> None:
    assert Row(items("a")[0]).status is WAITING
