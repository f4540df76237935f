"""From a folder to checked and split cases."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tiny_cases

from wbcss.errors import Cancelled, CaseError
from wbcss_training import casechoice
from wbcss_training.casechoice import choose_cases
from wbcss_training.mapping import parse_choice
from wbcss_training.runfolder import RunFolder
from wbcss_training.splits import read_split


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    return tiny_cases.write_list(tmp_path / "cases", tiny_cases.write_pairs(tmp_path / "cases", count=5))


def test_cases_are_checked_and_split(cases: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    chosen = choose_cases(cases, folder, validation_fraction=0.4)
    assert chosen.organs == tuple(tiny_cases.ORGANS)
    assert (len(chosen.split.train), len(chosen.split.validation)) == (3, 2)
    everyone = (*chosen.split.train, *chosen.split.validation)
    again = read_split(folder.root / "split.json", sorted(everyone, key=lambda case: case.image_path))
    assert set(again.train_ids) == set(chosen.split.train_ids)
    kept = b"".join(path.read_bytes() for path in folder.root.iterdir())
    assert b"smith" not in kept
    assert str(tmp_path).encode() not in kept


def test_only_the_organs_asked_for_are_chosen(cases: Path, tmp_path: Path) -> None:
    chosen = choose_cases(cases, RunFolder(tmp_path / "run"), organs=parse_choice("liver"))
    assert chosen.organs == ("liver",)


def test_cases_that_have_not_changed_are_not_checked_again(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, checks = RunFolder(tmp_path / "run"), []
    check = casechoice.check_cases

    def counted(*args: object, **kwargs: object) -> object:
        checks.append(1)
        return check(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(casechoice, "check_cases", counted)
    first = choose_cases(cases, folder)
    assert choose_cases(cases, folder) == first
    assert len(checks) == 1
    os.utime(first.split.train[0].image_path, (1, 1))
    choose_cases(cases, folder)
    assert len(checks) == 2


def test_one_patient_is_learned_from_and_the_reader_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    path = tiny_cases.write_list(folder, tiny_cases.write_pairs(folder, count=1))
    chosen = choose_cases(path, RunFolder(tmp_path / "run"))
    assert chosen.split.validation == ()
    assert any("at least 3 patients are needed to hold one out for validation, got 1" in w for w in chosen.warnings)


def test_broken_cases_and_a_cancel_leave_no_mark(cases: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(Cancelled):
        choose_cases(cases, folder, cancelled=lambda: True)
    with pytest.raises(CaseError, match="the validation fraction must be at least 0 and below 1, got 1"):
        choose_cases(cases, folder, validation_fraction=1.0)
    (tmp_path / "cases" / "smith_0.nii.gz").write_bytes(b"nonsense")
    with pytest.raises(CaseError, match="the case check found 1 error: case 1: "):
        choose_cases(cases, folder)
    assert not folder.has("split.json")
