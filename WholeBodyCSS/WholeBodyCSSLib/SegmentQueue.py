"""Segmentations one after another: volumes, frames of a sequence, files of a folder. No Qt, no MRML."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from wbcss.errors import RunError, WbcssError
from wbcss.io.reading import list_inputs

from .SegmentLogic import Order, Outcome

_LOG = logging.getLogger(__name__)


class Status(enum.Enum):
    """Where an item of the queue is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ItemProtocol(Protocol):
    """One thing to segment."""

    @property
    def name(self) -> str:
        """What the list calls it."""

    def open(self) -> Order:
        """The order, when its turn has come. Raises WbcssError."""

    def close(self, outcome: Outcome | None) -> None:
        """Tidy up; ``outcome`` is None if it failed. Raises WbcssError."""


class RunnerProtocol(Protocol):
    """What is needed of SegmentLogic."""

    onProgress: Callable[[float, str, float | None], None]
    onFinished: Callable[[Outcome], None]
    onFailed: Callable[[str], None]

    @property
    def isRunning(self) -> bool: ...

    def start(self, order: Order) -> None: ...

    def cancel(self) -> None: ...

    def close(self) -> None: ...

    def poll(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class VolumeItem:
    """A volume of the scene, or a file whose result is a file."""

    name: str
    order: Order

    def open(self) -> Order:
        """The order as it was given."""
        return self.order

    def close(self, outcome: Outcome | None) -> None:
        """Nothing is left to do."""


class FrameBridge(Protocol):
    """What is needed of SequenceBridge."""

    def openFrame(self, sequenceNode: Any, number: int) -> Any: ...

    def keepFrame(self, sequenceNode: Any, number: int, segmentationNode: Any) -> None: ...

    def closeFrame(self, volumeNode: Any) -> None: ...


class FrameItem:
    """One frame of a sequence: it stands in the scene only while it is segmented.

    Args:
        bridge: Takes frames out of and puts results into sequences.
        sequenceNode: The sequence.
        number: Of the frame, from 0.
        makeOrder: The order for a volume node.
    """

    def __init__(self, bridge: FrameBridge, sequenceNode: Any, number: int, makeOrder: Callable[[Any], Order]) -> None:
        self.name = f"{sequenceNode.GetName()} {number + 1}"
        self._bridge = bridge
        self._sequenceNode = sequenceNode
        self._number = number
        self._makeOrder = makeOrder
        self._volumeNode: Any = None

    def open(self) -> Order:
        """Put the frame into the scene and order its segmentation."""
        self._volumeNode = self._bridge.openFrame(self._sequenceNode, self._number)
        return self._makeOrder(self._volumeNode)

    def close(self, outcome: Outcome | None) -> None:
        """Move the result into the sequence of results, and take the frame out of the scene again."""
        try:
            if outcome is not None:
                self._bridge.keepFrame(self._sequenceNode, self._number, outcome.segmentationNode)
        finally:
            volumeNode, self._volumeNode = self._volumeNode, None
            if volumeNode is not None:
                self._bridge.closeFrame(volumeNode)


def fileItems(inputs: Sequence[Path], folder: Path, makeOrder: Callable[[Path, Path], Order]) -> tuple[VolumeItem, ...]:
    """Items of files and DICOM folders; each result lies in ``folder`` under a name of its own.

    Raises VolumeFileError for one that is not there any more.
    """
    return tuple(
        VolumeItem(name=found.path.name, order=makeOrder(found.path, folder / f"{found.name}.seg.nrrd"))
        for found in list_inputs(inputs)
    )


@dataclass
class Row:
    """An item and what became of it."""

    item: ItemProtocol
    status: Status = Status.WAITING
    message: str = ""


class SegmentQueue:
    """Owns the callbacks of a SegmentLogic and feeds it; a failed item does not stop the others.

    Attributes:
        onProgress: Called with the fraction of the item, its stage, and the remaining seconds of the item or None.
        onChanged: Called when the status of a row changed.
        onOutcome: Called with the outcome of an item.
        onEnded: Called once when nothing is left to do.
    """

    def __init__(self, logic: RunnerProtocol) -> None:
        self._logic = logic
        logic.onProgress = self._progress
        logic.onFinished = self._finished
        logic.onFailed = self._failed
        self._current: Row | None = None
        self._isActive = False
        self.rows: tuple[Row, ...] = ()
        self.onProgress: Callable[[float, str, float | None], None] = lambda fraction, stage, remaining_s: None
        self.onChanged: Callable[[], None] = lambda: None
        self.onOutcome: Callable[[Outcome], None] = lambda outcome: None
        self.onEnded: Callable[[], None] = lambda: None

    @property
    def isRunning(self) -> bool:
        """Whether items are being worked on."""
        return self._isActive

    @property
    def number(self) -> int:
        """How many items were begun, the running one included."""
        return sum(row.status is not Status.WAITING for row in self.rows)

    @property
    def canResume(self) -> bool:
        """Whether items are left that failed, were cancelled or never began."""
        return not self._isActive and any(row.status not in (Status.DONE, Status.SKIPPED) for row in self.rows)

    def start(self, items: Sequence[ItemProtocol]) -> None:
        """Work on ``items`` in their order. Raises RunError while others are worked on, or if there are none."""
        if self._isActive:
            raise RunError("a segmentation is running; wait for it or cancel it")
        if not items:
            raise RunError("there must be something to segment, got an empty list")
        self.rows = tuple(Row(item) for item in items)
        self._begin()

    def resume(self) -> None:
        """Work again on what is not done."""
        if self.canResume:
            for row in self.rows:
                if row.status not in (Status.DONE, Status.SKIPPED):
                    row.status, row.message = Status.WAITING, ""
            self._begin()

    def cancel(self) -> None:
        """Stop the running item, and let the rest be."""
        for row in self.rows:
            if row.status is Status.WAITING:
                row.status = Status.CANCELLED
        self._logic.cancel()
        self.onChanged()

    def close(self) -> None:
        """Drop everything at once, without calling back: for the end of the scene or of Slicer."""
        self._logic.close()
        row, self._current, self._isActive = self._current, None, False
        if row is not None:
            self._tidy(row, None)
        self.rows = ()

    def poll(self) -> None:
        """Move on; called by a timer."""
        self._logic.poll()
        if self._isActive and self._current is None:
            self._next()

    def _begin(self) -> None:
        self._isActive = True
        self._next()

    def _next(self) -> None:
        row = next((row for row in self.rows if row.status is Status.WAITING), None)
        if row is None:
            self._isActive = False
            self.onChanged()
            self.onEnded()
            return
        row.status, self._current = Status.RUNNING, row
        self.onChanged()
        try:
            self._logic.start(row.item.open())
        except WbcssError as error:
            self._settle(Status.FAILED, str(error), None)

    def _progress(self, fraction: float, stage: str, remaining_s: float | None) -> None:
        self.onProgress(fraction, stage, remaining_s)

    def _finished(self, outcome: Outcome) -> None:
        self._settle(Status.SKIPPED if outcome.skipped else Status.DONE, "; ".join(outcome.warnings), outcome)

    def _failed(self, message: str) -> None:
        self._settle(Status.FAILED if message else Status.CANCELLED, message, None)

    def _settle(self, status: Status, message: str, outcome: Outcome | None) -> None:
        row, self._current = self._current, None
        if row is None:
            return
        row.status, row.message = status, message
        if outcome is not None:
            self.onOutcome(outcome)
        self._tidy(row, outcome)
        self.onChanged()

    @staticmethod
    def _tidy(row: Row, outcome: Outcome | None) -> None:
        try:
            row.item.close(outcome)
        except WbcssError as error:
            _LOG.warning("an item could not be tidied up: %s", error)
            row.status, row.message = Status.FAILED, str(error)
