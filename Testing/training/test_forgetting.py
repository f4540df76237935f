"""Evaluation of merges, and rules learned from it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_cases
import tiny_registry
from analytic_model import threshold_model
from tiny_scan import fix_backend

from wbcss.errors import Cancelled, CaseError, SpecError
from wbcss.io.writing import write_volume
from wbcss.labels import OrganName, TaskId
from wbcss.loading import LoadedModel
from wbcss.mergerules import read_rules
from wbcss.segment import SegmentOptions, segment
from wbcss.specs import MergeRules
from wbcss_training.annotation import read_case
from wbcss_training.cases import Case, read_case_list
from wbcss_training.cli.main import main
from wbcss_training.forgetting import evaluate_merged, merged_json, merged_markdown, write_merged
from wbcss_training.intrusion import Intrusion
from wbcss_training.mergelearning import PRIOR, Example, learn_rules, log_likelihood

TORCH = SegmentOptions(device="cpu", backend="torch", threads=1)
LIVER, KIDNEY = OrganName("liver"), OrganName("kidney_left")


def write_case(folder: Path) -> Path:
    """One scan whose liver has 200 HU within, its rim 100 HU, and whose kidney has 500 HU."""
    folder.mkdir(parents=True, exist_ok=True)
    hu = np.full(tiny_cases.SHAPE, -100, np.int16)
    labels = np.zeros(tiny_cases.SHAPE, np.uint8)
    hu[4:10, 4:14, 3:11], labels[4:10, 4:14, 3:11] = 200, 3
    hu[10:12, 4:14, 3:11] = 100
    hu[14:19, 5:11, 4:9], labels[14:19, 5:11, 4:9] = 500, 1
    write_volume(folder / "a.nii.gz", hu, tiny_cases.AFFINE)
    write_volume(folder / "a_seg.nii.gz", labels, tiny_cases.AFFINE)
    return tiny_cases.write_list(folder, [{"image": "a.nii.gz", "labels": "a_seg.nii.gz"}])


@pytest.fixture
def cases(tmp_path: Path) -> tuple[Case, ...]:
    return read_case_list(write_case(tmp_path / "cases"))


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """The first task finds the liver exactly, the second takes the rim for liver; only the second knows the kidney."""
    return threshold_model(
        {"first": {"liver": 150.0}, "second": {"liver": 50.0, "kidney_left": 350.0}}, spacing_mm=(6.0, 6.0, 6.0)
    )


def test_alone_merged_and_the_difference_are_told_for_every_organ(model: LoadedModel, cases: tuple[Case, ...]) -> None:
    evaluation = evaluate_merged(model, cases, options=TORCH)
    rows = evaluation.rows()
    liver = rows[LIVER]
    assert liver["is_shared"]
    assert liver["is_old"]
    # The first task calls the kidney liver too: 480 true voxels, 150 of the kidney, 160 of the rim.
    assert liver["raw"] == {"first": pytest.approx(100 * 2 * 480 / (2 * 480 + 150), abs=0.1),
                            "second": pytest.approx(100 * 2 * 480 / (2 * 480 + 160), abs=0.1)}  # fmt: skip
    assert liver["best"] == max(liver["raw"].values())
    assert liver["forgetting"] == pytest.approx(liver["best"] - liver["merged"]["evidence"], abs=1e-3)
    assert set(liver["merged"]) == {"evidence", "most_confident", "last_writer", "fixed_priority", "max_confidence"}
    # Whoever writes last: the rim is liver, and the kidney is the kidney again.
    assert liver["merged"]["last_writer"] == pytest.approx(liver["raw"]["second"], abs=0.1)
    assert not rows[KIDNEY]["is_old"]
    assert rows[KIDNEY]["merged"]["last_writer"] == 100.0
    assert rows[KIDNEY]["merged"]["fixed_priority"] == 0.0
    assert liver["first"] == liver["raw"]["first"]
    assert liver["forgetting_first"] == pytest.approx(liver["first"] - liver["merged"]["evidence"], abs=1e-3)
    summary = evaluation.summary()
    assert summary["mean_forgetting_old_organs"] == liver["forgetting"]
    assert summary["mean_forgetting_first_old_organs"] == liver["forgetting_first"]
    assert summary["mean_best_single_shared"] == liver["best"]
    # The second task knows every organ there is: it cannot change another's.
    assert summary["intrusion"]["last_writer"]["changed"] == 0
    goals = summary["goals"]
    assert goals["every_shared_organ_near_its_best_decoder"] == (liver["forgetting"] <= 0.5)
    simple = [liver["merged"][kind] for kind in ("last_writer", "fixed_priority", "max_confidence")]
    assert goals["shared_organs_above_simple_merges"] == (liver["merged"]["evidence"] > max(simple))
    assert goals["mean_forgetting_of_old_organs"] == (liver["forgetting_first"] <= 0.2)


def test_voxels_that_the_last_task_takes_from_organs_it_does_not_know_are_counted(cases: tuple[Case, ...]) -> None:
    """At 500 HU the liver's task is sure by 7 in log odds, that of the kidney by 3: only overwriting takes voxels."""
    model = threshold_model({"first": {"liver": 150.0}, "second": {"kidney_left": 350.0}}, spacing_mm=(6.0, 6.0, 6.0))
    evaluation = evaluate_merged(model, cases, options=TORCH)
    kidney = 5 * 6 * 5
    (case,) = evaluation.cases
    assert case.intrusions["last_writer"] == Intrusion(changed=kidney, unclaimed=kidney)
    for kind in ("evidence", "most_confident", "fixed_priority", "max_confidence"):
        assert case.intrusions[kind] == Intrusion()
    summary = evaluation.summary()
    assert summary["intrusion"]["last_writer"]["outside"] == kidney
    assert summary["goals"] == {
        "every_shared_organ_near_its_best_decoder": None,
        "shared_organs_above_simple_merges": None,
        "mean_forgetting_of_old_organs": True,
        "nothing_changed_outside_surer_claims": True,
    }
    assert "| last_writer | 150 | 0 | 0 | 150 |" in merged_markdown(evaluation)
    assert "No annotated organ is known to several tasks." in merged_markdown(evaluation)


