"""Run a search on encoded patches: in rounds, each with its place on the path, and at the end a decoder spec."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from wbcss.errors import Cancelled, SpecError
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.specs import DecoderSpec

from ..config import TrainConfig
from ..curves import draw_curves, read_metrics
from ..features import FeaturePool
from ..loop import train
from .expected import Budget
from .pathplot import plot_path
from .searcher import SearchConfig, SearchLearner, SplitPool
from .space import SearchSpace

PATH = "path.jsonl"
"""File of a search with one JSON line per round: the probabilities then, and what they cost on average."""

PATH_PICTURE = "path.png"
_ROUNDS = 24


@dataclass(frozen=True, kw_only=True)
class SearchJob:
    """Everything that decides what a search finds.

    Attributes:
        space: What is chosen from.
        budget: What it costs.
        train: Schedule; its seed decides weights, patches and draws.
        search: How choices are learned.
    """

    space: SearchSpace
    budget: Budget
    train: TrainConfig
    search: SearchConfig


def search_decoder(
    job: SearchJob,
    pool: FeaturePool,
    *,
    run_dir: Path,
    device: torch.device,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> DecoderSpec:
    """Search (or go on searching) in ``run_dir``; returns the most probable decoder within the budget.

    On the CPU the same job gives the same path, whether in one go or in any number of resumed parts. ``path.jsonl``
    and ``path.png`` there grow with every round.

    Raises:
        SpecError: the pool holds fewer than two patches, or no decoder fits the budget.
        RunError: the loss is not finite, or a file of the run cannot be read.
        Cancelled: ``cancelled`` returned true; a checkpoint was written.
    """
    if pool.count < 2:
        raise SpecError(
            f"a search needs at least 2 encoded patches, one for weights and one for choices, got {pool.count}; "
            "raise --cache-gib or --steps"
        )
    torch.manual_seed(job.train.seed)
    learner = SearchLearner(job.space, job.budget, job.train, job.search)
    learner.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    source = SplitPool(pool=pool, config=job.train, search=job.search)
    steps = job.train.steps
    every = math.ceil(steps / _ROUNDS / job.train.log_every) * job.train.log_every

    def advance(until: int) -> int:
        average = train(
            learner,
            [source],
            config=job.train,
            run_dir=run_dir,
            num_workers=0,
            until=until,
            progress=progress,
            cancelled=cancelled,
        )
        return int(average.n_averaged)

    step = advance(0)
    while True:
        if step == steps or step % every == 0:
            _note(learner, step, run_dir)
            draw_curves(run_dir)
            plot_path(read_metrics(run_dir / PATH), job.space, run_dir / PATH_PICTURE, budget=job.search.budget)
        if step == steps:
            break
        if cancelled():
            raise Cancelled(f"the search was stopped at step {step} of {steps}; go on with --resume")
        step = advance((step // every + 1) * every)
    return job.budget.choose(learner.choices.probabilities())


def _note(learner: SearchLearner, step: int, run_dir: Path) -> None:
    """Add a line to the path, once per round."""
    path = run_dir / PATH
    if step in {line["step"] for line in read_metrics(path)}:
        return
    # A killed call may have left half a line: the next one begins on its own.
    broken = path.is_file() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write(("\n" if broken else "") + json.dumps({"step": step, **learner.state()}) + "\n")
