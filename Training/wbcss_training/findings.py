"""What a check of annotated scans says: findings, and the report that lists them for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from wbcss.errors import CaseError
from wbcss.labels import OrganName

Severity = Literal["error", "warning"]
Kind = Literal[
    "image_unreadable",
    "image_not_3d",
    "image_not_finite",
    "image_geometry",
    "image_not_ct",
    "image_not_hu",
    "image_without_body",
    "labels_unreadable",
    "labels_not_whole",
    "labels_geometry",
    "labels_shifted",
    "labels_undeclared",
    "labels_overlap",
    "nothing_annotated",
    "organ_unknown",
    "organ_missing",
    "organ_nowhere",
    "organ_partly_annotated",
    "organ_tiny",
    "organ_too_large",
    "organ_in_pieces",
    "organ_outside_body",
    "sides_swapped",
    "side_doubtful",
    "duplicate_patient",
    "duplicate_image",
    "too_few_cases",
]

_SHOWN_PER_KIND = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong or worth knowing.

    Attributes:
        kind: What was found; programs go by this.
        severity: An ``error`` keeps the cases from being learned; a ``warning`` explains.
        message: One sentence: what was expected, what came, what to do. Holds no file name and no patient.
        case: Number of the case in its list, from 1; None if it is about all of them.
        organ: The organ it is about, if one.
    """

    kind: Kind
    severity: Severity
    message: str
    case: int | None = None
    organ: OrganName | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"kind": self.kind, "case": self.case, "organ": self.organ, "message": self.message}


@dataclass(frozen=True, kw_only=True)
class Notes:
    """Collects the findings of one case.

    Attributes:
        case: Its number in the list, from 1.
        findings: So far.
    """

    case: int
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: Kind, severity: Severity, message: str, organ: OrganName | None = None) -> None:
        """Note one finding."""
        self.findings.append(Finding(kind=kind, severity=severity, message=message, case=self.case, organ=organ))


class OrganCount(NamedTuple):
    """In how many cases an organ is annotated, in how many of those it has a voxel, and its volumes there."""

    annotated: int
    present: int
    volumes_ml: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What ``check_cases`` found.

    Attributes:
        findings: In the order of the cases, those about all of them last.
        num_cases: How many were looked at.
        organs: Per organ, how often it occurs.
        image_hashes: Hash of every case's voxels, "" where it could not be read; splits use them. Not published.
        names: What to call every case on the terminal. Not published.
    """

    findings: tuple[Finding, ...]
    num_cases: int
    organs: Mapping[OrganName, OrganCount]
    image_hashes: tuple[str, ...] = field(repr=False)
    names: tuple[str, ...] = field(repr=False)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What must be mended before training."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What is worth knowing."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def raise_if_broken(self) -> None:
        """Raise CaseError with the first error and the number of further ones, if there is any."""
        errors = self.errors
        if not errors:
            return
        where = f"case {errors[0].case}: " if errors[0].case else ""
        further = len(errors) - 1
        more = f" (and {further} more; `wbcss-train check` lists all)" if further else ""
        raise CaseError(f"the case check found {_counted(errors, 'error')}: {where}{errors[0].message}{more}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without file names, patients or hashes of images: fit to be published."""
        return {
            "format": "wbcss-case-check",
            "format_version": 1,
            "num_cases": self.num_cases,
            "organs": {
                organ: {
                    "annotated": count.annotated,
                    "present": count.present,
                    "volume_ml": [round(volume, 3) for volume in _ends(count.volumes_ml)],
                }
                for organ, count in self.organs.items()
            },
            "errors": [finding.to_json() for finding in self.errors],
            "warnings": [finding.to_json() for finding in self.warnings],
        }

    def json_text(self) -> str:
        """``to_json`` as a file."""
        return json.dumps(self.to_json(), indent=1) + "\n"

    def json_line(self) -> str:
        """``to_json`` as the last line of a stream of JSON lines."""
        return json.dumps(self.to_json()) + "\n"

    def table(self) -> str:
        """The report for a terminal: organs, then errors, then warnings, each kind cut to its first cases."""
        lines = [f"{self.num_cases} case(s), {len(self.organs)} organ(s)", ""]
        rows = [("organ", "annotated", "with voxels", "volume, ml")]
        rows += [
            (organ, f"{count.annotated}", f"{count.present}", _range(count.volumes_ml))
            for organ, count in self.organs.items()
        ]
        lines += _columns(rows)
        for title, findings in (("error", self.errors), ("warning", self.warnings)):
            if findings:
                lines += ["", _counted(findings, title).upper(), *self._grouped(findings)]
        lines += ["", "not fit for training" if self.errors else "fit for training"]
        return "\n".join(lines) + "\n"

    def _grouped(self, findings: Sequence[Finding]) -> list[str]:
        lines = []
        for kind in dict.fromkeys(finding.kind for finding in findings):
            same = [finding for finding in findings if finding.kind == kind]
            lines += [f"  {kind}: {self._place(finding)}{finding.message}" for finding in same[:_SHOWN_PER_KIND]]
            if len(same) > _SHOWN_PER_KIND:
                lines.append(f"  {kind}: and {len(same) - _SHOWN_PER_KIND} more like these (--report FILE lists all)")
        return lines

    def _place(self, finding: Finding) -> str:
        return f"case {finding.case} ({self.names[finding.case - 1]}): " if finding.case else ""


def _counted(findings: Sequence[Finding], what: str) -> str:
    return f"{len(findings)} {what}{'s' if len(findings) != 1 else ''}"


def _ends(volumes_ml: Sequence[float]) -> tuple[float, ...]:
    return (min(volumes_ml), max(volumes_ml)) if volumes_ml else ()


def _range(volumes_ml: Sequence[float]) -> str:
    ends = dict.fromkeys(f"{volume:.3g}" for volume in _ends(volumes_ml))
    return " to ".join(ends) or "-"


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
