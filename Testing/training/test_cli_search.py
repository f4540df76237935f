"""`wbcss-train search`: a spec within the budget, the sweep, the comparison, resume, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_cases
import tiny_enrollment
import tiny_search
from process_runs import kill_after

from wbcss.nn.decoder import Decoder
from wbcss.registry import Registry
from wbcss.specs import DecoderSpec, spec_from_json, spec_to_json
from wbcss_training.cli.main import main
from wbcss_training.search import latency, run
from wbcss_training.search.latency import read_table

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures, and times as invented as the machine that they are of."""
    monkeypatch.setattr("wbcss_training.rounds.draw_curves", lambda run_dir: run_dir)
    monkeypatch.setattr(run, "draw_curves", lambda run_dir: run_dir)
    monkeypatch.setattr(run, "plot_path", lambda lines, space, path, budget: path)
    monkeypatch.setattr(latency, "measure_part", lambda part, *_: tiny_search.seconds_of(part))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return tiny_enrollment.registry_with_earlier_task(tmp_path / "registry")


@pytest.fixture
def command(registry: Registry, tmp_path: Path) -> list[str]:
    """A quick search on four patients."""
    folder = tmp_path / "cases"
    tiny_cases.write_list(folder, tiny_enrollment.write_pairs(folder, count=4))
    (tmp_path / "schedule.json").write_text(json.dumps({**spec_to_json(tiny_enrollment.CONFIG), "log_every": 4}))
    options = {
        "--cases": folder / "list.json",
        "--registry": registry.root,
        "--run": tmp_path / "run",
        "--config": tmp_path / "schedule.json",
        "--latency-cache": tmp_path / "latency",
        "--cache-gib": 0.01,
        "--workers": 0,
        "--device": "cpu",
        "--threads": 1,
        "--budget": 0.3,
    }
    return [str(word) for pair in options.items() for word in pair]