def test_the_merge_of_the_evaluation_is_that_of_the_product(model: LoadedModel, cases: tuple[Case, ...]) -> None:
    volume, reference = read_case(cases[0])
    labels = segment(volume, model, options=TORCH).labels
    (case,) = evaluate_merged(model, cases, options=TORCH).cases
    ours, theirs = labels == 5, reference == 3
    assert case.merged["evidence"][LIVER] == pytest.approx(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))


def test_a_report_of_a_merge_names_no_case(model: LoadedModel, cases: tuple[Case, ...], tmp_path: Path) -> None:
    evaluation = evaluate_merged(model, cases, options=TORCH)
    written = write_merged(evaluation, tmp_path / "m.json")
    values = json.loads(written[0].read_text())
    assert values == json.loads(json.dumps(merged_json(evaluation)))
    assert values["organs"]["liver"]["raw"]["first"] > 80
    assert written[1].read_text() == merged_markdown(evaluation)
    table = merged_markdown(evaluation)
    assert "| kidney_left | 1 | 100.0 |" in table
    liver = values["organs"]["liver"]
    alone = f"{liver['raw']['first']:.1f} | {liver['raw']['second']:.1f} | {liver['merged']['evidence']:.1f}"
    assert f"| organ | first | second | merged |\n|---|--:|--:|--:|\n| liver | {alone} |" in table
    assert all("a.nii" not in path.read_text() for path in written)


def test_one_task_alone_cannot_be_merged(cases: tuple[Case, ...]) -> None:
    alone = threshold_model({"first": {"liver": 150.0}}, spacing_mm=(6.0, 6.0, 6.0))
    with pytest.raises(CaseError, match="merging takes at least two tasks, got first"):
        evaluate_merged(alone, cases, options=TORCH)


