"""What the Segment page asks for and remembers, with fakes of the scene and of the queue's runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_scan import write_scan

from wbcss.errors import InputError, OutputError, RegistryError
from wbcss.protocol import OrganItem, OrganRow
from WholeBodyCSSLib.ResultTable import ResultRow
from WholeBodyCSSLib.RunOptions import RunOptions
from WholeBodyCSSLib.SegmentLogic import Order, Outcome
from WholeBodyCSSLib.SegmentQueue import SegmentQueue
from WholeBodyCSSLib.SegmentSession import SegmentSession
from WholeBodyCSSLib.Settings import Settings


def organ(name: str, *tasks: str) -> OrganItem:
    return OrganItem(
        name=name, label=1, display_name=name.title(), group="abdomen", color_rgb=(1, 2, 3), terminology="", tasks=tasks
    )


LIVER, SPLEEN, CYST = organ("liver", "wholebody"), organ("spleen", "wholebody"), organ("cyst", "cyst")


class Node:
    """A volume or a sequence."""

    def __init__(self, name: str, kind: str = "vtkMRMLScalarVolumeNode") -> None:
        self._name, self._kind = name, kind

    def GetName(self) -> str:
        return self._name

    def IsA(self, kind: str) -> bool:
        return kind == self._kind


class Runner:
    """Takes orders and ends them when told."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.isRunning = False
        self.onProgress: Callable[[float, str, float | None], None] = lambda fraction, stage, remaining_s: None
        self.onFinished: Callable[[Outcome], None] = lambda outcome: None
        self.onFailed: Callable[[str], None] = lambda message: None

    def start(self, order: Order) -> None:
        self.orders.append(order)

    def cancel(self) -> None: ...

    def close(self) -> None: ...

    def poll(self) -> None: ...


class Results:
    """Results by volume: a node is the set of its organs."""

    def __init__(self) -> None:
        self.byVolume: dict[Any, Any] = {}
        self.kept: dict[Any, tuple[ResultRow, ...]] = {}
        self.inTable: list[bool] = []

    def resultOf(self, volumeNode: Any) -> Any:
        return self.byVolume.get(volumeNode)

    def organs(self, segmentationNode: Any) -> frozenset[str]:
        return frozenset(row.organ for row in self.kept[segmentationNode])

    def rows(self, segmentationNode: Any) -> tuple[ResultRow, ...]:
        return self.kept[segmentationNode]

    def remember(self, segmentationNode: Any, volumeNode: Any, rows: Sequence[ResultRow], inTable: bool) -> None:
        self.byVolume[volumeNode] = segmentationNode
        self.kept[segmentationNode] = tuple(rows)
        self.inTable.append(inTable)

    def liters(self, volumeNode: Any) -> float:
        return 10.0


class Sequences:
    """Three frames, of which some were segmented."""

    def __init__(self, *done: int) -> None:
        self.done = done
        self.kept: list[int] = []

    def numFrames(self, sequenceNode: Any) -> int:
        return 3

    def hasResult(self, sequenceNode: Any, number: int) -> bool:
        return number in self.done

    def openFrame(self, sequenceNode: Any, number: int) -> Any:
        return Node(f"frame {number}")

    def keepFrame(self, sequenceNode: Any, number: int, segmentationNode: Any) -> None:
        self.kept.append(number)

    def closeFrame(self, volumeNode: Any) -> None: ...


class Page:
    """A session with its collaborators."""

    def __init__(self, *done: int) -> None:
        self.runner, self.results, self.sequences = Runner(), Results(), Sequences(*done)
        self.settings = Settings()
        self.organs: tuple[OrganItem, ...] | RegistryError = (LIVER, SPLEEN, CYST)
        self.shown: list[Any] = []
        self.session = self.made()
        self.session.onResult = self.shown.append
        assert self.session.refresh() == ""

    def made(self) -> SegmentSession:
        queue = SegmentQueue(self.runner)
        return SegmentSession(
            queue, self.results, self.sequences, self.settings, self.listOrgans, lambda: Path("/registry")
        )

    def listOrgans(self) -> Sequence[OrganItem]:
        if isinstance(self.organs, RegistryError):
            raise self.organs
        return self.organs

    def finish(self, node: Any = "organs", *, seconds: float = 60.0) -> Order:
        """End the last order with every organ found."""
        order = self.runner.orders[-1]
        rows = tuple(OrganRow(organ=o.name, label=o.label, voxels=5, volume_ml=1.0) for o in order.organs)
        node = order.segmentationNode or node
        self.runner.onFinished(Outcome(order=order, segmentationNode=node, rows=rows, seconds=seconds))
        self.session.queue.poll()
        return order


