"""`wbcss organs`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_registry import new_registry, publish

from wbcss.cli.main import main
from wbcss.registry import Registry


@pytest.fixture(autouse=True)
def _only_this_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other commands bring libraries that these tests need not wait for."""
    monkeypatch.setattr("wbcss.cli.main.COMMANDS", ("organs",))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    registry = new_registry(tmp_path / "registry")
    publish(registry, "liver", {"x_cyst": 10000, "liver": 5})
    publish(registry, "abdomen", {"liver": 5, "spleen": 1})
    return registry.root


def test_the_table_tells_which_task_segments_what(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["organs", "--registry", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["1", "spleen", "Spleen", "abdomen", "abdomen"],
        ["5", "liver", "Liver", "abdomen", "liver,", "abdomen"],
        ["10000", "x_cyst", "X", "cyst", "abdomen", "liver"],
        ["3", "organs"],
    ]


def test_what_runs_on_request_is_marked(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(Registry(root), "tumor", {"x_tumor": 10002, "liver": 5}, on_request=True)
    assert main(["organs", "--registry", str(root)]) == 0
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()[2:]}
    assert lines["x_tumor"].rstrip().endswith("abdomen  tumor (on request)")
    assert lines["liver"].rstrip().endswith("liver, abdomen, tumor (on request)")
    assert main(["organs", "--registry", str(root), "--json"]) == 0
    organs = {organ["name"]: organ for organ in json.loads(capsys.readouterr().out)["organs"]}
    assert (organs["x_tumor"]["tasks"], organs["x_tumor"]["on_request"]) == (["tumor"], ["tumor"])
    assert organs["liver"]["on_request"] == ["tumor"]
    assert organs["spleen"]["on_request"] == []


def test_machines_get_codes_and_colors(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["organs", "--registry", str(root), "--json"]) == 0
    organs = json.loads(capsys.readouterr().out)["organs"]
    assert [organ["name"] for organ in organs] == ["spleen", "liver", "x_cyst"]
    assert organs[1]["tasks"] == ["liver", "abdomen"]
    assert organs[1]["type"] == {"scheme": "SCT", "value": "10200004", "meaning": "Liver"}
    assert "SCT^10200004^Liver" in organs[1]["terminology"]
    assert organs[1]["color_rgb"] == [5, 100, 50]


def test_a_group_narrows_the_list(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["organs", "--registry", str(root), "--group", "abdomen"]) == 0
    assert capsys.readouterr().out.endswith("3 organs\n")
    assert main(["organs", "--registry", str(root), "--group", "feet"]) == 2
    assert capsys.readouterr().err == "wbcss: --group must be one of abdomen, got 'feet'\n"


def test_the_environment_names_the_registry(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WBCSS_REGISTRY", str(root))
    assert main(["organs"]) == 0
    assert "x_cyst" in capsys.readouterr().out


def test_a_missing_registry_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["organs", "--registry", str(tmp_path / "nowhere")]) == 2
    out = capsys.readouterr()
    assert out.err == (
        f"wbcss: there is no registry at {tmp_path / 'nowhere'}; name the folder of one with --registry or "
        "WBCSS_REGISTRY\n"
    )
    assert out.out == ""


def test_an_empty_registry_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["organs", "--registry", str(tmp_path)]) == 2
    assert f"no task is published in the registry {tmp_path}; import one with" in capsys.readouterr().err
