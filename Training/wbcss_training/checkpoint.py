"""Training state on disk: safetensors and JSON, written whole or not at all, nothing unpickled."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from wbcss.errors import RunError

KEPT = 2
"""Checkpoints kept: the newest, and the one before in case the disk lost the newest."""


def save_checkpoint(
    folder: Path, *, step: int, learner: nn.Module, average: AveragedModel, optimizer: torch.optim.Optimizer
) -> Path:
    """Write the state after ``step`` optimizer steps to ``folder/step-NNNNNNN`` and drop all but the newest two."""
    final = folder / f"step-{step:07d}"
    staging = folder / f".staging-{os.getpid()}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    tensors = {f"learner.{key}": value for key, value in learner.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in average.state_dict().items()}
    tensors |= _optimizer_tensors(learner, optimizer)
    save_file({key: value.detach().contiguous().cpu() for key, value in tensors.items()}, staging / "state.safetensors")
    (staging / "state.json").write_text(json.dumps({"step": step}))
    for path in staging.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(final, ignore_errors=True)
    staging.rename(final)
    for old in _checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)
    return final


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if (path / "state.json").is_file())


def load_checkpoint(
    folder: Path, *, learner: nn.Module, average: AveragedModel, optimizer: torch.optim.Optimizer
) -> int:
    """Restore the newest checkpoint in ``folder`` and return its step; 0 when there is none.

    Raises:
        RunError: the checkpoint belongs to other networks than the run's.
    """
    found = _checkpoints(folder)
    if not found:
        return 0
    facts: dict[str, Any] = json.loads((found[-1] / "state.json").read_text())
    tensors = load_file(found[-1] / "state.safetensors")
    parts: dict[str, dict[str, torch.Tensor]] = {"learner": {}, "average": {}, "optimizer": {}}
    for key, value in tensors.items():
        part, _, name = key.partition(".")
        parts[part][name] = value
    try:
        learner.load_state_dict(parts["learner"])
        average.load_state_dict(parts["average"])
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"the checkpoint {found[-1].name} does not fit the networks of this run: {reason}") from error
    _restore_optimizer(learner, optimizer, parts["optimizer"])
    return int(facts["step"])


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
