"""`wbcss-train distill`, `wbcss-train trim` and the trimming of `wbcss-train enroll`: options, refusals, resume."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_cases
import tiny_enrollment
from process_runs import kill_after, torchrun

from wbcss.registry import Registry, StagedTask
from wbcss.specs import spec_to_json
from wbcss_training.cli.main import main

Capture = pytest.CaptureFixture[str]
QUICK = ["--steps", "2", "--tolerance", "1"]
TRIM = [*QUICK, "--budget", "0.5", "--shrink", "0.5", "--multiple", "1"]


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wbcss_training.rounds.draw_curves", lambda run_dir: run_dir)


def without(command: list[str], *options: str) -> list[str]:
    for option in options:
        at = command.index(option)
        command = command[:at] + command[at + 2 :]
    return command


def enrolled(root: Path) -> list[str]:
    """Arguments of a quick command that makes the task learned in ``root`` smaller in ``root/run``."""
    registry = tiny_enrollment.registry_with_earlier_task(root / "registry")
    folder = root / "cases"
    tiny_cases.write_list(folder, tiny_enrollment.write_pairs(folder, count=4))
    command = tiny_enrollment.command(root, folder / "list.json", registry)
    assert main(["enroll", *command, "--steps", "2", "--no-trim", "--limits", "blocks"]) == 0
    (root / "run").rename(root / "first")
    return without(command, "--decoder", "--license", "--provenance")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A registry with the tiny task, which nobody changes, and the command for it."""
    root = tmp_path_factory.mktemp("learned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wbcss_training.rounds.draw_curves", lambda run_dir: run_dir)
        return root, enrolled(root)


def moved(learned: tuple[Path, list[str]], to: Path) -> list[str]:
    """The command with a registry and a run folder of its own."""
    root, command = learned
    shutil.copytree(root / "registry", to / "registry")
    return [word.replace(f"{root}/r", f"{to}/r") for word in command]


@pytest.fixture
def command(learned: tuple[Path, list[str]], tmp_path: Path) -> list[str]:
    return moved(learned, tmp_path)


def write_spec(folder: Path, **changes: Any) -> list[str]:
    path = folder / "small.json"
    path.write_text(json.dumps({**spec_to_json(tiny_enrollment.DECODER), **changes}))
    return ["--decoder", str(path)]


def test_a_task_is_trimmed(command: list[str], tmp_path: Path, capsys: Capture) -> None:
    registry = Registry(tmp_path / "registry")
    first = registry.card(tiny_enrollment.TASK)
    assert main(["trim", *command, *TRIM]) == 0
    out = capsys.readouterr().out
    card = registry.card(tiny_enrollment.TASK)
    assert card.title == "belly@2"
    assert card.spec.convs_per_stage == (0, 1)
    assert (card.license, card.limits, card.organs) == (first.license, first.limits, first.organs)
    assert card.provenance == "tiny bodies Made smaller: belly@1 taught it on 3 case(s)."
    assert "belly@2 is published in " in out
    assert "full decoder: " in out
    assert " GMAC a tile, " in out
    assert "2 earlier task version(s) answer bit for bit as before" in out
    # belly@2 is the newest version now, but this run was begun on the one before.
    assert main(["trim", *command, *TRIM, "--resume"]) == 0
    assert registry.versions(tiny_enrollment.TASK) == (1, 2)


