"""The trial of the checks as numbers, tables and pictures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wbcss import __version__
from wbcss.errors import OutputError
from wbcss.io.atomic import atomic_path, write_text
from wbcss.labels import OrganName
from wbcss.preprocess import canonical_orientation
from wbcss.preview import WINDOW_HU
from wbcss.volume import Volume

from .anomalytrial import AnomalyTrial, FaultTrial, OrganOutcome
from .faults import WHOLE_SCAN, Fault, FaultKind

REPORT, TABLE = "anomalies.json", "anomalies.md"
STRANGE = "unlike_training"
GOAL = 0.05
"""Healthy organs that may be called unlike the training data, at most."""

_SIDE, _GAP, _WIDE_MM = 240, 8, 160.0


def false_alarms(trial: AnomalyTrial) -> dict[str, Any]:
    """How often healthy scans are called unlike the training data.

    ``organs`` counts organs that the reference holds and some task can judge: those are healthy and really there.
    ``all_found`` counts also what was found without being annotated, and ``cases`` scans with such an alarm.
    """
    found = [(name, outcome) for case in trial.cases for name, outcome in case.healthy.organs.items()]
    judged = [(name, outcome) for name, outcome in found if outcome.anomaly is not None]
    there = [(name, outcome) for name, outcome in judged if outcome.is_annotated]
    by_organ = {
        str(name): _alarms([outcome for other, outcome in there if other == name])
        for name in sorted({name for name, _ in there})
    }
    alarmed = sum(
        any(STRANGE in outcome.flags for outcome in case.healthy.organs.values() if outcome.is_annotated)
        for case in trial.cases
    )
    overall = _alarms([outcome for _, outcome in there])
    return {
        "organs": overall,
        "by_organ": by_organ,
        "all_found": _alarms([outcome for _, outcome in judged]),
        "cases": {"count": len(trial.cases), "alarms": alarmed, "rate": _share(alarmed, len(trial.cases))},
        "flags": {
            flag: _share(count, len([1 for _, outcome in found if outcome.is_annotated]))
            for flag, count in sorted(Counter(_flags_of(outcome for _, outcome in found)).items())
        },
        "goal": GOAL,
        "is_met": None if overall["rate"] is None else overall["rate"] <= GOAL,
    }


def _flags_of(outcomes: Iterable[OrganOutcome]) -> list[str]:
    return [flag for outcome in outcomes if outcome.is_annotated for flag in outcome.flags]


def _alarms(outcomes: Sequence[OrganOutcome]) -> dict[str, Any]:
    alarms = sum(STRANGE in outcome.flags for outcome in outcomes)
    return {"count": len(outcomes), "alarms": alarms, "rate": _share(alarms, len(outcomes))}


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def detections(trial: AnomalyTrial, kind: FaultKind) -> dict[str, Any]:
    """How often faults of a kind are seen.

    ``detected`` is the share with any flag on an affected organ, or refused; ``detected_before`` the share with any
    flag on the same organs without the fault, and ``detected_anew`` counts only what they had not then. ``strange`` is
    the share with the flag of organs unlike the training data. ``by_flag`` and ``by_new_flag`` name the flags.
    ``case_check`` is the share that the check of training cases refuses, ``warned`` that with a new warning of the run,
    ``vanished`` the share of affected organs of which nothing is found, ``flagged_organs`` that of those with a flag.
    """
    faults = trial.of_kind(kind)

    def share(count: Iterable[object]) -> float | None:
        return _share(sum(map(bool, count)), len(faults))

    affected = sum(len(fault.affected) for fault in faults)
    return {
        "count": len(faults),
        "detected": share(fault.is_detected for fault in faults),
        "detected_anew": share(fault.is_detected_anew for fault in faults),
        "detected_before": share(fault.flags(before=True) for fault in faults),
        "strange": share(STRANGE in fault.flags() for fault in faults),
        "refused": share(fault.after.refused for fault in faults),
        "case_check": share(set(fault.after.case_check) - set(fault.before.case_check) for fault in faults),
        "warned": share(set(fault.after.warnings) - set(fault.before.warnings) for fault in faults),
        "vanished": _share(sum(len(fault.vanished) for fault in faults), affected),
        "flagged_organs": _share(
            sum(
                bool(fault.after.organs[o].flags) for fault in faults for o in fault.affected if o in fault.after.organs
            ),
            affected,
        ),
        "by_flag": dict(sorted(Counter(flag for fault in faults for flag in fault.flags()).items())),
        "by_new_flag": dict(sorted(Counter(flag for fault in faults for flag in fault.flags(new=True)).items())),
    }


def anomaly_json(trial: AnomalyTrial) -> dict[str, Any]:
    """The trial as JSON values; cases by their number only."""
    return {
        "format": "wbcss-anomaly-trial",
        "format_version": 1,
        "versions": {"wbcss": __version__},
        "encoder_sha256": trial.encoder_sha256,
        "tasks": list(trial.tasks),
        "seed": trial.seed,
        "false_alarms": false_alarms(trial),
        "detections": {kind: detections(trial, kind) for kind in trial.kinds},
        "cases": [
            {
                "number": case.number,
                "organs": {str(name): _outcome(outcome) for name, outcome in case.healthy.organs.items()},
                "warnings": list(case.healthy.warnings),
                "case_check": list(case.healthy.case_check),
                "faults": [_fault(fault) for fault in case.faults],
            }
            for case in trial.cases
        ],
    }


def _outcome(outcome: OrganOutcome) -> dict[str, Any]:
    anomaly = None if outcome.anomaly is None else round(outcome.anomaly, 4)
    return {"flags": list(outcome.flags), "anomaly": anomaly, "is_annotated": outcome.is_annotated}


def _fault(fault: FaultTrial) -> dict[str, Any]:
    after = fault.after
    return {
        "kind": fault.kind,
        "organ": str(fault.organ),
        "facts": {name: round(value, 3) for name, value in fault.facts.items()},
        "is_detected": fault.is_detected,
        "is_detected_anew": fault.is_detected_anew,
        "organs": {str(name): _outcome(after.organs[name]) for name in fault.affected if name in after.organs},
        "vanished": [str(name) for name in fault.vanished],
        "refused": after.refused,
        "case_check": list(after.case_check),
        "warnings": [text for text in after.warnings if text not in fault.before.warnings],
    }


def anomaly_markdown(trial: AnomalyTrial) -> str:
    """The same as tables."""
    alarms = false_alarms(trial)
    lines = [
        f"# Anomaly trial of {', '.join(trial.tasks)}",
        "",
        f"{len(trial.cases)} case(s), seed {trial.seed}.",
        "",
        "## False alarms",
        "",
        *_alarm_lines(alarms),
        "",
        f"Flags of healthy annotated organs: {_listed(alarms['flags'])}.",
        "",
        "## Planted faults",
        "",
        "Detected: any flag on the affected organ, or refused; anew: by flags that the organ did not have without the "
        "fault; before: any flag without the fault. The case check is asked by enrolment, not by `wbcss segment`.",
        "",
        "| fault | tried | detected | anew | before | strange | refused | case check | warned | vanished | new flags |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    columns = ("detected", "detected_anew", "detected_before", "strange", "refused", "case_check", "warned", "vanished")
    for kind in trial.kinds:
        row = detections(trial, kind)
        flags = ", ".join(f"{flag} {count}" for flag, count in row["by_new_flag"].items()) or "-"
        name = f"{kind} (all organs)" if kind in WHOLE_SCAN else kind
        lines.append(f"| {name} | {row['count']} | {' | '.join(_percent(row[key]) for key in columns)} | {flags} |")
    return "\n".join([*lines, "", "Strange: the flag `unlike_training`. New flags are counted once per fault."]) + "\n"


def _alarm_lines(alarms: dict[str, Any]) -> list[str]:
    if alarms["organs"]["rate"] is None:
        return ["No task of the registry can say that an organ is unlike its training data: no threshold on its card."]
    lines = ["| organ | judged | called unlike training | rate |", "|---|--:|--:|--:|"]
    rows = [
        *alarms["by_organ"].items(),
        ("**all**", alarms["organs"]),
        ("with organs not annotated", alarms["all_found"]),
    ]
    lines += [f"| {name} | {row['count']} | {row['alarms']} | {_percent(row['rate'])} |" for name, row in rows]
    goal = f"goal of at most {GOAL:.0%} {'met' if alarms['is_met'] else 'missed'}"
    cases = alarms["cases"]
    return [*lines, "", f"Cases with an alarm: {cases['alarms']} of {cases['count']}; {goal}."]


def _listed(rates: dict[str, float | None]) -> str:
    return ", ".join(f"{flag} {_percent(rate)}" for flag, rate in rates.items()) or "none"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def prepare_folder(folder: Path) -> None:
    """Make the folder of the report before anything is computed. Raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the report needs a folder it can write to, got {folder}: {error.strerror}") from error


