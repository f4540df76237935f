"""One explicit training loop: batches in, optimizer steps, checkpoints, bitwise resume, several processes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import distributed, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from wbcss.errors import RunError, SpecError
from wbcss.io.atomic import write_text
from wbcss.labels import TaskId
from wbcss.progress import IsCancelled, Progress, never, silent

from .checkpoint import load_checkpoint, save_checkpoint
from .config import TrainConfig
from .patches import Sample, SampleSource
from .processes import any_process, process_count, process_rank

Item = TypeVar("Item")

CHECKPOINTS = "checkpoints"
"""Folder of a run that holds its checkpoints."""

METRICS = "metrics.jsonl"
"""File of a run with one JSON line per logged step."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Patches of one task for one optimizer step of this process."""

    task: TaskId
    patches: Sequence[Sample]


@dataclass(frozen=True)
class StepBatches(Dataset[Batch]):
    """Step number to the batch of one process. The step alone decides, so any process can resume anywhere."""

    sources: Sequence[SampleSource]
    weights: Sequence[float]
    config: TrainConfig
    rank: int
    world_size: int

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng(np.random.SeedSequence([self.config.seed, 1, step]))
        share = np.asarray(self.weights) / np.sum(self.weights)
        source = self.sources[int(rng.choice(len(self.sources), p=share))]
        local = self.config.batch_size // self.world_size
        first = step * self.config.batch_size + self.rank * local
        return Batch(source.task, [source.patch(first + n) for n in range(local)])


def train(
    learner: nn.Module,
    sources: Sequence[SampleSource],
    *,
    config: TrainConfig,
    run_dir: Path,
    weights: Sequence[float] | None = None,
    num_workers: int = 1,
    until: int | None = None,
    stop_at: Callable[[], bool] = never,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> AveragedModel:
    """Train until ``config.steps`` and return the averaged networks; resumes from the newest checkpoint in ``run_dir``.

    ``learner`` is a ``Learner`` or ``DecoderLearner``, whichever reads the samples of ``sources``; ``weights`` are the
    shares of the sources among the steps. When ``stop_at`` or ``cancelled`` answers true, or step ``until`` is done,
    the run writes a checkpoint and stops where it is; call again to go on. On the CPU, N steps in one go and in any
    number of resumed parts give the same bits.

    With torch.distributed initialized (torchrun), every process takes its part of each batch and gradients are
    averaged, so that the global batch does not depend on the number of processes.
    """
    rank, world_size = process_rank(), process_count()
    shares = _shares(weights, len(sources))
    if config.batch_size % world_size:
        raise SpecError(f"batch_size must be a multiple of the {world_size} processes, got {config.batch_size}")
    optimizer = torch.optim.AdamW(
        learner.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, foreach=True
    )
    average = AveragedModel(learner, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))  # type: ignore[no-untyped-call]
    step = load_checkpoint(run_dir / CHECKPOINTS, learner=learner, average=average, optimizer=optimizer)
    metrics = MetricsLog(run_dir / METRICS, resume_step=step, enabled=rank == 0, every=config.log_every)
    batches = StepBatches(sources, shares, config, rank, world_size)
    last = config.steps if until is None else min(until, config.steps)
    started = time.monotonic()
    progress(min(1.0, step / config.steps), f"step {step} of {config.steps}")
    for batch in load_in_order(batches, range(step, last), num_workers=num_workers):
        loss = _optimize(learner, optimizer, batch, config=config, step=step, rank=rank)
        average.update_parameters(learner)
        step += 1
        stopping = any_process(stop_at() or cancelled())
        metrics.add(step, loss, learning_rate=config.learning_rate_at(step - 1), seconds=time.monotonic() - started)
        if rank == 0 and (step % config.checkpoint_every == 0 or step == last or stopping):
            save_checkpoint(run_dir / CHECKPOINTS, step=step, learner=learner, average=average, optimizer=optimizer)
        progress(step / config.steps, f"step {step} of {config.steps}")
        if stopping:
            break
    return average


def _shares(weights: Sequence[float] | None, count: int) -> Sequence[float]:
    if count == 0:
        raise SpecError("a run must have at least one source of patches, got none")
    shares = [1.0] * count if weights is None else weights
    if len(shares) != count or not all(np.isfinite(share) and share > 0 for share in shares):
        raise SpecError(f"weights must be one positive number for each of the {count} sources, got {list(shares)}")
    return shares


def _optimize(
    learner: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, *, config: TrainConfig, step: int, rank: int
) -> float:
    """One optimizer step; returns the loss."""
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate_at(step)
    seed = int(np.random.SeedSequence([config.seed, 2, step, rank]).generate_state(1)[0])
    generator = torch.Generator().manual_seed(seed)
    loss = learner(batch.task, batch.patches, step=step, generator=generator)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    _average_gradients(learner)
    norm = float(torch.nn.utils.clip_grad_norm_(learner.parameters(), config.gradient_clip))
    value = float(loss.detach())
    if not (np.isfinite(value) and np.isfinite(norm)):
        raise RunError(
            f"loss and gradient of step {step} must be finite, got loss {value} and gradient norm {norm}; lower the "
            "learning rate and resume"
        )
    optimizer.step()
    return value


def _average_gradients(learner: nn.Module) -> None:
    """Mean gradient over the processes; a parameter that no process used keeps none."""
    if process_count() == 1:
        return
    used = [parameter for parameter in learner.parameters() if parameter.grad is not None]
    flat = torch.cat([parameter.grad.reshape(-1) for parameter in used if parameter.grad is not None])
    distributed.all_reduce(flat)
    flat /= process_count()
    offset = 0
    for parameter in used:
        parameter.grad = flat[offset : offset + parameter.numel()].view_as(parameter).clone()
        offset += parameter.numel()


def load_in_order(items: Dataset[Item], numbers: Sequence[int], *, num_workers: int) -> Iterator[Item]:
    """Items of ``numbers`` in that order, made in the background when there are workers."""
    if num_workers == 0 or not numbers:
        yield from (items[number] for number in numbers)
        return
    yield from DataLoader(
        items,
        batch_size=None,
        sampler=numbers,
        num_workers=num_workers,
        prefetch_factor=3,
        multiprocessing_context="spawn",
        worker_init_fn=_single_thread,
    )


def _single_thread(worker: int) -> None:
    torch.set_num_threads(1)


class MetricsLog:
    """``metrics.jsonl``: one JSON line per logged step; a resumed run drops the lines after its checkpoint."""

    def __init__(self, path: Path, *, resume_step: int, enabled: bool, every: int) -> None:
        self._path, self._enabled, self._every = path, enabled, every
        self._losses: list[float] = []
        if not enabled:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.is_file() else []
        kept = [line for line in lines if _step_of(line) <= resume_step]
        write_text(path, "".join(line + "\n" for line in kept))

    def add(self, step: int, loss: float, *, learning_rate: float, seconds: float) -> None:
        """Remember ``loss``; every so many steps write their mean."""
        self._losses.append(loss)
        if not self._enabled or step % self._every:
            return
        line = {
            "step": step,
            "loss": round(float(np.mean(self._losses)), 5),
            "learning_rate": round(learning_rate, 8),
            "seconds": round(seconds, 1),
        }
        self._losses.clear()
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _step_of(line: str) -> float:
    """Step of a line of the log; infinite for one that a killed run left half-written."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
