"""``python -m wbcss.worker``: segments for a host that writes requests to its input and reads replies from its output.

The messages are those of ``protocol``. Three threads share the work. The main thread segments, one job at a time, with
a model that stays loaded between jobs. A reader answers everything else at once, so that a cancel never waits for a
segmentation. A watcher ends the process when its parent has died, also if somebody else still holds the pipe open.

Standard output carries protocol lines only: whatever a library prints goes to standard error.
"""

from __future__ import annotations

import argparse
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, BinaryIO

from . import __version__, protocol
from .errors import EXIT_DONE, EXIT_FAILED
from .hostpipe import Channel, claim_pipes, lines_of, watch_parent
from .labels import parse_organ_name, parse_task_id

if TYPE_CHECKING:
    from .job import SegmentJob
    from .warm import WarmModel

FAREWELL_S = 5.0
"""How long a segmentation may take to stop and tidy up when the host is gone."""

_log = logging.getLogger(__name__)


class _Job:
    """A segmentation that was accepted, and the flag that stops it."""

    def __init__(self, request: protocol.SegmentRequest) -> None:
        self.request = request
        self.stop = threading.Event()


class Worker:
    """Serves one host.

    Args:
        requests: Lines of the host; their end means that it is gone.
        replies: Where answers go.
        on_stop: Called when the end has begun, before the running segmentation has stopped.
    """

    def __init__(self, requests: BinaryIO, replies: BinaryIO, *, on_stop: Callable[[], None] = lambda: None) -> None:
        self._requests = requests
        self._channel = Channel(replies)
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._running: _Job | None = None
        self._lock = threading.Lock()
        self._warm: WarmModel | None = None
        self._look_ups: list[threading.Thread] = []
        self._on_stop = on_stop
        self._shutdown_id = ""

    def serve(self) -> None:
        """Work until the host asks for the end or is gone."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        while (job := self._jobs.get()) is not None:
            self._run(job)
        for thread in self._look_ups:
            thread.join(FAREWELL_S)
        self._channel.send(protocol.Goodbye(id=self._shutdown_id))

    def stop(self) -> None:
        """Cancel what runs and end ``serve``. May be called from any thread, more than once."""
        with self._lock:
            if self._running is not None:
                self._running.stop.set()
        self._jobs.put(None)
        self._on_stop()

    def _read(self) -> None:
        """The reader thread: answer every line, whatever it holds, until the input ends."""
        try:
            for line in lines_of(self._requests):
                if not self._answer(line):
                    break
        finally:
            self.stop()

    def _answer(self, line: bytes) -> bool:
        """Answer one request; false when it was the last one."""
        try:
            request = protocol.parse_request(line)
            if isinstance(request, protocol.Shutdown):
                self._shutdown_id = request.id
                return False
            self._dispatch(request)
        except Exception as error:  # noqa: BLE001 -- a bad request must never end the worker
            self._complain(error, protocol.id_of(line))
        return True

    def _dispatch(self, request: protocol.Request) -> None:
        if isinstance(request, protocol.Hello):
            busy = self._running is not None
            self._channel.send(protocol.HelloReply(id=request.id, version=__version__, pid=os.getpid(), busy=busy))
        elif isinstance(request, protocol.SegmentRequest):
            self._accept(request)
        elif isinstance(request, protocol.Cancel):
            self._cancel(request)
        else:
            # Both may read files or import the network library; a cancel must not wait for that.
            thread = threading.Thread(target=self._look_up, args=(request,), name="look-up", daemon=True)
            self._look_ups.append(thread)
            thread.start()

    def _accept(self, request: protocol.SegmentRequest) -> None:
        with self._lock:
            if self._running is not None:
                message = f"a segmentation is running ({self._running.request.id}); wait for it or cancel it"
                self._channel.send(protocol.ErrorReply(id=request.id, kind="busy", message=message))
                return
            self._running = _Job(request)
            self._jobs.put(self._running)

    def _cancel(self, request: protocol.Cancel) -> None:
        with self._lock:
            running = self._running is not None and request.id in ("", self._running.request.id)
            if self._running is not None and running:
                self._running.stop.set()
            # Sent under the lock, so that it always precedes the end of the segmentation that it announces.
            self._channel.send(protocol.Cancelling(id=request.id, running=running))

    def _look_up(self, request: protocol.DoctorRequest | protocol.ListOrgans) -> None:
        try:
            reply = _diagnose(request) if isinstance(request, protocol.DoctorRequest) else _list_organs(request)
            self._channel.send(reply)
        except Exception as error:  # noqa: BLE001 -- answered, not died of
            self._complain(error, request.id)

    def _run(self, job: _Job) -> None:
        """Segment on the main thread and send exactly one result or error."""
        reply: protocol.Reply
        try:
            reply = self._segment(job)
        except Exception as error:  # noqa: BLE001 -- answered, not died of
            _log.debug("segmentation %s failed", job.request.id, exc_info=True)
            reply = protocol.error_reply(error, job.request.id)
        with self._lock:
            self._running = None
            self._channel.send(reply)

    def _segment(self, job: _Job) -> protocol.Result:
        from .job import is_done, run_job, wanted_files
        from .warm import WarmModel

        self._warm = self._warm or WarmModel()
        request = job.request
        segment_job = _job_of(request)
        if request.resume and is_done(segment_job):
            files = {kind: str(path) for kind, path in wanted_files(segment_job).items()}
            return protocol.Result(id=request.id, files=files, skipped=True)

        def report(fraction: float, stage: str, remaining_s: float | None) -> None:
            self._channel.send(
                protocol.Progress(id=request.id, fraction=fraction, stage=stage, remaining_s=remaining_s)
            )

        return run_job(segment_job, warm=self._warm, report=report, cancelled=job.stop.is_set, job_id=request.id)

    def _complain(self, error: Exception, message_id: str) -> None:
        _log.debug("a request was refused", exc_info=error)
        self._channel.send(protocol.error_reply(error, message_id))


def _job_of(request: protocol.SegmentRequest) -> SegmentJob:
    from .job import SegmentJob

    return SegmentJob(
        input=Path(request.input) if isinstance(request.input, str) else request.input,
        output=Path(request.output),
        registry=_registry_path(request.registry),
        organs=None if request.organs is None else tuple(map(parse_organ_name, request.organs)),
        tasks=None if request.tasks is None else tuple(map(parse_task_id, request.tasks)),
        series=request.series,
        device=request.device,
        quality=request.quality,
        threads=request.threads,
        statistics=request.statistics,
        preview=request.preview,
        confidence=request.confidence,
    )


def _registry_path(named: str | None) -> Path:
    from .registry import default_registry_path

    return default_registry_path() if named is None else Path(named)


def _diagnose(request: protocol.DoctorRequest) -> protocol.DoctorReply:
    from .doctor import diagnose

    return protocol.DoctorReply(id=request.id, diagnosis=diagnose(_registry_path(request.registry)).to_json())


def _list_organs(request: protocol.ListOrgans) -> protocol.Organs:
    from .organlist import organ_items
    from .registry import Registry

    return protocol.Organs(id=request.id, organs=organ_items(Registry(_registry_path(request.registry))))


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the host at standard input and output until it says goodbye or is gone."""
    parser = argparse.ArgumentParser(prog="python -m wbcss.worker", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--verbose", action="store_true", help="log what happens to standard error")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.ERROR, stream=sys.stderr)
    requests, replies = claim_pipes()
    worker = Worker(requests, replies, on_stop=_leave_soon)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        # In a thread of its own: the interrupted code may hold the lock that stopping needs.
        threading.Thread(target=worker.stop, name="signal").start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    watch_parent(worker.stop)
    worker.serve()
    return EXIT_DONE


def _leave_soon() -> None:
    """Exit even if the segmentation does not stop: an orphan must not keep a card or the memory busy."""
    timer = threading.Timer(FAREWELL_S, os._exit, args=(EXIT_FAILED,))
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Not sys.exit: the reader may still hold the lock of its pipe, on which the interpreter would stumble.
    os._exit(code)
