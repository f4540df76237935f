"""The surfaces of one result at a time: ask the surface process, report progress, attach what came. No Qt, no MRML."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from wbcss.arrayfile import AffineRows, ArrayFile
from wbcss.errors import OutputError, WbcssError
from wbcss.protocol import ErrorReply, Message, OrganItem, Progress, Reply, Result

from .SurfaceMessages import SurfaceRequest

_LOG = logging.getLogger(__name__)


class ProcessProtocol(Protocol):
    """What is needed of EngineProcess."""

    def send(self, request: Message) -> None: ...

    def poll(self) -> list[Reply]: ...

    def kill(self) -> None: ...


class SceneProtocol(Protocol):
    """What is needed of Surfaces."""

    def isInScene(self, node: Any) -> bool: ...

    def frameOf(self, segmentationNode: Any, segmentId: str) -> AffineRows: ...

    def stampOf(self, segmentationNode: Any, segmentId: str) -> Any: ...

    def attach(
        self, segmentationNode: Any, files: Mapping[str, Path], labels: ArrayFile, values: Mapping[str, int], stamp: Any
    ) -> int: ...


@dataclass(frozen=True, eq=False)
class _Run:
    """What is known of the surfaces that are being made."""

    id: str
    segmentationNode: Any
    labels: ArrayFile
    values: Mapping[str, int]
    stamp: Any
    folder: Path


class SurfaceLogic:
    """Runs from ``start`` to exactly one call of ``onFinished`` or ``onFailed``; ``poll`` moves it on.

    The process lives only while surfaces are made: it holds the labels and some libraries in memory.

    Attributes:
        onProgress: Called with the finished fraction.
        onFinished: Called with the segmentation node and how many surfaces it got.
        onFailed: Called with one line for the user. Without surfaces everything else works, and *Show 3D* of the
            Segmentations module makes them (slowly).
    """

    def __init__(self, process: ProcessProtocol, scene: SceneProtocol) -> None:
        self._process = process
        self._scene = scene
        self._numbers = itertools.count(1)
        self._run: _Run | None = None
        self.onProgress: Callable[[float], None] = lambda fraction: None
        self.onFinished: Callable[[Any, int], None] = lambda segmentationNode, count: None
        self.onFailed: Callable[[str], None] = lambda message: None

    @property
    def isRunning(self) -> bool:
        """Whether surfaces are being made."""
        return self._run is not None

    def start(self, segmentationNode: Any, labels: ArrayFile, organs: Sequence[OrganItem]) -> None:
        """Make surfaces for ``organs``, segments that ``SceneBridge.showOrgans`` just made of ``labels``.

        Surfaces that are still being made for an earlier result are given up. The caller may remove the file of
        ``labels`` at once. Raises WbcssError if it cannot start.
        """
        self.close()
        if not organs:
            return
        folder = _newFolder()
        try:
            labels = _kept(labels, folder)
            self._run = _Run(
                id=f"surfaces-{next(self._numbers)}",
                segmentationNode=segmentationNode,
                labels=labels,
                values={organ.name: organ.label for organ in organs},
                stamp=self._scene.stampOf(segmentationNode, organs[0].name),
                folder=folder,
            )
            self._process.send(
                SurfaceRequest(
                    id=self._run.id,
                    labels=labels,
                    values=tuple(self._run.values.values()),
                    affine=self._scene.frameOf(segmentationNode, organs[0].name),
                    folder=str(folder),
                )
            )
        except WbcssError:
            self._remove(folder)
            self._run = None
            raise

    def close(self) -> None:
        """Give up what runs, without calling back. Never waits."""
        run, self._run = self._run, None
        if run is not None:
            self._process.kill()
            self._remove(run.folder)

    def poll(self) -> None:
        """Handle what the process said since the last call."""
        for reply in self._process.poll():
            if self._run is not None and reply.id in (self._run.id, ""):
                self._handle(self._run, reply)
        if self._run is not None and not self._scene.isInScene(self._run.segmentationNode):
            self.close()
            self.onFailed("the organs were removed while their surfaces were made")

    def _handle(self, run: _Run, reply: Reply) -> None:
        if isinstance(reply, Progress):
            self.onProgress(reply.fraction)
        elif isinstance(reply, ErrorReply):
            self.close()
            self.onFailed(f"no 3D view of the organs: {reply.message}")
        elif isinstance(reply, Result):
            self._attach(run, reply)

    def _attach(self, run: _Run, result: Result) -> None:
        if not self._scene.isInScene(run.segmentationNode):
            return  # ``poll`` says so
        byValue = {int(value): Path(path) for value, path in result.files.items()}
        files = {name: byValue[value] for name, value in run.values.items() if value in byValue}
        try:
            count = self._scene.attach(run.segmentationNode, files, run.labels, run.values, run.stamp)
        except WbcssError as error:
            self.close()
            self.onFailed(f"no 3D view of the organs: {error}")
            return
        self.close()
        self.onFinished(run.segmentationNode, count)

    def _remove(self, folder: Path) -> None:
        """Remove temporary files, for they show a patient's organs; aside, for hundreds of MB keep the disk busy."""
        threading.Thread(target=_removed, args=(folder,), name="remove surfaces").start()


def _removed(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        _LOG.warning("temporary files of surfaces could not be removed")


def _newFolder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="WholeBodyCSS-"))
    except OSError as error:
        raise OutputError(
            f"the folder for temporary files must be writable, got {error.strerror or error}; free some space there"
        ) from error


def _kept(labels: ArrayFile, folder: Path) -> ArrayFile:
    """``labels`` under a name in ``folder`` that their owner does not remove: a second name where the system can."""
    source = Path(labels.path)
    path = folder / f"labels{source.suffix}"
    try:
        try:
            os.link(source, path)
        except OSError:
            shutil.copyfile(source, path)
    except OSError as error:
        raise OutputError(f"the labels cannot be kept in {folder}: {error.strerror or error}") from error
    return ArrayFile(path=str(path), shape=labels.shape, dtype=labels.dtype, affine=labels.affine)
