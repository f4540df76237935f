"""Training state that survives being killed at any moment."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_training
import torch
from torch.optim.swa_utils import AveragedModel

from wbcss.errors import RunError
from wbcss_training import checkpoint
from wbcss_training.checkpoint import load_checkpoint, save_checkpoint
from wbcss_training.learner import Learner


@dataclass
class State:
    learner: Learner
    average: AveragedModel
    optimizer: torch.optim.Optimizer

    def step(self) -> None:
        patch = tiny_training.BoxPatches().patch(0)
        self.optimizer.zero_grad()
        self.learner(tiny_training.TASK, [patch], step=0, generator=torch.Generator().manual_seed(0)).backward()
        self.optimizer.step()
        self.average.update_parameters(self.learner)

    def save(self, folder: Path, step: int) -> Path:
        return save_checkpoint(folder, step=step, learner=self.learner, average=self.average, optimizer=self.optimizer)

    def load(self, folder: Path) -> int:
        return load_checkpoint(folder, learner=self.learner, average=self.average, optimizer=self.optimizer)

    def tensors(self) -> dict[str, torch.Tensor]:
        moments = {
            f"{name}.{key}": value
            for name, parameter in self.learner.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        return {**self.learner.state_dict(), **{f"a.{k}": v for k, v in self.average.state_dict().items()}, **moments}


def new_state(*, num_organs: int = 3, seed: int = 0) -> State:
    learner = tiny_training.learner(num_organs=num_organs, seed=seed)
    return State(learner, AveragedModel(learner), torch.optim.AdamW(learner.parameters(), lr=1e-2))


def assert_equal(first: State, second: State) -> None:
    one, other = first.tensors(), second.tensors()
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def test_a_saved_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved, loaded = new_state(), new_state(seed=9)
    saved.step()
    assert saved.save(tmp_path, 7) == tmp_path / "step-0000007"
    assert loaded.load(tmp_path) == 7
    assert_equal(saved, loaded)
    saved.step()
    loaded.step()
    assert_equal(saved, loaded)


def test_an_empty_folder_starts_at_step_0(tmp_path: Path) -> None:
    assert new_state().load(tmp_path / "none") == 0


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    state = new_state()
    for step in (1, 2, 10, 300):
        state.save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000010", "step-0000300"]


def test_a_checkpoint_holds_safetensors_and_json_only(tmp_path: Path) -> None:
    folder = new_state().save(tmp_path, 1)
    assert sorted(path.name for path in folder.iterdir()) == ["state.json", "state.safetensors"]
    assert json.loads((folder / "state.json").read_text()) == {"step": 1}


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = new_state()
    state.step()
    state.save(tmp_path, 1)
    unpickled = []
    monkeypatch.setattr("pickle.load", unpickled.append)
    monkeypatch.setattr("pickle.loads", unpickled.append)
    monkeypatch.setattr("torch.load", unpickled.append)
    assert new_state().load(tmp_path) == 1
    assert unpickled == []


def test_another_network_is_refused_by_the_name_of_what_differs(tmp_path: Path) -> None:
    new_state(num_organs=3).save(tmp_path, 4)
    with pytest.raises(
        RunError, match=r"step-0000004 does not fit the networks of this run: .*size mismatch for .*head"
    ):
        new_state(num_organs=2).load(tmp_path)


def test_a_stray_staging_folder_is_ignored_and_cleared_away(tmp_path: Path) -> None:
    state = new_state()
    state.save(tmp_path, 1)
    stray = tmp_path / ".staging-99999"
    shutil.copytree(tmp_path / "step-0000001", stray)
    (stray / "state.json").write_text('{"step": 50}')
    assert new_state().load(tmp_path) == 1
    state.save(tmp_path, 2)
    assert not stray.exists()


@pytest.mark.parametrize("damage", ["truncate", "json", "missing"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    first, second = new_state(), new_state(seed=3)
    first.save(tmp_path, 1)
    newest = second.save(tmp_path, 2)
    if damage == "truncate":
        os.truncate(newest / "state.safetensors", 1000)
    elif damage == "json":
        (newest / "state.json").write_text("{")
    else:
        (newest / "state.safetensors").unlink()
    loaded = new_state(seed=5)
    assert loaded.load(tmp_path) == 1
    assert_equal(first, loaded)


def test_when_no_checkpoint_can_be_read_they_are_named(tmp_path: Path) -> None:
    for step in (1, 2):
        os.truncate(new_state().save(tmp_path, step) / "state.safetensors", 10)
    with pytest.raises(RunError, match=r"no checkpoint in .* can be read \(tried step-0000001, step-0000002\)"):
        new_state().load(tmp_path)


def test_a_full_disk_is_told_and_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = new_state()
    state.save(tmp_path, 1)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunError, match=r"checkpoint of step 2 cannot be written .*No space left on device"):
        state.save(tmp_path, 2)
    assert new_state().load(tmp_path) == 1


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def kill_after(monkeypatch: pytest.MonkeyPatch, operations: int) -> list[str]:
    """Let ``operations`` file operations happen and die at the next one. Returns the names of those that happened."""
    done: list[str] = []

    def wrap(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            if sys._getframe(1).f_code.co_filename == checkpoint.__file__ or owner is os:
                if len(done) == operations:
                    raise Killed
                done.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    for name in ("mkdir", "rename", "write_text"):
        wrap(Path, name)
    for name in ("unlink", "rmdir", "fsync"):
        wrap(os, name)
    wrap(checkpoint, "save_file")
    return done


@pytest.mark.parametrize("again", [False, True], ids=["new step", "same step"])
def test_killed_between_any_two_file_operations_a_whole_checkpoint_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    states = {step: new_state(seed=step) for step in (1, 2, 3)}
    last = 2 if again else 3
    survived: list[int] = []
    for operations in range(60):
        folder = tmp_path / f"killed-{operations}"
        for step in (1, 2):
            states[step].save(folder, step)
        with monkeypatch.context() as patched:
            done = kill_after(patched, operations)
            try:
                states[last].save(folder, last)
            except Killed:
                pass
            else:
                break
        loaded = new_state(seed=8)
        survived.append(loaded.load(folder))
        assert_equal(states[survived[-1]], loaded)
        states[last].save(folder, last)  # and the next one works
        assert loaded.load(folder) == last
    assert len(done) > 10
    assert survived[0] == 2
    assert survived[-1] == last