def report(tmp_path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((tmp_path / "run" / "search.json").read_text())
    return values


def test_a_search_leaves_a_spec_that_is_what_it_promises(
    command: list[str], registry: Registry, tmp_path: Path, capsys: Capture
) -> None:
    before = registry.fingerprint()
    assert main(["search", *command]) == 0
    out = capsys.readouterr().out
    assert "the budget is 30.0% of that" in out
    assert f"wbcss-train enroll --decoder {tmp_path / 'run' / 'decoder.json'} ... uses it" in out
    assert "smith" not in out
    spec = spec_from_json(DecoderSpec, json.loads((tmp_path / "run" / "decoder.json").read_text()))
    facts = report(tmp_path)
    assert facts["cost"]["parameters"] == sum(
        p.numel() for p in Decoder(spec, registry.encoder_card().spec).parameters()
    )
    assert facts["shares"]["seconds"] <= 0.3
    assert (facts["mode"], facts["organs"]) == ("search", ["kidney_left", "kidney_right", "liver"])
    assert registry.fingerprint() == before
    assert str(tmp_path) not in json.dumps(facts)


def test_the_spec_can_be_enrolled(command: list[str], registry: Registry, tmp_path: Path) -> None:
    assert main(["search", *command]) == 0
    enroll = tiny_enrollment.command(tmp_path, tmp_path / "cases" / "list.json", registry)
    enroll[enroll.index("--decoder") + 1] = str(tmp_path / "run" / "decoder.json")
    enroll[enroll.index("--run") + 1] = str(tmp_path / "enrolled")
    assert main(["enroll", *enroll, "--steps", "1"]) == 0
    assert spec_to_json(registry.card(tiny_enrollment.TASK).spec) == report(tmp_path)["spec"]


def test_a_search_is_only_continued_when_asked_and_as_it_was_begun(
    command: list[str], tmp_path: Path, capsys: Capture
) -> None:
    assert main(["search", *command]) == 0
    first = report(tmp_path)
    assert main(["search", *command]) == 2
    assert "already holds a run; add --resume or name another folder" in capsys.readouterr().err
    assert main(["search", *command, "--resume", "--sweep"]) == 2
    assert "was begun with mode 'search', got 'sweep'" in capsys.readouterr().err
    assert main(["search", *command, "--resume"]) == 0
    assert report(tmp_path) == first


def test_a_resumed_search_keeps_the_times_that_it_began_with(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["search", *command]) == 0
    first = report(tmp_path)
    for path in (tmp_path / "latency").iterdir():
        path.unlink()
    monkeypatch.setattr(latency, "measure_part", None)  # nothing is measured again
    assert main(["search", *command, "--resume"]) == 0
    assert report(tmp_path) == first


def test_a_table_of_another_machine_can_be_the_target(command: list[str], tmp_path: Path, capsys: Capture) -> None:
    assert main(["search", *command]) == 0
    values = json.loads((tmp_path / "run" / "latency.json").read_text())
    values["machine"]["name"] = "a workstation"
    (tmp_path / "there.json").write_text(json.dumps(values))
    at = command.index("--run") + 1
    command[at] = str(tmp_path / "second")
    assert main(["search", *command, "--target", str(tmp_path / "there.json")]) == 0
    assert "on a workstation; the budget is" in capsys.readouterr().out
    assert read_table(tmp_path / "second" / "latency.json").machine.name == "a workstation"


def test_a_sweep_trains_every_width_and_keeps_the_budget(command: list[str], tmp_path: Path, capsys: Capture) -> None:
    assert main(["search", *command, "--sweep", "--steps", "2", "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == report(tmp_path)
    assert [row["spec"]["stage_channels"] for row in last["candidates"]] == 2 * [[4, 6], [2, 3], [1, 2], [1, 1]]
    assert last["shares"]["seconds"] <= 0.3
    assert (tmp_path / "run" / "search.md").read_text().count("| width ") == 8


def test_a_comparison_has_a_pair_of_equal_cost_for_every_seed(
    command: list[str], tmp_path: Path, capsys: Capture
) -> None:
    assert main(["search", *command, "--compare", "--seeds", "0,1"]) == 0
    facts = report(tmp_path)["comparison"]
    assert [pair["searched"]["seed"] for pair in facts["seeds"]] == [0, 1]
    for pair in facts["seeds"]:
        swept, searched = pair["one width"], pair["searched"]
        bare = pair["one width bare"]
        assert (bare["spec"]["convs_per_stage"][0], swept["spec"]["convs_per_stage"][0]) == (0, 2)
        for simple in (swept, bare):
            narrowest = simple["spec"]["stage_channels"] == [1, 1]
            assert narrowest or simple["cost"]["seconds"] <= searched["cost"]["seconds"]
    assert "difference: Dice " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "0.001"], "the budget must allow the cheapest decoder"),
        (["--budget", "2"], "above 0 and at most 1, got 2.0"),
        (["--seeds", "0,0", "--compare"], "must be whole numbers from 0 on, each once, got '0,0'"),
        (["--seeds", "a", "--compare"], "must be whole numbers from 0 on, each once, got 'a'"),
        (["--target", "nowhere.json"], "nowhere.json is no table of measured times"),
        (["--full", "full.json"], "expected a decoder spec in JSON, got full.json"),
        (["--sweep", "--validation-fraction", "0"], "decoders are compared on held-out cases, got none"),
        (["--sweep", "--tolerance", "2"], "tolerance must be a Dice in [0, 1], got 2.0"),
    ],
)
def test_what_cannot_be_searched_is_told(command: list[str], options: list[str], message: str, capsys: Capture) -> None:
    assert main(["search", *command, "--steps", "2", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_search_configuration_must_be_an_object(command: list[str], tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "s.json").write_text("[]")
    assert main(["search", *command, "--search-config", str(tmp_path / "s.json")]) == 2
    assert "expected a search as a JSON object, got list in s.json" in capsys.readouterr().err
    (tmp_path / "s.json").write_text('{"warmup": 1}')
    assert main(["search", *command, "--search-config", str(tmp_path / "s.json")]) == 2
    assert "SearchConfig has no field warmup" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_search_ends_with_the_same_spec_and_path(command: list[str], tmp_path: Path) -> None:
    """The killed one runs with pictures and real times; the table of the whole one makes both the same search."""
    assert main(["search", *command]) == 0
    at = command.index("--run") + 1
    whole, killed = tmp_path / "run", tmp_path / "killed"
    again = [*command[:at], str(killed), *command[at + 1 :], "--target", str(whole / "latency.json")]
    for delay_s in (0.0, 0.2, 0.4):
        kill_after(["search", *again], "step ", delay_s=delay_s)
    assert main(["search", *again, "--resume"]) == 0
    for name in ("decoder.json", "path.jsonl"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
