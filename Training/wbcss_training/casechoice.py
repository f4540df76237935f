"""From a folder of annotated scans to cases to learn from and cases to hold out: read, check, split."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from wbcss.labels import OrganName
from wbcss.progress import IsCancelled, Progress, never, silent

from .annotation import Case
from .cases import read_case_list
from .check import check_cases
from .mapping import ALL_ORGANS, OrganChoice
from .runfolder import CHECKED, SPLIT, RunFolder
from .splits import Split, read_split, split_cases, write_split


@dataclass(frozen=True, kw_only=True)
class ChosenCases:
    """Checked and split cases.

    Attributes:
        organs: What is learned, in the order in which the cases name it.
        split: Who is learned from and who is held out.
        warnings: Sentences of the case check and of the split.
    """

    organs: tuple[OrganName, ...]
    split: Split
    warnings: tuple[str, ...]


def choose_cases(
    path: Path,
    folder: RunFolder,
    *,
    organs: OrganChoice = ALL_ORGANS,
    leave_out: Collection[int] = (),
    same_grid: bool = False,
    validation_fraction: float = 0.2,
    seed: int = 0,
    split_file: Path | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> ChosenCases:
    """Read the cases at ``path``, refuse broken ones, and split them by patient.

    The run folder keeps the split, and that the check was passed: cases that have not changed are not checked again.

    Args:
        path: Folder or list, in any layout that ``read_case_list`` knows.
        folder: Of the run.
        organs: What to learn.
        leave_out, same_grid: As in ``read_case_list``.
        validation_fraction: Share of the patients to hold out.
        seed: Of the split.
        split_file: Take this split instead.
        progress: Told before every case.
        cancelled: Asked before every case.

    Raises:
        CaseError: the cases cannot be read, are broken, or do not fit the split.
        Cancelled: ``cancelled`` returned true.
    """
    cases = read_case_list(path, organs=organs, leave_out=leave_out, same_grid=same_grid)
    key = _key(cases)
    known = folder.read(CHECKED) if folder.has(CHECKED) else {}
    if known.get("key") == key:
        hashes, warnings = tuple(known["image_hashes"]), tuple(known["warnings"])
    else:
        report = check_cases(cases, progress=progress, cancelled=cancelled)
        report.raise_if_broken()
        hashes = report.image_hashes
        warnings = tuple(f"case {w.case}: {w.message}" if w.case else w.message for w in report.warnings)
        folder.root.mkdir(parents=True, exist_ok=True)
        folder.write(CHECKED, {"key": key, "image_hashes": list(hashes), "warnings": list(warnings)})
    if split_file is not None:
        split = read_split(split_file, cases, image_hashes=hashes)
    else:
        split = split_cases(cases, validation_fraction=validation_fraction, seed=seed, image_hashes=hashes)
    write_split(folder.root / SPLIT, split)
    return ChosenCases(
        organs=tuple(dict.fromkeys(organ for case in cases for organ in case.organs)),
        split=split,
        warnings=tuple(dict.fromkeys((*warnings, *(finding.message for finding in split.findings)))),
    )


def _key(cases: tuple[Case, ...]) -> str:
    """A hash of what the cases are and when their files were written; no name can be read from it."""
    stamps = [(path.stat().st_size, path.stat().st_mtime_ns) for case in cases for path in case.files]
    same_grid = "same grid" if any(case.same_grid for case in cases) else ""
    return hashlib.sha256((repr((cases, stamps)) + same_grid).encode()).hexdigest()
