"""Training state on disk: safetensors and JSON, written whole or not at all, nothing unpickled."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from wbcss.errors import RunError

_log = logging.getLogger(__name__)

KEPT = 2
"""Checkpoints kept: the newest, and the one before in case the disk lost the newest."""

_HIDDEN = ".staging-"
"""Folders being written or removed start with this; nothing reads them, and the next checkpoint clears them away."""


def save_checkpoint(
    folder: Path, *, step: int, learner: nn.Module, average: AveragedModel, optimizer: torch.optim.Optimizer
) -> Path:
    """Write the state after ``step`` optimizer steps to ``folder/step-NNNNNNN`` and drop all but the newest two.

    Only renames make or remove a checkpoint, so a process killed at any moment leaves whole ones. Only one process
    may write to ``folder``. Raises RunError if the disk refuses.
    """
    final = folder / f"step-{step:07d}"
    staging = folder / f"{_HIDDEN}{os.getpid()}"
    tensors = {f"learner.{key}": value for key, value in learner.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in average.state_dict().items()}
    tensors |= _optimizer_tensors(learner, optimizer)
    try:
        for stray in folder.glob(f"{_HIDDEN}*"):
            shutil.rmtree(stray)
        staging.mkdir(parents=True)
        save_file({key: _stored(value) for key, value in tensors.items()}, staging / "state.safetensors")
        (staging / "state.json").write_text(json.dumps({"step": step}))
        for path in (*staging.iterdir(), staging):
            _flush(path)
        if final.exists():
            _hide(final)
        staging.rename(final)
        _flush(folder)
        for old in _checkpoints(folder)[:-KEPT]:
            _hide(old)
        for hidden in folder.glob(f"{_HIDDEN}*"):
            shutil.rmtree(hidden)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"the checkpoint of step {step} cannot be written to {folder}: {error}; free some space or permit writing, "
            "then go on with --resume"
        ) from error
    return final


def _stored(value: torch.Tensor) -> torch.Tensor:
    return value.detach().contiguous().cpu()


def _hide(checkpoint: Path) -> None:
    """Take a checkpoint away in one rename: half-deleted, it would pass for a whole one."""
    checkpoint.rename(checkpoint.with_name(f"{_HIDDEN}{os.getpid()}-{checkpoint.name}"))


def _flush(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut, where the system lets it be opened for that."""
    with contextlib.suppress(PermissionError):  # Windows opens no folders
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if (path / "state.json").is_file())


def load_checkpoint(
    folder: Path, *, learner: nn.Module, average: AveragedModel, optimizer: torch.optim.Optimizer
) -> int:
    """Restore the newest readable checkpoint in ``folder`` and return its step; 0 when there is none.

    Raises:
        RunError: the checkpoint belongs to other networks than the run's, or none of several can be read.
    """
    found = _checkpoints(folder)
    if not found:
        return 0
    for name, step, tensors in _readable(found):
        parts: dict[str, dict[str, torch.Tensor]] = {"learner": {}, "average": {}, "optimizer": {}}
        for key, value in tensors.items():
            part, _, rest = key.partition(".")
            parts[part][rest] = value
        try:
            learner.load_state_dict(parts["learner"])
            average.load_state_dict(parts["average"])
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise RunError(f"the checkpoint {name} does not fit the networks of this run: {reason}") from error
        _restore_optimizer(learner, optimizer, parts["optimizer"])
        return step
    names = ", ".join(path.name for path in found)
    raise RunError(f"no checkpoint in {folder} can be read (tried {names}); restore them or start a new run folder")


def _readable(found: list[Path]) -> Iterator[tuple[str, int, dict[str, torch.Tensor]]]:
    """Name, step and tensors of the checkpoints that can be read, newest first."""
    for path in reversed(found):
        try:
            step = int(json.loads((path / "state.json").read_text())["step"])
            yield path.name, step, load_file(path / "state.safetensors")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            _log.warning("the checkpoint %s cannot be read (%s); trying the one before", path.name, error)


def _optimizer_tensors(learner: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Moments of every parameter, named after it."""
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in learner.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    return tensors


def _restore_optimizer(learner: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    parameters = dict(learner.named_parameters())
    for full_name, value in tensors.items():
        key, _, name = full_name.partition(".")
        parameter = parameters[name]
        same = value if key == "step" else torch.empty_like(parameter).copy_(value)
        optimizer.state[parameter][key] = same
