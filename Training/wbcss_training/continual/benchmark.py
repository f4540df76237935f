"""`wbcss-train benchmark`: every method learns every task of a sequence, cell by cell, and is asked after each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from wbcss.errors import Cancelled, SpecError
from wbcss.io.atomic import write_text
from wbcss.labels import OrganName
from wbcss.progress import IsCancelled, Progress, never, silent

from .lesson import Lesson, read_clock
from .matrix import Forgetting
from .methods import METHODS, Method, build_method
from .scoring import Examiner, Scores
from .sequence import Sequence, sequence_to_json
from .state import Learned, load_learned, save_learned

RESULTS, CONFIG, SETTINGS = "benchmark.json", "sequence.json", "settings.json"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One method after one task.

    Attributes:
        scores: Per task asked, the metrics of its organs, all networks of the method answering together.
        alone: The same with the task's own decoder alone, for methods that have one per task; before merging.
        parameters, gmacs: Of all networks the method needs so far; ``gmacs`` for one tile.
        added_parameters, added_gmacs: What this task added.
        wall_s, cpu_s: Spent in training.
    """

    index: int
    scores: Mapping[int, Scores]
    alone: Mapping[int, Scores]
    parameters: int
    gmacs: float
    added_parameters: int
    added_gmacs: float
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """All cells of one method; ``bound`` is what no forgetting and no merging would give it."""

    name: str
    title: str
    scope: str
    cells: tuple[Cell, ...]
    num_tasks: int
    task_organs: tuple[tuple[OrganName, ...], ...]

    @property
    def matrix(self) -> Forgetting:
        """Dice of the answer the method gives."""
        return self._matrix({cell.index: cell.scores for cell in self.cells})

    @property
    def matrix_alone(self) -> Forgetting | None:
        """Dice of every task's own decoder alone; None for methods that have no decoder per task."""
        if not any(cell.alone for cell in self.cells):
            return None
        return self._matrix({cell.index: cell.alone for cell in self.cells})

    def _matrix(self, scores: Mapping[int, Mapping[int, Scores]]) -> Forgetting:
        rows: list[list[float | None]] = []
        for i in range(self.num_tasks):
            row: list[float | None] = []
            for j in range(self.num_tasks):
                asked = scores.get(j if self.scope == "own" and j <= i else i, {})
                row.append(mean_dice(asked[j], self.task_organs[j]) if j in asked else None)
            rows.append(row)
        return Forgetting(rows=rows)


def mean_dice(scores: Scores, organs: Iterable[OrganName]) -> float | None:
    """Mean Dice of those of ``organs`` that were scored, every organ counting once."""
    values = [scores[organ]["dice"] for organ in organs if organ in scores]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """How a benchmark runs.

    Attributes:
        device: Where to train and to ask.
        num_workers: Processes that make patches.
        threads: CPU threads of the segmentation; None for the library's default.
        progress: Told the fraction of all cells.
        stop_at: When true the running cell writes a checkpoint and Cancelled is raised.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    num_workers: int = 0
    threads: int | None = None
    progress: Progress = silent
    stop_at: IsCancelled = never


def run_benchmark(
    sequence: Sequence, methods: Items[str], *, run_dir: Path, options: BenchmarkOptions = BenchmarkOptions()
) -> tuple[MethodResult, ...]:
    """Train and ask every cell of ``methods`` that is not done yet.

    Returns:
        Results of ``methods`` and of those that ``run_dir`` had finished before, in the order of METHODS; they are
        in ``run_dir/benchmark.json`` too, after each method.

    Raises:
        SpecError: a method is unknown, or ``run_dir`` belongs to another sequence or other settings of a method.
        Cancelled: asked to stop; call again to go on.
    """
    for name in methods:
        build_method(name, sequence.hyperparameters.get(name, {}))
    _claim(run_dir / CONFIG, sequence_to_json(sequence), what="tasks or networks")
    wanted = [name for name in METHODS if name in methods or name in _finished(run_dir)]
    built: dict[str, Method] = {}
    for name in wanted:
        settings = sequence.hyperparameters.get(name, {})
        built[name] = build_method(name, settings)
        _claim(run_dir / name / SETTINGS, settings, what=f"settings of {name!r}")
    results: list[MethodResult] = []
    for number, (name, method) in enumerate(built.items()):
        run = _MethodRun(sequence, name, method, run_dir, options, place=(number, len(built)))
        results.append(run.result())
        _store(sequence, results, run_dir)
    options.progress(1.0, "done")
    return tuple(results)


def _claim(path: Path, facts: Mapping[str, Any], *, what: str) -> None:
    """Note in ``path`` what is run beside it, and refuse to mix two of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = json.loads(json.dumps(facts))
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != plain:
        raise SpecError(f"the folder {path.parent.name} was begun with other {what}; remove it or name another folder")
    write_text(path, json.dumps(plain, indent=1))


def _store(sequence: Sequence, results: Items[MethodResult], run_dir: Path) -> None:
    """Write the results; those of finished methods that are not at hand yet are kept as they are."""
    facts = results_to_json(sequence, results)
    path = run_dir / RESULTS
    if path.is_file():
        fresh = {result.name for result in results}
        before = json.loads(path.read_text(encoding="utf-8"))["methods"]
        facts["methods"] += [method for method in before if method["method"] not in fresh]
        facts["methods"].sort(key=lambda method: METHODS.index(method["method"]))
    write_text(path, json.dumps(facts, indent=1))


