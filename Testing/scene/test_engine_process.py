"""The owner of the worker: talks, notices deaths, stops what does not want to stop. No Slicer, no Qt."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wbcss.errors import RunError
from wbcss.protocol import ErrorReply, Goodbye, Hello, HelloReply, Reply
from WholeBodyCSSLib.EngineProcess import ENGINE_DIR, LOST, EngineProcess, workerEnvironment

GOODBYE = '{"protocol": 1, "type": "goodbye", "id": ""}'
ANSWERS = f"import sys\nfor line in sys.stdin: print('{GOODBYE}', flush=True)"
CHATTERS = f"import sys\nprint('Warning: no GPU')\nprint('{GOODBYE}', flush=True)\nsys.stdin.read()"
DIES = "import sys\nsys.stdin.readline()\nsys.stderr.write('first line\\nout of memory\\n')\nsys.exit(9)"
IS_DEAF = "import time\nprint('', flush=True)\ntime.sleep(600)"
SHOUTS = "import sys\nsys.stderr.write('x' * 1_000_000)\nprint('" + GOODBYE + "', flush=True)\nsys.stdin.read()"

Start = Callable[[str], EngineProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """Makes the owner of a worker that runs a script, and stops it after the test."""
    owners: list[EngineProcess] = []

    def make(script: str) -> EngineProcess:
        owners.append(EngineProcess([sys.executable, "-S", "-c", script]))
        return owners[-1]

    yield make
    for owner in owners:
        owner.stop(0.1)


def _wait(owner: EngineProcess, timeout_s: float = 60.0) -> list[Reply]:
    """Poll until something came."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        replies = owner.poll()
        if replies:
            return replies
        time.sleep(0.01)
    raise AssertionError(f"no reply within {timeout_s} s")


def test_the_real_worker_says_hello_and_ends_when_stopped() -> None:
    owner = EngineProcess()
    owner.send(Hello(id="1"))
    (reply,) = _wait(owner)
    assert isinstance(reply, HelloReply)
    assert reply.id == "1"
    owner.stop(30.0)
    assert not owner.isRunning


def test_nothing_is_started_before_the_first_message(start: Start) -> None:
    owner = start(ANSWERS)
    assert not owner.isRunning
    assert owner.poll() == []


def test_a_worker_that_died_is_reported_once_with_its_last_words_and_started_again(start: Start) -> None:
    owner = start(DIES)
    owner.send(Hello())
    (reply,) = _wait(owner)
    assert isinstance(reply, ErrorReply)
    assert reply.kind == LOST
    assert "exit code 9; out of memory" in reply.message
    assert owner.poll() == []
    assert not owner.isRunning
    owner.send(Hello())
    assert isinstance(_wait(owner)[0], ErrorReply)


def test_a_line_that_is_no_message_is_passed_over(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    owner = start(CHATTERS)
    owner.send(Hello())
    assert _wait(owner) == [Goodbye()]
    assert "Warning: no GPU" in caplog.text


def test_a_long_log_does_not_block_the_worker(start: Start) -> None:
    owner = start(SHOUTS)
    owner.send(Hello())
    assert _wait(owner) == [Goodbye()]


def test_a_worker_that_does_not_listen_is_ended(start: Start) -> None:
    owner = start(IS_DEAF)
    owner.send(Hello())
    owner.stop(0.2)
    assert not owner.isRunning
    assert owner.poll() == []


def test_a_missing_interpreter_is_an_error_with_its_name(tmp_path: Path) -> None:
    owner = EngineProcess([str(tmp_path / "NoPython")])
    with pytest.raises(RunError, match=r"cannot be started by .*NoPython"):
        owner.send(Hello())


def test_the_worker_finds_the_engine_and_speaks_utf_8() -> None:
    environment = workerEnvironment({"PYTHONPATH": "/theirs", "LANG": "C"})
    assert environment["PYTHONPATH"] == os.pathsep.join([str(ENGINE_DIR), "/theirs"])
    assert workerEnvironment({})["PYTHONPATH"] == str(ENGINE_DIR)
    assert (environment["PYTHONIOENCODING"], environment["PYTHONUNBUFFERED"]) == ("utf-8", "1")
    assert environment["LANG"] == "C"
