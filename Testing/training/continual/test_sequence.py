"""Sequences as files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_sequence
import tiny_training

from wbcss.catalogue import find
from wbcss.errors import SpecError
from wbcss_training.continual.methods import build_method
from wbcss_training.continual.sequence import read_sequence, sequence_to_json
from wbcss_training.plan import chosen_cases

PLANS = Path(__file__).resolve().parents[3] / "Training" / "plans"
SHIPPED = ("openkbp", "wholebody", "openkbp_few_shot", "openkbp_twenty", "openkbp_twenty_long")


def test_a_sequence_says_tasks_networks_and_budget(tmp_path: Path) -> None:
    sequence = tiny_sequence.new_sequence(tmp_path, steps=5)
    assert sequence.organs == (tiny_sequence.LIVER, tiny_sequence.SPLEEN)
    assert sequence.encoder == tiny_training.ENCODER
    assert sequence.decoder_for(2) == tiny_training.decoder_spec(2)
    assert [task.train.steps for task in sequence.tasks] == [5, 5]
    assert sequence.few_shot is not None
    assert sequence.few_shot.counts == (1, 2)
    first, second = (sequence.source(index, tmp_path / "cache") for index in (0, 1))
    assert (first.organs, second.organs) == ((tiny_sequence.LIVER,), (tiny_sequence.SPLEEN,))
    assert first.patch(0).annotated.tolist() == [True, True]


def test_a_task_may_have_a_schedule_of_its_own(tmp_path: Path) -> None:
    def longer(facts: dict[str, Any]) -> None:
        facts["tasks"][1]["train"] = {"steps": 9, "patch": [8, 8, 8]}

    sequence = read_sequence(tiny_sequence.write_sequence(tmp_path, change=longer))
    assert [task.train.steps for task in sequence.tasks] == [6, 9]
    assert sequence.source(1, tmp_path / "cache").patch(0).labels.shape == (8, 8, 8)
    assert sequence.source(0, tmp_path / "cache").patch(0).labels.shape == (16, 16, 16)


def test_what_is_stored_of_a_sequence_names_no_path(tmp_path: Path) -> None:
    text = json.dumps(sequence_to_json(tiny_sequence.new_sequence(tmp_path)))
    assert str(tmp_path) not in text
    assert "list.json" not in text


def twice(facts: dict[str, Any]) -> None:
    facts["tasks"][1]["task"] = "upper"


def coarse(facts: dict[str, Any]) -> None:
    facts["train"]["finest_level"] = 1


def nothing_to_take(facts: dict[str, Any]) -> None:
    facts["tasks"][1]["published"] = "wholebody"


def no_organs(facts: dict[str, Any]) -> None:
    del facts["tasks"][0]["organs"]


def strange_curve(facts: dict[str, Any]) -> None:
    facts["few_shot"]["task"] = "feet"


def wrong_kind(facts: dict[str, Any]) -> None:
    facts["tasks"] = 3


def no_initial_task(facts: dict[str, Any]) -> None:
    facts["initial"] = str(Path(__file__).resolve().parents[3] / "WholeBodyCSS" / "Resources" / "Models")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (twice, "a sequence needs tasks with a name each, got upper, upper"),
        (coarse, "finest_level must be 0 in a sequence, got 1"),
        (nothing_to_take, "only the first task of a sequence may be taken from its initial registry, got 'side'"),
        (no_organs, "the sequence sequence.json has no 'organs'"),
        (strange_curve, "few_shot must name a task of upper, side, got 'feet'"),
        (wrong_kind, "the sequence sequence.json has a field of the wrong kind: 'int' object is not iterable"),
        (no_initial_task, "must name its 'initial_task', got none"),
    ],
)
def test_a_wrong_sequence_is_refused(tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    path = tiny_sequence.write_sequence(tmp_path, change=change)
    with pytest.raises(SpecError, match=message):
        read_sequence(path)


def test_a_missing_sequence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"expected a sequence of tasks in JSON, got none.json: .*No such file"):
        read_sequence(tmp_path / "none.json")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_sequence_can_be_read_and_its_organs_are_in_the_catalogue(name: str) -> None:
    sequence = read_sequence(PLANS / f"{name}.json")
    assert len(find(sequence.organs)) == len(sequence.organs)
    for method, settings in sequence.hyperparameters.items():
        build_method(method, settings)


def test_no_patient_of_the_real_sequence_is_in_two_tasks() -> None:
    ranges = []
    for task in read_sequence(PLANS / "openkbp.json").tasks:
        assert Path(task.source["path"]).name == "openkbp_train.json"
        assert Path(task.validation["path"]).name == "openkbp_validation.json"
        ranges.append(set(range(task.source["first"], task.source["first"] + task.source["count"])))
    assert sum(len(part) for part in ranges) == len(set.union(*ranges)) == 120
    lists = [json.loads((PLANS / f"openkbp_{split}.json").read_text()) for split in ("train", "validation")]
    images = [[case["image"] for case in facts["cases"]] for facts in lists]
    assert [len(set(part)) for part in images] == [130, 33]
    assert not set(images[0]) & set(images[1])
    assert all(facts["absent"] == "unknown" for facts in lists)


def test_the_whole_body_sequence_learns_more_than_143_organs_in_four_tasks() -> None:
    sequence = read_sequence(PLANS / "wholebody.json")
    assert [task.task for task in sequence.tasks] == ["wholebody", "chest", "headneck", "sarcoma"]
    assert len(sequence.organs) >= 143
    esophagus = [task.task for task in sequence.tasks if "esophagus" in task.organs]
    assert esophagus == ["wholebody", "chest", "headneck"]


@pytest.mark.data
def test_every_scan_of_the_shipped_sequences_is_there(shared_data: Path) -> None:
    for name in SHIPPED:
        for task in read_sequence(PLANS / f"{name}.json").tasks:
            for source in (task.source, task.validation):
                if source["kind"] == "cases":
                    assert len(chosen_cases(source)) == source["count"]
