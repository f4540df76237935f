"""Train one decoder in rounds, look at held-out patches after each, and stop when they have nothing more to say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch.optim.swa_utils import AveragedModel

from wbcss.errors import Cancelled, RunError
from wbcss.io.atomic import write_bytes
from wbcss.progress import IsCancelled, Progress, never, silent

from .curves import draw_curves, read_metrics
from .enrollment import Schedule
from .features import FeaturePool
from .learner import DecoderLearner
from .loop import METRICS, train
from .processes import any_process, process_rank, wait_for_all

_BEST = "best.safetensors"
_STREAM = 4
"""Number of the random stream that draws the voxels of held-out patches."""


@dataclass(frozen=True, eq=False)
class TrainedDecoder:
    """What a training leaves.

    Attributes:
        state: Averaged weights, float32 on the CPU.
        steps: Optimizer steps that were done.
        best_step: The step whose weights these are.
    """

    state: dict[str, torch.Tensor]
    steps: int
    best_step: int


def train_in_rounds(
    learner: DecoderLearner,
    pool: FeaturePool,
    held_out: FeaturePool | None,
    *,
    schedule: Schedule,
    run_dir: Path,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> TrainedDecoder:
    """Train (or resume) ``learner`` in ``run_dir``; ``metrics.jsonl`` and ``curves.png`` there grow with every round.

    The first ``schedule.coarse_steps`` leave the finest level of the decoder alone. With ``schedule.patience`` training
    ends when that many later rounds brought no lower loss on ``held_out``, and the weights of the best of them are
    returned; else those of the last step. What was decided depends on the log alone, so
    a run that was killed anywhere decides alike.

    Raises:
        RunError: the loss is not finite, or a file of the run cannot be read.
        Cancelled: ``cancelled`` returned true; a checkpoint was written.
    """
    config = schedule.config

    def advance(step: int, until: int) -> AveragedModel:
        learner.config = schedule.config_at(step)
        average = train(
            learner,
            [pool],
            config=learner.config,
            run_dir=run_dir,
            num_workers=0,  # reading float16 from the disk is quicker than passing it between processes
            until=until,
            progress=progress,
            cancelled=cancelled,
        )
        wait_for_all()  # the first process has written the checkpoint that all read next
        return average

    average = advance(0, 0)
    while True:
        step = int(average.n_averaged)
        at_end = step == config.steps or (step > 0 and step % schedule.round_steps == 0)
        if at_end and process_rank() == 0:
            _look(average, held_out, schedule, run_dir)
            draw_curves(run_dir)
        wait_for_all()
        losses = _held_out_losses(run_dir, schedule)
        if step == config.steps or _is_exhausted(losses, step, schedule):
            break
        if any_process(cancelled()):
            raise Cancelled(f"the training was stopped at step {step} of {config.steps}; go on with --resume")
        average = advance(step, (step // schedule.round_steps + 1) * schedule.round_steps)
    if schedule.patience is None or not losses:
        return TrainedDecoder(_state(average), step, step)
    return TrainedDecoder(_read_best(run_dir), step, min(losses, key=lambda at: (losses[at], at)))


def _look(average: AveragedModel, held_out: FeaturePool | None, schedule: Schedule, run_dir: Path) -> None:
    """Log the loss on held-out patches, once per round, and keep the weights if there was none lower."""
    step = int(average.n_averaged)
    if held_out is None or step in _looks(run_dir):
        return
    loss = held_out_loss(average, held_out, seed=schedule.config.seed)
    losses = _held_out_losses(run_dir, schedule)
    if step > schedule.coarse_steps and all(loss < other for other in losses.values()):
        write_bytes(run_dir / _BEST, safetensors.torch.save(_state(average)))
    # Last, as it is what says that the look was taken: killed before, the same look is taken again.
    with (run_dir / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "validation_loss": loss}) + "\n")


def held_out_loss(average: AveragedModel, held_out: FeaturePool, *, seed: int) -> float:
    """Mean training loss of the averaged decoder over all patches of ``held_out``, at voxels that ``seed`` draws.

    Raises RunError if it is not finite.
    """
    learner = _learner(average)
    total = 0.0
    with torch.inference_mode():
        for number in range(held_out.count):
            drawn = int(np.random.SeedSequence([seed, _STREAM, number]).generate_state(1)[0])
            generator = torch.Generator().manual_seed(drawn)
            total += float(learner(held_out.task, [held_out.patch(number)], step=0, generator=generator))
    if not np.isfinite(total):
        raise RunError(f"the loss on held-out cases must be finite, got {total}; lower the learning rate")
    return total / held_out.count


def _is_exhausted(losses: dict[int, float], step: int, schedule: Schedule) -> bool:
    """Whether the last rounds brought nothing."""
    if schedule.patience is None or step not in losses:
        return False
    best = min(losses, key=lambda at: (losses[at], at))
    return sum(at > best for at in losses) >= schedule.patience


def _held_out_losses(run_dir: Path, schedule: Schedule) -> dict[int, float]:
    """The looks that can be compared: those at the finest level."""
    return {step: loss for step, loss in _looks(run_dir).items() if step > schedule.coarse_steps}


def _looks(run_dir: Path) -> dict[int, float]:
    lines = read_metrics(run_dir / METRICS)
    return {int(line["step"]): float(line["validation_loss"]) for line in lines if "validation_loss" in line}


def _learner(average: AveragedModel) -> DecoderLearner:
    learner = average.module
    if not isinstance(learner, DecoderLearner):
        raise RunError(f"the average must hold a DecoderLearner, got {type(learner).__name__}")
    return learner


def _state(average: AveragedModel) -> dict[str, torch.Tensor]:
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in _learner(average).decoder.state_dict().items()
    }


def _read_best(run_dir: Path) -> dict[str, torch.Tensor]:
    path = run_dir / _BEST
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"the best weights of the run, {path.name}, must be readable, got {error}") from error