def _finished(run_dir: Path) -> set[str]:
    """Methods whose results ``run_dir`` holds."""
    path = run_dir / RESULTS
    if not path.is_file():
        return set()
    return {method["method"] for method in json.loads(path.read_text(encoding="utf-8"))["methods"]}


class _MethodRun:
    """One method through a sequence."""

    def __init__(
        self,
        sequence: Sequence,
        name: str,
        method: Method,
        run_dir: Path,
        options: BenchmarkOptions,
        *,
        place: tuple[int, int],
    ) -> None:
        self._sequence, self._name, self._method = sequence, name, method
        self._folder, self._options, self._place = run_dir / name, options, place
        self._cache_dir = run_dir / "cache"
        self._examiner = Examiner(
            sequence=sequence,
            folder=run_dir / "answers",
            cache_dir=self._cache_dir,
            device=options.device,
            threads=options.threads,
            cancelled=options.stop_at,
        )

    def result(self) -> MethodResult:
        """Train and ask all cells."""
        last = len(self._sequence.tasks) - 1
        cells: list[Cell] = []
        former: Learned | None = None
        for index in range(last + 1) if self._method.scope != "all" else (last,):
            learned = self._learned(index, former)
            cells.append(self._cell(index, learned, former))
            former = learned if self._method.scope != "own" else None
        return MethodResult(
            name=self._name,
            title=self._method.title,
            scope=self._method.scope,
            cells=tuple(cells),
            num_tasks=last + 1,
            task_organs=tuple(task.organs for task in self._sequence.tasks),
        )

    def _learned(self, index: int, former: Learned | None) -> Learned:
        folder = self._folder / f"task-{index}"
        stored = load_learned(folder)
        if stored is not None:
            return stored
        lesson = Lesson(
            sequence=self._sequence,
            index=index,
            former=former,
            run_dir=folder,
            cache_dir=self._cache_dir,
            device=self._options.device,
            num_workers=self._options.num_workers,
            progress=lambda fraction, stage: self._report(index, 0.9 * fraction, stage),
            stop_at=self._options.stop_at,
        )
        learned = self._method.learn(lesson)
        save_learned(learned, folder)
        lesson.clean()
        return learned

    def _cell(self, index: int, learned: Learned, former: Learned | None) -> Cell:
        self._report(index, 0.9, "asking")
        asked = {"so_far": range(index + 1), "own": (index,), "all": range(len(self._sequence.tasks))}
        scores, alone = {}, {}
        for j in asked[self._method.scope]:
            if self._options.stop_at():
                raise Cancelled(f"the benchmark was stopped before {self._name} was asked; go on with --resume")
            scores[j] = self._examiner.scores(learned, learned.model.tasks, j)
            task = self._sequence.tasks[j].task
            if task in learned.organs:
                alone[j] = self._examiner.scores(learned, [task], j)
        cost = learned.cost
        before = former.cost if former is not None else cost - cost
        wall_s, cpu_s = read_clock(self._folder / f"task-{index}")
        return Cell(
            index=index,
            scores=scores,
            alone=alone,
            parameters=cost.parameters,
            gmacs=cost.macs / 1e9,
            added_parameters=(cost - before).parameters,
            added_gmacs=(cost - before).macs / 1e9,
            wall_s=wall_s,
            cpu_s=cpu_s,
        )

    def _report(self, index: int, fraction: float, stage: str) -> None:
        number, count = self._place
        tasks = len(self._sequence.tasks)
        done = (number + (index + fraction) / tasks) / count
        self._options.progress(min(done, 0.9999), f"{self._name}, {self._sequence.tasks[index].task}: {stage}")


def results_to_json(sequence: Sequence, results: Iterable[MethodResult]) -> dict[str, Any]:
    """All numbers as JSON values; no path and no identifier of a case."""
    return {
        "format": "wbcss-continual-benchmark",
        "format_version": 1,
        "sequence": sequence.name,
        "tasks": [{"task": task.task, "organs": list(task.organs)} for task in sequence.tasks],
        "methods": [_result_to_json(result) for result in results],
    }


def _result_to_json(result: MethodResult) -> dict[str, Any]:
    alone = result.matrix_alone
    return {
        "method": result.name,
        "title": result.title,
        "scope": result.scope,
        "matrix": _matrix_to_json(result.matrix),
        "matrix_before_merging": None if alone is None else _matrix_to_json(alone),
        "cells": [
            {
                "task": cell.index,
                "parameters": cell.parameters,
                "gmacs": round(cell.gmacs, 4),
                "added_parameters": cell.added_parameters,
                "added_gmacs": round(cell.added_gmacs, 4),
                "wall_s": cell.wall_s,
                "cpu_s": cell.cpu_s,
                "scores": _scores_to_json(cell.scores),
                "alone": _scores_to_json(cell.alone),
            }
            for cell in result.cells
        ],
    }


def _matrix_to_json(matrix: Forgetting) -> dict[str, Any]:
    return {
        "R": [list(row) for row in matrix.rows],
        "average_dice": matrix.average,
        "learned_dice": matrix.learned,
        "bwt": matrix.backward_transfer,
        "relative_bwt": matrix.relative_backward_transfer,
    }


def _scores_to_json(scores: Mapping[int, Scores]) -> dict[str, Any]:
    return {str(index): {str(organ): dict(row) for organ, row in found.items()} for index, found in scores.items()}
