"""One segmentation at a time: hand over the volume, report progress, show the organs. No Qt, no MRML."""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from wbcss.arrayfile import ArrayFile
from wbcss.errors import OutputError, RunError, WbcssError
from wbcss.protocol import Cancel, ErrorReply, OrganItem, OrganRow, Progress, Reply, Request, Result
from wbcss.protocol import SegmentRequest as Segment

from .RunOptions import RunOptions

CANCELLED = "cancelled"

CANCEL_PATIENCE_S = 0.7
"""How long a cancelled worker may take to say that it stopped; then it is killed, for a user waits a second at most.

It is silent while it imports its libraries, which takes seconds in the first run."""

_LOG = logging.getLogger(__name__)


class ProcessProtocol(Protocol):
    """What is needed of EngineProcess."""

    def send(self, request: Request) -> None: ...

    def poll(self) -> list[Reply]: ...

    def stop(self, timeout_s: float = ...) -> None: ...

    def kill(self) -> None: ...


class BridgeProtocol(Protocol):
    """What is needed of SceneBridge."""

    def writeVolume(self, volumeNode: Any, path: Path) -> ArrayFile: ...

    def showOrgans(
        self,
        labels: ArrayFile,
        organs: Sequence[OrganItem],
        volumeNode: Any,
        segmentationNode: Any = ...,
        found: Collection[str] | None = ...,
    ) -> Any: ...

    def placementNote(self, volumeNode: Any) -> str: ...

    def isInScene(self, node: Any) -> bool: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """What to segment, how, and where the result goes.

    Attributes:
        volume: A volume node, or the path of a file or DICOM folder.
        organs: What to look for; their tasks are those that may run.
        options: How.
        registry: Folder of the registry; None means the shipped one.
        segmentationNode: The result of an earlier run that the organs are added to; None makes a new one.
        output: For a path: the file to write. What is there and was made from the same is not made again.
        liters: Size of the scan, 0 if it is not known.
        isFrame: The volume is a frame of a sequence: it leaves the scene again, and its result with it.
    """

    volume: Any
    organs: tuple[OrganItem, ...]
    options: RunOptions = field(default_factory=RunOptions)
    registry: Path | None = None
    segmentationNode: Any = None
    output: Path | None = None
    liters: float = 0.0
    isFrame: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that run, once each."""
        return tuple(dict.fromkeys(task for organ in self.organs for task in organ.needed))


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What came of an order.

    Attributes:
        order: The order.
        segmentationNode: Shows the organs; None if they went to a file.
        rows: What was measured, in label order; empty if it was ``skipped``.
        warnings: What the user should know, one sentence each.
        seconds: Wall time in the worker.
        skipped: The file was there already.
    """

    order: Order
    segmentationNode: Any = None
    rows: tuple[OrganRow, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    skipped: bool = False


@dataclass
class _Run:
    """What is known of the run that goes on."""

    id: str
    order: Order
    folder: Path
    cancelled_s: float | None = None


class SegmentLogic:
    """Runs from ``start`` to exactly one call of ``onFinished`` or ``onFailed``; ``poll`` moves it on.

    Attributes:
        onProgress: Called with the finished fraction, the stage and the remaining seconds or None.
        onShown: Called with the segmentation node, the labels, whose file is removed soon after, and the organs found.
        onFinished: Called with the outcome.
        onFailed: Called with one line for the user; "" if the user cancelled.
    """

    def __init__(
        self, process: ProcessProtocol, bridge: BridgeProtocol, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._process = process
        self._bridge = bridge
        self._clock = clock
        self._numbers = itertools.count(1)
        self._run: _Run | None = None
        self.onProgress: Callable[[float, str, float | None], None] = lambda fraction, stage, remaining_s: None
        self.onShown: Callable[[Any, ArrayFile, Sequence[OrganItem]], None] = lambda node, labels, organs: None
        self.onFinished: Callable[[Outcome], None] = lambda outcome: None
        self.onFailed: Callable[[str], None] = lambda message: None

    @property
    def isRunning(self) -> bool:
        """Whether a segmentation was started and has not ended."""
        return self._run is not None

    def start(self, order: Order) -> None:
        """Begin with ``order``; a call while one runs is not obeyed. Raises WbcssError if it cannot start."""
        if self.isRunning:
            return
        if not order.organs:
            raise RunError("at least one organ must be ticked, got none; tick an organ or choose a preset")
        self._run = _Run(f"segment-{next(self._numbers)}", order, _newFolder())
        try:
            self._process.send(self._request(self._run))
        except WbcssError:
            self._end()
            raise

    def cancel(self) -> None:
        """Ask the worker to stop; ``onFailed("")`` follows within a second. Does nothing when nothing runs."""
        if self._run is None or self._run.cancelled_s is not None:
            return
        self._run.cancelled_s = self._clock()
        try:
            self._process.send(Cancel(id=self._run.id))
        except WbcssError as error:  # it is gone, which is what was wanted
            _LOG.info("the worker could not be asked to stop: %s", error)
            self._abandon("")

    def close(self) -> None:
        """Drop what runs, without calling back: for the end of the scene. A worker that is idle stays warm."""
        if self._run is not None:
            self._process.kill()
            self._end()

    def poll(self) -> None:
        """Handle what the worker said since the last call, and what the user did to the scene."""
        for reply in self._process.poll():
            if self._run is not None and reply.id in (self._run.id, ""):
                self._handle(self._run, reply)
        run = self._run
        if run is None:
            return
        if not isinstance(run.order.volume, Path) and not self._bridge.isInScene(run.order.volume):
            self._abandon("the volume was removed while it was segmented; nothing was added to the scene")
        elif run.cancelled_s is not None and self._clock() - run.cancelled_s > CANCEL_PATIENCE_S:
            self._abandon("")

    def _request(self, run: _Run) -> Segment:
        order = run.order
        if isinstance(order.volume, Path):
            if order.output is None:
                raise OutputError(f"a file must come with the name of its result, got none for {order.volume.name}")
            volume: str | ArrayFile = str(order.volume)
            output = order.output
        else:
            volume = self._writeVolume(order.volume, run.folder)
            output = run.folder / "labels.npy"
        return Segment(
            id=run.id,
            input=volume,
            output=str(output),
            registry=None if order.registry is None else str(order.registry),
            organs=tuple(organ.name for organ in order.organs),
            tasks=order.tasks,
            device=order.options.device,
            quality=order.options.quality,
            statistics=order.options.statistics,
            resume=order.output is not None,
        )

    def _writeVolume(self, volumeNode: Any, folder: Path) -> ArrayFile:
        try:
            return self._bridge.writeVolume(volumeNode, folder / "volume.npy")
        except OSError as error:
            raise OutputError(
                f"the volume cannot be handed to the segmentation process in {tempfile.gettempdir()}: "
                f"{error.strerror or error}; free some space there"
            ) from error

    def _handle(self, run: _Run, reply: Reply) -> None:
        if isinstance(reply, Progress):
            if run.cancelled_s is None:
                self.onProgress(reply.fraction, reply.stage, reply.remaining_s)
        elif isinstance(reply, ErrorReply):
            wasCancelled = reply.kind == CANCELLED or run.cancelled_s is not None
            self._fail("" if wasCancelled else reply.message)
        elif isinstance(reply, Result):
            self._finish(run, reply)

    def _finish(self, run: _Run, result: Result) -> None:
        """Show what came. A cancel that arrived too late still counts: the scene stays as it was."""
        order, node, note = run.order, None, ""
        if run.cancelled_s is not None:
            self._fail("")
            return
        try:
            if order.output is None:
                node, note = self._show(order, result)
        except (WbcssError, OSError) as error:
            self._fail(str(error))
            return
        self._end()
        self.onFinished(
            Outcome(
                order=order,
                segmentationNode=node,
                rows=result.organs,
                warnings=(*result.warnings, *filter(None, [note])),
                seconds=result.seconds,
                skipped=result.skipped,
            )
        )

    def _show(self, order: Order, result: Result) -> tuple[Any, str]:
        """The segmentation node, and what to know about its place."""
        if not self._bridge.isInScene(order.volume):
            raise RunError("the volume was removed while it was segmented; nothing was added to the scene")
        if result.labels is None:
            raise RunError("the segmentation process must answer with labels, got none; look into the Doctor page")
        isThere = self._bridge.isInScene(order.segmentationNode)
        onto = order.segmentationNode if isThere else None
        found = {row.organ for row in result.organs if row.voxels > 0}
        node = self._bridge.showOrgans(result.labels, order.organs, order.volume, onto, found)
        if not order.isFrame:
            self.onShown(node, result.labels, tuple(organ for organ in order.organs if organ.name in found))
        return node, self._bridge.placementNote(order.volume)

    def _abandon(self, message: str) -> None:
        """End a run whose worker is not worth waiting for."""
        self._process.kill()
        self._fail(message)

    def _fail(self, message: str) -> None:
        self._end()
        self.onFailed(message)

    def _end(self) -> None:
        """Forget the run and remove its files: they hold a patient's voxels."""
        run, self._run = self._run, None
        if run is not None:
            shutil.rmtree(run.folder, ignore_errors=True)
            if run.folder.exists():
                _LOG.warning("temporary files of a segmentation could not be removed")


def _newFolder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="WholeBodyCSS-"))
    except OSError as error:
        raise OutputError(
            f"the folder for temporary files must be writable, got {error.strerror or error}; "
            "free some space or set another one in the application settings"
        ) from error
