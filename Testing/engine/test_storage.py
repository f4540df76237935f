"""Whatever stops a publication, and wherever: the state before it stays whole."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_registry import new_registry, publish, stage_task

import wbcss
from wbcss import storage
from wbcss.errors import OutputError, RegistryError
from wbcss.labels import OrganName, TaskId
from wbcss.registry import Registry, StagedTask

CHANGING = ("open", "mkdir", "write", "fsync", "rename", "replace", "unlink")
NUM_CALLS_AFTER_RENAME = 4  # two folders are opened and synced
NUM_CALLS_AFTER_LEDGER = 2  # its folder is opened and synced
DEAD_PID = 2**22 + 1  # above the largest process number Linux gives


class Killed(BaseException):
    """Stands for the death of the process: nothing after it reaches the disk."""


class FailingSystem:
    """The system calls of ``storage``, of which number ``fail_at`` does not happen.

    With ``error`` None the process is dead from there on, else the call raises it and the others work.
    """

    def __init__(self, *, fail_at: int, error: OSError | None = None, half: bool = False) -> None:
        self.num_calls = 0
        self.dead = False
        self._fail_at, self._error, self._half = fail_at, error, half

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name) if name not in CHANGING else lambda *args: self._call(name, *args)

    def _call(self, name: str, *args: Any) -> Any:
        if self.dead:
            raise Killed
        self.num_calls += 1
        if self.num_calls == self._fail_at:
            if self._half and name == "write":
                os.write(args[0], bytes(args[1])[: len(args[1]) // 2])
            if self._error is not None:
                raise self._error
            self.dead = True
            raise Killed
        return getattr(os, name)(*args)

    def rmtree(self, path: Path, *, ignore_errors: bool) -> None:
        """Stands for ``shutil.rmtree``: the dead delete nothing."""
        if not self.dead:
            for child in sorted(path.rglob("*"), reverse=True):
                child.unlink()
            path.rmdir()


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process wrote outlives it without a sync; only a power cut needs one, and it is slow."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = new_registry(tmp_path / "registry")
    publish(registry, "liver")
    return registry


Change = Callable[[Registry, StagedTask], object]
CHANGES: dict[str, Change] = {
    "publish": lambda registry, staged: registry.publish(staged),
    "retire": lambda registry, staged: registry.retire(TaskId("liver")),
    "allocate": lambda registry, staged: registry.allocate_labels([OrganName("x_stent")]),
}


def count_calls(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    system = FailingSystem(fail_at=0)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "os", system)
        work()
    return system.num_calls


def prepared(folder: Path) -> tuple[Registry, StagedTask]:
    """A registry with a published task, and a new one staged that brings a custom organ."""
    sample = folder.parent / "prepared"
    if not sample.exists():
        sample.mkdir()
        publish(new_registry(sample / "registry"), "liver")
    shutil.copytree(sample, folder)
    registry = Registry(folder / "registry")
    return registry, stage_task(registry, "bones", {"x_bone": 10001}, seed=3)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_a_crash_between_any_two_file_operations_leaves_the_old_state_or_the_new_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, half: bool
) -> None:
    change = CHANGES[name]
    sample, staged = prepared(tmp_path / "sample")
    num_calls = count_calls(monkeypatch, lambda: change(sample, staged))
    num_visible = 0
    for fail_at in range(1, num_calls + 1):
        registry, staged = prepared(tmp_path / str(fail_at))
        before = registry.fingerprint()
        system = FailingSystem(fail_at=fail_at, half=half)
        with monkeypatch.context() as patch:
            patch.setattr(storage, "os", system)
            patch.setattr(storage, "shutil", system)
            with pytest.raises(Killed):
                change(registry, staged)
        after = Registry(registry.root)
        assert after.verify() == [], fail_at
        assert {path: after.fingerprint()[path] for path in before} == before, fail_at
        assert after.card(TaskId("liver"), version=1).version == 1
        visible = "bones" in [card.task for card in after.tasks()]
        assert len(after.fingerprint()) == len(before) + 2 * visible, fail_at
        num_visible += visible
        with monkeypatch.context() as patch:  # the next writer finds the owner of the leftovers dead
            patch.setattr(storage, "is_process_alive", lambda pid: False)
            publish(after, "heart", {"x_valve": 10007}, seed=5)
        assert after.verify() == []
        assert after.notes() == [], fail_at
    assert num_calls >= {"publish": 15, "retire": 4, "allocate": 4}[name]
    # Visible from the rename on: only a death in the syncs that follow it leaves the new state.
    assert num_visible == (NUM_CALLS_AFTER_RENAME if name == "publish" else 0)


def refusal_of_publishing(registry: Registry, staged: StagedTask) -> str:
    """The message of the OutputError, empty if there was none."""
    try:
        registry.publish(staged)
    except OutputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_refusal_by_the_system_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    sample, staged = prepared(tmp_path / "sample")
    num_calls = count_calls(monkeypatch, lambda: sample.publish(staged))
    num_refused = 0
    for fail_at in range(1, num_calls + 1):
        registry, staged = prepared(tmp_path / str(fail_at))
        system = FailingSystem(fail_at=fail_at, error=OSError(code, os.strerror(code)))
        with monkeypatch.context() as patch:
            patch.setattr(storage, "os", system)
            refusal = refusal_of_publishing(registry, staged)
        if refusal:
            assert re.match(rf"cannot write into the registry .*registry: {os.strerror(code)}; ", refusal)
            num_refused += 1
        assert len(registry.tasks()) == (1 if refusal else 2), fail_at
        assert (registry.verify(), registry.notes()) == ([], []), fail_at
    assert num_refused == num_calls - NUM_CALLS_AFTER_RENAME - NUM_CALLS_AFTER_LEDGER


def test_what_reads_back_differently_is_not_published(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = stage_task(registry, "bones", {"x_bone": 10001})
    with monkeypatch.context() as patch:
        patch.setattr(storage, "sha256_file", lambda path: "00" * 32)
        with pytest.raises(
            RegistryError, match=r"card\.json must read back with SHA-256 \w{64}, got 0{64}; check the disk"
        ):
            registry.publish(staged)
    assert [card.task for card in registry.tasks()] == ["liver"]
    assert registry.notes() == []


def test_every_file_is_on_the_disk_before_the_rename_and_the_names_after_it(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = stage_task(registry, "bones", {"x_bone": 10001})
    names: dict[int, str] = {}
    events: list[str] = []

    class Recording:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def open(self, path: Path, *args: Any) -> int:
            handle = os.open(path, *args)
            names[handle] = "staging" if path.name.startswith(".staging") and path.is_dir() else path.name
            return handle

        def fsync(self, handle: int) -> None:
            events.append(f"sync {names[handle]}")

        def rename(self, source: Path, target: Path) -> None:
            events.append("rename")
            os.rename(source, target)  # noqa: PTH104

    with monkeypatch.context() as patch:
        patch.setattr(storage, "os", Recording())
        registry.publish(staged)
    at = events.index("rename")
    assert {"sync decoder.safetensors", "sync card.json", "sync staging"} <= set(events[:at])
    assert events.index("sync staging") > events.index("sync card.json")
    assert events[at:] == ["rename", "sync bones", "sync registry"]


# Leftovers


def test_staging_folders_of_the_dead_are_removed_and_those_of_the_living_stay(registry: Registry) -> None:
    dead = registry.root / f".staging-{DEAD_PID}-0123456789ab"
    alive = registry.root / f".staging-{os.getpid()}-0123456789ab"
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "card.json").write_text("half a car")
    (registry.root / f".staging-{DEAD_PID}-ff.tmp").write_text("half a ledger")
    assert registry.verify() == []
    assert sorted(registry.notes()) == sorted(
        [
            f"{alive.name} was prepared by process {os.getpid()} and never published; is still being written",
            f"{dead.name} was prepared by process {DEAD_PID} and never published; the next publication removes it",
            f".staging-{DEAD_PID}-ff.tmp was prepared by process {DEAD_PID} and never published; the next publication "
            "removes it",
        ]
    )
    publish(registry, "bones")
    assert storage.staging_leftovers(registry.root) == [alive]


def test_the_living_are_told_from_the_dead() -> None:
    assert storage.is_process_alive(os.getpid())
    assert storage.is_process_alive(1)
    assert not storage.is_process_alive(DEAD_PID)
    assert not storage.is_process_alive(10**30)


# Several processes


def test_a_second_writer_waits_and_then_gives_up(registry: Registry) -> None:
    with storage.locked(registry.root):
        start = time.monotonic()
        message = r"must be free for writing, but another process has been writing into it for more than 0\.1 s"
        with pytest.raises(OutputError, match=message), storage.locked(registry.root, timeout_s=0.1):
            pass
        assert 0.1 <= time.monotonic() - start < 2
    with storage.locked(registry.root, timeout_s=0):
        pass


def publish_many(root: Path, task: str, label: int, count: int) -> list[int]:
    """Runs in a process of its own."""
    registry = Registry(root)
    staged = stage_task(registry, task, {f"x_{task}": label}, seed=label)
    return [registry.publish(staged).sequence for _ in range(count)]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_publishing_at_once_do_not_disturb_each_other(registry: Registry) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        jobs = [pool.submit(publish_many, registry.root, f"task{n}", 10010 + n, 12) for n in range(2)]
        sequences = [job.result() for job in jobs]
    assert sorted(sequences[0] + sequences[1]) == list(range(2, 26))
    assert all(list(run) == sorted(run) for run in sequences)
    assert registry.versions(TaskId("task0")) == registry.versions(TaskId("task1")) == tuple(range(1, 13))
    assert registry.verify() == []
    assert registry.notes() == []


def publish_same(root: Path, seed: int) -> str:
    """Runs in a process of its own."""
    registry = Registry(root)
    try:
        publish(registry, "same", {"x_same": 10020}, seed=seed, version=1)
    except RegistryError as error:
        return str(error)
    return "published"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_of_two_processes_publishing_the_same_version_one_wins(registry: Registry) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        answers = sorted(job.result() for job in [pool.submit(publish_same, registry.root, n) for n in (7, 8)])
    assert answers[1].startswith("same@1 is already published") or answers[0].startswith("same@1 is already published")
    assert "published" in answers
    assert registry.verify() == []


CHILD = """
import sys
from pathlib import Path
from tiny_registry import stage_task
from wbcss.registry import Registry
registry = Registry(Path(sys.argv[1]))
staged = stage_task(registry, "bones", {"x_bone": 10001}, seed=3)
print("ready", flush=True)
while True:
    print(registry.publish(staged).version, flush=True)
"""


@pytest.fixture
def publishing(registry: Registry) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts processes that publish one version after the other until they are killed."""
    search = os.pathsep.join([str(Path(wbcss.__file__).parents[1]), str(Path(__file__).parents[1])])
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CHILD, str(registry.root)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": search})
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_publisher_killed_at_ten_random_moments_leaves_a_sound_registry(
    registry: Registry, publishing: Callable[[], subprocess.Popen[str]], rng: np.random.Generator
) -> None:
    before = registry.fingerprint()
    last = 0
    for _ in range(10):
        child = publishing()
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert int(child.stdout.readline()) == last + 1
        time.sleep(float(rng.uniform(0, 0.12)))
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        with child.stdout:
            told = [int(line) for line in child.stdout.read().split()]
        after = Registry(registry.root)
        assert after.verify() == []
        versions = after.versions(TaskId("bones"))
        assert versions == tuple(range(1, len(versions) + 1))
        assert len(versions) >= max([last, *told])  # what was reported as published is there
        last = len(versions)
        assert {path: after.fingerprint()[path] for path in before} == before
        before = after.fingerprint()
    publish(registry, "heart", {"x_valve": 10007})
    assert last > 0
    assert registry.verify() == []
    assert registry.notes() == []
