"""One cell of a benchmark in training: everything a method needs to learn one more task, resumable at any moment."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from wbcss.errors import Cancelled, RunError
from wbcss.io.atomic import write_text
from wbcss.labels import OrganName
from wbcss.loading import load_model
from wbcss.nn.encoder import Encoder
from wbcss.nn.model import WholeBodyModel
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.registry import Registry

from ..config import TrainConfig
from ..initial import start_from
from ..learner import build_learner
from ..loop import CHECKPOINTS, train
from ..patches import PatchSource
from .incremental import SHARED
from .sequence import Sequence, SequenceTask
from .state import Learned, load_learned, save_learned

_CLOCK = "clock.json"
_CLOCK_EVERY_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What a method may use to learn task ``index``.

    Attributes:
        former: What the method knew before; None at the start.
        run_dir: Folder of this cell.
        cache_dir: Prepared cases; shared by all cells.
        device: Where to train.
        num_workers: Processes that make patches.
    """

    sequence: Sequence
    index: int
    former: Learned | None
    run_dir: Path
    cache_dir: Path
    device: torch.device
    num_workers: int = 0
    progress: Progress = silent
    stop_at: IsCancelled = never

    @property
    def task(self) -> SequenceTask:
        """The task to learn."""
        return self.sequence.tasks[self.index]

    def source(self, index: int | None = None) -> PatchSource:
        """Patches of task ``index`` (default: the one to learn)."""
        return self.sequence.source(self.index if index is None else index, self.cache_dir)

    def start(self, organs: tuple[OrganName, ...], *, scratch: bool = False) -> WholeBodyModel:
        """The network that every method starts from, with one decoder SHARED for ``organs``.

        It is the initial registry's, rows of its head matched by organ name, or random; equal seeds give equal bits.
        """
        torch.manual_seed(self.task.train.seed)
        name = self.sequence.initial_task or SHARED
        specs = {name: self.sequence.decoder_for(len(organs))}
        learner = build_learner(Encoder(self.sequence.encoder), specs, self.task.train)
        if self.sequence.initial is not None and not scratch:
            start_from(learner, self.sequence.initial, {name: organs})
        return WholeBodyModel(learner.model.encoder, {SHARED: learner.model.decoder(name)})

    def published(self) -> WholeBodyModel:
        """The initial registry's network for the task, as it is, with one decoder SHARED."""
        if self.sequence.initial is None or self.task.published is None:
            raise RunError(f"task {self.task.task!r} is to be learned, not taken from a registry")
        network = load_model(Registry(self.sequence.initial), [self.task.published]).network
        return WholeBodyModel(network.encoder, {SHARED: network.decoder(self.task.published)})

    def fit(
        self, learner: nn.Module, sources: Items[PatchSource] | None = None, *, config: TrainConfig | None = None
    ) -> nn.Module:
        """Train ``learner`` and return its moving average; goes on from a checkpoint where there is one.

        Raises:
            Cancelled: ``stop_at`` answered true; a checkpoint was written.
        """
        learner.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        learner.to(self.device)
        former = getattr(learner, "former", None)
        if former is not None:
            former.to(self.device)
        clock = Clock(self.run_dir)
        finished = False

        def report(fraction: float, stage: str) -> None:
            nonlocal finished
            finished = fraction >= 1
            clock.tick()
            self.progress(fraction, stage)

        average = train(
            learner,
            [self.source()] if sources is None else sources,
            config=config or self.task.train,
            run_dir=self.run_dir,
            num_workers=self.num_workers,
            stop_at=self.stop_at,
            progress=report,
        )
        clock.tick(now=True)
        if not finished:
            raise Cancelled(f"the benchmark was stopped in {self.run_dir.name}; go on with --resume")
        module: nn.Module = average.module
        return module

    def shared_start(self, group: str, learn: Callable[[Lesson], Learned]) -> Learned:
        """What ``learn`` makes of the first task, trained once for all methods of ``group``, which begin alike.

        Its time is put down in full for each of them.
        """
        folder = self.run_dir.parent.parent / f"start-{group}"
        stored = load_learned(folder)
        if stored is None:
            start = replace(self, run_dir=folder)
            stored = learn(start)
            save_learned(stored, folder)
            start.clean()
        self.run_dir.mkdir(parents=True, exist_ok=True)
        write_text(self.run_dir / _CLOCK, (folder / _CLOCK).read_text(encoding="utf-8"))
        return stored

    def clean(self) -> None:
        """Remove the checkpoints, once what was learned is stored."""
        shutil.rmtree(self.run_dir / CHECKPOINTS, ignore_errors=True)


class Clock:
    """Wall and CPU seconds of a cell, summed over all its runs; ``clock.json`` lags a few seconds behind a kill."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _CLOCK
        self._before = read_clock(folder)
        self._started = time.monotonic(), _cpu_s()
        self._written = time.monotonic()

    def tick(self, *, now: bool = False) -> None:
        """Write the clock, if it is time or ``now``."""
        if not now and time.monotonic() - self._written < _CLOCK_EVERY_S:
            return
        self._written = time.monotonic()
        wall, cpu = self._started
        spent = self._before[0] + time.monotonic() - wall, self._before[1] + _cpu_s() - cpu
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._path, json.dumps({"wall_s": round(spent[0], 2), "cpu_s": round(spent[1], 2)}))


def read_clock(folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds spent in ``folder`` so far."""
    if not (folder / _CLOCK).is_file():
        return 0.0, 0.0
    facts = json.loads((folder / _CLOCK).read_text(encoding="utf-8"))
    return float(facts["wall_s"]), float(facts["cpu_s"])


def _cpu_s() -> float:
    """CPU seconds of this process and of the workers that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
