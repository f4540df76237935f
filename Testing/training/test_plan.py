"""Training plans in JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_training

from wbcss.errors import CaseError, SpecError
from wbcss_training.cases import CasePatches
from wbcss_training.plan import chosen_cases, open_sources, plan_to_json, read_plan
from wbcss_training.synthesis import SyntheticPatches

Change = Callable[[dict[str, Any]], Any]


def test_a_plan_over_the_atlas_names_its_organs_in_the_order_of_their_labels(atlas_dir: Path, tmp_path: Path) -> None:
    plan = read_plan(tiny_training.write_plan(tmp_path / "plan.json", {"kind": "atlas", "folder": str(atlas_dir)}))
    (task,) = plan.tasks
    assert task.organs[:5] == ("liver", "spleen", "vertebrae_L1", "humerus_left", "lung_upper_lobe_left")
    assert set(task.organs[5:]) == {"colon"}
    assert task.decoder.num_organs == 6
    assert plan.encoder == tiny_training.ENCODER
    assert plan.train == tiny_training.config()


def test_organs_may_be_chosen_and_left_out(atlas_dir: Path, tmp_path: Path) -> None:
    def choose(facts: dict[str, Any]) -> None:
        facts["tasks"][0] |= {"organs": ["spleen", "liver", "colon"], "without": ["liver"]}

    source = {"kind": "atlas", "folder": str(atlas_dir)}
    plan = read_plan(tiny_training.write_plan(tmp_path / "plan.json", source, change=choose))
    assert plan.tasks[0].organs == ("spleen", "colon")


def test_paths_are_relative_to_the_plan(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    tiny_training.write_list(tmp_path, [tiny_training.write_case(tmp_path, "a")])
    plan = read_plan(tiny_training.write_plan(tmp_path / "plans" / "p.json", {"kind": "cases", "path": "../list.json"}))
    assert plan.tasks[0].organs == ("liver", "spleen")
    (source,) = open_sources(plan, tmp_path / "cache")
    assert isinstance(source, CasePatches)


def test_the_atlas_is_measured_when_it_is_opened(atlas_dir: Path, tmp_path: Path) -> None:
    path = tiny_training.write_plan(tmp_path / "plan.json", {"kind": "atlas", "folder": str(atlas_dir)})
    (source,) = open_sources(read_plan(path), tmp_path / "cache")
    assert isinstance(source, SyntheticPatches)
    assert (tmp_path / "cache" / "atlas" / "atlas.json").is_file()


def test_steps_may_be_changed(atlas_dir: Path, tmp_path: Path) -> None:
    plan = read_plan(tiny_training.write_plan(tmp_path / "p.json", {"kind": "atlas", "folder": str(atlas_dir)}))
    assert plan.with_steps(None) == plan
    assert plan.with_steps(99).train.steps == 99


def test_what_a_run_folder_keeps_of_a_plan_names_no_path(atlas_dir: Path, tmp_path: Path) -> None:
    plan = read_plan(tiny_training.write_plan(tmp_path / "p.json", {"kind": "atlas", "folder": str(atlas_dir)}))
    facts = json.loads(json.dumps(plan_to_json(plan)))
    assert facts["train"]["steps"] == plan.train.steps
    assert facts["tasks"][0]["organs"] == list(plan.tasks[0].organs)
    assert str(atlas_dir) not in json.dumps(facts)


def drop(field: str) -> Change:
    return lambda facts: facts.pop(field)


def put(field: str, value: Any) -> Change:
    return lambda facts: facts.update({field: value})


def in_task(field: str, value: Any) -> Change:
    return lambda facts: facts["tasks"][0].update({field: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("license"), "the training plan plan.json has no 'license'"),
        (drop("encoder"), "the training plan plan.json has no 'encoder'"),
        (lambda facts: facts["tasks"][0].pop("decoder"), "the training plan plan.json has no 'decoder'"),
        (lambda facts: facts["tasks"][0]["source"].pop("kind"), "the training plan plan.json has no 'kind'"),
        (put("train", {"stepz": 3}), "TrainConfig has no field stepz"),
        (put("train", {"steps": 0}), "steps must be at least 1, got 0"),
        (put("encoder", {"depth": 3}), "EncoderSpec has no field depth"),
        (put("tasks", []), "the training plan 'tiny' must have at least one task, got none"),
        (put("tasks", 3), "the training plan plan.json has a field of the wrong kind"),
        (
            lambda f: f["tasks"].append(f["tasks"][0]),
            "every task of a plan must have a name of its own, got boxes, boxes",
        ),
        (in_task("source", {"kind": "web"}), "the source of a task must be of kind atlas or cases, got 'web'"),
        (in_task("organs", []), "task 'boxes' must have at least one organ, got none"),
        (in_task("organs", ["liver", "liver"]), "task 'boxes' may list an organ once, got liver more than once"),
        (in_task("weight", 0), "weight of task 'boxes' must be a positive number, got 0"),
        (in_task("weight", "much"), "weight must be a number, got 'much'"),
    ],
)
def test_a_plan_that_cannot_be_used_names_the_field(
    atlas_dir: Path, tmp_path: Path, change: Change, message: str
) -> None:
    source = {"kind": "atlas", "folder": str(atlas_dir)}
    with pytest.raises(SpecError, match=message):
        read_plan(tiny_training.write_plan(tmp_path / "plan.json", source, change=change))


def test_a_source_of_another_kind_is_refused_when_opened(atlas_dir: Path, tmp_path: Path) -> None:
    def change(facts: dict[str, Any]) -> None:
        facts["tasks"][0] |= {"source": {"kind": "web"}, "organs": ["liver"]}

    plan = read_plan(tiny_training.write_plan(tmp_path / "plan.json", {"kind": "atlas"}, change=change))
    with pytest.raises(SpecError, match="the source of task 'boxes' must be of kind atlas or cases, got 'web'"):
        open_sources(plan, tmp_path)


@pytest.mark.parametrize("text", ["steps: 3", "{"])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(SpecError, match=r"expected a training plan in JSON, got plan.json: "):
        read_plan(tmp_path / "plan.json")


def test_parts_of_a_run_must_follow_each_other(atlas_dir: Path, tmp_path: Path) -> None:
    source = {"kind": "atlas", "folder": str(atlas_dir)}
    path = tiny_training.write_plan(tmp_path / "p.json", source, change=put("earlier", [{"steps": 4}]), steps=6)
    assert [part.steps for part in read_plan(path).parts] == [4, 6]
    with pytest.raises(SpecError, match=r"every part of a plan must end after the one before it, got steps \[9, 6\]"):
        read_plan(tiny_training.write_plan(path, source, change=put("earlier", [{"steps": 9}]), steps=6))


def test_a_plan_may_take_some_cases_of_a_list(tmp_path: Path) -> None:
    entries = [tiny_training.write_case(tmp_path, f"c{number}") for number in range(4)]
    source = {"kind": "cases", "path": str(tiny_training.write_list(tmp_path, entries)), "first": 1, "count": 2}
    assert [case.image_path.name for case in chosen_cases(source)] == ["c1.nii.gz", "c2.nii.gz"]
    assert len(chosen_cases({"kind": "cases", "path": source["path"]})) == 4
    with pytest.raises(CaseError, match=r"list.json has 4 cases, got a plan that takes 2 from number 3 on"):
        chosen_cases({**source, "first": 3})
