"""`wbcss-train evaluate`: segment annotated scans and say per organ how well that went."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wbcss import __version__
from wbcss.errors import Cancelled, OutputError
from wbcss.io.atomic import write_text
from wbcss.labels import OrganName
from wbcss.loading import LoadedModel
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.segment import SegmentOptions, segment
from wbcss.volume import LabelMap, Volume

from .annotation import in_model_values, organs_named
from .cases import Case, read_case
from .metrics import TOLERANCE_MM, Agreement, agreement

Watcher = Callable[["CaseScore", Volume, LabelMap, LabelMap], None]
"""Called with the score of a case, its scan, its reference and what was found, both in the model's label values."""

_METRICS = ("dice", "hd95_mm", "surface_dice")


@dataclass(frozen=True, kw_only=True)
class CaseScore:
    """Metrics of one case, which is known by its number in the list only.

    Attributes:
        organs: Every organ with a voxel in the reference that the model knows.
        seconds: Wall time of the segmentation.
    """

    number: int
    organs: Mapping[OrganName, Agreement]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model does on a list of cases.

    Attributes:
        unknown: Organs of the references that the model does not know.
        tasks: Name and version of every task that ran.
    """

    cases: tuple[CaseScore, ...]
    unknown: tuple[OrganName, ...]
    tasks: tuple[str, ...]
    encoder_sha256: str

    def summary(self) -> dict[OrganName, dict[str, float | None]]:
        """Per organ the mean of each metric and the number of cases; ``hd95_mm`` over cases where it was found."""
        names = dict.fromkeys(name for case in self.cases for name in case.organs)
        return {name: _mean([case.organs[name] for case in self.cases if name in case.organs]) for name in names}

    def overall(self) -> dict[str, float | None]:
        """Mean of the organs' means, every organ counting once, and the number of organs."""
        rows = list(self.summary().values())
        means: dict[str, float | None] = {metric: _average(row[metric] for row in rows) for metric in _METRICS}
        return {**means, "count": len(rows)}


def evaluate(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    options: SegmentOptions = SegmentOptions(),
    watcher: Watcher | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> Evaluation:
    """Segment every case with the tasks of ``model`` and compare with its reference, on the grid of the scan.

    Organs are scored where the reference holds a voxel of them; nothing is cut or post-processed first. ``watcher`` is
    shown every case with such an organ.

    Raises:
        CaseError: no organ of the list is known to the model, or a case cannot be used.
        Cancelled: ``cancelled`` returned true.
    """
    known = {organ.name for card in model.cards.values() for organ in card.organs}
    named = organs_named(cases, known=known)
    scores = []
    for number, case in enumerate(cases, start=1):
        if cancelled():
            raise Cancelled(f"the evaluation was stopped before case {number} of {len(cases)}")
        progress((number - 1) / len(cases), f"case {number} of {len(cases)}")
        scores.append(_score(number, case, known, model, options, watcher, cancelled))
    progress(1.0, "done")
    return Evaluation(
        cases=tuple(scores),
        unknown=tuple(sorted(named - known)),
        tasks=tuple(card.title for card in model.cards.values()),
        encoder_sha256=model.encoder_card.weights_sha256,
    )


def _score(
    number: int,
    case: Case,
    known: set[OrganName],
    model: LoadedModel,
    options: SegmentOptions,
    watcher: Watcher | None,
    cancelled: IsCancelled,
) -> CaseScore:
    volume, reference = read_case(case)
    present = set(np.unique(reference).tolist())
    wanted = {value: name for value, name in case.values.items() if name in known and value in present}
    if not wanted:
        return CaseScore(number=number, organs={}, seconds=0.0)
    started = time.monotonic()
    # All organs compete, as they do in use: with only the wanted ones, a neighbor's voxels could not be lost to it.
    segmentation = segment(volume, model, tasks=list(model.cards), options=options, cancelled=cancelled)
    seconds = time.monotonic() - started
    numbers = {organ.name: organ.label for organ in segmentation.organs}
    organs = _compare(segmentation.labels, reference, wanted, numbers, volume)
    score = CaseScore(number=number, organs=organs, seconds=seconds)
    if watcher is not None:
        watcher(score, volume, in_model_values(reference, wanted, numbers), segmentation.labels)
    return score


def _compare(
    labels: LabelMap,
    reference: LabelMap,
    wanted: Mapping[int, OrganName],
    numbers: Mapping[OrganName, int],
    volume: Volume,
) -> dict[OrganName, Agreement]:
    return {
        name: agreement(labels == numbers[name], reference == value, spacing_mm=volume.spacing_mm)
        for value, name in wanted.items()
    }


def _average(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _mean(rows: Sequence[Agreement]) -> dict[str, float | None]:
    means: dict[str, float | None] = {metric: _average(getattr(row, metric) for row in rows) for metric in _METRICS}
    return {**means, "count": len(rows), "missed": sum(row.segmented_ml == 0 for row in rows)}


def report_json(evaluation: Evaluation) -> dict[str, Any]:
    """The report as JSON values: no path, name or identifier of a case, only its number in the list."""
    return {
        "format": "wbcss-evaluation",
        "format_version": 1,
        "versions": {"wbcss": __version__, "torch": torch.__version__},
        "encoder_sha256": evaluation.encoder_sha256,
        "tasks": list(evaluation.tasks),
        "tolerance_mm": TOLERANCE_MM,
        "mean": _rounded(evaluation.overall()),
        "organs": {str(name): _rounded(row) for name, row in evaluation.summary().items()},
        "cases": [
            {
                "number": case.number,
                "seconds": round(case.seconds, 2),
                "organs": {str(name): _rounded(dataclasses.asdict(row)) for name, row in case.organs.items()},
            }
            for case in evaluation.cases
        ],
        "unknown_to_the_model": list(evaluation.unknown),
    }


def _rounded(row: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}


def report_markdown(evaluation: Evaluation) -> str:
    """The same as a table, worst organ first."""
    summary, mean = evaluation.summary(), evaluation.overall()
    lines = [
        f"# Evaluation of {', '.join(evaluation.tasks)}",
        "",
        f"{len(evaluation.cases)} case(s); surface Dice at {TOLERANCE_MM:g} mm; HD95 over cases where it was found.",
        "",
        "| organ | cases | missed | Dice | HD95 mm | surface Dice |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in sorted(summary.items(), key=lambda item: item[1]["dice"] or 0.0):
        lines.append(f"| {name} | {row['count']} | {row['missed']} | {_cells(row)} |")
    lines.append(f"| **mean of {mean['count']} organs** | | | {_cells(mean)} |")
    if evaluation.unknown:
        lines += ["", f"In the references but unknown to the model: {', '.join(evaluation.unknown)}."]
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[str, float | None]) -> str:
    digits = {"dice": 3, "hd95_mm": 1, "surface_dice": 3}
    values = [row[metric] for metric in _METRICS]
    return " | ".join("-" if v is None else f"{v:.{digits[m]}f}" for m, v in zip(_METRICS, values, strict=True))


def check_report(path: Path) -> None:
    """Refuse, before anything is computed, a report that could not be written. Raises OutputError."""
    if path.suffix != ".json":
        raise OutputError(f"a report must be named NAME.json, got {path.name}")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")


def write_report(evaluation: Evaluation, path: Path) -> tuple[Path, Path]:
    """Write ``path`` (JSON) and the table beside it (``.md``). Raises OutputError."""
    check_report(path)
    write_text(path, json.dumps(report_json(evaluation), indent=1, allow_nan=False) + "\n")
    table = path.with_suffix(".md")
    write_text(table, report_markdown(evaluation))
    return path, table
