"""How well a task is learned from very few cases: the benchmark of one task, for growing numbers of its cases."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path

from wbcss.errors import SpecError
from wbcss.io.atomic import write_text
from wbcss.progress import Progress

from .benchmark import BenchmarkOptions, MethodResult, results_to_json, run_benchmark
from .sequence import FewShot, Sequence


@dataclass(frozen=True, kw_only=True)
class Shot:
    """All methods on the first ``count`` cases."""

    count: int
    results: tuple[MethodResult, ...]


def run_few_shot(
    sequence: Sequence,
    *,
    run_dir: Path,
    methods: Items[str] = (),
    options: BenchmarkOptions = BenchmarkOptions(),
) -> tuple[Shot, ...]:
    """Train and ask every point of the curve that is not done yet, in ``run_dir/cases-N``.

    Every point has the same steps, so that only the number of cases differs. ``methods`` default to the sequence's.

    Raises:
        SpecError: the sequence describes no curve, or not on cases.
        CaseError: there are fewer cases than asked for.
        Cancelled: asked to stop; call again to go on.
    """
    curve = sequence.few_shot
    if curve is None:
        raise SpecError(f"the sequence {sequence.name!r} has no 'few_shot'; name a task and counts there")
    shots = []
    for number, count in enumerate(curve.counts):
        part = dataclasses.replace(options, progress=_part(options.progress, number, len(curve.counts)))
        results = run_benchmark(
            few_cases(sequence, curve, count),
            methods or curve.methods,
            run_dir=run_dir / f"cases-{count}",
            options=part,
        )
        shots.append(Shot(count=count, results=results))
        _write(sequence, shots, run_dir)
    return tuple(shots)


def few_cases(sequence: Sequence, curve: FewShot, count: int) -> Sequence:
    """The sequence of the curve's task alone, on the first ``count`` of its cases."""
    task = next(task for task in sequence.tasks if task.task == curve.task)
    if task.source.get("kind") != "cases" or task.published is not None:
        raise SpecError(f"a few-shot curve needs a task learned from cases, got {task.task!r}")
    fewer = dataclasses.replace(task, source={**task.source, "count": count})
    return dataclasses.replace(sequence, tasks=(fewer,), few_shot=None)


def curves(shots: Items[Shot]) -> dict[str, dict[int, float | None]]:
    """Title of the method to number of cases to mean Dice."""
    found: dict[str, dict[int, float | None]] = {}
    for shot in shots:
        for result in shot.results:
            found.setdefault(result.title, {})[shot.count] = result.matrix.average
    return found


def _part(progress: Progress, number: int, count: int) -> Progress:
    return lambda fraction, stage: progress(min((number + fraction) / count, 0.9999), stage)


def _write(sequence: Sequence, shots: Items[Shot], run_dir: Path) -> None:
    facts = {str(shot.count): results_to_json(sequence, shot.results)["methods"] for shot in shots}
    text = json.dumps({"format": "wbcss-few-shot", "format_version": 1, "sequence": sequence.name, "cases": facts})
    write_text(run_dir / "few_shot.json", text)
