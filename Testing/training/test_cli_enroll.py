"""`wbcss-train enroll`: exit codes, estimate, resume, JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_cases
import tiny_enrollment

from wbcss.cards import task_card_from_bytes
from wbcss.registry import Registry
from wbcss.warm import needed_tasks
from wbcss_training.cli.main import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wbcss_training.rounds.draw_curves", lambda run_dir: run_dir)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return tiny_enrollment.registry_with_earlier_task(tmp_path / "registry")


@pytest.fixture
def command(registry: Registry, tmp_path: Path) -> list[str]:
    """A quick enrolment of four patients."""
    folder = tmp_path / "cases"
    tiny_cases.write_list(folder, tiny_enrollment.write_pairs(folder, count=4))
    return tiny_enrollment.command(tmp_path, folder / "list.json", registry)


def test_a_task_is_enrolled(command: list[str], registry: Registry, tmp_path: Path, capsys: Capture) -> None:
    assert main(["enroll", *command, "--steps", "2"]) == 0
    out = capsys.readouterr().out
    assert "3 case(s) to learn from, 1 held out; " in out
    assert f"belly@1 is published in {registry.root}: 3 organ(s)" in out
    assert "note: one held-out case only" in out
    assert "2 steps; " in out
    assert "1 earlier task version(s) answer bit for bit as before; to see it again:\n" in out
    since = tmp_path / "run" / "before.json"
    assert out.endswith(f"  wbcss tasks verify --registry {registry.root} --since {since}\n")
    assert "smith" not in out
    assert registry.card(tiny_enrollment.TASK).provenance == "tiny bodies"


def test_a_task_is_enrolled_to_run_on_request(command: list[str], registry: Registry, capsys: Capture) -> None:
    assert main(["enroll", *command, "--steps", "2", "--on-request"]) == 0
    assert "3 organ(s), run on request only\n" in capsys.readouterr().out
    assert registry.card(tiny_enrollment.TASK).on_request
    assert needed_tasks(registry) == ("spine",)


@pytest.mark.parametrize(("option", "stays"), [((), True), (("--no-on-request",), False)])
def test_a_new_version_stays_on_request_unless_told_otherwise(
    option: tuple[str, ...], stays: bool, command: list[str], registry: Registry, tmp_path: Path
) -> None:
    assert main(["enroll", *command, "--steps", "2", "--on-request"]) == 0
    again = [str(tmp_path / "again") if word == str(tmp_path / "run") else word for word in command]
    assert main(["enroll", *again, "--steps", "2", "--seed", "1", *option]) == 0
    card = registry.card(tiny_enrollment.TASK)
    assert (card.version, card.on_request) == (2, stays)


def test_progress_and_report_come_as_json_lines(command: list[str], capsys: Capture) -> None:
    assert main(["enroll", *command, "--steps", "2", "--json"]) == 0
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert captured.err == ""
    fractions = [line["fraction"] for line in lines if "fraction" in line]
    after_check = fractions[fractions.index(1.0) + 1 :]
    assert after_check == sorted(after_check)
    assert any("about" in line["note"] for line in lines if "note" in line)
    assert (lines[-1]["format"], lines[-1]["task"]) == ("wbcss-enrollment", "belly@1")


def test_a_dry_run_estimates_and_publishes_nothing(
    command: list[str], registry: Registry, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["enroll", *command, "--dry-run", "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(last["estimate_s"]) == {"encode", "train", "validate", "describe"}
    assert (last["steps"], last["disk_bytes"] > 0, last["memory_bytes"] > 0) == (8, True, True)
    assert not (tmp_path / "run" / "state.json").exists()
    assert all(seconds >= 0 for seconds in last["estimate_s"].values())
    assert not (tmp_path / "run" / "run.json").exists()
    assert [card.task for card in registry.tasks()] == ["spine"]
    assert main(["enroll", *command, "--dry-run"]) == 0
    assert ", 8 steps; about " in capsys.readouterr().out


def test_a_run_is_only_continued_when_asked(command: list[str], registry: Registry, capsys: Capture) -> None:
    assert main(["enroll", *command, "--steps", "2"]) == 0
    capsys.readouterr()
    assert main(["enroll", *command, "--steps", "2"]) == 2
    assert "already holds a run; add --resume or name another folder" in capsys.readouterr().err
    assert main(["enroll", *command, "--steps", "3", "--resume"]) == 2
    assert "was begun with train {" in capsys.readouterr().err
    assert main(["enroll", *command, "--steps", "2", "--resume"]) == 0
    assert registry.versions(tiny_enrollment.TASK) == (1,)


def test_a_resumed_run_keeps_what_it_started_from(command: list[str], tmp_path: Path, capsys: Capture) -> None:
    at = command.index("--decoder")
    del command[at : at + 2]  # its spec follows from the relative
    assert main(["enroll", *command, "--steps", "2"]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["identity"]["start"] == "spine@1"
    # belly@1 knows all of the organs now, but this run was begun before it was published.
    assert main(["enroll", *command, "--steps", "2", "--resume"]) == 0
    capsys.readouterr()
    assert main(["enroll", *command, "--steps", "2", "--resume", "--start-from", "none"]) == 2
    assert "was begun with decoder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"), [("{}", "must say what it starts from"), ("[]", "must hold a JSON object, got list")]
)
def test_a_record_that_says_no_start_is_told(
    command: list[str], tmp_path: Path, text: str, message: str, capsys: Capture
) -> None:
    at = command.index("--decoder")
    del command[at : at + 2]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(text)
    assert main(["enroll", *command, "--resume"]) != 0
    assert message in capsys.readouterr().err


def test_a_task_to_start_from_can_be_named(command: list[str], tmp_path: Path, capsys: Capture) -> None:
    at = command.index("--decoder")
    del command[at : at + 2]
    assert main(["enroll", *command, "--steps", "2", "--start-from", "heart"]) == 2
    assert "heart" in capsys.readouterr().err
    assert main(["enroll", *command, "--steps", "2", "--start-from", "spine"]) == 0


def test_minutes_choose_the_steps_and_a_resume_keeps_them(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wbcss_training.estimate.MIN_STEPS", 2)
    monkeypatch.setattr("wbcss_training.enrolling.steps_within", lambda *args, **kwargs: 3)
    assert main(["enroll", *command, "--minutes", "1"]) == 0
    monkeypatch.setattr("wbcss_training.enrolling.steps_within", lambda *args, **kwargs: 99)
    assert main(["enroll", *command, "--minutes", "1", "--resume"]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["steps"], record["identity"]["minutes"]) == (3, 1.0)


def test_too_few_minutes_are_told(command: list[str], capsys: Capture) -> None:
    assert main(["enroll", *command, "--minutes", "1e-6"]) == 2
    assert "--minutes must leave time for 20 steps, about " in capsys.readouterr().err


def test_broken_cases_stop_before_anything_is_computed(
    command: list[str], registry: Registry, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "cases" / "list.json"
    facts = json.loads(path.read_text())
    facts["cases"][1]["labels"] = facts["cases"][1]["image"]
    path.write_text(json.dumps(facts))
    assert main(["enroll", *command]) == 2
    assert "the case check found " in capsys.readouterr().err
    assert not (tmp_path / "run" / "features").exists()
    assert [card.task for card in registry.tasks()] == ["spine"]


def test_the_split_of_another_run_can_be_used_again(command: list[str], tmp_path: Path) -> None:
    assert main(["enroll", *command, "--steps", "1", "--seed", "3"]) == 0
    split = tmp_path / "split.json"
    (tmp_path / "run" / "split.json").rename(split)
    at = command.index("--run") + 1
    command[at] = str(tmp_path / "second")
    assert main(["enroll", *command, "--steps", "1", "--split", str(split)]) == 0
    assert json.loads((tmp_path / "second" / "split.json").read_text()) == json.loads(split.read_text())


def test_a_proven_task_can_wait_for_its_publication(
    command: list[str], registry: Registry, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["enroll", *command, "--steps", "2", "--no-publish"]) == 0
    assert "belly@1 is proven and not yet published (--resume publishes it)" in capsys.readouterr().out
    waiting = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (waiting["task"], waiting["published"], waiting["unchanged"]) == ("belly@1", False, ["spine@1"])
    assert [card.task for card in registry.tasks()] == ["spine"]
    assert registry.verify() == []
    draft = task_card_from_bytes((tmp_path / "run" / "card.json").read_bytes(), source="card.json")
    assert (draft.title, draft.license, draft.training_cases) == ("belly@1", "CC0-1.0", 3)
    assert main(["enroll", *command, "--steps", "2", "--resume", "--license", "CC-BY-4.0"]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["published"] is True
    assert report["weights_sha256"] == waiting["weights_sha256"]
    assert registry.card(tiny_enrollment.TASK).license == "CC-BY-4.0"


def test_the_proof_counts_the_organs_that_answer_as_before(command: list[str], tmp_path: Path) -> None:
    assert main(["enroll", *command, "--steps", "1"]) == 0
    assert json.loads((tmp_path / "run" / "report.json").read_text())["unchanged_organs"] == 1
    at = command.index("--run") + 1
    again = [*command[:at], str(tmp_path / "again"), *command[at + 1 :]]
    assert main(["enroll", *again, "--steps", "1"]) == 0
    report = json.loads((tmp_path / "again" / "report.json").read_text())
    assert (report["unchanged"], report["unchanged_organs"]) == (["spine@1", "belly@1"], 4)


def test_a_new_organ_gets_the_name_color_and_codes_of_its_card(
    command: list[str], registry: Registry, tmp_path: Path
) -> None:
    code = {"scheme": "SCT", "value": "4147007", "meaning": "Mass"}
    cards = {"lump": {"display": "Lump of the liver", "color_rgb": [1, 2, 3], "type": code, "group": "lesion"}}
    (tmp_path / "cards.json").write_text(json.dumps(cards))
    organs = ["--organs", "kidney_left,liver=new:lump", "--organ-cards", str(tmp_path / "cards.json")]
    assert main(["enroll", *command, *organs, "--steps", "1"]) == 0
    kidney, lump = registry.card(tiny_enrollment.TASK).organs
    assert kidney.name == "kidney_left"
    assert (lump.label, lump.display_name, lump.color_rgb) == (10000, "Lump of the liver", (1, 2, 3))
    assert (lump.type.meaning, lump.category.meaning, lump.group) == ("Mass", "Anatomical Structure", "lesion")


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"liver": {}}, "cards may describe new organs of this task only, got one of 'liver'"),
        ({"bump": {}}, "got one of 'bump'; it learns "),
        ({"lump": []}, "the card of the new organ 'lump' must be a JSON object, got list"),
        ({"lump": {"label": 7}}, "may not give its label, got 7"),
        ({"lump": {"colour": "red"}}, "an organ has no field colour"),
    ],
)
def test_a_card_that_describes_no_new_organ_is_refused_before_training(
    command: list[str], tmp_path: Path, cards: Any, message: str, capsys: Capture
) -> None:
    (tmp_path / "cards.json").write_text(json.dumps(cards))
    organs = ["--organs", "kidney_left,liver=new:lump", "--organ-cards", str(tmp_path / "cards.json")]
    assert main(["enroll", *command, *organs]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "features").exists()


def test_a_run_leaves_pictures_of_its_worst_cases_and_says_how_it_ended(command: list[str], tmp_path: Path) -> None:
    assert main(["enroll", *command, "--steps", "1"]) == 0
    verdict = json.loads((tmp_path / "run" / "validation.json").read_text())
    assert verdict["overlays"] == ["case_1.png"]
    assert (tmp_path / "run" / "overlays" / "case_1.png").is_file()
    assert json.loads((tmp_path / "run" / "state.json").read_text())["state"] == "finished"


def test_a_run_pauses_when_a_file_asks_for_it_and_goes_on(
    command: list[str], registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def asking(run_dir: Path) -> Path:
        (tmp_path / "run" / "pause").touch()
        return run_dir

    monkeypatch.setattr("wbcss_training.rounds.draw_curves", asking)
    assert main(["enroll", *command]) == 130
    assert "the training was stopped at step 1 of 8; go on with --resume" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "state.json").read_text())["state"] == "paused"
    monkeypatch.setattr("wbcss_training.rounds.draw_curves", lambda run_dir: run_dir)
    assert main(["enroll", *command, "--resume"]) == 0
    assert registry.versions(tiny_enrollment.TASK) == (1,)


def without(command: list[str], option: str) -> list[str]:
    at = command.index(option)
    return command[:at] + command[at + 2 :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: without(c, "--license"), "a published task needs --license and --provenance, got none"),
        (lambda c: [*c, "--task", "Belly"], "a task name must start with a lower-case letter"),
        (lambda c: [*c, "--steps", "2", "--minutes", "2"], "not allowed with argument --steps"),
        (lambda c: [*c, "--steps", "0"], "steps must be at least 1, got 0"),
        (lambda c: [*c, "--cache-gib", "1e-9"], "the cache must hold at least 5 encoded patches of 0.0 MiB, got 1e-09"),
        (lambda c: [*c, "--decoder", "nowhere.json"], "expected a decoder spec in JSON, got nowhere.json"),
        (lambda c: [*c, "--config", "nowhere.json"], "expected a training schedule in JSON, got nowhere.json"),
        (lambda c: [*c, "--organs", "livr"], "livr"),
        (lambda c: [*c, "--registry", "nowhere"], "no encoder is published in the registry nowhere"),
    ],
)
def test_what_the_user_can_mend_is_one_line(command: list[str], change: Any, message: str, capsys: Capture) -> None:
    assert main(["enroll", *change(command)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") <= 1 + error.count("\r")


@pytest.mark.parametrize("text", ["[1]", '{"speed": 3}'])
def test_a_schedule_that_is_none_is_refused(command: list[str], tmp_path: Path, text: str, capsys: Capture) -> None:
    (tmp_path / "schedule.json").write_text(text)
    assert main(["enroll", *command, "--config", str(tmp_path / "schedule.json")]) == 2
    assert (
        "got list in schedule.json" if text == "[1]" else "TrainConfig has no field speed"
    ) in capsys.readouterr().err
