"""Few-shot curves, outside programs, pictures, and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_sequence
from PIL import Image

from wbcss.errors import EXIT_DONE, EXIT_INPUT, CaseError, SpecError
from wbcss_training.cli.main import main
from wbcss_training.continual.benchmark import Cell, MethodResult
from wbcss_training.continual.few_shot import curves, few_cases, run_few_shot
from wbcss_training.continual.peers import Peer, read_peers
from wbcss_training.continual.plot import plot_benchmark, plot_few_shot
from wbcss_training.continual.sequence import read_sequence
from wbcss_training.continual.state import load_learned
from wbcss_training.continual.table import benchmark_markdown, few_shot_markdown


def cell(index: int, scores: dict[int, dict[str, Any]], alone: dict[int, dict[str, Any]]) -> Cell:
    return Cell(
        index=index,
        scores=scores,  # type: ignore[arg-type]
        alone=alone,  # type: ignore[arg-type]
        parameters=1000 * (index + 1),
        gmacs=2.0 * (index + 1),
        added_parameters=1000,
        added_gmacs=2.0,
        wall_s=10.0,
        cpu_s=20.0,
    )


def organ(dice: float) -> dict[str, float | None]:
    return {"dice": dice, "hd95_mm": 4.25, "surface_dice": 0.5, "count": 3}


def result(name: str, dice: tuple[float, float, float]) -> MethodResult:
    """Task 0 scores ``dice[0]``, later ``dice[1]``; task 1 scores ``dice[2]``; before merging 0.1 more."""
    scores = [{0: {"liver": organ(dice[0])}}, {0: {"liver": organ(dice[1])}, 1: {"spleen": organ(dice[2])}}]
    raw = [{0: {"liver": organ(0.75)}}, {0: {"liver": organ(0.75)}, 1: {"spleen": organ(0.75)}}]
    return MethodResult(
        name=name,
        title=f"method {name}",
        scope="so_far",
        cells=tuple(cell(index, scores[index], raw[index] if name == "ours" else {}) for index in (0, 1)),
        num_tasks=2,
        task_organs=((tiny_sequence.LIVER,), (tiny_sequence.SPLEEN,)),
    )


RESULTS = (result("ours", (0.75, 0.5, 0.625)), result("separate", (0.75, 0.75, 0.875)))


def test_the_table_says_what_was_measured() -> None:
    text = benchmark_markdown("tiny", RESULTS, [Peer(title="nnU-Net", dice=0.75, parameters=31_000_000)])
    rows = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in text.splitlines()[4:9]}
    assert rows["method ours"] == [
        *("0.562", "0.688", "-0.2500", "-0.3333", "0.0000", "25.0"),
        *("2,000", "1,000", "4.0", "2.0", "20", "40"),
    ]
    assert rows["nnU-Net"][0] == "0.750"
    assert rows["nnU-Net"][5:7] == ["6.2", "31,000,000"]
    assert "| 2 | 0.500 (0.750) | 0.625 (0.750) |" in text
    assert "| 1 | liver | 3 | 0.500 | 4.2 | 0.500 | 0.750 |" in text


def test_a_picture_has_a_panel_per_task_and_is_the_same_every_time(tmp_path: Path) -> None:
    paths = [plot_benchmark(RESULTS, ["one", "two"], tmp_path / f"{n}.png") for n in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with Image.open(paths[0]) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] > 1.8 * pixels.shape[0]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20  # lines of several colors


def test_the_curve_has_a_line_per_method(tmp_path: Path) -> None:
    found: dict[str, dict[int, float | None]] = {"ours": {1: 0.5, 10: 0.75}, "scratch": {1: None, 10: 0.25}}
    text = few_shot_markdown("tiny", found)
    assert "| method | 1 | 10 |" in text
    assert "| ours | 0.500 | 0.750 |" in text
    assert "| scratch | - | 0.250 |" in text
    with Image.open(plot_few_shot(found, tmp_path / "curve.png")) as image:
        assert image.size[0] > 300


def test_outside_programs_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    assert read_peers(path) == ()
    path.write_text(json.dumps({"peers": [{"title": "nnU-Net", "dice": 0.5, "wall_s": 60}]}))
    assert read_peers(path) == (Peer(title="nnU-Net", dice=0.5, wall_s=60.0),)
    path.write_text(json.dumps({"peers": [{"title": "nnU-Net", "dice": "good"}]}))
    with pytest.raises(SpecError, match=r"peers.json must hold 'peers' with 'title' and 'dice', got .*'good'"):
        read_peers(path)


def test_a_curve_learns_from_the_first_cases_only(tmp_path: Path) -> None:
    sequence = tiny_sequence.new_sequence(tmp_path, steps=2)
    assert sequence.few_shot is not None
    fewer = few_cases(sequence, sequence.few_shot, 1)
    assert [task.source["count"] for task in fewer.tasks] == [1]
    shots = run_few_shot(sequence, run_dir=tmp_path / "run", methods=["ours"])
    assert [shot.count for shot in shots] == [1, 2]
    (title,) = curves(shots)
    assert curves(shots)[title] == {shot.count: shot.results[0].matrix.average for shot in shots}
    facts = json.loads((tmp_path / "run" / "few_shot.json").read_text())
    assert list(facts["cases"]) == ["1", "2"]


def test_a_sequence_without_a_curve_or_cases_is_refused(tmp_path: Path) -> None:
    def no_curve(facts: dict[str, Any]) -> None:
        del facts["few_shot"]

    sequence = read_sequence(tiny_sequence.write_sequence(tmp_path, change=no_curve))
    with pytest.raises(SpecError, match="the sequence 'tiny' has no 'few_shot'; name a task and counts there"):
        run_few_shot(sequence, run_dir=tmp_path / "run")

    def synthetic(facts: dict[str, Any]) -> None:
        facts["tasks"][0]["source"] = {"kind": "atlas", "folder": "atlas"}

    sequence = read_sequence(tiny_sequence.write_sequence(tmp_path, change=synthetic))
    with pytest.raises(SpecError, match="a few-shot curve needs a task learned from cases, got 'upper'"):
        run_few_shot(sequence, run_dir=tmp_path / "run")

    def too_many(facts: dict[str, Any]) -> None:
        facts["few_shot"]["counts"] = [9]

    sequence = read_sequence(tiny_sequence.write_sequence(tmp_path, change=too_many, steps=1))
    with pytest.raises(CaseError, match=r"list.json has 3 cases, got a plan that takes 9 from number 0 on"):
        run_few_shot(sequence, run_dir=tmp_path / "run", methods=["ours"])


def test_the_command_runs_resumes_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_sequence.write_sequence(tmp_path, steps=1)
    command = ["benchmark", str(path), "--run", str(tmp_path / "run"), "--workers", "0", "--device", "cpu"]
    assert main([*command, "--methods", "ours", "--json"]) == EXIT_DONE
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1] == {"fraction": 1.0, "stage": "done"}
    assert main([*command, "--methods", "finetune"]) == EXIT_INPUT
    assert "already holds cells; add --resume or name another folder" in capsys.readouterr().err
    (tmp_path / "run" / "peers.json").write_text(json.dumps({"peers": [{"title": "somebody else", "dice": 0.5}]}))
    assert main([*command, "--methods", "finetune", "--resume"]) == EXIT_DONE
    text = capsys.readouterr().out
    assert text == (tmp_path / "run" / "benchmark.md").read_text()
    assert all(f"| {title} |" in text for title in ("ours", "fine-tuning", "somebody else"))
    with Image.open(tmp_path / "run" / "benchmark.png") as image:
        assert image.format == "PNG"
    assert main([*command, "--methods", "ours,icarl", "--resume"]) == EXIT_INPUT
    assert "must be of finetune, lwf" in capsys.readouterr().err


def test_the_command_draws_a_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_sequence.write_sequence(tmp_path, steps=1)
    command = ["benchmark", str(path), "--run", str(tmp_path / "run"), "--workers", "0", "--device", "cpu"]
    assert main([*command, "--few-shot", "--methods", "ours"]) == EXIT_DONE
    assert "| method | 1 | 2 |" in capsys.readouterr().out
    assert (tmp_path / "run" / "few-shot" / "few_shot.png").is_file()
    assert main([*command, "--few-shot", "--methods", "ours"]) == EXIT_INPUT
    assert "already holds cells; add --resume" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_benchmark_goes_on_to_the_same_bits(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tiny_sequence.write_sequence(tmp_path, steps=30, checkpoint_every=1)
    command = [sys.executable, "-m", "wbcss_training.cli", "benchmark", str(path), "--methods", "mib", "--workers", "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    whole = [*command, "--run", str(tmp_path / "whole"), "--device", "cpu"]
    started = time.monotonic()
    subprocess.run(whole, check=True, capture_output=True, env=environment)
    whole_s = time.monotonic() - started
    parts = [*command, "--run", str(tmp_path / "parts"), "--device", "cpu", "--resume"]
    kills = 0
    while True:
        process = subprocess.Popen(parts, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=float(rng.uniform(0.4, 0.9)) * whole_s if kills < 3 else None)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    assert process.returncode == EXIT_DONE
    assert kills > 0
    for index in (0, 1):
        one, other = (load_learned(tmp_path / name / "mib" / f"task-{index}") for name in ("whole", "parts"))
        assert one is not None
        assert other is not None
        assert one.digest(one.model.tasks) == other.digest(other.model.tasks)
    tables = [
        [method["matrix"] for method in json.loads((tmp_path / name / "benchmark.json").read_text())["methods"]]
        for name in ("whole", "parts")
    ]
    assert tables[0] == tables[1]