@pytest.mark.parametrize("how", ["trim", "distill"])
def test_a_smaller_task_runs_on_request_if_the_larger_did(how: str, command: list[str], tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    first = registry.card(tiny_enrollment.TASK)
    asked = dataclasses.replace(first, version=0, sequence=0, on_request=True, evidence_sha256="")
    registry.publish(StagedTask(card=asked, weights=registry.task_weights(first)))
    options = TRIM if how == "trim" else [*QUICK, *write_spec(tmp_path, stage_channels=[3, 2])]
    assert main([how, *command, *options]) == 0
    card = registry.card(tiny_enrollment.TASK)
    assert (card.title, card.on_request) == ("belly@3", True)
    assert card.spec != first.spec


def test_a_task_is_distilled_into_a_spec(command: list[str], tmp_path: Path, capsys: Capture) -> None:
    spec = write_spec(tmp_path, stage_channels=[3, 2], kernels=[[3, 3, 1], [1, 3, 3]], num_organs=77)
    assert main(["distill", *command, "--steps", "2", *spec, "--feature-weight", "0", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    fractions = [line["fraction"] for line in lines if "fraction" in line]
    after_check = fractions[fractions.index(1.0) + 1 :]
    assert after_check == sorted(after_check)
    assert any(line.get("stage", "").startswith("trimming to 3-2: ") for line in lines)
    report = lines[-1]
    card = Registry(tmp_path / "registry").card(tiny_enrollment.TASK)
    assert (report["task"], card.title) == ("belly@2", "belly@2")
    assert (card.spec.stage_channels, card.spec.kernels) == ((3, 2), ((3, 3, 1), (1, 3, 3)))
    assert card.spec.num_organs == 3
    record = json.loads((tmp_path / "run" / "trim" / "run.json").read_text())["identity"]["trim"]
    assert (record["distill"]["feature_weight"], record["distill"]["logit_weight"]) == (0.0, 1.0)


def test_a_distilled_decoder_that_loses_too_much_is_not_published(
    command: list[str], tmp_path: Path, capsys: Capture
) -> None:
    spec = write_spec(tmp_path, stage_channels=[1, 1])
    registry = Registry(tmp_path / "registry")
    verdict = tmp_path / "run" / "validation.json"
    assert main(["distill", *command, "--steps", "1", *spec, "--tolerance", "0", "--dry-run"]) == 0
    assert not verdict.exists()
    assert main(["distill", *command, "--steps", "1", *spec, "--tolerance", "0", "--no-publish"]) == 0
    facts = json.loads(verdict.read_text())
    facts["held_out"]["mean"]["dice"] = 1.0  # as if the teacher were perfect
    verdict.write_text(json.dumps(facts))
    (tmp_path / "run" / "trim" / "steps.json").unlink()
    assert main(["distill", *command, "--steps", "1", *spec, "--tolerance", "0", "--resume"]) == 0
    assert registry.versions(tiny_enrollment.TASK) == (1,)
    assert "no smaller decoder was good enough; belly@1 stays the newest version\n" in capsys.readouterr().out


def test_an_enrolment_trims_unless_it_is_told_not_to(
    learned: tuple[Path, list[str]], tmp_path: Path, capsys: Capture
) -> None:
    command = [*moved(learned, tmp_path), "--decoder", str(learned[0] / "decoder.json")]
    command += ["--license", "CC0-1.0", "--provenance", "tiny bodies", "--steps", "2", "--validation-fraction", "0.75"]
    assert main(["enroll", *command, "--trim-budget", "0.5", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    record = json.loads((tmp_path / "run" / "trim" / "run.json").read_text())["identity"]["trim"]
    assert (record["budget"], record["tolerance"]) == (0.5, 0.005)
    assert "trim" in json.loads((tmp_path / "run" / "run.json").read_text())["estimate"]
    # Four channels are one multiple, so all that can be taken away is the convolutions of the finest level.
    assert [step["spec"]["convs_per_stage"] for step in lines[-1]["trimming"]["steps"]] == [[0, 1]]
    command[command.index("--run") + 1] = str(tmp_path / "untrimmed")
    assert main(["enroll", *command, "--no-trim"]) == 0
    assert not (tmp_path / "untrimmed" / "trim").exists()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("trim", ["--task", "heart"], "no task 'heart' in the registry"),
        ("trim", ["--budget", "0"], "argument --budget: must be above 0 and at most 1, got 0"),
        ("trim", ["--shrink", "1"], "shrink must be above 0 and below 1, got 1.0"),
        ("trim", ["--logit-weight", "-1"], "argument --logit-weight: must not be negative, got -1"),
        ("trim", ["--temperature", "0"], "argument --temperature: must be above 0, got 0"),
        ("trim", ["--min-cases", "0"], "min_cases must be at least 1, got 0"),
        ("trim", ["--importance", "luck"], "invalid choice: 'luck'"),
        ("trim", ["--min-cases", "2"], "a decoder can be made smaller where that can be judged, but what a smaller"),
        ("trim", ["--organs", "livr"], "livr"),
        ("distill", [], "the following arguments are required: --decoder"),
        ("distill", ["--decoder", "nowhere.json"], "expected a decoder spec in JSON, got nowhere.json"),
        ("enroll", ["--no-trim", "--trim-budget", "0.5"], "not allowed with argument --no-trim"),
    ],
)
def test_what_the_user_can_mend_is_one_line(
    command: list[str], name: str, change: list[str], message: str, capsys: Capture
) -> None:
    assert main([name, *command, "--steps", "1", *change]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") <= 1 + error.count("\r")


def test_cases_without_an_organ_of_the_task_are_refused(
    command: list[str], learned: tuple[Path, list[str]], tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "list.json"
    facts = json.loads((learned[0] / "cases" / "list.json").read_text())
    facts["organs"] = {"1": "spleen", "2": "heart", "3": "colon"}
    for entry in facts["cases"]:
        entry.update({key: str(learned[0] / "cases" / entry[key]) for key in ("image", "labels")})
    path.write_text(json.dumps(facts))
    command[command.index("--cases") + 1] = str(path)
    assert main(["trim", *command, *TRIM, "--organs", "all"]) == 2
    assert "must annotate an organ of belly@1, kidney_left, kidney_right, liver, got spleen" in capsys.readouterr().err


def test_a_run_is_only_continued_when_asked(command: list[str], capsys: Capture) -> None:
    assert main(["trim", *command, *TRIM, "--no-publish"]) == 0
    assert main(["trim", *command, *TRIM]) == 2
    assert "already holds a run; add --resume or name another folder" in capsys.readouterr().err


def test_a_record_without_an_identity_is_told(command: list[str], tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert main(["trim", *command, *TRIM, "--resume"]) == 3
    assert "run.json of the run must hold an identity, got an error: 'identity'" in capsys.readouterr().err


def decoder_of(root: Path) -> bytes:
    registry = Registry(root / "registry")
    assert registry.verify() == []
    assert registry.versions(tiny_enrollment.TASK) == (1, 2)
    return registry.task_weights(registry.card(tiny_enrollment.TASK)).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_task_is_trimmed_by_two_processes(command: list[str], tmp_path: Path) -> None:
    words = ["--run-dir" if word == "--run" else word for word in command]
    finished = torchrun("-m", "wbcss_training.cli", "trim", *words, *TRIM, "--json")
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert finished.stdout.count('"wbcss-enrollment"') == 1
    decoder_of(tmp_path)


LONGER = ["--steps", "12", "--tolerance", "1", "--budget", "0.3", "--shrink", "0.7", "--multiple", "1", "--keep-finest"]
STEP = "trimming to "
MOMENTS = ("encoded", "done", *(f"{STEP}{step}" for step in ("3-3", "3-3", "2-2", "1-1", "1-1: done")))
"""What a run says when it begins to encode, when it has judged the full decoder, and in each of three steps."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_moments_a_trimming_ends_with_the_same_bits(
    learned: tuple[Path, list[str]], tmp_path: Path, rng: np.random.Generator
) -> None:
    whole = moved(learned, tmp_path / "whole")
    assert main(["trim", *whole, *LONGER]) == 0
    decoder, kills = decoder_of(tmp_path / "whole"), 0
    command = [*moved(learned, tmp_path / "killed"), *LONGER]
    for word in MOMENTS:
        kills += kill_after(["trim", *command], word, delay_s=float(rng.exponential(0.1)))
        assert Registry(tmp_path / "killed" / "registry").verify() == []
    assert main(["trim", *command, "--resume"]) == 0
    assert decoder_of(tmp_path / "killed") == decoder
    assert kills >= 4  # a run may have ended in the little while