def write_anomalies(trial: AnomalyTrial, folder: Path) -> tuple[Path, Path]:
    """Write ``anomalies.json`` and ``anomalies.md`` into ``folder``. Raises OutputError."""
    write_text(folder / REPORT, json.dumps(anomaly_json(trial), indent=1, allow_nan=False) + "\n")
    write_text(folder / TABLE, anomaly_markdown(trial))
    return folder / REPORT, folder / TABLE


def save_picture(folder: Path, number: int, organ: OrganName, volume: Volume, fault: Fault) -> Path:
    """Write ``case_N_KIND_ORGAN.png``: around the fault, without and with it, coronal, then axial; black is outside.

    Shows a patient's anatomy: for the folder of the one who asked, and nowhere else.
    """
    views = [view for across in (1, 2) for view in (_slice(volume, fault, across), _slice(fault.volume, fault, across))]
    picture = Image.new("L", ((_SIDE + _GAP) * len(views) - _GAP, _SIDE))
    for place, view in enumerate(views):
        picture.paste(Image.fromarray(view), ((_SIDE + _GAP) * place, 0))
    path = folder / f"case_{number}_{fault.kind}_{organ}.png"
    with atomic_path(path) as temporary:
        picture.save(temporary, format="png")
    return path


def _slice(volume: Volume, fault: Fault, across: int) -> npt.NDArray[np.uint8]:
    """Square around the fault's place across A (1, coronal) or S (2, axial), as wide in mm whatever the scan's grid is.

    The patient's right is on the left, front or head up; nearest voxels.
    """
    orientation = canonical_orientation(volume.affine)
    hu = orientation.view(volume.voxels)
    native = np.linalg.solve(volume.affine, np.array([*fault.place_ras_mm, 1.0]))
    away_mm = ((np.arange(_SIDE) + 0.5) / _SIDE - 0.5) * _WIDE_MM
    index, inside = [], []
    for row, axis in enumerate(orientation.permutation):
        middle = hu.shape[row] - 1 - native[axis] if orientation.flips[row] else native[axis]
        offset_mm = np.zeros(1) if row == across else -away_mm  # R and the top of the picture come first
        at = np.rint(middle + offset_mm / volume.spacing_mm[axis]).astype(int)
        index.append(np.clip(at, 0, hu.shape[row] - 1))
        inside.append((at >= 0) & (at < hu.shape[row]))
    plane = np.squeeze(hu[np.ix_(*index)], axis=across).T.astype(np.float64)
    right, front, up = (part.reshape([-1 if n == row else 1 for n in range(3)]) for row, part in enumerate(inside))
    seen = np.squeeze(right & front & up, axis=across).T
    is_other = fault.kind in WHOLE_SCAN and volume is fault.volume
    low, high = (0.0, max(1e-6, float(np.percentile(volume.voxels, 99.5)))) if is_other else WINDOW_HU
    gray: npt.NDArray[np.uint8] = (np.where(seen, np.clip((plane - low) / (high - low), 0, 1), 0) * 255).astype(
        np.uint8
    )
    return gray
