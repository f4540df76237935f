"""Are the tasks of a registry right as often as they say? Measured on annotated scans, as the product runs them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wbcss import __version__
from wbcss.io.atomic import write_text
from wbcss.labels import TaskId
from wbcss.loading import LoadedModel, TaskEvidence
from wbcss.progress import IsCancelled, Progress, check_cancelled, never, silent
from wbcss.segment import SegmentOptions

from .annotation import Case, organs_named
from .evaluate import check_report
from .reliability import joined, reliability, table_error
from .reliabilityplot import Diagram, draw_reliability
from .scanclaims import judge

GOAL = 0.05
"""Calibration error of a task on real validation, at most."""

_ERRORS = ("ece_before", "ece_after", "ece_with_contradicted")

Table = list[dict[str, Any]]


@dataclass(frozen=True)
class TaskReliability:
    """Reliability diagrams of a task, over the voxels that it gives to an organ which the case annotates.

    Attributes:
        title: Task and version.
        before: With temperature 1 and without a learned confidence.
        after: As its card and evidence say.
        contradicted: Like ``after``, with voxels that it gives to an organ that the case does not annotate, where the
            case draws another. They say nothing of how often such claims are right, for those that are right are
            unknown, and a jaw that is called skull is no error; they show what the choice of voxels hides.
    """

    title: str
    before: Table
    after: Table
    contradicted: Table

    def to_json(self) -> dict[str, Any]:
        """Errors and tables as JSON values."""
        errors = {
            "ece_before": table_error(self.before),
            "ece_after": table_error(self.after),
            "ece_with_contradicted": table_error(self.contradicted),
        }
        rounded = {name: None if error is None else round(error, 5) for name, error in errors.items()}
        after = errors["ece_after"]
        return {
            **rounded,
            "voxels": sum(row["voxels"] for row in self.after),
            "is_met": None if after is None else after <= GOAL,
            "reliability": {"before": self.before, "after": self.after},
        }


@dataclass(frozen=True, kw_only=True)
class ReliabilityMeasurement:
    """What was measured on so many cases, task by task."""

    num_cases: int
    tasks: Mapping[TaskId, TaskReliability]
    encoder_sha256: str


def measure_reliability(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    options: SegmentOptions = SegmentOptions(),
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> ReliabilityMeasurement:
    """Run every task alone on every case that annotates an organ of it, as it is and without its calibration.

    An organ that a case does not annotate is no judge: voxels given to it are counted apart.

    Raises:
        CaseError: no organ of the cases is known to the model, or a case cannot be used.
        Cancelled: ``cancelled`` returned true.
    """
    organs_named(cases, known={organ.name for card in model.cards.values() for organ in card.organs})
    plain = uncalibrated(model)
    tables: dict[TaskId, tuple[list[Table], ...]] = {task: ([], [], []) for task in model.cards}
    for number, case in enumerate(cases, start=1):
        progress((number - 1) / len(cases), f"case {number} of {len(cases)}")
        for task, card in model.cards.items():
            against = judge(case, card)
            if against is None:
                continue
            before, after, contradicted = tables[task]
            check_cancelled(cancelled)
            found = against.claims(plain, options=options, cancelled=cancelled)
            before.append(reliability(found.confidence[found.is_known], found.right[found.is_known]))
            found = against.claims(model, options=options, cancelled=cancelled)
            after.append(reliability(found.confidence[found.is_known], found.right[found.is_known]))
            contradicted.append(reliability(found.confidence, found.right))
    progress(1.0, "done")
    return ReliabilityMeasurement(
        num_cases=len(cases),
        tasks={
            task: TaskReliability(model.cards[task].title, *(joined(side) for side in sides))
            for task, sides in tables.items()
        },
        encoder_sha256=model.encoder_card.weights_sha256,
    )


def uncalibrated(model: LoadedModel) -> LoadedModel:
    """``model`` with temperature 1 and without learned confidence in every task; it names the same organs."""
    cards = {task: replace(card, calibration={"temperature": 1.0}) for task, card in model.cards.items()}
    evidence = {task: TaskEvidence(None, facts.reference) for task, facts in model.evidence.items()}
    return replace(model, cards=cards, evidence=evidence)


def reliability_json(measured: ReliabilityMeasurement) -> dict[str, Any]:
    """The report as JSON values; nothing of a case but their number."""
    return {
        "format": "wbcss-reliability",
        "format_version": 1,
        "versions": {"wbcss": __version__},
        "encoder_sha256": measured.encoder_sha256,
        "cases": measured.num_cases,
        "goal": GOAL,
        "tasks": {row.title: row.to_json() for row in measured.tasks.values()},
    }


def reliability_markdown(measured: ReliabilityMeasurement) -> str:
    """The same as a table."""
    lines = [
        "# Calibration error",
        "",
        f"{measured.num_cases} case(s); 15 bins over voxels that a task gives to an organ which the case annotates; "
        f"the goal is at most {GOAL:g} after. Contradicted: with voxels given to any other organ where the case draws "
        "one, of which only the errors can be known.",
        "",
        "| task | voxels | before | after | contradicted |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in measured.tasks.values():
        facts = row.to_json()
        cells = ("-" if facts[key] is None else f"{facts[key]:.3f}" for key in _ERRORS)
        lines.append(f"| {row.title} | {facts['voxels']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_reliability(measured: ReliabilityMeasurement, path: Path) -> tuple[Path, ...]:
    """Write ``path`` (JSON) and beside it the table (``.md``) and, if a task could be judged, the picture (``.png``).

    Raises OutputError.
    """
    check_report(path)
    write_text(path, json.dumps(reliability_json(measured), indent=1, allow_nan=False) + "\n")
    table = path.with_suffix(".md")
    write_text(table, reliability_markdown(measured))
    pairs = [
        (
            Diagram(title=f"{row.title}, before", table=row.before),
            Diagram(title=f"{row.title}, after", table=row.after),
        )
        for row in measured.tasks.values()
        if row.after
    ]
    return (path, table, draw_reliability(pairs, path.with_suffix(".png"))) if pairs else (path, table)
