"""`wbcss tasks`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_registry import new_registry, publish

from wbcss.cli.main import main
from wbcss.labels import TaskId
from wbcss.registry import Registry

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _only_this_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other commands bring libraries that these tests need not wait for."""
    monkeypatch.setattr("wbcss.cli.main.COMMANDS", ("tasks",))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = new_registry(tmp_path / "registry")
    publish(registry, "liver", {"liver": 5, "x_cyst": 10000}, validation={"mean_dice": 0.87}, limits="adults only")
    publish(registry, "bones", {"x_bone": 10001})
    return registry


def call(registry: Registry, *words: str | Path) -> int:
    return main(["tasks", *map(str, words), "--registry", str(registry.root)])


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()[2:]]


def test_tasks_are_listed_in_the_order_of_publication(registry: Registry, capsys: Capture) -> None:
    publish(registry, "liver", {"liver": 5}, seed=3)
    assert call(registry, "list") == 0
    assert rows(capsys.readouterr().out) == [
        ["liver", "2", "own", "1", "7", "2026-11-20"],
        ["bones", "1", "own", "1", "7", "2026-11-20"],
    ]


def test_all_versions_are_listed_on_request(registry: Registry, capsys: Capture) -> None:
    publish(registry, "liver", {"liver": 5}, seed=3)
    registry.retire(TaskId("bones"))
    assert call(registry, "list", "--all") == 0
    assert [(row[0], row[1], row[-1]) for row in rows(capsys.readouterr().out)] == [
        ("liver", "1", "no"),
        ("bones", "1", "no"),
        ("liver", "2", "yes"),
    ]
    assert call(registry, "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [task["task"] for task in listed["tasks"]] == ["liver"]
    assert listed["retired"] == ["bones"]


def test_the_list_and_the_card_say_what_runs_on_request(registry: Registry, capsys: Capture) -> None:
    publish(registry, "tumor", {"x_tumor": 10002}, on_request=True)
    assert call(registry, "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-1] == "runs"
    assert [(line.split()[0], line.split("2026-11-20")[1].strip()) for line in lines[2:]] == [
        ("liver", "always"),
        ("bones", "always"),
        ("tumor", "on request"),
    ]
    assert call(registry, "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["tasks"]
    assert {task["task"]: task["on_request"] for task in listed} == {"liver": False, "bones": False, "tumor": True}
    assert call(registry, "show", "tumor") == 0
    assert "on request: when it, or an organ that only it knows, is named" in capsys.readouterr().out


def test_an_empty_registry_lists_nothing_and_says_so(tmp_path: Path, capsys: Capture) -> None:
    assert main(["tasks", "list", "--registry", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no task is published in the registry {tmp_path}\n"


def test_a_missing_registry_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    assert main(["tasks", "list", "--registry", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith(f"wbcss: there is no registry at {tmp_path / 'nowhere'}; name")


def test_a_card_is_shown(registry: Registry, capsys: Capture) -> None:
    assert call(registry, "show", "liver@1") == 0
    out = capsys.readouterr().out
    for text in ("liver@1", "adults only", '{"mean_dice": 0.87}', "CC0-1.0", "x_cyst", "10000"):
        assert text in out
    assert call(registry, "show", "liver", "--json") == 0
    assert capsys.readouterr().out.encode() == (registry.root / "tasks" / "liver" / "1" / "card.json").read_bytes()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("kidney", "no task 'kidney' in the registry"),
        ("liver@9", "task 'liver' has no version 9 in the registry"),
        ("liver@new", "a task must be named like liver or liver@2, got 'liver@new'"),
        ("Liver", "a task name must start with a lower-case letter and hold only a-z, 0-9 and _, got 'Liver'"),
    ],
)
def test_a_wrong_task_is_one_line_and_exit_code_2(
    registry: Registry, capsys: Capture, name: str, complaint: str
) -> None:
    assert call(registry, "show", name) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"wbcss: {complaint}")
    assert error.count("\n") == 1


def test_a_sound_registry_verifies(registry: Registry, capsys: Capture) -> None:
    (registry.root / "thesis.docx").write_text("x")
    assert call(registry, "verify") == 0
    assert capsys.readouterr().out == (
        "note: thesis.docx is no part of a registry and is ignored\n6 published files verified, all as published\n"
    )


def test_a_flipped_byte_fails_the_verification(registry: Registry, capsys: Capture) -> None:
    path = registry.task_weights(registry.card(TaskId("bones")))
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    assert call(registry, "verify") == 3
    out = capsys.readouterr().out
    assert out.startswith("broken: tasks/bones/1/decoder.safetensors was changed after it was published")
    assert out.endswith("1 problem found\n")
    assert call(registry, "verify", "--json") == 3
    found = json.loads(capsys.readouterr().out)
    assert (len(found["problems"]), found["notes"], found["unchanged"]) == (1, [], None)


def test_a_snapshot_proves_that_a_new_task_changed_nothing_old(
    registry: Registry, tmp_path: Path, capsys: Capture
) -> None:
    snapshot = tmp_path / "before.json"
    assert call(registry, "verify", "--snapshot", snapshot) == 0
    publish(registry, "heart", {"x_valve": 10002})
    registry.retire(TaskId("bones"))
    capsys.readouterr()
    assert call(registry, "verify", "--since", snapshot) == 0
    assert capsys.readouterr().out == ("8 published files verified, all as published\n6 earlier files unchanged\n")
    assert call(registry, "verify", "--since", snapshot, "--json") == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] == 6


def test_a_task_that_was_replaced_or_removed_since_the_snapshot_is_named(
    registry: Registry, tmp_path: Path, capsys: Capture
) -> None:
    snapshot = tmp_path / "before.json"
    call(registry, "verify", "--snapshot", snapshot)
    for path in (registry.root / "tasks" / "bones" / "1").iterdir():
        path.unlink()
    (registry.root / "tasks" / "bones" / "1").rmdir()
    publish(registry, "bones", {"x_bone": 10001}, seed=8, version=1)
    (registry.root / "tasks" / "liver").rename(tmp_path / "away")
    capsys.readouterr()
    assert call(registry, "verify", "--since", snapshot) == 3
    out = capsys.readouterr().out
    assert "broken: tasks/bones/1/decoder.safetensors changed since before.json: SHA-256 was " in out
    assert "broken: tasks/liver/1/card.json is gone since before.json" in out
    assert out.endswith("4 problems found\n")


def test_no_snapshot_is_taken_of_a_broken_registry(registry: Registry, tmp_path: Path, capsys: Capture) -> None:
    registry.task_weights(registry.card(TaskId("bones"))).unlink()
    assert call(registry, "verify", "--snapshot", tmp_path / "x.json") == 2
    assert "a snapshot must be of a sound registry, got: tasks/bones/1/decoder.safetensors is missing" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "x.json").exists()


def test_what_is_no_snapshot_is_refused(registry: Registry, tmp_path: Path, capsys: Capture) -> None:
    assert call(registry, "verify", "--since", tmp_path / "x.json") == 2
    assert "x.json cannot be read: No such file" in capsys.readouterr().err
    (tmp_path / "x.json").write_text("{}")
    assert call(registry, "verify", "--since", tmp_path / "x.json") == 2
    assert "x.json: the document lacks format" in capsys.readouterr().err


def test_a_task_travels_from_one_registry_to_another(
    registry: Registry, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(registry, "export", "liver") == 0
    assert capsys.readouterr().out == "liver@1 written to liver-1.wbtask\n"
    other = new_registry(tmp_path / "other")
    assert call(other, "import", "liver-1.wbtask") == 0
    assert capsys.readouterr().out == "liver@1 published: 2 organs\n"
    assert other.verify() == []
    assert call(other, "import", "liver-1.wbtask") == 2
    assert "wbcss: liver-1.wbtask: liver@1 is already published" in capsys.readouterr().err
    assert call(other, "export", "liver@1", "-o", "again.wbtask", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"task": "liver", "version": 1, "package": "again.wbtask"}
    assert (tmp_path / "again.wbtask").read_bytes() == (tmp_path / "liver-1.wbtask").read_bytes()


def test_a_retired_task_disappears_from_the_list(registry: Registry, capsys: Capture) -> None:
    assert call(registry, "retire", "liver@1") == 2
    assert "name it without a version, got 'liver@1'" in capsys.readouterr().err
    assert call(registry, "retire", "liver") == 0
    assert call(registry, "retire", "bones", "--json") == 0
    assert call(registry, "list") == 0
    out = capsys.readouterr().out
    assert out.startswith("liver is retired; its files and label values stay\n")
    assert out.endswith(f"no task is published in the registry {registry.root}; retired are bones, liver\n")


def test_help_explains_every_action(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["tasks", "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for action in ("list", "show", "verify", "export", "import", "retire"):
        assert action in out
