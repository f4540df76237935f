"""The cases that an enrolment learns from: where they lie, what their labels mean, and what the back end says of them.

Free of Qt and MRML. The check itself is ``wbcss-train check``; here its report is turned into words and mends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from wbcss.catalogue import catalogue
from wbcss.errors import InputError
from wbcss.labels import OrganName

from .TrainProcess import JobEnd, JobProtocol, JobStarter, TrainJob
from .Translation import _

_SHIFTED = "labels_shifted"
_TITLES = {
    "image_unreadable": _("The image cannot be read"),
    "image_not_3d": _("The image is not three-dimensional"),
    "image_not_finite": _("The image holds numbers that are none"),
    "image_geometry": _("The place of the image in space is not usable"),
    "image_not_ct": _("The image is no CT"),
    "image_not_hu": _("The values of the image are no Hounsfield units"),
    "image_without_body": _("The image shows no body"),
    "labels_unreadable": _("The labels cannot be read"),
    "labels_not_whole": _("The labels are no whole numbers"),
    "labels_geometry": _("Image and labels do not lie on the same grid"),
    "labels_shifted": _("Image and labels differ by less than half a voxel"),
    "labels_undeclared": _("The labels hold values without a name"),
    "labels_overlap": _("Two organs overlap"),
    "nothing_annotated": _("Nothing is drawn in this case"),
    "organ_unknown": _("An organ is not known"),
    "organ_missing": _("An organ is in no case"),
    "organ_nowhere": _("An organ has no voxel in any case"),
    "organ_partly_annotated": _("An organ is drawn in some cases only"),
    "organ_tiny": _("An organ has only a few voxels"),
    "organ_too_large": _("An organ is much larger than in other cases"),
    "organ_in_pieces": _("An organ is in pieces"),
    "organ_outside_body": _("An organ lies outside of the body"),
    "sides_swapped": _("Left and right are swapped"),
    "side_doubtful": _("An organ may be on the wrong side"),
    "duplicate_patient": _("The same patient occurs twice"),
    "duplicate_image": _("The same image occurs twice"),
    "too_few_cases": _("There are few cases"),
}
"""What a kind of finding is called; the sentence of the back end says the rest."""


class Mend(Enum):
    """What a click can honestly do about a finding."""

    LEAVE_OUT = "leave_out"
    SAME_GRID = "same_grid"


@dataclass(frozen=True, kw_only=True)
class CaseFinding:
    """One thing that the check found.

    Attributes:
        title: In a few words.
        message: The sentence of the back end: what was expected, what came, what to do.
        isError: Errors stop, warnings explain.
        case: Place of the case in ``EnrollCases.rows``, None if it is about all cases.
        mends: What a click can do.
    """

    title: str
    message: str
    isError: bool
    case: int | None
    mends: tuple[Mend, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CaseRow:
    """One case.

    Attributes:
        title: What it is called on this screen; nowhere else.
        isUsed: Whether it is learned from or held out.
        isHeldOut: None until it is known.
        findings: Of this case alone.
    """

    title: str
    isUsed: bool = True
    isHeldOut: bool | None = None
    findings: tuple[CaseFinding, ...] = ()

    @property
    def numErrors(self) -> int:
        """Findings that stop."""
        return sum(finding.isError for finding in self.findings)


@dataclass(frozen=True, kw_only=True)
class NameRow:
    """A name that the labels use.

    Attributes:
        name: As the cases write it.
        numCases: In how many cases.
        organ: What it is learned as; "" if that is open or it is not learned.
        isLearned: Whether it is learned.
        isNew: Whether ``organ`` is one that the catalogue lacks.
        near: Organs with similar names.
    """

    name: str
    numCases: int
    organ: str
    isLearned: bool = True
    isNew: bool = False
    near: tuple[str, ...] = ()

    @property
    def isOpen(self) -> bool:
        """Whether somebody has to say what the name means."""
        return self.isLearned and not self.organ


class Activity(Enum):
    """What is going on."""

    IDLE = "idle"
    READING = "reading"
    CHECKING = "checking"


class EnrollCases:
    """Cases, names and findings of one enrolment; ``poll`` moves the background job on.

    Attributes:
        path: Folder or list of the cases, None until chosen.
        names: What the labels are called.
        rows: The cases.
        general: Findings about all cases.
        isChecked: Whether the check was passed as things stand.
        message: What went wrong last, "" if nothing did.
        onChanged: Called after anything of the above has changed.
    """

    def __init__(self, starter: JobStarter = TrainJob) -> None:
        self._starter = starter
        self._job: JobProtocol | None = None
        self._checked: tuple[int, ...] = ()
        self._titles: tuple[str, ...] = ()
        self.activity = Activity.IDLE
        self.path: Path | None = None
        self.names: tuple[NameRow, ...] = ()
        self.rows: tuple[CaseRow, ...] = ()
        self.general: tuple[CaseFinding, ...] = ()
        self.isSameGrid = False
        self.isChecked = False
        self.message = ""
        self.onChanged: Callable[[], None] = lambda: None

    # What the rest of the wizard needs

    @property
    def learned(self) -> tuple[NameRow, ...]:
        """Names that are learned."""
        return tuple(row for row in self.names if row.isLearned)

    @property
    def organs(self) -> tuple[str, ...]:
        """Organs that are learned, each once."""
        return tuple(dict.fromkeys(row.organ for row in self.learned if row.organ))

    @property
    def newOrgans(self) -> tuple[str, ...]:
        """Those that the catalogue lacks."""
        return tuple(dict.fromkeys(row.organ for row in self.learned if row.isNew))

    @property
    def numHeldOut(self) -> int:
        """Cases that validate."""
        return sum(row.isUsed and row.isHeldOut is True for row in self.rows)

    @property
    def numUsed(self) -> int:
        """Cases that are learned from or held out."""
        return sum(row.isUsed for row in self.rows)

    @property
    def heldOutTitles(self) -> tuple[str, ...]:
        """Held-out cases in the order in which the back end numbers them."""
        return tuple(row.title for row in self.rows if row.isUsed and row.isHeldOut)

    @property
    def progress(self) -> tuple[float, str]:
        """Of the job that runs."""
        return (0.0, "") if self._job is None else self._job.progress

    def arguments(self) -> tuple[str, ...]:
        """Options of ``wbcss-train`` that name cases and organs. Raises InputError if something is still open."""
        if self.path is None:
            raise InputError(_("choose cases first"))
        if not self.learned:
            raise InputError(_("choose at least one organ to learn"))
        unclear = [row.name for row in self.learned if row.isOpen]
        if unclear:
            raise InputError(_("say what {name} is, or do not learn it").format(name=unclear[0]))
        words = ["--cases", str(self.path), "--organs", ",".join(_choice(row) for row in self.learned)]
        leftOut = [number for number, row in enumerate(self.rows, start=1) if not row.isUsed]
        if leftOut:
            words += ["--leave-out", ",".join(map(str, leftOut))]
        return (*words, "--same-grid") if self.isSameGrid else tuple(words)

    # What a user does

    def read(self, path: Path, titles: Sequence[str] = ()) -> None:
        """Find out which cases lie at ``path`` and what their labels are called. Raises RunError.

        ``titles`` is what the cases are called on the screen, if not by their files.
        """
        self.close()
        self._titles = tuple(titles)
        self.path, self.names, self.rows, self.general = path, (), (), ()
        self.isSameGrid = self.isChecked = False
        self._start(Activity.READING, ("check", "--cases", str(path), "--names", "--json"))

    def learnAs(self, name: str, organ: str) -> None:
        """Say that ``name`` is ``organ``, of the catalogue or a new one. Raises InputError if it cannot be a name."""
        word = organName(organ)
        self._setName(name, organ=word, isLearned=True, isNew=word not in catalogue())

    def doNotLearn(self, name: str) -> None:
        """Leave ``name`` out: its voxels are background."""
        self._setName(name, isLearned=False)

    def use(self, row: int, isUsed: bool) -> None:
        """Take or leave a case."""
        self._setRow(row, isUsed=isUsed)

    def mend(self, mend: Mend, row: int | None) -> None:
        """Do what a finding offers."""
        if mend == Mend.SAME_GRID:
            self.isSameGrid = True
            self._invalidate()
        elif row is not None:
            self.use(row, False)

    def check(self) -> None:
        """Let the back end look at every case that is used. Raises InputError, RunError."""
        arguments = self.arguments()
        self.close()
        self._checked = tuple(number for number, row in enumerate(self.rows) if row.isUsed)
        self._start(Activity.CHECKING, ("check", *arguments, "--json"))

    def close(self) -> None:
        """Stop a job that runs."""
        if self._job is not None:
            self._job.cancel()
        self._job, self.activity = None, Activity.IDLE

    def poll(self) -> None:
        """Take up what the job has said."""
        job = self._job
        end = None if job is None else job.poll()
        if end is None:
            return
        activity, self.activity, self._job = self.activity, Activity.IDLE, None
        if activity == Activity.READING:
            self._namesRead(end)
        else:
            self._caseChecked(end)
        self.onChanged()

    # Inside

    def _start(self, activity: Activity, arguments: tuple[str, ...]) -> None:
        self.message = ""
        self._job = self._starter(arguments)
        self.activity = activity
        self.onChanged()

    def _namesRead(self, end: JobEnd) -> None:
        facts = next((line for line in end.lines if line.get("format") == "wbcss-case-names"), None)
        if facts is None:
            self.message = end.message
            return
        files = tuple(map(str, facts.get("cases", ())))
        titles = self._titles if len(self._titles) == len(files) else files
        self.rows = tuple(CaseRow(title=title) for title in titles)
        self.names = tuple(
            NameRow(
                name=str(row["name"]),
                numCases=int(row["cases"]),
                organ=str(row["organ"] or ""),
                isNew=bool(row["new"]),
                near=tuple(map(str, row["near"])),
            )
            for row in facts.get("names", ())
        )

    def _caseChecked(self, end: JobEnd) -> None:
        report = next((line for line in end.lines if line.get("format") == "wbcss-case-check"), None)
        if report is None:
            self.message = end.message
            return
        roles: Sequence[Mapping[str, Any]] = next(
            (line["cases"] for line in end.lines if "cases" in line and "format" not in line), []
        )
        found = [
            self._finding(row, isError=isError)
            for isError, rows in ((True, report.get("errors", ())), (False, report.get("warnings", ())))
            for row in rows
        ]
        self.general = tuple(finding for finding in found if finding.case is None)
        heldOut = {place: role.get("held_out") for place, role in zip(self._checked, roles, strict=False)}
        self.rows = tuple(
            replace(
                row,
                isHeldOut=heldOut.get(place),
                findings=tuple(finding for finding in found if finding.case == place),
            )
            for place, row in enumerate(self.rows)
        )
        self.isChecked = end.exitCode == 0 and not any(finding.isError for finding in found)

    def _finding(self, row: Mapping[str, Any], *, isError: bool) -> CaseFinding:
        kind, number = str(row.get("kind", "")), row.get("case")
        case = None
        if isinstance(number, int) and 1 <= number <= len(self._checked):
            case = self._checked[number - 1]
        mends = (Mend.SAME_GRID,) if kind == _SHIFTED else ()
        return CaseFinding(
            title=_TITLES.get(kind, kind.replace("_", " ")),
            message=str(row.get("message", "")),
            isError=isError,
            case=case,
            mends=mends if case is None else (*mends, Mend.LEAVE_OUT),
        )

    def _setName(self, name: str, **changes: Any) -> None:
        self.names = tuple(replace(row, **changes) if row.name == name else row for row in self.names)
        self._invalidate()

    def _setRow(self, place: int, **changes: Any) -> None:
        self.rows = tuple(replace(row, **changes) if n == place else row for n, row in enumerate(self.rows))
        self._invalidate()

    def _invalidate(self) -> None:
        """What was checked is not what is chosen any more."""
        self.isChecked = False
        self.general = ()
        self.rows = tuple(replace(row, isHeldOut=None, findings=()) for row in self.rows)
        self.onChanged()


def organName(text: str) -> OrganName:
    """The name that cards and files use for what a person typed. Raises InputError if nothing of it can be used."""
    word = "_".join(re.findall(r"[a-z0-9]+", text.lower()))
    known = next((name for name in catalogue() if name.lower() == word), None)
    if known is not None:
        return known
    if not re.match(r"[a-z]", word) or len(word) > 63:
        raise InputError(
            _("the name of an organ must begin with a letter a-z and be short, got {text}").format(text=repr(text))
        )
    return OrganName(word)


def _choice(row: NameRow) -> str:
    """The entry of ``--organs`` for a name. Raises InputError for one that the option cannot hold."""
    if "," in row.name:
        raise InputError(_("a name that is learned must hold no comma, got {name}").format(name=repr(row.name)))
    return f"{row.name}={'new:' if row.isNew else ''}{row.organ}"
