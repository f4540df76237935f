"""Trials of the checks: bookkeeping in closed form, and the product's own answers on a tiny scan."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_cases
import tiny_registry
from analytic_model import threshold_model
from PIL import Image
from tiny_scan import fix_backend

from wbcss.anomaly import OrganReference
from wbcss.errors import Cancelled, CaseError
from wbcss.io.writing import write_volume
from wbcss.labels import OrganName, TaskId
from wbcss.loading import LoadedModel, TaskEvidence
from wbcss.segment import SegmentOptions, segment
from wbcss.volume import Volume
from wbcss_training.annotation import read_case
from wbcss_training.anomalyreport import (
    anomaly_json,
    anomaly_markdown,
    detections,
    false_alarms,
    save_picture,
    write_anomalies,
)
from wbcss_training.anomalytrial import (
    AnomalyTrial,
    CaseTrial,
    FaultTrial,
    OrganOutcome,
    ScanOutcome,
    try_anomalies,
)
from wbcss_training.cases import Case, read_case_list
from wbcss_training.cli.main import main
from wbcss_training.faults import Fault

TORCH = SegmentOptions(device="cpu", backend="torch", threads=1)
LIVER, KIDNEY = OrganName("liver"), OrganName("kidney_left")


def write_case(folder: Path) -> Path:
    """A liver of 200 HU inside a body, and a kidney that is drawn although nothing shows it."""
    folder.mkdir(parents=True, exist_ok=True)
    hu, labels = np.full(tiny_cases.SHAPE, -100, np.int16), np.zeros(tiny_cases.SHAPE, np.uint8)
    hu[6:16, 4:14, 3:11], labels[6:16, 4:14, 3:11] = 200, 3
    labels[18:21, 5:8, 4:8] = 1
    write_volume(folder / "a.nii.gz", hu, tiny_cases.AFFINE)
    write_volume(folder / "a_seg.nii.gz", labels, tiny_cases.AFFINE)
    return tiny_cases.write_list(folder, [{"image": "a.nii.gz", "labels": "a_seg.nii.gz"}])


@pytest.fixture
def cases(tmp_path: Path) -> tuple[Case, ...]:
    return read_case_list(write_case(tmp_path / "cases"))


def a_model() -> LoadedModel:
    """Calls everything from 150 HU on liver."""
    return threshold_model({"first": {"liver": 150.0}}, spacing_mm=(6.0, 6.0, 6.0))


def judging_model(case: Case, *, threshold: float, shift: float = 0.0) -> LoadedModel:
    """The same with sums of livers like that of ``case``, their features shifted."""
    model, task = a_model(), TaskId("first")
    seen = segment(read_case(case)[0], model, options=dataclasses.replace(TORCH, describe=True)).descriptors[task]
    rng = np.random.default_rng(0)
    reference = OrganReference.summed([seen + shift + rng.normal(0, 0.01, seen.shape) for _ in range(20)])
    card = dataclasses.replace(model.cards[task], anomaly={"threshold": threshold})
    return dataclasses.replace(model, cards={task: card}, evidence={task: TaskEvidence(None, reference)})


def test_an_organ_within_the_scan_that_is_cut_touches_the_border_anew(cases: tuple[Case, ...]) -> None:
    trial = try_anomalies(a_model(), cases, kinds=("truncation",), options=TORCH)
    (case,) = trial.cases
    assert case.healthy.organs[LIVER] == OrganOutcome(flags=(), anomaly=None, is_annotated=True)
    assert KIDNEY not in case.healthy.organs  # the model does not know it, so it gets no fault
    (fault,) = case.faults
    assert (fault.kind, fault.organ, fault.affected) == ("truncation", LIVER, (LIVER,))
    assert fault.flags() == fault.flags(new=True) == ("touches_border",)
    assert fault.flags(before=True) == ()
    assert fault.is_detected_anew
    assert 0.3 <= fault.facts["lost_share"] <= 0.6


def test_an_image_like_mr_is_refused_by_the_case_check_only(cases: tuple[Case, ...]) -> None:
    (case,) = try_anomalies(a_model(), cases, kinds=("mr", "pet"), options=TORCH).cases
    mr, pet = case.faults
    assert case.healthy.case_check == ()
    assert mr.after.case_check == pet.after.case_check == ("image_not_hu",)
    assert (mr.after.refused, pet.after.refused) == ("", "")
    # Uptake is far below 150: nothing is found, and nothing can be flagged.
    assert pet.vanished == (LIVER,)
    assert not pet.is_detected


def test_false_alarms_follow_the_threshold(cases: tuple[Case, ...]) -> None:
    like = try_anomalies(judging_model(cases[0], threshold=3.0), cases, kinds=(), options=TORCH)
    unlike = try_anomalies(judging_model(cases[0], threshold=3.0, shift=1.0), cases, kinds=(), options=TORCH)
    for trial, alarms in ((like, 0), (unlike, 1)):
        found = false_alarms(trial)
        assert found["organs"] == {"count": 1, "alarms": alarms, "rate": alarms}
        assert found["by_organ"] == {"liver": found["organs"]}
        assert found["cases"]["alarms"] == alarms
        assert found["is_met"] == (alarms == 0)
    assert "| liver | 1 | 1 | 100% |" in anomaly_markdown(unlike)
    assert "goal of at most 5% met" in anomaly_markdown(like)


def test_the_same_seed_plants_the_same_faults_whatever_else_is_planted(cases: tuple[Case, ...]) -> None:
    (all_kinds,) = try_anomalies(a_model(), cases, kinds=("lesion", "metal"), seed=3, options=TORCH).cases
    (one,) = try_anomalies(a_model(), cases, kinds=("metal",), seed=3, options=TORCH).cases
    (other,) = try_anomalies(a_model(), cases, kinds=("metal",), seed=4, options=TORCH).cases
    assert all_kinds.faults[1] == one.faults[0]
    assert one.faults[0].facts != other.faults[0].facts


def outcome(*flags: str, anomaly: float | None = None, is_annotated: bool = True) -> OrganOutcome:
    return OrganOutcome(flags=flags, anomaly=anomaly, is_annotated=is_annotated)


def by_hand() -> AnomalyTrial:
    """Four lesions: seen by a new flag, by an old one only, not at all, and refused."""
    before = ScanOutcome(organs={LIVER: outcome("several_pieces", anomaly=-0.5), KIDNEY: outcome(is_annotated=False)})
    plain = ScanOutcome(organs={LIVER: outcome(anomaly=0.2)})
    after = [
        ScanOutcome(organs={LIVER: outcome("several_pieces", "unlike_training")}, warnings=("strange",)),
        ScanOutcome(organs={LIVER: outcome("several_pieces")}),
        ScanOutcome(organs={KIDNEY: outcome("unlike_training")}, case_check=("image_not_hu",)),
        ScanOutcome(refused="no"),
    ]
    faults = [
        FaultTrial(
            kind="lesion", organ=LIVER, affected=(LIVER,), facts={}, before=before if number < 2 else plain, after=scan
        )
        for number, scan in enumerate(after)
    ]
    return AnomalyTrial(
        cases=(
            CaseTrial(number=1, healthy=before, faults=tuple(faults[:2])),
            CaseTrial(number=2, healthy=plain, faults=tuple(faults[2:])),
        ),
        kinds=("lesion", "metal"),
        tasks=("first@1",),
        seed=0,
        encoder_sha256="0",
    )


def test_rates_are_counted_by_hand() -> None:
    found = detections(by_hand(), "lesion")
    assert found == {
        "count": 4,
        "detected": 0.75,
        "detected_anew": 0.5,
        "detected_before": 0.5,
        "strange": 0.25,
        "refused": 0.25,
        "case_check": 0.25,
        "warned": 0.25,
        "vanished": 0.5,
        "flagged_organs": 0.5,
        "by_flag": {"several_pieces": 2, "unlike_training": 1},
        "by_new_flag": {"unlike_training": 1},
    }
    nothing = detections(by_hand(), "metal")
    assert (nothing["count"], nothing["detected"]) == (0, None)
    alarms = false_alarms(by_hand())
    assert alarms["organs"] == {"count": 2, "alarms": 0, "rate": 0.0}
    assert alarms["flags"] == {"several_pieces": 0.5}
    table = anomaly_markdown(by_hand())
    assert "| lesion | 4 | 75% | 50% | 50% | 25% | 25% | 25% | 25% | 50% | unlike_training 1 |" in table
    assert "| metal | 0 | - | - | - | - | - | - | - | - | - |" in table
    assert "Flags of healthy annotated organs: several_pieces 50%." in table


def test_a_report_names_no_case(cases: tuple[Case, ...], tmp_path: Path) -> None:
    trial = try_anomalies(a_model(), cases, kinds=("truncation",), options=TORCH)
    paths = write_anomalies(trial, tmp_path)
    assert json.loads(paths[0].read_text()) == json.loads(json.dumps(anomaly_json(trial)))
    assert "No task of the registry can say that an organ is unlike its training data" in paths[1].read_text()
    assert all("a.nii" not in path.read_text() and str(tmp_path) not in path.read_text() for path in paths)


def test_cases_must_name_an_organ_of_the_model_and_a_trial_can_be_stopped(cases: tuple[Case, ...]) -> None:
    spleen = threshold_model({"first": {"spleen": 150.0}}, spacing_mm=(6.0, 6.0, 6.0))
    with pytest.raises(CaseError, match="name no organ that the model knows, got kidney_left, kidney_right, liver"):
        try_anomalies(spleen, cases, options=TORCH)
    with pytest.raises(Cancelled):
        try_anomalies(a_model(), cases, options=TORCH, cancelled=lambda: True)


def test_a_picture_shows_the_place_without_and_with_the_fault(tmp_path: Path) -> None:
    """A bright voxel of 10 mm right of, before and above the middle: 160 mm are 240 pixels, right on the left."""
    affine = np.diag([-10.0, -10.0, 10.0, 1.0])
    voxels = np.full((31, 31, 31), -500, np.int16)
    changed = voxels.copy()
    changed[12, 13, 19] = 1000  # i and j run to the left and back: 30 mm right, 20 mm in front of and 40 mm above
    middle = (-150.0, -150.0, 150.0)
    front = (-150.0, -130.0, 150.0)
    scan, planted = Volume(voxels, affine), Volume(changed, affine)

    def bright(place: tuple[float, float, float], panel: int) -> set[tuple[int, int]]:
        fault = Fault(kind="lesion", volume=planted, place_ras_mm=place, facts={})
        with Image.open(save_picture(tmp_path, 1, LIVER, scan, fault)) as picture:
            assert picture.size == (4 * 240 + 3 * 8, 240)
            gray = np.asarray(picture)[:, panel * 248 : panel * 248 + 240]
        rows, columns = np.nonzero(gray == 255)
        return set(zip(rows.tolist(), columns.tolist(), strict=True))

    assert bright(front, 0) == bright(front, 2) == bright(middle, 1) == set()
    found = bright(front, 1)
    assert 14 * 14 <= len(found) <= 16 * 16  # 10 mm are 15 pixels, and a pixel's middle may lie on the edge of a voxel
    assert np.mean(list(found), axis=0) == pytest.approx([119.5 - 40 * 1.5, 119.5 - 30 * 1.5], abs=0.6)
    above = bright((-150.0, -150.0, 190.0), 3)
    assert np.mean(list(above), axis=0) == pytest.approx([119.5 - 20 * 1.5, 119.5 - 30 * 1.5], abs=0.6)


def test_the_command_writes_report_table_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fix_backend(monkeypatch)
    registry = tiny_registry.new_registry(tmp_path / "registry")
    monkeypatch.setattr("wbcss_training.cli.anomalies.load_model", lambda registry, tasks: a_model())
    monkeypatch.setattr("wbcss_training.cli.anomalies.asked_tasks", lambda args: None)
    words = ["anomalies", "--registry", str(registry.root), "--cases", str(write_case(tmp_path / "cases"))]
    options = ["--kind", "lesion", "--kind", "truncation", "--pictures", "--device", "cpu", "--threads", "1"]
    assert main([*words, "--out", str(tmp_path / "out"), *options]) == 0
    assert capsys.readouterr().out == (tmp_path / "out" / "anomalies.md").read_text()
    assert list(json.loads((tmp_path / "out" / "anomalies.json").read_text())["detections"]) == ["lesion", "truncation"]
    assert (tmp_path / "out" / "case_1_lesion_liver.png").is_file()
    (tmp_path / "file").write_text("")
    assert main([*words, "--out", str(tmp_path / "file")]) == 2
    assert "the report needs a folder it can write to, got" in capsys.readouterr().err
