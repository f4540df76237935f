"""The worker as a process of its own: how fast it answers, when it dies, and what never reaches its host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_scan import make_registry, write_scan
from worker_host import PATIENCE_S, Host, segment_request

from wbcss import protocol

ROOM = Path(__file__).resolve().parents[2] / "WholeBodyCSS"


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
    requests = protocol.encode(protocol.Hello()) + protocol.encode(segment_request())
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
            host.send(
                segment_request("s", input=str(scan), output=str(path), registry=str(registry.root), organs=("liver",))
            )
            result = host.receive_until(protocol.Result)
            host.send(protocol.Shutdown())
            assert isinstance(host.receive(), protocol.Goodbye)
        assert process.wait(600) == 0
        host.collector.join(PATIENCE_S)
    assert result.labels is not None
    assert result.labels.shape == (6, 6, 6)
    assert sorted(path.name for path in folder.iterdir()) == ["ü.npy", "ü.report.json", "снимок.nii.gz"]
