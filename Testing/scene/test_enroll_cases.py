"""The cases of an enrolment: names to organs, findings in words, mends, and what the back end is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from wbcss.errors import InputError
from WholeBodyCSSLib.EnrollCases import Activity, EnrollCases, Mend, organName
from WholeBodyCSSLib.TrainProcess import JobEnd

NAMES = {
    "format": "wbcss-case-names",
    "cases": ["a.nii.gz", "b.nii.gz", "c.nii.gz"],
    "names": [
        {"name": "Liver", "cases": 2, "organ": "liver", "near": [], "new": False},
        {"name": "Livr", "cases": 1, "organ": None, "near": ["liver"], "new": False},
        {"name": "Vena", "cases": 3, "organ": None, "near": [], "new": False},
    ],
}


class Job:
    """Ends when it is given an end."""

    progress = (0.5, "checking case 2 of 3")

    def __init__(self) -> None:
        self.end: JobEnd | None = None
        self.isCancelled = False

    def poll(self) -> JobEnd | None:
        return self.end

    def cancel(self) -> None:
        self.isCancelled = True


class BackEnd:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.jobs: list[Job] = []

    def __call__(self, arguments: Sequence[str]) -> Job:
        self.asked.append(list(arguments))
        self.jobs.append(Job())
        return self.jobs[-1]

    def answer(self, cases: EnrollCases, *lines: Mapping[str, Any], exitCode: int = 0, message: str = "") -> None:
        self.jobs[-1].end = JobEnd(exitCode=exitCode, lines=lines, message=message)
        cases.poll()


@pytest.fixture
def backEnd() -> BackEnd:
    return BackEnd()


@pytest.fixture
def cases(backEnd: BackEnd) -> EnrollCases:
    """Three cases whose names are known."""
    cases = EnrollCases(backEnd)
    cases.read(Path("/data"))
    backEnd.answer(cases, NAMES)
    return cases


def answered(cases: EnrollCases) -> EnrollCases:
    cases.learnAs("Livr", "liver")
    cases.doNotLearn("Vena")
    return cases


def report(*, errors: Sequence[Mapping[str, Any]] = (), warnings: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    return {"format": "wbcss-case-check", "errors": errors, "warnings": warnings}


def roles(*heldOut: bool | None) -> dict[str, Any]:
    return {"cases": [{"title": "x", "held_out": role} for role in heldOut]}


def finding(kind: str, case: int | None) -> dict[str, Any]:
    return {"kind": kind, "case": case, "organ": None, "message": "expected this, got that"}


def test_reading_asks_for_names_only(backEnd: BackEnd) -> None:
    cases = EnrollCases(backEnd)
    cases.read(Path("/data"))
    assert backEnd.asked == [["check", "--cases", str(Path("/data")), "--names", "--json"]]
    assert (cases.activity, cases.progress) == (Activity.READING, (0.5, "checking case 2 of 3"))
    backEnd.answer(cases, exitCode=2, message="a folder of cases must hold dataset.json, got nothing")
    assert cases.activity == Activity.IDLE
    assert cases.message == "a folder of cases must hold dataset.json, got nothing"
    assert cases.rows == ()


def test_cases_out_of_the_scene_are_called_by_their_volumes(backEnd: BackEnd) -> None:
    cases = EnrollCases(backEnd)
    for titles, shown in ((("A", "B", "C"), ["A", "B", "C"]), (("A",), ["a.nii.gz", "b.nii.gz", "c.nii.gz"])):
        cases.read(Path("/data"), titles)
        backEnd.answer(cases, NAMES)
        assert [row.title for row in cases.rows] == shown


def test_a_name_that_is_not_clear_must_be_answered(cases: EnrollCases) -> None:
    with pytest.raises(InputError, match="say what Livr is, or do not learn it"):
        cases.arguments()
    cases.learnAs("Livr", "liver")
    with pytest.raises(InputError, match="say what Vena is"):
        cases.arguments()
    cases.doNotLearn("Vena")
    assert cases.arguments()[2:] == ("--organs", "Liver=liver,Livr=liver")
    assert (cases.organs, cases.newOrgans) == (("liver",), ())


def test_a_new_organ_is_declared_as_new(cases: EnrollCases) -> None:
    cases.learnAs("Livr", "liver")
    cases.learnAs("Vena", "Vena azygos (left)")
    assert cases.arguments()[3] == "Liver=liver,Livr=liver,Vena=new:vena_azygos_left"
    assert cases.newOrgans == ("vena_azygos_left",)


def test_nothing_to_learn_is_told(cases: EnrollCases) -> None:
    for name in ("Liver", "Livr", "Vena"):
        cases.doNotLearn(name)
    with pytest.raises(InputError, match="choose at least one organ to learn"):
        cases.arguments()
    with pytest.raises(InputError, match="choose cases first"):
        EnrollCases(BackEnd()).arguments()


def test_names_of_organs_are_those_of_the_catalogue_or_made_of_letters() -> None:
    assert organName("Vertebrae L1") == "vertebrae_L1"
    assert organName("My tumor (2)") == "my_tumor_2"
    with pytest.raises(InputError, match=r"must begin with a letter a-z and be short, got '3rd lobe'"):
        organName("3rd lobe")


def test_a_name_with_a_comma_cannot_be_learned(backEnd: BackEnd) -> None:
    cases = EnrollCases(backEnd)
    cases.read(Path("/data"))
    row = {"name": "Liver, left", "cases": 1, "organ": None, "near": ["liver"], "new": False}
    backEnd.answer(cases, {**NAMES, "names": [row]})
    cases.learnAs("Liver, left", "liver")
    with pytest.raises(InputError, match="must hold no comma, got 'Liver, left'"):
        cases.arguments()


def test_a_passed_check_shows_who_is_held_out(cases: EnrollCases, backEnd: BackEnd) -> None:
    answered(cases).check()
    backEnd.answer(cases, roles(False, True, False), report(warnings=[finding("too_few_cases", None)]))
    assert cases.isChecked
    assert [row.isHeldOut for row in cases.rows] == [False, True, False]
    assert (cases.numUsed, cases.numHeldOut, cases.heldOutTitles) == (3, 1, ("b.nii.gz",))
    (told,) = cases.general
    assert (told.title, told.isError, told.mends) == ("There are few cases", False, ())


def test_errors_stop_and_offer_what_a_click_can_mend(cases: EnrollCases, backEnd: BackEnd) -> None:
    answered(cases).check()
    errors = [finding("labels_shifted", 2), finding("image_not_hu", 3)]
    backEnd.answer(cases, roles(None, None, None), report(errors=errors), exitCode=2)
    assert not cases.isChecked
    (shifted,), (strange,) = cases.rows[1].findings, cases.rows[2].findings
    assert shifted.mends == (Mend.SAME_GRID, Mend.LEAVE_OUT)
    assert strange.mends == (Mend.LEAVE_OUT,)
    assert strange.title == "The values of the image are no Hounsfield units"
    cases.mend(Mend.SAME_GRID, 1)
    cases.mend(Mend.LEAVE_OUT, 2)
    assert cases.arguments()[4:] == ("--leave-out", "3", "--same-grid")
    assert [row.findings for row in cases.rows] == [(), (), ()]


def test_findings_keep_to_their_case_when_others_are_left_out(cases: EnrollCases, backEnd: BackEnd) -> None:
    """The back end numbers the remaining cases anew."""
    answered(cases).use(0, False)
    cases.check()
    backEnd.answer(cases, roles(True, False), report(warnings=[finding("organ_tiny", 2)]))
    assert [len(row.findings) for row in cases.rows] == [0, 0, 1]
    assert [row.isHeldOut for row in cases.rows] == [None, True, False]


def test_any_change_makes_a_new_check_necessary(cases: EnrollCases, backEnd: BackEnd) -> None:
    for change in (lambda: cases.use(0, False), lambda: cases.doNotLearn("Livr"), lambda: cases.learnAs("Livr", "x")):
        answered(cases).check()
        backEnd.answer(cases, roles(False, True, False), report())
        assert cases.isChecked
        change()
        assert not cases.isChecked
        assert [row.isHeldOut for row in cases.rows] == [None] * 3


def test_a_check_that_cannot_run_says_why(cases: EnrollCases, backEnd: BackEnd) -> None:
    answered(cases).check()
    backEnd.answer(cases, exitCode=2, message="b.seg.nrrd may name an organ once, got 'Liver' and 'Livr' for liver")
    assert not cases.isChecked
    assert "may name an organ once" in cases.message


def test_closing_stops_the_job(cases: EnrollCases, backEnd: BackEnd) -> None:
    answered(cases).check()
    cases.close()
    assert backEnd.jobs[-1].isCancelled
    assert cases.activity == Activity.IDLE
