"""The case check: everything that would make a training fail or teach nonsense, said before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from wbcss.catalogue import catalogue
from wbcss.labels import OrganName
from wbcss.progress import IsCancelled, Progress, check_cancelled, never, silent

from .annotation import Case
from .casecheck import Look, look_at, may_be_many
from .findings import CheckReport, Finding, OrganCount, Severity
from .mapping import unknown_message

__all__ = ["CheckReport", "Finding", "check_cases"]

LARGE = 4.0
MIN_COMPARED = 5
"""An organ this many times as large as the median of so many cases is rarely that organ; small ones may be cut off."""

MIN_PATIENTS = 3
"""With fewer, holding one out for validation would cost a third of the data or more."""


def check_cases(
    cases: Sequence[Case],
    *,
    organs: Sequence[OrganName] | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> CheckReport:
    """Read every case once and list what is wrong with it, or between cases. Nothing is written.

    Args:
        cases: What is to be learned from.
        organs: The organs that are to be learned; by default all that the cases name.
        progress: Told before every case.
        cancelled: Asked before every case.

    Raises:
        Cancelled: ``cancelled`` returned true.
    """
    wanted = None if organs is None else frozenset(organs)
    looks = []
    for number, case in enumerate(cases, start=1):
        check_cancelled(cancelled)
        progress((number - 1) / len(cases), f"checking case {number} of {len(cases)}")
        looks.append(look_at(case, number, wanted))
    progress(1.0, f"checked {len(cases)} cases")
    named = [organ for case in cases for organ in case.organs]
    taken = list(dict.fromkeys(sorted(named) if organs is None else organs))
    counts = {organ: _count(organ, looks) for organ in taken}
    across = [
        *_number_of_cases(cases),
        *_organs(cases, taken, set(named), counts),
        *_volumes(looks, counts),
        *_same_patients(cases),
        *_same_images(cases, looks),
    ]
    return CheckReport(
        findings=(*(finding for look in looks for finding in look.findings), *across),
        num_cases=len(cases),
        organs=counts,
        image_hashes=tuple(look.image_hash for look in looks),
        names=tuple(case.title for case in cases),
    )


def _count(organ: OrganName, looks: Sequence[Look]) -> OrganCount:
    volumes_ml = tuple(look.volumes_ml[organ] for look in looks if organ in look.volumes_ml)
    return OrganCount(sum(organ in look.annotated for look in looks), len(volumes_ml), volumes_ml)


def _number_of_cases(cases: Sequence[Case]) -> list[Finding]:
    patients = len({case.patient for case in cases})
    if not cases:
        return [Finding(kind="too_few_cases", severity="error", message="expected at least one case, got none")]
    if patients < MIN_PATIENTS:
        message = (
            f"at least {MIN_PATIENTS} patients are needed to hold one out for validation, got {patients}; all are "
            "trained on, and how well the organs are found stays unknown"
        )
        return [Finding(kind="too_few_cases", severity="warning", message=message)]
    return []


def _organs(
    cases: Sequence[Case],
    taken: Sequence[OrganName],
    named: set[OrganName],
    counts: Mapping[OrganName, OrganCount],
) -> list[Finding]:
    known = catalogue().keys() | {organ for case in cases for organ in case.new_organs}
    findings = []
    for organ in taken:
        count = counts[organ]
        if organ not in known:
            findings.append(
                Finding(kind="organ_unknown", severity="error", message=f"got {unknown_message([organ])}", organ=organ)
            )
        if organ not in named:
            message = f"{organ} is to be learned, but no case names it; got {', '.join(sorted(named)) or 'no organ'}"
            findings.append(Finding(kind="organ_missing", severity="error", message=message, organ=organ))
        elif not count.present:
            message = f"{organ} must have a voxel in at least one case, got none in {len(cases)}; leave the organ out"
            findings.append(Finding(kind="organ_nowhere", severity="error", message=message, organ=organ))
        elif count.annotated < len(cases):
            message = (
                f"{organ} is annotated in {count.annotated} of {len(cases)} cases; in the others it counts as unknown, "
                "neither as there nor as absent"
            )
            findings.append(Finding(kind="organ_partly_annotated", severity="warning", message=message, organ=organ))
    return findings


def _volumes(looks: Sequence[Look], counts: Mapping[OrganName, OrganCount]) -> list[Finding]:
    findings = []
    for organ, count in counts.items():
        if count.present < MIN_COMPARED:
            continue
        usual_ml = median(count.volumes_ml)
        for number, look in enumerate(looks, start=1):
            volume_ml = look.volumes_ml.get(organ, 0.0)
            if volume_ml > LARGE * usual_ml and not may_be_many(organ):
                message = (
                    f"{organ} measures {usual_ml:.3g} ml in the median case, got {volume_ml:.3g} ml; check that "
                    "nothing else was drawn with it"
                )
                findings.append(
                    Finding(kind="organ_too_large", severity="warning", message=message, case=number, organ=organ)
                )
    return findings


def _same_patients(cases: Sequence[Case]) -> list[Finding]:
    first: dict[str, int] = {}
    findings = []
    for number, case in enumerate(cases, start=1):
        if case.patient in first:
            message = f"this is the same patient as case {first[case.patient]}; splits keep both on one side"
            findings.append(Finding(kind="duplicate_patient", severity="warning", message=message, case=number))
        first.setdefault(case.patient, number)
    return findings


def _same_images(cases: Sequence[Case], looks: Sequence[Look]) -> list[Finding]:
    """One image twice counts twice; with other labels for the same organ it contradicts itself."""
    first: dict[str, int] = {}
    findings = []
    for number, look in enumerate(looks, start=1):
        if not look.image_hash or first.setdefault(look.image_hash, number) == number:
            continue
        twin = first[look.image_hash]
        both = set(look.annotated) & set(looks[twin - 1].annotated)
        contradicts = bool(both) and look.labels_hash != looks[twin - 1].labels_hash
        message = (
            f"every image should be listed once, got the image of case {twin} again with other labels of "
            f"{', '.join(sorted(both)[:3])}; keep the right one"
            if contradicts
            else f"every image should be listed once, got the image of case {twin} again; it counts twice"
        )
        severity: Severity = "error" if contradicts else "warning"
        findings.append(Finding(kind="duplicate_image", severity=severity, message=message, case=number))
    return findings