@pytest.fixture
def page() -> Page:
    return Page()


CT = Node("ct")


def test_an_order_names_organs_options_and_the_registry_in_use(page: Page) -> None:
    options = RunOptions(device="cpu", quality="fast", statistics=False)
    page.session.segment(CT, ["spleen", "liver"], options)
    order = page.finish()
    assert (order.volume, order.organs, order.options, order.registry) == (
        CT,
        (LIVER, SPLEEN),
        options,
        Path("/registry"),
    )
    assert order.tasks == ("wholebody",)
    assert page.shown == ["organs"]
    assert page.results.inTable == [False]
    assert [row.name for row in page.results.kept["organs"]] == ["Liver", "Spleen"]


def test_added_organs_need_only_their_own_decoders_and_join_the_rows(page: Page) -> None:
    page.session.segment(CT, ["liver"], RunOptions())
    page.finish()
    assert page.session.missing(CT) == ("spleen", "cyst")
    page.session.choice.choose(["liver", "cyst"])
    page.session.segment(CT, page.session.choice.ticked, RunOptions(), add=True)
    order = page.finish()
    assert (order.organs, order.tasks, order.segmentationNode) == ((CYST,), ("cyst",), "organs")
    assert [row.organ for row in page.results.kept["organs"]] == ["liver", "cyst"]


def test_adding_what_is_there_already_is_refused(page: Page) -> None:
    page.session.segment(CT, ["liver"], RunOptions())
    page.finish()
    with pytest.raises(InputError, match="Every ticked organ is in the result already"):
        page.session.segment(CT, ["liver"], RunOptions(), add=True)


def test_the_time_is_learned_and_survives_a_restart(page: Page) -> None:
    assert page.session.seconds(CT, RunOptions(), ["liver"]) is None
    page.session.segment(CT, ["liver", "cyst"], RunOptions())
    page.finish(seconds=80.0)
    again = page.made()
    again.refresh()
    assert again.seconds(CT, RunOptions(), ["liver", "cyst"]) == pytest.approx(80.0)
    less = again.seconds(CT, RunOptions(), ["spleen"])
    assert less is not None
    assert less < 80.0


@pytest.mark.parametrize(("done", "frames"), [((), [0, 1, 2]), ((0, 2), [1]), ((0, 1, 2), [0, 1, 2])])
def test_frames_that_were_segmented_are_left_out_unless_all_were(done: tuple[int, ...], frames: list[int]) -> None:
    page = Page(*done)
    page.session.segment(Node("beating", "vtkMRMLSequenceNode"), ["liver"], RunOptions())
    while page.session.queue.isRunning:
        order = page.finish()
        assert order.isFrame
    assert page.sequences.kept == frames
    assert page.results.kept == {}, "frames leave the scene: no table stays for them"


def test_a_list_holds_volumes_first_and_files_go_to_the_folder(page: Page, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "ct.nii.gz")
    page.session.segmentList([CT], [scan], tmp_path / "new" / "out", ["liver"], RunOptions())
    page.finish()
    assert (page.runner.orders[1].volume, page.runner.orders[1].output) == (
        scan.resolve(),
        tmp_path / "new" / "out" / "ct.seg.nrrd",
    )
    assert (tmp_path / "new" / "out").is_dir()


def test_files_need_a_folder_that_can_be_written(page: Page, tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "ct.nii.gz")
    with pytest.raises(InputError, match="Choose the folder for the results"):
        page.session.segmentList([], [scan], None, ["liver"], RunOptions())
    with pytest.raises(OutputError, match=r"must be a folder, but .*ct\.nii\.gz is a file"):
        page.session.segmentList([], [scan], scan, ["liver"], RunOptions())
    assert not page.session.queue.isRunning


def test_a_registry_that_cannot_be_read_or_is_empty_is_said(page: Page) -> None:
    page.organs = RegistryError("the registry is damaged")
    assert page.session.refresh() == "the registry is damaged"
    assert page.session.choice.organs == ()
    page.organs = ()
    assert page.session.refresh() == "No task is switched on, or none can be read. See the page Tasks."
