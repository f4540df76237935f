"""Who is trained on and who is held out: by patient, by seed, and written down without naming anyone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wbcss.errors import CaseError
from wbcss.io.atomic import write_text
from wbcss.io.reading import read_volume

from .annotation import Case, image_hash
from .check import MIN_PATIENTS
from .findings import Finding

_FORMAT = "wbcss-split"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Split:
    """Cases to train on and cases held out. No patient and no image is on both sides.

    Attributes:
        train, validation: In the order of the list they came from.
        train_ids, validation_ids: Hash of each case's voxels: what a split file names it by.
        findings: Says so if nothing is held out.
    """

    train: tuple[Case, ...]
    validation: tuple[Case, ...]
    train_ids: tuple[str, ...] = field(repr=False)
    validation_ids: tuple[str, ...] = field(repr=False)
    findings: tuple[Finding, ...] = ()


def split_cases(
    cases: Sequence[Case],
    *,
    validation_fraction: float = 0.2,
    seed: int = 0,
    image_hashes: Sequence[str] | None = None,
) -> Split:
    """Hold out whole patients, at least one; with fewer than three patients nobody, and the split says so.

    Patients are drawn by a hash of the seed and their images: the order of the list, names and folders do not matter,
    and a case that joins later moves at most the patients at the border.

    Args:
        cases: At least one.
        validation_fraction: Share of the patients to hold out, 0 <= f < 1; 0 holds out nobody.
        seed: Another seed holds out others.
        image_hashes: Of the cases, as a ``CheckReport`` has them; by default every image is read.

    Raises:
        CaseError: ``validation_fraction`` is out of range, or there is no case.
    """
    if not 0 <= validation_fraction < 1:
        raise CaseError(f"the validation fraction must be at least 0 and below 1, got {validation_fraction:g}")
    ids = _ids(cases, image_hashes)
    groups = _patients(cases, ids, seed)
    if validation_fraction == 0 or len(groups) < MIN_PATIENTS:
        return _split(cases, ids, frozenset(), _without_validation(len(groups)) if validation_fraction else ())
    count = min(len(groups) - 1, max(1, round(validation_fraction * len(groups))))
    return _split(cases, ids, frozenset(n for group in groups[:count] for n in group))


def fold_cases(
    cases: Sequence[Case], *, folds: int, seed: int = 0, image_hashes: Sequence[str] | None = None
) -> tuple[Split, ...]:
    """``folds`` splits that hold out every patient exactly once; as many folds as patients leave one out.

    Raises CaseError unless 2 <= ``folds`` <= patients.
    """
    ids = _ids(cases, image_hashes)
    groups = _patients(cases, ids, seed)
    if not 2 <= folds <= len(groups):
        raise CaseError(f"folds must be at least 2 and at most the {len(groups)} patient(s), got {folds}")
    held_out = [frozenset(n for group in groups[fold::folds] for n in group) for fold in range(folds)]
    return tuple(_split(cases, ids, numbers) for numbers in held_out)


def check_leaks(split: Split) -> None:
    """Raise CaseError if a patient or an image is on both sides; the message says how many and names nobody."""
    patients = {case.patient for case in split.train} & {case.patient for case in split.validation}
    if patients:
        raise CaseError(
            f"a patient may be trained on or validated on, got {len(patients)} on both sides; split by patient"
        )
    images = set(split.train_ids) & set(split.validation_ids)
    if images:
        raise CaseError(
            f"an image may be trained on or validated on, got {len(images)} on both sides under other names; "
            "remove the copies"
        )


def write_split(path: Path, split: Split) -> None:
    """Write ``split`` as JSON, whole or not at all; cases are named by the hash of their voxels. Raises OutputError."""
    facts = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "train": sorted(set(split.train_ids)),
        "validation": sorted(set(split.validation_ids)),
    }
    write_text(path, json.dumps(facts, indent=1) + "\n")


def read_split(path: Path, cases: Sequence[Case], *, image_hashes: Sequence[str] | None = None) -> Split:
    """The split that ``write_split`` wrote, of the same images wherever they lie now.

    Raises CaseError if the file is none, if it does not fit ``cases``, or if a patient is on both sides.
    """
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = (facts["format"], facts["format_version"])
        train, validation = (set(map(str, facts[side])) for side in ("train", "validation"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CaseError(f"expected a split file, got {path.name}: {error}") from error
    if found != (_FORMAT, _VERSION):
        raise CaseError(
            f"expected a split file of format {_FORMAT} {_VERSION}, got {found[0]} {found[1]} in {path.name}"
        )
    ids = _ids(cases, image_hashes)
    unnamed = sum(one not in train | validation for one in ids)
    gone = len((train | validation) - set(ids))
    if unnamed or gone:
        raise CaseError(
            f"{path.name} must name the images of the {len(cases)} case(s), got {unnamed} that it does not name and "
            f"{gone} that are gone; split again"
        )
    split = Split(
        train=tuple(case for case, one in zip(cases, ids, strict=True) if one in train),
        validation=tuple(case for case, one in zip(cases, ids, strict=True) if one in validation),
        train_ids=tuple(one for one in ids if one in train),
        validation_ids=tuple(one for one in ids if one in validation),
    )
    check_leaks(split)
    return split


def _ids(cases: Sequence[Case], image_hashes: Sequence[str] | None) -> tuple[str, ...]:
    if not cases:
        raise CaseError("expected at least one case to split, got none")
    if image_hashes is None:
        return tuple(image_hash(read_volume(case.image_path).volume) for case in cases)
    if len(image_hashes) != len(cases) or not all(image_hashes):
        known = sum(map(bool, image_hashes))
        raise CaseError(
            f"expected the hash of every image, got {known} for {len(cases)} case(s); mend the others first"
        )
    return tuple(image_hashes)


def _patients(cases: Sequence[Case], ids: Sequence[str], seed: int) -> list[tuple[int, ...]]:
    """Numbers of the cases of each patient, in an order drawn by ``seed``. One image under two names is one patient."""
    owner = list(range(len(cases)))

    def root(number: int) -> int:
        while owner[number] != number:
            number = owner[number]
        return number

    keys: tuple[Callable[[int], str], ...] = (lambda n: cases[n].patient, lambda n: ids[n])
    for key in keys:
        first: dict[str, int] = {}
        for number in range(len(cases)):
            owner[root(number)] = root(first.setdefault(key(number), number))
    groups: dict[int, list[int]] = {}
    for number in range(len(cases)):
        groups.setdefault(root(number), []).append(number)
    return sorted(
        (tuple(group) for group in groups.values()), key=lambda group: _draw(min(ids[n] for n in group), seed)
    )


def _draw(identity: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{identity}".encode()).hexdigest()


def _split(
    cases: Sequence[Case], ids: Sequence[str], held_out: frozenset[int], findings: tuple[Finding, ...] = ()
) -> Split:
    kept = [n for n in range(len(cases)) if n not in held_out]
    away = sorted(held_out)
    split = Split(
        train=tuple(cases[n] for n in kept),
        validation=tuple(cases[n] for n in away),
        train_ids=tuple(ids[n] for n in kept),
        validation_ids=tuple(ids[n] for n in away),
        findings=findings,
    )
    check_leaks(split)
    return split


def _without_validation(patients: int) -> tuple[Finding, ...]:
    message = (
        f"at least {MIN_PATIENTS} patients are needed to hold one out for validation, got {patients}; all are trained "
        "on and nothing is measured"
    )
    return (Finding(kind="too_few_cases", severity="warning", message=message),)
