"""One segmentation at a time: write the volume, ask the worker, report progress, show the organs. No Qt, no MRML."""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from wbcss.arrayfile import ArrayFile
from wbcss.errors import WbcssError
from wbcss.protocol import Cancel, ErrorReply, ListOrgans, OrganItem, Organs, Progress, Reply, Request, Result
from wbcss.protocol import SegmentRequest as Segment

CANCELLED = "cancelled"

_LOG = logging.getLogger(__name__)


class ProcessProtocol(Protocol):
    """What is needed of EngineProcess."""

    def send(self, request: Request) -> None: ...

    def poll(self) -> list[Reply]: ...

    def stop(self, timeout_s: float = ...) -> None: ...


class BridgeProtocol(Protocol):
    """What is needed of SceneBridge."""

    def writeVolume(self, volumeNode: Any, path: Path) -> ArrayFile: ...

    def showOrgans(self, labels: ArrayFile, organs: Sequence[OrganItem], volumeNode: Any) -> Any: ...

    def isInScene(self, node: Any) -> bool: ...


class SegmentLogic:
    """Runs from ``start`` to exactly one call of ``onFinished`` or ``onFailed``; ``poll`` moves it on.

    Attributes:
        onProgress: Called with the finished fraction, the stage and the remaining seconds or None.
        onFinished: Called with the segmentation node and the warnings of the run.
        onFailed: Called with one line for the user; "" if the user cancelled.
    """

    def __init__(self, process: ProcessProtocol, bridge: BridgeProtocol, registry: Path | None = None) -> None:
        self._process = process
        self._bridge = bridge
        self._registry = None if registry is None else str(registry)
        self._numbers = itertools.count(1)
        self._running = ""
        self._volumeNode: Any = None
        self._folder: Path | None = None
        self._request: Segment | None = None
        self._organs: tuple[OrganItem, ...] = ()
        self.onProgress: Callable[[float, str, float | None], None] = lambda fraction, stage, remaining_s: None
        self.onFinished: Callable[[Any, tuple[str, ...]], None] = lambda segmentationNode, warnings: None
        self.onFailed: Callable[[str], None] = lambda message: None

    @property
    def isRunning(self) -> bool:
        """Whether a segmentation was started and has not ended."""
        return bool(self._running)

    def start(self, volumeNode: Any) -> None:
        """Segment every organ of the registry in ``volumeNode``. Raises WbcssError if it cannot start."""
        if self.isRunning:
            return
        self._folder = Path(tempfile.mkdtemp(prefix="WholeBodyCSS-"))
        self._volumeNode = volumeNode
        self._running = f"segment-{next(self._numbers)}"
        try:
            volume = self._bridge.writeVolume(volumeNode, self._folder / "volume.npy")
            self._request = Segment(
                id=self._running,
                input=volume,
                output=str(self._folder / "labels.npy"),
                registry=self._registry,
            )
            # The table of organs first: the worker may answer requests in another order than they were sent.
            self._process.send(ListOrgans(id=self._running, registry=self._registry))
        except WbcssError:
            self._end()
            raise

    def cancel(self) -> None:
        """Ask the worker to stop; ``onFailed("")`` follows when it has. Does nothing when nothing runs.

        Raises RunError if the worker cannot be reached.
        """
        if self._request is not None:
            self._fail("")
        elif self.isRunning:
            self._process.send(Cancel(id=self._running))

    def close(self) -> None:
        """Stop the worker and drop what runs, without calling back: for the end of the scene or of Slicer."""
        self._process.stop()
        self._end()

    def poll(self) -> None:
        """Handle what the worker said since the last call."""
        for reply in self._process.poll():
            if self.isRunning and reply.id in (self._running, ""):
                self._handle(reply)

    def _handle(self, reply: Reply) -> None:
        if isinstance(reply, Organs):
            self._segment(reply)
        elif isinstance(reply, Progress):
            self.onProgress(reply.fraction, reply.stage, reply.remaining_s)
        elif isinstance(reply, ErrorReply):
            self._fail("" if reply.kind == CANCELLED else reply.message)
        elif isinstance(reply, Result):
            self._show(reply)

    def _segment(self, organs: Organs) -> None:
        request, self._request, self._organs = self._request, None, organs.organs
        if request is None:
            return
        try:
            self._process.send(request)
        except WbcssError as error:
            self._fail(str(error))

    def _show(self, result: Result) -> None:
        if not self._bridge.isInScene(self._volumeNode):
            self._fail("the volume was removed while it was segmented; the result is dropped")
            return
        if result.labels is None:
            self._fail("the segmentation process answered without labels")
            return
        try:
            segmentationNode = self._bridge.showOrgans(result.labels, self._organs, self._volumeNode)
        except WbcssError as error:
            self._fail(str(error))
            return
        self._end()
        self.onFinished(segmentationNode, result.warnings)

    def _fail(self, message: str) -> None:
        self._end()
        self.onFailed(message)

    def _end(self) -> None:
        """Forget the run and remove its files: they hold a patient's voxels."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            if self._folder.exists():
                _LOG.warning("temporary files of a segmentation could not be removed")
        self._running, self._volumeNode, self._folder, self._request = "", None, None, None
