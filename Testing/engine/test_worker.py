"""The worker: what it answers, how fast, and when it dies."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_scan import fix_backend, make_registry, write_scan
from worker_host import PATIENCE_S, Host, segment_request

from wbcss import job, protocol
from wbcss.errors import Cancelled
from wbcss.worker import Worker


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


def test_hello_tells_version_and_process(host: Host) -> None:
    host.send(protocol.Hello(id="h"))
    reply = host.receive()
    assert isinstance(reply, protocol.HelloReply)
    assert (reply.id, reply.pid, reply.busy) == ("h", os.getpid(), False)


def test_a_segmentation_reports_progress_and_one_result(host: Host, endless: EndlessJob) -> None:
    host.send(segment_request(organs=("liver",), quality="fast", threads=2, statistics=True))
    asked = endless.started.get(timeout=PATIENCE_S)
    endless.end.set()
    assert (asked.input, asked.output) == (Path("/in/ct.nii.gz"), Path("/out/ct.seg.nrrd"))
    assert (asked.organs, asked.quality, asked.threads, asked.statistics) == (("liver",), "fast", 2, True)
    assert host.receive() == protocol.Progress(id="s1", fraction=0.5, stage="network", remaining_s=10.0)
    assert host.receive() == protocol.Result(id="s1", files={"labels": "/out/ct.seg.nrrd"})


def test_a_second_segmentation_is_refused_as_busy_and_the_first_goes_on(host: Host, endless: EndlessJob) -> None:
    host.send(segment_request("first"))
    endless.started.get(timeout=PATIENCE_S)
    host.send(segment_request("second"))
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
        host.send(segment_request(name))
        assert host.receive_until(protocol.Result).id == name
    assert endless.warm[0] is endless.warm[1]


def test_a_cancel_is_answered_and_obeyed_within_a_second(host: Host, endless: EndlessJob) -> None:
    seconds = []
    for name in ("one", "two", "three"):  # the best of three, for machines that are busy with something else
        host.send(segment_request(name))
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
    host.send(segment_request("mine"))
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
    host.send(segment_request())
    reply = host.receive()
    assert isinstance(reply, protocol.ErrorReply)
    assert (reply.id, reply.kind, reply.exit_code) == ("s1", kind, 3)
    host.send(protocol.Hello())
    assert isinstance(host.receive(), protocol.HelloReply)


def test_an_organ_name_that_cannot_be_one_is_answered(host: Host) -> None:
    host.send(segment_request(organs=("two words",)))
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
    host.send(segment_request(registry=str(tmp_path), output=str(tmp_path / "ct.nii.gz")))
    reply = host.receive()
    assert isinstance(reply, protocol.ErrorReply)
    assert (reply.kind, reply.exit_code) == ("registry", 2)


def test_shutdown_cancels_and_says_goodbye(host: Host, endless: EndlessJob) -> None:
    host.send(segment_request())
    endless.started.get(timeout=PATIENCE_S)
    host.send(protocol.Shutdown(id="bye"))
    assert host.receive_until(protocol.ErrorReply).kind == "cancelled"
    assert host.receive() == protocol.Goodbye(id="bye")
    assert host.receive() is None


def test_the_end_of_the_input_means_that_the_host_is_gone(host: Host, endless: EndlessJob) -> None:
    host.send(segment_request())
    endless.started.get(timeout=PATIENCE_S)
    host.requests.close()
    assert host.receive_until(protocol.ErrorReply).kind == "cancelled"
    assert isinstance(host.receive(), protocol.Goodbye)
    assert host.receive() is None


def test_a_real_file_is_segmented_with_progress(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fix_backend(monkeypatch)
    registry = make_registry(tmp_path / "registry")
    scan = write_scan(tmp_path / "ct.nii.gz")
    output = tmp_path / "organs.seg.nrrd"
    host.send(segment_request("s", input=str(scan), output=str(output), registry=str(registry.root)))
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
    again = segment_request("s", input=str(scan), output=str(output), registry=str(registry.root), resume=True)
    skipped = []
    for _ in range(2):
        host.send(again)
        skipped.append(host.receive_until(protocol.Result).skipped)
    assert skipped == [False, True]
    output.unlink()
    host.send(again)
    assert not host.receive_until(protocol.Result).skipped
