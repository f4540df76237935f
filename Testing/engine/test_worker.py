"""The worker: what it answers, how fast, and when it dies."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from tiny_scan import fix_backend, make_registry, write_scan

from wbcss import job, protocol
from wbcss.errors import Cancelled
from wbcss.worker import Worker

ROOM = Path(__file__).resolve().parents[2] / "WholeBodyCSS"
PATIENCE_S = 60.0


class Host:
    """The other side of the pipes: sends requests and collects replies."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes], *, patience_s: float = PATIENCE_S) -> None:
        self.requests = requests
        self._patience_s = patience_s
        self._replies: queue.Queue[protocol.Reply | None] = queue.Queue()
        self.collector = threading.Thread(target=self._collect, args=(replies,), daemon=True)
        self.collector.start()

    def _collect(self, replies: IO[bytes]) -> None:
        for line in replies:
            self._replies.put(protocol.parse_reply(line))
        self._replies.put(None)

    def send(self, request: protocol.Request) -> None:
        self.send_line(protocol.encode(request).encode())

    def send_line(self, line: bytes) -> None:
        self.requests.write(line)
        self.requests.flush()

    def receive(self) -> protocol.Reply | None:
        """The next reply, or None when the worker has closed its side."""
        return self._replies.get(timeout=self._patience_s)

    def receive_until(self, kind: type[Any]) -> Any:
        while not isinstance(reply := self.receive(), kind):
            assert reply is not None, f"the worker left before any {kind.__name__}"
        return reply


class EndlessJob:
    """Stands in for ``run_job``: runs until it is cancelled or told to end."""

    def __init__(self) -> None:
        self.started: queue.Queue[job.SegmentJob] = queue.Queue()
        self.warm: list[Any] = []
        self.end = threading.Event()

    def __call__(
        self, job: job.SegmentJob, *, warm: Any, report: Any, cancelled: Callable[[], bool], job_id: str
    ) -> protocol.Result:
        self.started.put(job)
        self.warm.append(warm)
        report(0.5, "network", 10.0)
        while not self.end.wait(0.01):
            if cancelled():
                raise Cancelled("cancelled; nothing was written")
        return protocol.Result(id=job_id, files={"labels": str(job.output)})


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> EndlessJob:
    made = EndlessJob()
    monkeypatch.setattr(job, "run_job", made)
    return made


@pytest.fixture
def host() -> Iterator[Host]:
    """A worker in threads of this process, which is gone after the test."""
    (request_end, requests), (reply_end, replies) = os.pipe(), os.pipe()
    stopped = threading.Event()
    out = os.fdopen(replies, "wb")

    def serve() -> None:
        worker.serve()
        out.close()

    with os.fdopen(request_end, "rb") as incoming, os.fdopen(reply_end, "rb") as outgoing:
        worker = Worker(incoming, out, on_stop=stopped.set)
        thread = threading.Thread(target=serve)
        thread.start()
        host = Host(os.fdopen(requests, "wb"), outgoing)
        yield host
        host.requests.close()
        thread.join(PATIENCE_S)
        host.collector.join(PATIENCE_S)
    assert not thread.is_alive()
    assert stopped.is_set()


def _segment(name: str = "s1", **changes: Any) -> protocol.SegmentRequest:
    return protocol.SegmentRequest(**{"id": name, "input": "/in/ct.nii.gz", "output": "/out/ct.seg.nrrd", **changes})


def test_hello_tells_version_and_process(host: Host) -> None:
    host.send(protocol.Hello(id="h"))
    reply = host.receive()
    assert isinstance(reply, protocol.HelloReply)
    assert (reply.id, reply.pid, reply.busy) == ("h", os.getpid(), False)


def test_a_segmentation_reports_progress_and_one_result(host: Host, endless: EndlessJob) -> None:
    host.send(_segment(organs=("liver",), quality="fast", threads=2, statistics=True))
    asked = endless.started.get(timeout=PATIENCE_S)
    endless.end.set()
    assert (asked.input, asked.output) == (Path("/in/ct.nii.gz"), Path("/out/ct.seg.nrrd"))
    assert (asked.organs, asked.quality, asked.threads, asked.statistics) == (("liver",), "fast", 2, True)
    assert host.receive() == protocol.Progress(id="s1", fraction=0.5, stage="network", remaining_s=10.0)
    assert host.receive() == protocol.Result(id="s1", files={"labels": "/out/ct.seg.nrrd"})


