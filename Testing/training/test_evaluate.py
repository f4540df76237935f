"""Evaluation reports."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_registry
import tiny_training

from wbcss.errors import Cancelled, CaseError, OutputError
from wbcss.labels import OrganName
from wbcss.loading import LoadedModel, load_model
from wbcss.segment import SegmentOptions
from wbcss.volume import Volume
from wbcss_training.annotation import in_model_values
from wbcss_training.cases import Case, read_case_list
from wbcss_training.evaluate import (
    check_report,
    evaluate,
    report_json,
    report_markdown,
    write_report,
)

LIVER, SPLEEN = OrganName("liver"), OrganName("spleen")


@pytest.fixture
def model(tmp_path: Path) -> LoadedModel:
    registry = tiny_registry.new_registry(tmp_path / "registry")
    tiny_registry.publish(registry, "abdomen", {"liver": 5, "spleen": 1})
    return load_model(registry)


@pytest.fixture
def cases(tmp_path: Path) -> tuple[Case, ...]:
    entries = [tiny_training.write_case(tmp_path / "cases", f"smith_{number}") for number in range(2)]
    organs = {"1": "liver", "2": "spleen", "3": "gallbladder", "4": "left_wing"}
    return read_case_list(
        tiny_training.write_list(tmp_path / "cases", entries, organs=organs, new_organs=["left_wing"])
    )


def answer(monkeypatch: pytest.MonkeyPatch, model: LoadedModel, *, liver_shift: int = 0, spleen: bool = True) -> None:
    """Let the model find the liver ``liver_shift`` voxels of 4 mm off, and the spleen or not."""
    organs = tuple(organ for card in model.cards.values() for organ in card.organs)

    def segment(volume: Volume, model: LoadedModel, *, tasks: Any, options: SegmentOptions, cancelled: Any) -> Any:
        assert tasks == list(model.cards)  # what was loaded is evaluated, also a task that runs on request
        labels = np.zeros(volume.shape, np.uint16)
        labels[2:8, 3 + liver_shift : 9 + liver_shift, 3:9] = 5
        if spleen:
            labels[10:15, 3:9, 3:9] = 1
        return SimpleNamespace(labels=labels, organs=organs)

    monkeypatch.setattr("wbcss_training.evaluate.segment", segment)


def test_every_organ_of_the_reference_is_measured(
    model: LoadedModel, cases: tuple[Case, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, model, liver_shift=1)
    report = report_json(evaluate(model, cases))
    first = report["cases"][0]["organs"]
    assert first["liver"]["dice"] == pytest.approx(5 / 6, abs=1e-4)
    assert first["liver"]["hd95_mm"] == pytest.approx(4.0)
    assert first["liver"]["reference_ml"] == pytest.approx(6**3 * 0.064)
    assert first["spleen"] == {
        "dice": 1.0,
        "hd95_mm": 0.0,
        "surface_dice": 1.0,
        "reference_ml": 11.52,
        "segmented_ml": 11.52,
    }
    assert report["organs"]["liver"]["count"] == 2
    assert report["mean"]["dice"] == pytest.approx((5 / 6 + 1) / 2, abs=1e-4)
    assert report["unknown_to_the_model"] == ["gallbladder", "left_wing"]


def test_a_missed_organ_counts_in_dice_and_not_in_distance(
    model: LoadedModel, cases: tuple[Case, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, model, spleen=False)
    evaluation = evaluate(model, cases)
    row = evaluation.summary()[SPLEEN]
    assert (row["dice"], row["hd95_mm"], row["count"], row["missed"]) == (0.0, None, 2, 2)
    assert evaluation.overall() == {"dice": 0.5, "hd95_mm": 0.0, "surface_dice": 0.5, "count": 2}
    lines = report_markdown(evaluation).splitlines()
    assert lines[6] == "| spleen | 2 | 2 | 0.000 | - | 0.000 |"  # the worst comes first
    assert lines[7] == "| liver | 2 | 0 | 1.000 | 0.0 | 1.000 |"


def test_a_report_names_no_case(
    model: LoadedModel, cases: tuple[Case, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer(monkeypatch, model)
    written = write_report(evaluate(model, cases), tmp_path / "report.json")
    assert [path.name for path in written] == ["report.json", "report.md"]
    assert json.loads(written[0].read_text())["cases"][1]["number"] == 2
    for path in written:
        assert "smith" not in path.read_text()


def test_a_real_model_is_measured_from_end_to_end(model: LoadedModel, cases: tuple[Case, ...]) -> None:
    options = SegmentOptions(device="cpu", backend="torch", threads=1)
    evaluation = evaluate(model, cases[:1], options=options)
    assert set(evaluation.cases[0].organs) == {LIVER, SPLEEN}
    assert all(0 <= row.dice <= 1 for row in evaluation.cases[0].organs.values())
    assert evaluation.tasks == ("abdomen@1",)


def test_cases_without_a_known_organ_are_refused(model: LoadedModel, tmp_path: Path) -> None:
    entries = [tiny_training.write_case(tmp_path, "a")]
    path = tiny_training.write_list(tmp_path, entries, organs={"1": "left_wing"}, new_organs=["left_wing"])
    with pytest.raises(CaseError, match="the cases name no organ that the model knows, got left_wing"):
        evaluate(model, read_case_list(path))


def test_an_evaluation_can_be_stopped(model: LoadedModel, cases: tuple[Case, ...]) -> None:
    with pytest.raises(Cancelled, match="the evaluation was stopped before case 1 of 2"):
        evaluate(model, cases, cancelled=lambda: True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("report.txt", "a report must be named NAME.json, got report.txt"),
        ("gone/r.json", "folder .*gone does not exist"),
    ],
)
def test_a_report_that_could_not_be_written_is_refused_first(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        check_report(tmp_path / name)


def test_a_reference_that_lacks_the_last_organs_is_translated_like_any_other() -> None:
    reference = np.array([[[0, 2, 1]]], np.uint8)
    wanted = {2: LIVER, 9: SPLEEN}
    found = in_model_values(reference, wanted, {LIVER: 5, SPLEEN: 7})
    assert found.tolist() == [[[0, 5, 0]]]
    assert in_model_values(np.zeros((1, 1, 2), np.uint8), {}, {}).tolist() == [[[0, 0]]]
