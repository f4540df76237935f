"""``python -m WholeBodyCSSLib.SurfaceWorker``: makes the surfaces of organs for a host, outside of its window's thread.

The messages are those of ``SurfaceMessages``. The main thread makes surfaces, one request after the other. A reader
takes cancels in at once, and a watcher ends the process when its parent has died. Nothing here needs Slicer.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from wbcss import protocol
from wbcss.arrayfile import read_array
from wbcss.errors import EXIT_DONE, OutputError
from wbcss.hostpipe import Channel, claim_pipes, lines_of, watch_parent
from wbcss.progress import IsCancelled, check_cancelled

from .SurfaceMessages import SurfaceRequest, parseSurfaceMessage


class SurfaceWorker:
    """Serves one host.

    Args:
        requests: Lines of the host; their end means that it is gone.
        replies: Where answers go.
    """

    def __init__(self, requests: BinaryIO, replies: BinaryIO) -> None:
        self._requests = requests
        self._channel = Channel(replies)
        self._waiting: queue.Queue[SurfaceRequest | None] = queue.Queue()
        self._cancelled = threading.Event()
        self._shutdownId = ""

    def serve(self) -> None:
        """Work until the host asks for the end or is gone."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        while (request := self._waiting.get()) is not None:
            self._channel.send(self._answer(request))
        self._channel.send(protocol.Goodbye(id=self._shutdownId))

    def stop(self) -> None:
        """Cancel what runs and end ``serve``. May be called from any thread."""
        self._cancelled.set()
        self._waiting.put(None)

    def _read(self) -> None:
        """The reader thread: take every line in, whatever it holds, until the input ends."""
        for line in lines_of(self._requests):
            try:
                message = parseSurfaceMessage(line)
            except Exception as error:  # noqa: BLE001 -- a bad request must never end the worker
                self._channel.send(protocol.error_reply(error, protocol.id_of(line)))
                continue
            if isinstance(message, protocol.Shutdown):
                self._shutdownId = message.id
                break
            if isinstance(message, protocol.Cancel):
                self._channel.send(protocol.Cancelling(id=message.id, running=not self._cancelled.is_set()))
                self._cancelled.set()
            else:
                self._cancelled.clear()
                self._waiting.put(message)
        self.stop()

    def _answer(self, request: SurfaceRequest) -> protocol.Reply:
        def report(fraction: float) -> None:
            self._channel.send(protocol.Progress(id=request.id, fraction=fraction, stage="surfaces"))

        try:
            files = makeSurfaces(request, report=report, cancelled=self._cancelled.is_set)
        except Exception as error:  # noqa: BLE001 -- answered, not died of
            return protocol.error_reply(error, request.id)
        return protocol.Result(id=request.id, files={str(value): str(path) for value, path in files.items()})


def makeSurfaces(
    request: SurfaceRequest, *, report: Callable[[float], None], cancelled: IsCancelled
) -> dict[int, Path]:
    """Write the surface of every label that has voxels, largest box first, and return where by label value.

    Raises VolumeFileError, OutputError, and Cancelled between two organs.
    """
    import numpy as np

    from .SurfaceFiles import writeSurface
    from .SurfaceMaking import boxes, organSurface

    labels = read_array(request.labels)
    affine, folder = np.array(request.affine, dtype=np.float64), Path(request.folder)
    if not folder.is_dir():
        raise OutputError(f"surfaces must go to a folder that is there, got {folder}")
    found = {value: (box, labels[box].size) for value, box in boxes(labels, request.values)}
    total, done = max(1, sum(size for _, size in found.values())), 0
    files = {}
    for value, (box, size) in sorted(found.items(), key=lambda item: -item[1][1]):
        check_cancelled(cancelled)
        surface = organSurface(labels, value, box, affine)
        if surface.GetNumberOfPolys():
            files[value] = writeSurface(folder / f"{value}.vtp", surface)
        done += size
        report(done / total)
    return files


def main() -> int:
    """Serve the host at standard input and output until it says goodbye or is gone."""
    worker = SurfaceWorker(*claim_pipes())
    watch_parent(worker.stop)
    worker.serve()
    return EXIT_DONE


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Not sys.exit: the reader may still hold the lock of its pipe, on which the interpreter would stumble.
    os._exit(code)