def test_a_second_segmentation_is_refused_as_busy_and_the_first_goes_on(host: Host, endless: EndlessJob) -> None:
    host.send(_segment("first"))
    endless.started.get(timeout=PATIENCE_S)
    host.send(_segment("second"))
    error = host.receive_until(protocol.ErrorReply)
    assert (error.id, error.kind) == ("second", "busy")
    assert "first" in error.message
    host.send(protocol.Hello())
    assert host.receive_until(protocol.HelloReply).busy is True
    endless.end.set()
    assert host.receive_until(protocol.Result).id == "first"


def test_the_next_segmentation_gets_the_same_warm_model(host: Host, endless: EndlessJob) -> None:
    endless.end.set()
    for name in ("one", "two"):
        host.send(_segment(name))
        assert host.receive_until(protocol.Result).id == name
    assert endless.warm[0] is endless.warm[1]


def test_a_cancel_is_answered_and_obeyed_within_a_second(host: Host, endless: EndlessJob) -> None:
    seconds = []
    for name in ("one", "two", "three"):  # the best of three, for machines that are busy with something else
        host.send(_segment(name))
        endless.started.get(timeout=PATIENCE_S)
        started_s = time.monotonic()
        host.send(protocol.Cancel(id=name))
        assert host.receive_until(protocol.Cancelling) == protocol.Cancelling(id=name, running=True)
        error = host.receive_until(protocol.ErrorReply)
        seconds.append(time.monotonic() - started_s)
        assert (error.id, error.kind, error.exit_code) == (name, "cancelled", 130)
    assert min(seconds) < 1


def test_a_cancel_for_another_job_stops_nothing(host: Host, endless: EndlessJob) -> None:
    host.send(protocol.Cancel())
    assert host.receive() == protocol.Cancelling(running=False)
    host.send(_segment("mine"))
    endless.started.get(timeout=PATIENCE_S)
    host.send(protocol.Cancel(id="other"))
    assert host.receive_until(protocol.Cancelling) == protocol.Cancelling(id="other", running=False)
    endless.end.set()
    assert host.receive_until(protocol.Result).id == "mine"


MALFORMED = [
    b"liver please\n",
    b'{"protocol": 1, "type": "explode", "id": "x"}\n',
    b'{"protocol": 9, "type": "hello", "id": "x"}\n',
    b'{"protocol": 1, "type": "segment", "id": "x", "input": "relative", "output": "/o.nii.gz"}\n',
    b"\xff\xfe\x00\n",
    b"[" * 50_000 + b"\n",
    b'{"protocol": 1, "type": "hello", "id": "' + b"x" * (2 << 20) + b'"}\n',
]


@pytest.mark.parametrize("line", MALFORMED, ids=["text", "type", "version", "path", "bytes", "depth", "length"])
def test_a_malformed_line_is_answered_and_the_next_one_too(host: Host, line: bytes) -> None:
    host.send_line(line)
    error = host.receive()
    assert isinstance(error, protocol.ErrorReply)
    assert error.kind == "protocol"
    host.send(protocol.Hello(id="still here"[:5]))
    assert isinstance(host.receive(), protocol.HelloReply)


def test_an_empty_line_is_nothing(host: Host) -> None:
    host.send_line(b"\n  \n")
    host.send(protocol.Hello(id="h"))
    reply = host.receive()
    assert isinstance(reply, protocol.HelloReply)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(RuntimeError("a\nb"), "unexpected"), (MemoryError(), "unexpected"), (OSError("x"), "unexpected")],
)
def test_a_crash_of_a_segmentation_is_answered_and_survived(
    host: Host, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str
) -> None:
    def crash(*args: Any, **named: Any) -> Any:
        raise error

    monkeypatch.setattr(job, "run_job", crash)
    host.send(_segment())
    reply = host.receive()
    assert isinstance(reply, protocol.ErrorReply)
    assert (reply.id, reply.kind, reply.exit_code) == ("s1", kind, 3)
    host.send(protocol.Hello())
    assert isinstance(host.receive(), protocol.HelloReply)


