"""`wbcss-train evaluate --merged`: what the merge takes from each decoder, organ by organ.

Raw forgetting is zero by construction; what a user can lose is what happens when the answers of all tasks become one.
Every task is run alone once; the merges are then made of the same predictions, as ``segment`` makes them: by the
rules, and as systems without organ-wise decisions make them (last writer, fixed priority, the most confident voxel).
Each merge is made without the task that was published last too, to see what adding it changes in organs that it does
not know.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wbcss import __version__
from wbcss.errors import Cancelled, CaseError
from wbcss.io.atomic import write_text
from wbcss.labels import OrganName, TaskId
from wbcss.loading import LoadedModel
from wbcss.merge import Candidate, Merger, TaskPrediction, Witness
from wbcss.progress import IsCancelled, Progress, check_cancelled, never, silent
from wbcss.segment import SegmentOptions, segment
from wbcss.selection import select
from wbcss.specs import MergeRules, MergeStrategy, spec_to_json
from wbcss.volume import Confidence, LabelMap, Volume
from wbcss.witnesses import lesion_rules

from .annotation import Case, in_model_values, read_case
from .evaluate import check_report
from .intrusion import Intrusion, intrusion
from .mergelearning import Example

SIMPLE_MERGES: tuple[MergeStrategy, ...] = ("last_writer", "fixed_priority", "max_confidence")
"""What the merge must beat."""

BASELINES: tuple[MergeStrategy, ...] = ("most_confident", *SIMPLE_MERGES)
WITHIN_BEST = 0.5
MEAN_FORGETTING = 0.2
"""Goals in points of Dice: how far a merged shared organ may lie below its best single decoder, and how much old organs
may lose on average to the decoder that learned them first."""


@dataclass(frozen=True, kw_only=True)
class MergedCase:
    """Dice of one case, which is known by its number in the list only.

    Attributes:
        raw: Organ to task to the Dice of that task alone.
        merged: Strategy to organ to Dice.
        intrusions: Strategy to what adding the last task changes in organs that it does not know.
        examples: What the logistic model may learn from.
    """

    number: int
    raw: Mapping[OrganName, Mapping[TaskId, float]]
    merged: Mapping[MergeStrategy, Mapping[OrganName, float]]
    intrusions: Mapping[MergeStrategy, Intrusion]
    examples: tuple[Example, ...]


@dataclass(frozen=True, kw_only=True)
class MergedEvaluation:
    """What merging does on a list of cases, organs in points of Dice (0 to 100)."""

    cases: tuple[MergedCase, ...]
    tasks: tuple[str, ...]
    order: tuple[TaskId, ...]
    rules: MergeRules
    encoder_sha256: str

    @property
    def strategies(self) -> tuple[MergeStrategy, ...]:
        """The rules that were asked for first, then the baselines."""
        return tuple(dict.fromkeys((self.rules.strategy, *BASELINES)))

    def rows(self) -> dict[OrganName, dict[str, Any]]:
        """Per organ: mean Dice of every task alone, of the best and the first of them, and merged; and the forgetting.

        ``forgetting`` is the Dice of the best single decoder less that of the merge, for the rules asked for, and
        ``forgetting_first`` that of the decoder which learned the organ first; negative is a gain. Means run over the
        cases that annotate the organ.
        """
        rows = {}
        for name in dict.fromkeys(name for case in self.cases for name in case.raw):
            cases = [case for case in self.cases if name in case.raw]
            raw = {task: _points(case.raw[name][task] for case in cases) for task in cases[0].raw[name]}
            merged = {kind: _points(case.merged[kind][name] for case in cases) for kind in self.strategies}
            best, first = max(raw.values()), next(iter(raw.values()))
            rows[name] = {
                "cases": len(cases),
                "raw": {str(task): dice for task, dice in raw.items()},
                "best": best,
                "first": first,
                "merged": dict(merged),
                "forgetting": round(best - merged[self.rules.strategy], 3),
                "forgetting_first": round(first - merged[self.rules.strategy], 3),
                "is_shared": len(raw) > 1,
                "is_old": next(iter(raw)) != self.order[-1],
            }
        return rows

    def summary(self) -> dict[str, Any]:
        """Means over old organs (those of all tasks but the last published), over shared ones and over all; goals."""
        rows = list(self.rows().values())
        old = [row for row in rows if row["is_old"]]
        shared = [row for row in rows if row["is_shared"]]
        return {
            "mean_forgetting_old_organs": _mean([row["forgetting"] for row in old]),
            "mean_forgetting_first_old_organs": _mean([row["forgetting_first"] for row in old]),
            "worst_forgetting": max((row["forgetting"] for row in rows), default=None),
            "mean_best_single": _mean([row["best"] for row in rows]),
            "mean_best_single_shared": _mean([row["best"] for row in shared]),
            "mean_merged": {kind: _mean([row["merged"][kind] for row in rows]) for kind in self.strategies},
            "mean_merged_shared": {kind: _mean([row["merged"][kind] for row in shared]) for kind in self.strategies},
            "added_task": str(self.order[-1]),
            "intrusion": {kind: self.intrusion(kind) for kind in self.strategies},
            "goals": self.goals(),
        }

    def intrusion(self, kind: MergeStrategy) -> dict[str, int]:
        """Voxels of all cases that adding the last task changes in organs that it does not know."""
        total = sum((case.intrusions[kind] for case in self.cases), Intrusion())
        return {**dataclasses.asdict(total), "outside": total.outside}

    def goals(self) -> dict[str, bool | None]:
        """Which goals of the merge are met; None where no organ can say."""
        rows, ours = list(self.rows().values()), self.rules.strategy
        shared = [row for row in rows if row["is_shared"]]
        lost = [row["forgetting_first"] for row in rows if row["is_old"]]

        def mean(kind: MergeStrategy) -> float:
            return float(np.mean([row["merged"][kind] for row in shared]))

        return {
            "every_shared_organ_near_its_best_decoder": all(row["forgetting"] <= WITHIN_BEST for row in shared)
            if shared
            else None,
            "shared_organs_above_simple_merges": all(mean(ours) > mean(kind) for kind in SIMPLE_MERGES)
            if shared
            else None,
            "mean_forgetting_of_old_organs": float(np.mean(lost)) <= MEAN_FORGETTING if lost else None,
            "nothing_changed_outside_surer_claims": self.intrusion(ours)["outside"] == 0,
        }


def evaluate_merged(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    options: SegmentOptions = SegmentOptions(),
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> MergedEvaluation:
    """Compare every task alone with all merged by ``options.merge`` and by the baselines.

    Needs the labels and confidence of every task at once: 4 bytes a voxel and task.

    Raises:
        CaseError: fewer than two tasks are loaded, or a case cannot be used.
        Cancelled: ``cancelled`` returned true.
    """
    if len(model.cards) < 2:
        raise CaseError(f"merging takes at least two tasks, got {', '.join(model.cards) or 'none'}")
    found = []
    for number, case in enumerate(cases, start=1):
        if cancelled():
            raise Cancelled(f"the evaluation was stopped before case {number} of {len(cases)}")
        progress((number - 1) / len(cases), f"case {number} of {len(cases)}")
        found.append(_case(number, case, model, options, cancelled))
    progress(1.0, "done")
    return MergedEvaluation(
        cases=tuple(found),
        tasks=tuple(card.title for card in model.cards.values()),
        order=tuple(model.cards),
        rules=options.merge,
        encoder_sha256=model.encoder_card.weights_sha256,
    )


def _case(number: int, case: Case, model: LoadedModel, options: SegmentOptions, cancelled: IsCancelled) -> MergedCase:
    volume, reference = read_case(case)
    numbers = {organ.name: organ.label for card in model.cards.values() for organ in card.organs}
    wanted = {value: name for value, name in case.values.items() if name in numbers}
    truth = in_model_values(reference, wanted, numbers)
    present = [name for name in dict.fromkeys(wanted.values()) if (truth == numbers[name]).any()]
    predictions, seen = _alone(volume, model, options, cancelled)
    raw: dict[OrganName, dict[TaskId, float]] = {name: {} for name in present}
    for prediction in predictions:
        known = {organ.name for organ in model.cards[prediction.task].organs}
        for name in present:
            if name in known:
                raw[name][prediction.task] = _dice(prediction.labels, truth, numbers[name])
    merged: dict[MergeStrategy, dict[OrganName, float]] = {}
    intrusions: dict[MergeStrategy, Intrusion] = {}
    examples: tuple[Example, ...] = ()
    added = predictions[-1]
    own = [organ.label for organ in model.cards[added.task].organs]
    for kind in dict.fromkeys((options.merge.strategy, *BASELINES)):
        rules = dataclasses.replace(options.merge, strategy=kind)
        check_cancelled(cancelled)
        labels, _, candidates = _merged(volume, model, predictions, seen, rules)
        merged[kind] = {name: _dice(labels, truth, numbers[name]) for name in present}
        without, sure, _ = _merged(volume, model, predictions[:-1], seen, rules)
        intrusions[kind] = intrusion((without, sure), labels, added, known=own)
        if kind == options.merge.strategy:
            examples = _examples(candidates, raw, {numbers[name]: name for name in present})
    return MergedCase(number=number, raw=raw, merged=merged, intrusions=intrusions, examples=examples)


def _alone(
    volume: Volume, model: LoadedModel, options: SegmentOptions, cancelled: IsCancelled
) -> tuple[list[TaskPrediction], dict[tuple[TaskId, int], Witness]]:
    """What every task says when it runs by itself, and how unlike its training data its organs are."""
    predictions, seen = [], {}
    for rank, (task, card) in enumerate(model.cards.items()):
        result = segment(volume, model, tasks=[task], options=options, cancelled=cancelled)
        predictions.append(TaskPrediction(task, rank, result.labels, result.confidence))
        for organ in card.organs:
            anomaly = result.facts[organ.name].anomaly
            if anomaly is not None:
                seen[task, organ.label] = Witness(anomaly=anomaly)
    return predictions, seen


def _merged(
    volume: Volume,
    model: LoadedModel,
    predictions: Sequence[TaskPrediction],
    seen: Mapping[tuple[TaskId, int], Witness],
    rules: MergeRules,
) -> tuple[LabelMap, Confidence, tuple[Candidate, ...]]:
    """Labels, confidence and candidates of the tasks that made ``predictions``, as the product merges them."""
    tasks = [prediction.task for prediction in predictions]
    labels: LabelMap = np.zeros(volume.shape, np.uint16)
    confidence: Confidence = np.ones(volume.shape, np.float16)
    merger = Merger(
        labels,
        confidence,
        organs={task: [organ.label for organ in model.cards[task].organs] for task in tasks},
        ranks={prediction.task: prediction.rank for prediction in predictions},
        rules=rules,
        lesions=lesion_rules(model, select(model.cards, tasks=tasks), rules, volume),
    )
    for k in range(volume.shape[2]):
        plane = (slice(0, volume.shape[0]), slice(0, volume.shape[1]), slice(k, k + 1))
        merger.write(plane, [TaskPrediction(p.task, p.rank, p.labels[plane], p.confidence[plane]) for p in predictions])
    merger.finish(witnesses=seen)
    return labels, confidence, merger.candidates()


def _examples(
    candidates: Sequence[Candidate],
    raw: Mapping[OrganName, Mapping[TaskId, float]],
    names: Mapping[int, OrganName],
) -> tuple[Example, ...]:
    """One example per candidate of every annotated organ that at least two tasks claim."""
    found = []
    for label, name in names.items():
        rivals = [candidate for candidate in candidates if candidate.label == label]
        if len(rivals) > 1:
            found += [
                Example(inputs=rival.inputs, dice=raw[name][rival.task], best=max(raw[name][r.task] for r in rivals))
                for rival in rivals
            ]
    return tuple(found)


def _dice(labels: LabelMap, truth: LabelMap, label: int) -> float:
    ours, theirs = labels == label, truth == label
    total = int(ours.sum()) + int(theirs.sum())
    return 2 * int((ours & theirs).sum()) / total if total else 1.0


def _points(values: Any) -> float:
    return round(100 * float(np.mean(list(values))), 3)


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 3) if values else None


def merged_json(evaluation: MergedEvaluation) -> dict[str, Any]:
    """The report as JSON values; cases by their number only."""
    return {
        "format": "wbcss-merged-evaluation",
        "format_version": 1,
        "versions": {"wbcss": __version__},
        "encoder_sha256": evaluation.encoder_sha256,
        "tasks": list(evaluation.tasks),
        "rules": spec_to_json(evaluation.rules),
        "summary": evaluation.summary(),
        "organs": {str(name): row for name, row in evaluation.rows().items()},
        "cases": [
            {
                "number": case.number,
                "raw": {str(name): {str(t): round(d, 4) for t, d in row.items()} for name, row in case.raw.items()},
                "merged": {
                    kind: {str(name): round(dice, 4) for name, dice in row.items()} for kind, row in case.merged.items()
                },
                "intrusion": {kind: dataclasses.asdict(found) for kind, found in case.intrusions.items()},
            }
            for case in evaluation.cases
        ],
    }


def merged_markdown(evaluation: MergedEvaluation) -> str:
    """The same as tables, the most forgotten organ first. Dice in points."""
    kinds = evaluation.strategies
    rows = sorted(evaluation.rows().items(), key=lambda item: -item[1]["forgetting"])
    lines = [
        f"# Merging {', '.join(evaluation.tasks)}",
        "",
        f"{len(evaluation.cases)} case(s); Dice in points; forgetting is the best single decoder less `{kinds[0]}`, "
        "and that of the decoder which learned the organ first less the same.",
        "",
        "| organ | tasks | best alone | " + " | ".join(kinds) + " | forgetting | of the first |",
        "|---|--:|--:|" + "--:|" * (len(kinds) + 2),
    ]
    for name, row in rows:
        cells = " | ".join(f"{row['merged'][kind]:.1f}" for kind in kinds)
        lost = f"{row['forgetting']:+.2f} | {row['forgetting_first']:+.2f}"
        lines.append(f"| {name} | {len(row['raw'])} | {row['best']:.1f} | {cells} | {lost} |")
    return "\n".join([*lines, *_alone_lines(evaluation, rows), *_summary_lines(evaluation)]) + "\n"


def _alone_lines(evaluation: MergedEvaluation, rows: Sequence[tuple[OrganName, Mapping[str, Any]]]) -> list[str]:
    """Every decoder of the organs that several tasks know."""
    shared = [(name, row) for name, row in rows if row["is_shared"]]
    if not shared:
        return ["", "No annotated organ is known to several tasks."]
    tasks = evaluation.order
    header = [
        "",
        "Organs that several tasks know, every decoder alone:",
        "",
        f"| organ | {' | '.join(tasks)} | merged |",
    ]
    cells = [
        [f"{row['raw'][task]:.1f}" if task in row["raw"] else "-" for task in tasks]
        + [f"{row['merged'][evaluation.rules.strategy]:.1f}"]
        for _, row in shared
    ]
    table = [f"| {name} | {' | '.join(row)} |" for (name, _), row in zip(shared, cells, strict=True)]
    return [*header, "|---|" + "--:|" * (len(tasks) + 1), *table]


def _summary_lines(evaluation: MergedEvaluation) -> list[str]:
    """Means, what the last task changes, and the goals."""
    summary, kinds = evaluation.summary(), evaluation.strategies
    shared = {kind: dice for kind, dice in summary["mean_merged_shared"].items() if dice is not None}
    means = ", ".join(f"{kind} {dice:.2f}" for kind, dice in shared.items())
    best = summary["mean_best_single_shared"]
    lines = ["", f"Mean over shared organs: best single decoder {best:.2f}, {means}."] if shared else []
    lines += [
        "",
        f"Mean merge-induced forgetting of old organs: {_signed(summary['mean_forgetting_old_organs'])} points to the "
        f"best decoder, {_signed(summary['mean_forgetting_first_old_organs'])} to the first.",
        "",
        f"Adding {summary['added_task']} changes organs that it does not know in so many voxels:",
        "",
        "| merge | changed | it is surer | as sure | neither |",
        "|---|--:|--:|--:|--:|",
    ]
    for kind in kinds:
        found = summary["intrusion"][kind]
        lines.append(f"| {kind} | {found['changed']} | {found['surer']} | {found['as_sure']} | {found['unclaimed']} |")
    words = {True: "met", False: "missed", None: "no organ says"}
    goals = [f"- {name.replace('_', ' ')}: {words[is_met]}" for name, is_met in summary["goals"].items()]
    return [*lines, "", "Goals:", "", *goals]


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"


def write_merged(evaluation: MergedEvaluation, path: Path) -> tuple[Path, Path]:
    """Write ``path`` (JSON) and the table beside it (``.md``). Raises OutputError."""
    check_report(path)
    write_text(path, json.dumps(merged_json(evaluation), indent=1, allow_nan=False) + "\n")
    table = path.with_suffix(".md")
    write_text(table, merged_markdown(evaluation))
    return path, table
