"""Every method through a tiny sequence: cells, answers, matrices, kill and resume."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_sequence
import tiny_training
import torch

from wbcss.errors import Cancelled, RunError, SpecError
from wbcss.labels import TaskId
from wbcss_training.continual.benchmark import BenchmarkOptions, MethodResult, run_benchmark
from wbcss_training.continual.incremental import SHARED
from wbcss_training.continual.methods import METHODS, build_method
from wbcss_training.continual.scoring import Examiner
from wbcss_training.continual.sequence import Sequence
from wbcss_training.continual.state import load_learned
from wbcss_training.continual.table import benchmark_markdown

UPPER, SIDE = TaskId("upper"), TaskId("side")
BASELINES = ("finetune", "lwf", "ilt", "ewc", "mib", "plop")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sequence")


@pytest.fixture(scope="module")
def sequence(folder: Path) -> Sequence:
    return tiny_sequence.new_sequence(folder, steps=4)


@pytest.fixture(scope="module")
def results(sequence: Sequence, folder: Path) -> dict[str, MethodResult]:
    """All methods, once."""
    torch.set_num_threads(1)
    found = run_benchmark(sequence, METHODS, run_dir=folder / "run")
    return {result.name: result for result in found}


def weights(folder: Path, method: str, index: int) -> dict[str, torch.Tensor]:
    learned = load_learned(folder / "run" / method / f"task-{index}")
    assert learned is not None
    return dict(learned.model.state_dict())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_a_matrix_of_what_can_be_asked(results: dict[str, MethodResult], name: str) -> None:
    rows = results[name].matrix.rows
    asked = [[value is not None for value in row] for row in rows]
    if results[name].scope == "all":
        assert asked == [[False, False], [True, True]]
    else:
        assert asked == [[True, False], [True, True]]
    assert all(0 <= value <= 1 for row in rows for value in row if value is not None)


@pytest.mark.parametrize("name", ["ours", "ours_after_d1"])
def test_a_frozen_encoder_forgets_exactly_nothing(results: dict[str, MethodResult], folder: Path, name: str) -> None:
    alone = results[name].matrix_alone
    assert alone is not None
    assert alone.backward_transfer == 0
    first, second = weights(folder, name, 0), weights(folder, name, 1)
    assert set(first) < set(second)
    assert [key for key, value in first.items() if not torch.equal(value, second[key])] == []


def test_a_continued_encoder_changes_and_its_decoders_do_not(folder: Path, results: dict[str, MethodResult]) -> None:
    first, second = weights(folder, "ours_continual", 0), weights(folder, "ours_continual", 1)
    changed = {key for key, value in first.items() if not torch.equal(value, second[key])}
    assert changed
    assert all(key.startswith("encoder.") for key in changed)
    answers = [cell.alone[0] for cell in results["ours_continual"].cells]
    assert answers[0] is not answers[1]


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_keeps_one_decoder_whose_head_grows(folder: Path, name: str, results: object) -> None:
    first, second = weights(folder, name, 0), weights(folder, name, 1)
    head = f"decoders.{SHARED}.head.weight"
    assert (len(first[head]), len(second[head])) == (2, 3)
    assert {key for key in first if first[key].shape != second[key].shape} == {head, head.replace("weight", "bias")}


def test_baselines_begin_alike_and_part_ways(folder: Path, results: object) -> None:
    starts = [weights(folder, name, 0) for name in (*BASELINES, "separate")]
    assert all(torch.equal(value, other[key]) for other in starts for key, value in starts[0].items())
    ends = [weights(folder, name, 1)["encoder.stages.0.0.conv.weight"] for name in BASELINES]
    assert all(not torch.equal(one, other) for n, one in enumerate(ends) for other in ends[:n])


def test_methods_that_begin_alike_share_the_first_training_and_each_pays_for_it(
    results: dict[str, MethodResult], folder: Path
) -> None:
    started = {path.name for path in (folder / "run").glob("start-*")}
    assert started == {"start-shared", "start-own"}
    for names in ((*BASELINES, "separate"), ("ours_after_d1", "ours_continual")):
        assert len({results[name].cells[0].wall_s for name in names}) == 1
        assert results[names[0]].cells[0].wall_s > 0


def test_ewc_remembers_every_task(folder: Path, results: object) -> None:
    learned = load_learned(folder / "run" / "ewc" / "task-1")
    assert learned is not None
    assert {name.split(".")[1] for name in learned.memory} == {"0", "1"}
    fisher = [value for name, value in learned.memory.items() if name.startswith("fisher.1.")]
    assert all(bool((value >= 0).all()) for value in fisher)
    assert any(bool(value.any()) for value in fisher)


def test_separate_networks_are_asked_about_their_own_task(results: dict[str, MethodResult]) -> None:
    rows = results["separate"].matrix.rows
    assert rows[1][0] == rows[0][0]
    assert results["separate"].matrix.backward_transfer == 0


def test_costs_count_what_a_task_adds(results: dict[str, MethodResult]) -> None:
    decoder = sum(parameter.numel() for parameter in _decoder(1).parameters())
    assert results["ours"].cells[1].added_parameters == decoder
    assert results["lwf"].cells[1].added_parameters == 3 + 1  # a row of the head
    assert results["ours"].cells[1].added_gmacs > results["lwf"].cells[1].added_gmacs > 0
    separate = results["separate"].cells[1]
    assert separate.added_parameters == separate.parameters > decoder  # another network
    assert all(cell.wall_s > 0 and cell.cpu_s > 0 for cell in results["ours"].cells)


def _decoder(num_organs: int) -> torch.nn.Module:
    return tiny_training.learner(num_organs=num_organs).model.decoder(tiny_training.TASK)


def test_a_finished_benchmark_is_not_run_again(
    sequence: Sequence, folder: Path, results: dict[str, MethodResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wbcss_training.continual.lesson.train", None)
    monkeypatch.setattr("wbcss_training.continual.scoring.evaluate", None)
    again = run_benchmark(sequence, ("ours", "mib"), run_dir=folder / "run")  # the others' results stay
    assert {result.name: result.matrix for result in again} == {name: one.matrix for name, one in results.items()}


def test_no_checkpoint_and_no_path_stays_behind(folder: Path, results: object) -> None:
    assert list((folder / "run").rglob("checkpoints")) == []
    texts = [path.read_text() for path in (folder / "run").rglob("*.json*") if "cache" not in path.parts]
    assert len(texts) > 20
    assert not any(str(folder) in text or "c0" in text for text in texts)


@pytest.mark.parametrize("name", ["plop", "ewc", "ours_continual"])
def test_a_stopped_benchmark_goes_on_to_the_same_bits(
    sequence: Sequence, folder: Path, results: object, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Examiner, "scores", lambda *asked: {})  # only training is of interest here
    stops = 0
    for _ in range(20):
        calls = iter(range(10**6))
        options = BenchmarkOptions(stop_at=lambda calls=calls: next(calls) >= 3)  # type: ignore[misc]
        with contextlib.suppress(Cancelled):
            run_benchmark(sequence, [name], run_dir=tmp_path / "run", options=options)
            break
        stops += 1
    assert stops >= 2
    for index in (0, 1):
        whole = weights(folder, name, index)
        parts = load_learned(tmp_path / "run" / name / f"task-{index}")
        assert parts is not None
        assert [key for key, value in parts.model.state_dict().items() if not torch.equal(value, whole[key])] == []


def test_a_run_folder_belongs_to_one_sequence(sequence: Sequence, folder: Path, results: object) -> None:
    other = dataclasses.replace(sequence, overlap=0.5)
    with pytest.raises(SpecError, match="the folder run was begun with other tasks or networks; remove it or name"):
        run_benchmark(other, ["ours"], run_dir=folder / "run")
    tuned = dataclasses.replace(sequence, hyperparameters={**sequence.hyperparameters, "mib": {"weight": 2.0}})
    with pytest.raises(SpecError, match="the folder mib was begun with other settings of 'mib'; remove it or name"):
        run_benchmark(tuned, ["ours"], run_dir=folder / "run")


def test_damaged_networks_are_named(sequence: Sequence, folder: Path, results: object, tmp_path: Path) -> None:
    shutil.copytree(folder / "run" / "ours", tmp_path / "ours")
    path = tmp_path / "ours" / "task-0" / "learned.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(RunError, match=r"the networks in task-0 cannot be read .*remove that folder and go on"):
        load_learned(tmp_path / "ours" / "task-0")


def test_unknown_methods_and_settings_are_refused() -> None:
    with pytest.raises(SpecError, match="there is no method 'icarl'; the methods are finetune, lwf"):
        build_method("icarl", {})
    with pytest.raises(SpecError, match="OldOutputs has no field tau; its fields are weight, temperature"):
        build_method("lwf", {"tau": 3})


def test_the_table_has_a_row_per_method_and_a_line_per_organ(results: dict[str, MethodResult]) -> None:
    text = benchmark_markdown("tiny", list(results.values()))
    for result in results.values():
        assert text.count(f"| {result.title} |") == 1
        assert f"## {result.title}" in text
    assert text.count("| 1 | liver | 3 |") == len(METHODS)
    row = next(line for line in text.splitlines() if line.startswith("| ours |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 13
    assert float(cells[5]) == 0  # before merging nothing is forgotten
    header = next(line for line in text.splitlines() if line.startswith("| method"))
    assert header.count("|") == row.count("|")


def test_results_are_written_as_json(folder: Path, results: dict[str, MethodResult]) -> None:
    facts = json.loads((folder / "run" / "benchmark.json").read_text())
    assert [method["method"] for method in facts["methods"]] == list(METHODS)
    stored = facts["methods"][METHODS.index("ours")]["matrix"]["R"]
    assert np.array(stored, float)[1] == pytest.approx(results["ours"].matrix.values[1])