def test_an_organ_name_that_cannot_be_one_is_answered(host: Host) -> None:
    host.send(_segment(organs=("two words",)))
    reply = host.receive()
    assert isinstance(reply, protocol.ErrorReply)
    assert reply.kind == "label_space"
    assert "'two words'" in reply.message


def test_organs_and_diagnosis_come_from_the_named_registry(host: Host, tmp_path: Path) -> None:
    registry = make_registry(tmp_path / "registry")
    host.send(protocol.ListOrgans(id="l", registry=str(registry.root)))
    organs = host.receive_until(protocol.Organs)
    assert {item.name: (item.label, item.tasks) for item in organs.organs} == {
        "liver": (5, ("trunk", "head")),
        "spleen": (1, ("trunk",)),
        "brain": (90, ("head",)),
        "skull": (91, ("head",)),
    }
    host.send(protocol.DoctorRequest(id="d", registry=str(registry.root)))
    diagnosis = host.receive_until(protocol.DoctorReply).diagnosis
    assert diagnosis["registry"]["tasks"] == ["trunk@1", "head@1"]


def test_a_broken_registry_is_answered(host: Host, tmp_path: Path) -> None:
    (tmp_path / "tasks").write_text("no folder")
    host.send(_segment(registry=str(tmp_path), output=str(tmp_path / "ct.nii.gz")))
    reply = host.receive()
    assert isinstance(reply, protocol.ErrorReply)
    assert (reply.kind, reply.exit_code) == ("registry", 2)


def test_shutdown_cancels_and_says_goodbye(host: Host, endless: EndlessJob) -> None:
    host.send(_segment())
    endless.started.get(timeout=PATIENCE_S)
    host.send(protocol.Shutdown(id="bye"))
    assert host.receive_until(protocol.ErrorReply).kind == "cancelled"
    assert host.receive() == protocol.Goodbye(id="bye")
    assert host.receive() is None


def test_the_end_of_the_input_means_that_the_host_is_gone(host: Host, endless: EndlessJob) -> None:
    host.send(_segment())
    endless.started.get(timeout=PATIENCE_S)
    host.requests.close()
    assert host.receive_until(protocol.ErrorReply).kind == "cancelled"
    assert isinstance(host.receive(), protocol.Goodbye)
    assert host.receive() is None


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOM), "OMP_NUM_THREADS": "1"}


def _start(*options: str, **named: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *options, "-m", "wbcss.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(),
        **named,
    )


def _processor_seconds_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def test_a_process_says_hello_with_a_second_of_work_and_without_torch() -> None:
    """Counted in processor time: the wall clock would measure whatever else this machine does."""
    before_s = _processor_seconds_of_children()
    with _start("-X", "importtime", stderr=subprocess.PIPE) as process:
        line, log = process.communicate(protocol.encode(protocol.Hello(id="h")).encode(), timeout=PATIENCE_S)
    assert _processor_seconds_of_children() - before_s < 1
    assert json.loads(line.splitlines()[0])["pid"] == process.pid
    assert process.returncode == 0
    imported = {line.rsplit(b"|", 1)[-1].strip() for line in log.splitlines()}
    assert b"wbcss.protocol" in imported
    assert not imported & {b"torch", b"SimpleITK", b"scipy"}