def test_an_evaluation_of_a_merge_can_be_stopped(model: LoadedModel, cases: tuple[Case, ...]) -> None:
    with pytest.raises(Cancelled, match="the evaluation was stopped before case 1 of 1"):
        evaluate_merged(model, cases, options=TORCH, cancelled=lambda: True)


def example(agreement: float, *, good: bool, confidence: float = 0.5) -> Example:
    return Example(inputs=(confidence, 1.0, 0.0, agreement, 0.0), dice=0.9 if good else 0.5, best=0.9)


def test_rules_learn_which_input_tells_the_better_candidate() -> None:
    examples = [example(0.9, good=True), example(0.1, good=False)] * 40
    learned = learn_rules(examples, MergeRules())
    assert learned.agreement_weight > 2
    assert log_likelihood(examples, learned) > log_likelihood(examples, MergeRules())
    assert learned.lesion_mm3 == MergeRules().lesion_mm3


def test_few_examples_hardly_move_the_rules_and_weights_stay_above_zero() -> None:
    few = learn_rules([example(0.9, good=True)], MergeRules())
    assert few.agreement_weight < 0.6
    against = learn_rules([example(0.9, good=False), example(0.1, good=True)] * 40, MergeRules(agreement_weight=1.0))
    assert against.agreement_weight == 0.0


def test_the_gradient_finds_the_penalized_optimum() -> None:
    """A step in any direction from the learned rules must not be better."""
    examples = [example(0.9, good=True), example(0.4, good=False, confidence=0.9), example(0.6, good=True)] * 5
    start = MergeRules()
    learned = learn_rules(examples, start)
    names = ["bias", "confidence_weight", "gate_weight", "anomaly_weight", "agreement_weight", "pathology_weight"]

    def posterior(values: list[float]) -> float:
        rules = dataclasses.replace(start, **dict(zip(names, values, strict=True)))
        pull = sum((value - getattr(start, name)) ** 2 for name, value in zip(names, values, strict=True))
        return len(examples) * log_likelihood(examples, rules) - PRIOR * pull

    best = [getattr(learned, name) for name in names]
    for number in range(len(names)):
        for step in (-0.05, 0.05):
            moved = list(best)
            moved[number] = moved[number] + step if number == 0 else max(0.0, moved[number] + step)
            assert posterior(moved) <= posterior(best) + 1e-6


def test_without_shared_organs_there_is_nothing_to_learn() -> None:
    with pytest.raises(SpecError, match="organs that at least two tasks claim, got none in these cases"):
        learn_rules([], MergeRules())


def test_the_command_evaluates_merges_and_learns_rules(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: LoadedModel
) -> None:
    fix_backend(monkeypatch)
    registry = tiny_registry.new_registry(tmp_path / "registry")
    cases = write_case(tmp_path / "cases")
    monkeypatch.setattr("wbcss_training.cli.evaluate.load_model", lambda registry, tasks: model)
    base = ["evaluate", "--registry", str(registry.root), "--cases", str(cases), "--out", str(tmp_path / "r.json")]
    rules = tmp_path / "rules.json"
    options = ["--merged", "--first", "1", "--learn-rules", str(rules), "--device", "cpu", "--threads", "1"]
    assert main([*base, *options]) == 0
    assert capsys.readouterr().out == (tmp_path / "r.md").read_text()
    assert read_rules(rules).strategy == "evidence"
    assert main([*base, "--merge-rules", str(rules), "--merge-rule", "last_writer", "--device", "cpu"]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["organs"]["kidney_left"]["dice"] == 1.0
    capsys.readouterr()
    assert main([*base, "--learn-rules", str(rules)]) == 2
    assert "--learn-rules goes with --merged, got rules.json without it" in capsys.readouterr().err


def test_tasks_come_in_registry_order(model: LoadedModel, cases: tuple[Case, ...]) -> None:
    assert evaluate_merged(model, cases, options=TORCH).order == (TaskId("first"), TaskId("second"))
