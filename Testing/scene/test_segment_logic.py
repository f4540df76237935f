"""A run from the click to the result, against a scripted worker and a scene without Slicer."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from wbcss import protocol
from wbcss.arrayfile import ArrayFile
from wbcss.errors import GeometryError, OutputError, RunError
from WholeBodyCSSLib.RunOptions import RunOptions
from WholeBodyCSSLib.SegmentLogic import CANCEL_PATIENCE_S, Order, Outcome, SegmentLogic

ROWS = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def organ(name: str, *tasks: str) -> protocol.OrganItem:
    return protocol.OrganItem(
        name=name, label=5, display_name=name, group="abdomen", color_rgb=(221, 130, 101), terminology="", tasks=tasks
    )


LIVER, NODULE = organ("liver", "wholebody", "liver"), organ("nodule", "chest", "wholebody")


class ScriptedProcess:
    """Remembers what was sent; ``poll`` hands out what the test put into ``replies``."""

    def __init__(self) -> None:
        self.sent: list[protocol.Request] = []
        self.replies: list[protocol.Reply] = []
        self.numKills = 0
        self.isGone = False

    def send(self, request: protocol.Request) -> None:
        if self.isGone:
            raise RunError("the segmentation process does not take messages any more")
        self.sent.append(request)

    def poll(self) -> list[protocol.Reply]:
        replies, self.replies = self.replies, []
        return replies

    def stop(self, timeout_s: float = 2.0) -> None:
        raise AssertionError("the window must not wait for a worker to end")

    def kill(self) -> None:
        self.numKills += 1
        self.replies.clear()


class SmallScene:
    """Volumes are names; a file of one byte stands for the voxels on disk."""

    def __init__(self) -> None:
        self.nodes = {"ct", "earlier result"}
        self.written: list[Path] = []
        self.shown: list[tuple[ArrayFile, tuple[protocol.OrganItem, ...], Any, Any, Any]] = []
        self.diskIsFull = False

    def writeVolume(self, volumeNode: Any, path: Path) -> ArrayFile:
        if volumeNode == "bent":
            raise GeometryError("bent must lie under linear transforms")
        if self.diskIsFull:
            raise OSError(28, "No space left on device")
        path.write_bytes(b"x")
        self.written.append(path)
        return ArrayFile(path=str(path), shape=(1, 1, 1), dtype="int16", affine=ROWS)

    def showOrgans(
        self,
        labels: ArrayFile,
        organs: Sequence[protocol.OrganItem],
        volumeNode: Any,
        segmentationNode: Any = None,
        found: Collection[str] | None = None,
    ) -> Any:
        self.shown.append((labels, tuple(organs), volumeNode, segmentationNode, found))
        return segmentationNode or "segmentation"

    def placementNote(self, volumeNode: Any) -> str:
        return "it was straightened" if volumeNode == "tilted" else ""

    def isInScene(self, node: Any) -> bool:
        return node in self.nodes


class Run:
    """A logic with its collaborators, a clock that stands still, and everything it reported."""

    def __init__(self) -> None:
        self.process, self.scene = ScriptedProcess(), SmallScene()
        self.now_s = 100.0
        self.logic = SegmentLogic(self.process, self.scene, lambda: self.now_s)
        self.progress: list[tuple[float, str, float | None]] = []
        self.finished: list[Outcome] = []
        self.failed: list[str] = []
        self.logic.onProgress = lambda fraction, stage, remaining_s: self.progress.append(
            (fraction, stage, remaining_s)
        )
        self.logic.onFinished = self.finished.append
        self.logic.onFailed = self.failed.append

    def start(self, **changes: Any) -> None:
        self.logic.start(Order(**{"volume": "ct", "organs": (LIVER,), **changes}))

    @property
    def request(self) -> protocol.SegmentRequest:
        return [r for r in self.process.sent if isinstance(r, protocol.SegmentRequest)][-1]

    def answer(self, *replies: protocol.Reply) -> None:
        self.process.replies.extend(replies)
        self.logic.poll()

    def result(self, warnings: tuple[str, ...] = ()) -> protocol.Result:
        labels = ArrayFile(path=self.request.output, shape=(1, 1, 1), dtype="uint16", affine=ROWS)
        rows = (
            protocol.OrganRow(organ="liver", label=5, voxels=8, volume_ml=1.5),
            protocol.OrganRow(organ="nodule", label=6, voxels=0, volume_ml=0.0),
        )
        return protocol.Result(
            id=self.request.id, files={}, labels=labels, organs=rows, warnings=warnings, seconds=12.5
        )

    def says(self, kind: str, message: str) -> protocol.ErrorReply:
        return protocol.ErrorReply(id=self.request.id, kind=kind, message=message)


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
    assert run.scene.shown == [(result.labels, (LIVER,), "ct", None, {"liver"})]
    (outcome,) = run.finished
    assert (outcome.segmentationNode, outcome.warnings, outcome.seconds) == (
        "segmentation",
        ("a slice is missing",),
        12.5,
    )
    assert outcome.rows == result.organs
    assert run.failed == []
    assert not run.logic.isRunning
    assert not run.scene.written[0].parent.exists()


def test_what_makes_surfaces_is_told_while_the_labels_are_there_but_not_of_frames(run: Run) -> None:
    told: list[Any] = []
    run.logic.onShown = lambda node, labels, organs: told.append((node, Path(labels.path).parent.is_dir(), organs))
    run.start(organs=(LIVER, NODULE))
    run.answer(run.result())
    run.start(isFrame=True)
    run.answer(run.result())
    assert told == [("segmentation", True, (LIVER,))]


def test_the_request_holds_what_the_user_chose_and_only_its_tasks(run: Run, tmp_path: Path) -> None:
    options = RunOptions(device="cuda:1", quality="best", statistics=False)
    run.start(organs=(LIVER, NODULE), options=options, registry=tmp_path)
    request = run.request
    assert (request.device, request.quality, request.statistics) == ("cuda:1", "best", False)
    assert (request.organs, request.tasks) == (("liver", "nodule"), ("wholebody", "liver", "chest"))
    assert (request.registry, request.resume) == (str(tmp_path), False)


def test_organs_are_added_to_an_earlier_result_if_it_is_still_there(run: Run) -> None:
    for node in ("earlier result", "removed result"):
        run.start(segmentationNode=node)
        run.answer(run.result())
    assert [shown[3] for shown in run.scene.shown] == ["earlier result", None]


def test_a_file_goes_to_a_file_and_nothing_to_the_scene(run: Run, tmp_path: Path) -> None:
    scan, output = tmp_path / "ct.nii.gz", tmp_path / "ct.seg.nrrd"
    run.start(volume=scan, output=output)
    assert (run.request.input, run.request.output, run.request.resume) == (str(scan), str(output), True)
    run.answer(protocol.Result(id=run.request.id, files={}, skipped=True))
    (outcome,) = run.finished
    assert outcome.skipped
    assert outcome.segmentationNode is None
    assert run.scene.shown == []


def test_a_file_without_a_place_for_its_result_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"name of its result, got none for ct\.nii\.gz"):
        run.start(volume=tmp_path / "ct.nii.gz")
    assert not run.logic.isRunning


def test_what_is_to_know_about_the_place_of_the_organs_joins_the_warnings(run: Run) -> None:
    run.scene.nodes.add("tilted")
    run.start(volume="tilted")
    run.answer(run.result(("a slice is missing",)))
    assert run.finished[0].warnings == ("a slice is missing", "it was straightened")


def test_without_an_organ_nothing_is_started(run: Run) -> None:
    with pytest.raises(RunError, match="at least one organ must be ticked, got none"):
        run.start(organs=())
    assert run.process.sent == []


def test_an_error_of_the_worker_reaches_the_user_once(run: Run) -> None:
    run.start()
    error = run.says("device", "the card ran out of memory")
    run.answer(error, error)
    assert run.failed == ["the card ran out of memory"]
    assert not run.scene.written[0].parent.exists()


def test_a_lost_worker_ends_the_run_and_the_next_one_starts(run: Run) -> None:
    run.start()
    run.answer(protocol.ErrorReply(kind="worker_lost", message="the segmentation process ended: exit code -9"))
    assert run.failed == ["the segmentation process ended: exit code -9"]
    assert not run.logic.isRunning
    run.start()
    assert run.logic.isRunning


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
    assert run.process.numKills == 0, "the model stays loaded for the next run"


def test_a_worker_that_does_not_hear_a_cancel_is_killed_within_a_second(run: Run) -> None:
    assert CANCEL_PATIENCE_S < 1
    run.start()
    run.logic.cancel()
    run.logic.poll()
    assert run.logic.isRunning
    run.now_s += CANCEL_PATIENCE_S + 0.01
    run.logic.poll()
    assert run.failed == [""]
    assert run.process.numKills == 1


def test_cancelling_twice_asks_once(run: Run) -> None:
    run.start()
    run.logic.cancel()
    run.logic.cancel()
    assert sum(isinstance(request, protocol.Cancel) for request in run.process.sent) == 1


def test_a_worker_that_died_as_it_was_cancelled_counts_as_cancelled(run: Run) -> None:
    run.start()
    run.process.isGone = True
    run.logic.cancel()
    assert run.failed == [""]


def test_a_result_that_crosses_a_cancel_is_not_shown(run: Run) -> None:
    run.start()
    run.logic.cancel()
    run.answer(run.result())
    assert run.failed == [""]
    assert run.scene.shown == []


def test_cancelling_nothing_says_nothing(run: Run) -> None:
    run.logic.cancel()
    assert run.process.sent == []


def test_removing_the_volume_ends_the_run_at_once(run: Run) -> None:
    run.start()
    run.scene.nodes.clear()
    run.logic.poll()
    assert run.process.numKills == 1
    assert run.failed == ["the volume was removed while it was segmented; nothing was added to the scene"]


def test_a_result_that_crosses_the_removal_of_its_volume_is_dropped(run: Run) -> None:
    run.start()
    run.scene.nodes.clear()
    run.answer(run.result())
    assert run.scene.shown == []
    assert len(run.failed) == 1


def test_a_second_click_while_running_starts_nothing(run: Run) -> None:
    run.start()
    run.start()
    assert len(run.scene.written) == 1


def test_a_late_answer_to_an_earlier_run_is_ignored(run: Run) -> None:
    run.start()
    late = run.result()
    run.logic.close()
    run.start()
    run.answer(late)
    assert run.logic.isRunning
    assert run.scene.shown == []


def test_a_volume_that_cannot_be_written_stops_the_run_before_it_starts(run: Run) -> None:
    with pytest.raises(GeometryError, match="bent must lie under linear transforms"):
        run.start(volume="bent")
    assert not run.logic.isRunning
    assert run.process.sent == []


def test_a_full_disk_is_named_and_nothing_stays_on_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run.scene.diskIsFull = True
    with pytest.raises(OutputError, match=r"No space left on device; free some space"):
        run.start()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_for_temporary_files_is_an_error_that_says_what_to_do(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match="temporary files must be writable, got No such file or directory"):
        run.start()


def test_closing_the_scene_stops_the_worker_without_a_word(run: Run) -> None:
    run.start()
    run.logic.close()
    assert run.process.numKills == 1
    assert not run.logic.isRunning
    assert not run.scene.written[0].parent.exists()
    assert run.failed == []


def test_closing_the_scene_leaves_an_idle_worker_warm(run: Run) -> None:
    run.start()
    run.answer(run.result())
    run.logic.close()
    assert run.process.numKills == 0