PARENT = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-m", "wbcss.worker"], stdin=int(sys.argv[1]), close_fds=False)
time.sleep(600)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows does not reparent orphans; there the end of the input tells")
def test_a_worker_dies_with_its_parent_even_if_somebody_else_holds_its_input() -> None:
    request_end, requests = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(request_end)],
        stdout=subprocess.PIPE,
        pass_fds=[request_end],
        env=_environment(),
    ) as parent:
        os.close(request_end)
        assert parent.stdout is not None
        host = Host(os.fdopen(requests, "wb"), parent.stdout)
        host.send(protocol.Hello())
        hello = host.receive()
        assert isinstance(hello, protocol.HelloReply)
        assert hello.pid != parent.pid
        parent.send_signal(signal.SIGKILL)
        parent.wait(PATIENCE_S)
        # The pipe of replies ends when the last process that holds it, the worker, is gone.
        assert isinstance(host.receive(), protocol.Goodbye)
        assert host.receive() is None
        host.requests.close()


NOISY = """
import multiprocessing, os, sys
from wbcss import job, protocol, worker
def run_job(job, *, job_id, **named):
    print("a library prints")
    child = multiprocessing.get_context("fork").Process(target=print, args=("so does its child",))
    child.start()
    child.join()
    os.write(1, b"so does C\\n")
    return protocol.Result(id=job_id, files={})
job.run_job = run_job
code = worker.main()
os._exit(code)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the child of the library is forked")
def test_what_libraries_print_never_reaches_the_host() -> None:
    command = [sys.executable, "-c", NOISY]
    requests = protocol.encode(protocol.Hello()) + protocol.encode(_segment())
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment()
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(requests.encode())
        process.stdin.flush()
        kinds = [protocol.parse_reply(process.stdout.readline()).type for _ in range(2)]
        rest, log = process.communicate(timeout=PATIENCE_S)
    assert kinds == ["hello_reply", "result"]
    assert [protocol.parse_reply(line).type for line in rest.splitlines()] == ["goodbye"]
    assert b"a library prints" in log
    assert b"so does C" in log
    assert b"so does its child" in log


def test_a_real_file_is_segmented_with_progress(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fix_backend(monkeypatch)
    registry = make_registry(tmp_path / "registry")
    scan = write_scan(tmp_path / "ct.nii.gz")
    output = tmp_path / "organs.seg.nrrd"
    host.send(_segment("s", input=str(scan), output=str(output), registry=str(registry.root)))
    assert isinstance(host.receive(), protocol.Progress)
    result = host.receive_until(protocol.Result)
    assert [row.organ for row in result.organs] == ["spleen", "liver", "brain", "skull"]
    assert all((row.center_ras_mm is None) == (row.voxels == 0) == (row.mean_hu is None) for row in result.organs)
    assert output.is_file()


def test_a_finished_file_is_not_segmented_again_on_resume(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fix_backend(monkeypatch)
    registry = make_registry(tmp_path / "registry")
    scan, output = write_scan(tmp_path / "ct.nii.gz"), tmp_path / "organs.seg.nrrd"
    again = _segment("s", input=str(scan), output=str(output), registry=str(registry.root), resume=True)
    skipped = []
    for _ in range(2):
        host.send(again)
        skipped.append(host.receive_until(protocol.Result).skipped)
    assert skipped == [False, True]
    output.unlink()
    host.send(again)
    assert not host.receive_until(protocol.Result).skipped


@pytest.mark.slow
def test_a_real_process_segments_a_real_file_under_a_foreign_name(tmp_path: Path) -> None:
    folder = tmp_path / "患者 Müller"
    registry = make_registry(tmp_path / "registry")
    scan = write_scan(folder / "снимок.nii.gz", (6, 6, 6))
    with _start() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        host = Host(process.stdin, process.stdout, patience_s=600)
        # Leaving the outer block on a failure would wait for a worker that waits for its input.
        with process.stdin:
            path = folder / "ü.npy"
            host.send(_segment("s", input=str(scan), output=str(path), registry=str(registry.root), organs=("liver",)))
            result = host.receive_until(protocol.Result)
            host.send(protocol.Shutdown())
            assert isinstance(host.receive(), protocol.Goodbye)
        assert process.wait(600) == 0
        host.collector.join(PATIENCE_S)
    assert result.labels is not None
    assert result.labels.shape == (6, 6, 6)
    assert sorted(path.name for path in folder.iterdir()) == ["ü.npy", "ü.report.json", "снимок.nii.gz"]
