"""The `wbcss-train` command line: exit codes, resume, JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_registry
import tiny_training

from wbcss.registry import Registry
from wbcss_training.cli.main import main

QUICK = ["--workers", "0", "--threads", "1", "--device", "cpu"]


@pytest.fixture
def plan(atlas_dir: Path, tmp_path: Path) -> str:
    def organs(facts: dict[str, Any]) -> None:
        facts["tasks"][0]["organs"] = list(tiny_training.ORGANS)

    source = {"kind": "atlas", "folder": str(atlas_dir)}
    return str(tiny_training.write_plan(tmp_path / "plan.json", source, change=organs, steps=2))


def test_an_encoder_is_trained_validated_and_published(
    plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = tmp_path / "registry"
    options = ["--registry", str(registry), "--min-dice", "0", "--validation-patches", "1", "--json"]
    assert main(["encoder", plan, "--run", str(tmp_path / "run"), *options, *QUICK]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == {"fraction": 0.0, "stage": "step 0 of 2"}
    assert {"fraction": 1.0, "stage": "step 2 of 2"} in lines
    assert lines[-1] == {"fraction": 1.0, "stage": "validation 1 of 1"}
    card = Registry(registry).card(tiny_training.TASK)
    assert card.validation["synthetic"]["patches"] == 1
    assert set(card.validation["synthetic"]["dice"]) == {organ.name for organ in card.organs}


def test_a_run_is_only_continued_when_asked_and_can_be_published_later(
    plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["encoder", plan, "--run", str(tmp_path / "run"), *QUICK]
    assert main(command) == 0
    capsys.readouterr()
    assert main(command) == 2
    assert "already holds checkpoints; add --resume or name another folder" in capsys.readouterr().err
    publish = ["--resume", "--registry", str(tmp_path / "registry"), "--validation-patches", "0"]
    assert main([*command, *publish]) == 0
    assert len(Registry(tmp_path / "registry").tasks()) == 1
    assert main([*command, *publish]) == 2
    assert "already has an encoder; name an empty one" in capsys.readouterr().err


def test_minutes_stop_a_run_with_a_checkpoint_and_without_publishing(plan: str, tmp_path: Path) -> None:
    run_dir, registry = tmp_path / "run", tmp_path / "registry"
    command = ["encoder", plan, "--run", str(run_dir), "--registry", str(registry), "--minutes", "1e-9", *QUICK]
    assert main(command) == 0
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-0000001"]
    assert not (registry / "encoder").exists()


def test_organs_that_learned_nothing_are_not_published(
    plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = tmp_path / "registry"
    options = ["--registry", str(registry), "--min-dice", "1", "--validation-patches", "1"]
    assert main(["encoder", plan, "--run", str(tmp_path / "run"), *options, *QUICK]) == 3
    assert "no organ of task 'boxes' reaches a Dice of 1 on 1 synthetic patches" in capsys.readouterr().err
    assert not (registry / "encoder").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["encoder"], "the following arguments are required: PLAN.json, --run/--run-dir"),
        (["fly"], "invalid choice: 'fly'"),
        (["encoder", "gone.json", "--run", "r"], "expected a training plan in JSON, got gone.json"),
        (["encoder", "p", "--run", "r", "--minutes", "0"], "must be above 0, got 0"),
        (["encoder", "p", "--run", "r", "--min-dice", "2"], "must be in [0, 1], got 2"),
        (["encoder", "p", "--run", "r", "--workers", "-1"], "must not be negative, got -1"),
        (
            ["evaluate", "--registry", "r", "--cases", "c", "--out", "o.txt"],
            "a report must be named NAME.json, got o.txt",
        ),
        (["evaluate", "--registry", "r", "--cases", "gone.json", "--out", "o.json"], "expected a JSON list of cases"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("wbcss-train: ")
    assert error.count("\n") == 1


def test_ctrl_c_is_exit_code_130(plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wbcss_training.cli.encoder.train_encoder", interrupt)
    assert main(["encoder", plan, "--run", str(tmp_path / "run")]) == 130


def test_the_unexpected_is_one_line_and_exit_code_3(
    plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("wbcss_training.cli.encoder.train_encoder", fail)
    assert main(["encoder", plan, "--run", str(tmp_path / "run")]) == 3
    assert capsys.readouterr().err == (
        "wbcss-train: unexpected ZeroDivisionError: by zero; run again with --verbose and report it\n"
    )


def test_a_model_is_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = tiny_registry.new_registry(tmp_path / "registry")
    tiny_registry.publish(registry, "abdomen", {"liver": 5, "spleen": 1})
    cases = tiny_training.write_list(tmp_path, [tiny_training.write_case(tmp_path, "a")])
    command = ["evaluate", "--registry", str(registry.root), "--cases", str(cases), "--out", str(tmp_path / "r.json")]
    assert main([*command, "--task", "abdomen", "--device", "cpu", "--threads", "1"]) == 0
    assert set(json.loads((tmp_path / "r.json").read_text())["organs"]) == {"liver", "spleen"}
    assert capsys.readouterr().out == (tmp_path / "r.md").read_text()
    assert main([*command, "--task", "wings"]) == 2
    assert "wings" in capsys.readouterr().err


def test_a_task_on_request_is_evaluated_when_it_is_named(tmp_path: Path) -> None:
    registry = tiny_registry.new_registry(tmp_path / "registry")
    tiny_registry.publish(registry, "abdomen", {"liver": 5})
    tiny_registry.publish(registry, "lesions", {"spleen": 1}, on_request=True)
    cases = tiny_training.write_list(tmp_path, [tiny_training.write_case(tmp_path, "a")])
    command = ["evaluate", "--registry", str(registry.root), "--cases", str(cases), "--out", str(tmp_path / "r.json")]
    for named, organs in ([], {"liver"}), (["--task", "lesions"], {"spleen"}):
        assert main([*command, *named, "--device", "cpu", "--threads", "1"]) == 0
        assert set(json.loads((tmp_path / "r.json").read_text())["organs"]) == organs


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "cancelled; go on from the last checkpoint with --resume"),
        (MemoryError(), 3, "the memory is full; close other programs, or choose a smaller patch, batch or decoder"),
        (ZeroDivisionError("by 0"), 3, "unexpected ZeroDivisionError: by 0; run again with --verbose and report it"),
    ],
)
def test_whatever_happens_is_one_line(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr("wbcss_training.cli.check.read_case_list", fail)
    assert main(["check", "--cases", "somewhere"]) == code
    assert capsys.readouterr().err == f"wbcss-train: {said}\n"
