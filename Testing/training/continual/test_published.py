"""A sequence whose first task is a published one, judged on patches that are drawn, as the whole-body sequence is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_training
import torch

from wbcss.errors import RunError
from wbcss.labels import OrganName, TaskId
from wbcss.loading import load_model
from wbcss.registry import Registry
from wbcss_training.continual.benchmark import MethodResult, run_benchmark
from wbcss_training.continual.incremental import SHARED
from wbcss_training.continual.scoring import patch_scores
from wbcss_training.continual.sequence import Sequence, read_sequence
from wbcss_training.continual.state import known, load_learned, ready_to_run
from wbcss_training.encoder import publish_model
from wbcss_training.plan import read_plan

LIVER, SPLEEN, VERTEBRA = tiny_training.ORGANS
COLON = OrganName("colon")
ALL, MORE = TaskId("all"), TaskId("more")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, atlas_dir: Path) -> Path:
    """A registry with task ``boxes`` that knows liver, spleen and vertebra."""
    root = tmp_path_factory.mktemp("published")

    def organs(facts: dict[str, Any]) -> None:
        facts["tasks"][0]["organs"] = list(tiny_training.ORGANS)

    source = {"kind": "atlas", "folder": str(atlas_dir)}
    plan = read_plan(tiny_training.write_plan(root / "plan.json", source, change=organs))
    publish_model(tiny_training.learner().model, plan, Registry(root / "models"), run_dir=root)
    return root


def write_sequence(
    folder: Path, atlas_dir: Path, name: str = "sequence.json", change: Callable[[dict[str, Any]], None] | None = None
) -> Sequence:
    """The published task, then the colon and the liver again."""
    atlas = {"kind": "atlas", "folder": str(atlas_dir)}
    facts: dict[str, Any] = {
        "name": "published",
        "initial": "models",
        "initial_task": tiny_training.TASK,
        "train": {"steps": 2, "sampled_voxels": 256, "autocast": False, "deep_supervision": 2},
        "methods": {"ewc": {"patches": 1}},
        "tasks": [
            {
                "task": ALL,
                "published": tiny_training.TASK,
                "source": atlas,
                "validation": {"kind": "patches", "count": 2},
            },
            {
                "task": MORE,
                "organs": [COLON, LIVER],
                "source": atlas,
                "validation": {"kind": "patches", "count": 2},
            },
        ],
    }
    if change is not None:
        change(facts)
    (folder / name).write_text(json.dumps(facts))
    return read_sequence(folder / name)


@pytest.fixture(scope="module")
def results(folder: Path, atlas_dir: Path) -> dict[str, MethodResult]:
    torch.set_num_threads(1)
    sequence = write_sequence(folder, atlas_dir)
    names = ("finetune", "ewc", "ours", "separate", "joint")
    return {result.name: result for result in run_benchmark(sequence, names, run_dir=folder / "run")}


@pytest.mark.parametrize("name", ["finetune", "ours", "separate"])
def test_the_published_network_is_taken_as_it_is(results: object, folder: Path, name: str) -> None:
    learned = load_learned(folder / "run" / name / "task-0")
    assert learned is not None
    theirs = load_model(Registry(folder / "models")).network.decoder(tiny_training.TASK).state_dict()
    (task,) = learned.model.tasks
    ours = learned.model.decoder(task).state_dict()
    assert all(torch.equal(value, ours[key]) for key, value in theirs.items())
    assert learned.organs[task] == tiny_training.ORGANS


def test_an_organ_that_is_learned_again_gets_no_second_channel(results: object, folder: Path) -> None:
    learned = load_learned(folder / "run" / "finetune" / "task-1")
    assert learned is not None
    assert learned.organs[SHARED] == (LIVER, SPLEEN, VERTEBRA, COLON)
    ours = load_learned(folder / "run" / "ours" / "task-1")
    assert ours is not None
    assert ours.organs == {ALL: tiny_training.ORGANS, MORE: (COLON, LIVER)}


def test_patches_are_asked_for_overlap_only(results: dict[str, MethodResult]) -> None:
    (scores, *_) = [cell.scores[0] for cell in results["ours"].cells]
    assert set(scores) <= set(tiny_training.ORGANS)
    assert all(row["hd95_mm"] is None and row["count"] == 2 for row in scores.values())
    alone = results["ours"].matrix_alone
    assert alone is not None
    assert alone.backward_transfer == 0


def test_the_joint_network_learns_all_tasks(results: dict[str, MethodResult], folder: Path) -> None:
    learned = load_learned(folder / "run" / "joint" / "task-1")
    assert learned is not None
    assert learned.organs[SHARED] == (LIVER, SPLEEN, VERTEBRA, COLON)
    assert [value is not None for value in results["joint"].matrix.rows[1]] == [True, True]


def test_dice_over_patches_is_the_plain_formula_on_the_merged_answer() -> None:
    """With one task the merge changes nothing, so the winning channel is the answer."""
    source = tiny_training.BoxPatches()
    model = tiny_training.learner(seed=4).model
    learned = known(model, {tiny_training.TASK: tiny_training.ORGANS})
    found = patch_scores(ready_to_run(learned, [tiny_training.TASK]), source, num_patches=3, device=torch.device("cpu"))
    both, either = np.zeros(4), np.zeros(4)
    for index in range(3):
        patch = source.patch(index)
        with torch.no_grad():
            answer = model.decoder(tiny_training.TASK)(model.encoder(patch.image[None]))[0].argmax(dim=0).numpy()
        for channel in range(1, 4):
            mine, theirs = answer == channel, patch.labels.numpy() == channel
            both[channel] += (mine & theirs).sum()
            either[channel] += mine.sum() + theirs.sum()
    for channel, organ in enumerate(tiny_training.ORGANS, start=1):
        assert found[organ]["dice"] == pytest.approx(2 * both[channel] / either[channel])
    assert any(row["dice"] for row in found.values())


def test_a_strange_validation_is_refused(folder: Path, atlas_dir: Path) -> None:
    def strange(facts: dict[str, Any]) -> None:
        facts["tasks"][0]["validation"] = {"kind": "feeling"}

    sequence = write_sequence(folder, atlas_dir, "strange.json", strange)
    with pytest.raises(RunError, match="a validation must be of kind cases or patches, got 'feeling'"):
        run_benchmark(sequence, ["ours"], run_dir=folder / "strange")
