"""The reliability of published tasks, with a model whose confidence is known in closed form."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_cases
import tiny_registry
from analytic_model import threshold_model
from tiny_scan import fix_backend

from wbcss.errors import Cancelled, CaseError
from wbcss.io.reading import read_volume
from wbcss.io.writing import write_volume
from wbcss.labels import TaskId
from wbcss.loading import LoadedModel
from wbcss.segment import SegmentOptions
from wbcss_training.cases import Case, read_case_list
from wbcss_training.cli.main import main
from wbcss_training.reliabilitymeasure import measure_reliability, uncalibrated

TORCH = SegmentOptions(device="cpu", backend="torch", threads=1)
FIRST = TaskId("first")
T = 2.5


def share_of_liver(temperature: float) -> float:
    """At 200 HU the log odds of liver (from 150 HU) and kidney (from 500 HU) are 1 and -5 against background."""
    odds = [math.exp(logit / temperature) for logit in (1.0, 0.0, -5.0)]
    return odds[0] / sum(odds)


BEFORE, AFTER = share_of_liver(1.0), share_of_liver(T)


def write_case(folder: Path, *, absent: str = "unknown") -> Path:
    """10 x 8 x 8 voxels of 200 HU, three quarters of which are drawn as liver; a kidney that is not drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    hu, labels = np.full(tiny_cases.SHAPE, -100, np.int16), np.zeros(tiny_cases.SHAPE, np.uint8)
    hu[6:16, 4:12, 3:11] = 200
    labels[6:16, 4:10, 3:11] = 3
    hu[18:21, 4:8, 3:7] = 600
    write_volume(folder / "a.nii.gz", hu, tiny_cases.AFFINE)
    write_volume(folder / "a_seg.nii.gz", labels, tiny_cases.AFFINE)
    return tiny_cases.write_list(folder, [{"image": "a.nii.gz", "labels": "a_seg.nii.gz"}], absent=absent)


def a_model() -> LoadedModel:
    tasks = {"first": {"liver": 150.0, "kidney_left": 500.0}, "second": {"spleen": 5000.0}}
    return threshold_model(tasks, spacing_mm=(6.0, 6.0, 6.0), temperature=T)


@pytest.fixture
def cases(tmp_path: Path) -> tuple[Case, ...]:
    return read_case_list(write_case(tmp_path / "cases"))


def test_confidence_and_right_answers_are_those_of_the_voxels_it_claims(cases: tuple[Case, ...]) -> None:
    measured = measure_reliability(a_model(), cases, options=TORCH)
    facts = measured.tasks[FIRST].to_json()
    (before,), (after,) = facts["reliability"]["before"], facts["reliability"]["after"]
    # What it calls kidney is not judged, as the case says nothing of kidneys.
    assert (before["voxels"], after["voxels"], facts["voxels"]) == (640, 640, 640)
    assert (before["accuracy"], after["accuracy"]) == (0.75, 0.75)
    assert before["confidence"] == pytest.approx(BEFORE, abs=2e-3)
    assert after["confidence"] == pytest.approx(AFTER, abs=2e-3)
    assert facts["ece_before"] == pytest.approx(0.75 - BEFORE, abs=2e-3)
    assert facts["ece_after"] == pytest.approx(0.75 - AFTER, abs=2e-3)
    assert not facts["is_met"]
    assert facts["ece_with_contradicted"] == facts["ece_after"]


def test_other_organs_where_the_case_draws_one_are_counted_apart(tmp_path: Path) -> None:
    """A kidney that nobody annotates in the middle of a drawn liver: an error, but no measure of how sure it is."""
    path = write_case(tmp_path / "cases")
    hu = read_volume(tmp_path / "cases" / "a.nii.gz").volume.voxels.copy()
    hu[6:16, 4:6, 3:11] = 600
    write_volume(tmp_path / "cases" / "a.nii.gz", hu, tiny_cases.AFFINE)
    facts = measure_reliability(a_model(), read_case_list(path), options=TORCH).tasks[FIRST].to_json()
    assert facts["voxels"] == 640 - 160
    assert facts["ece_with_contradicted"] > facts["ece_after"] + 0.05


def test_where_absent_means_not_there_every_claim_is_judged(tmp_path: Path) -> None:
    cases = read_case_list(write_case(tmp_path / "cases", absent="background"))
    rows = measure_reliability(a_model(), cases, options=TORCH).tasks[FIRST].before
    assert sum(row["voxels"] for row in rows) == 640 + 3 * 4 * 4
    assert sum(row["voxels"] * row["accuracy"] for row in rows) == pytest.approx(480, abs=0.1)


def test_a_task_without_an_annotated_organ_has_no_error(cases: tuple[Case, ...]) -> None:
    facts = measure_reliability(a_model(), cases, options=TORCH).tasks[TaskId("second")].to_json()
    assert (facts["voxels"], facts["ece_before"], facts["ece_after"], facts["is_met"]) == (0, None, None, None)


def test_without_calibration_the_temperature_is_one() -> None:
    model = a_model()
    assert model.cards[FIRST].temperature == T
    assert uncalibrated(model).cards[FIRST].temperature == 1.0
    assert uncalibrated(model).cards[FIRST].organs == model.cards[FIRST].organs


def test_nobody_knows_the_organs_or_it_is_stopped(cases: tuple[Case, ...]) -> None:
    spleen = threshold_model({"first": {"spleen": 150.0}}, spacing_mm=(6.0, 6.0, 6.0))
    with pytest.raises(CaseError, match="name no organ that the model knows, got kidney_left, kidney_right, liver"):
        measure_reliability(spleen, cases, options=TORCH)
    with pytest.raises(Cancelled):
        measure_reliability(a_model(), cases, options=TORCH, cancelled=lambda: True)


def test_the_command_writes_report_table_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fix_backend(monkeypatch)
    registry = tiny_registry.new_registry(tmp_path / "registry")
    monkeypatch.setattr("wbcss_training.cli.reliability.load_model", lambda registry, tasks: a_model())
    words = ["reliability", "--registry", str(registry.root), "--cases", str(write_case(tmp_path / "cases"))]
    assert main([*words, "--out", str(tmp_path / "r.json"), "--device", "cpu", "--threads", "1"]) == 0
    assert capsys.readouterr().out == (tmp_path / "r.md").read_text()
    report = json.loads((tmp_path / "r.json").read_text())
    assert set(report["tasks"]) == {"first@1", "second@1"}
    assert "| second@1 | 0 | - | - | - |" in (tmp_path / "r.md").read_text()
    assert (tmp_path / "r.png").is_file()
    assert "a.nii" not in (tmp_path / "r.json").read_text()
    assert main([*words, "--out", str(tmp_path / "r.txt")]) == 2
    assert "a report must be named NAME.json, got r.txt" in capsys.readouterr().err
