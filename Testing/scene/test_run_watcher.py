"""Where a run stands, told by its files alone, whoever started it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from wbcss.errors import OutputError
from wbcss.storage import held
from WholeBodyCSSLib.RunWatcher import RunState, RunView, RunWatcher
from WholeBodyCSSLib.TrainProcess import ERRORS, OUTPUT


class Process:
    exitCode: int | None = None
    isKilled = False

    def kill(self) -> None:
        self.isKilled, self.exitCode = True, -9


def write(folder: Path, name: str, values: Any) -> None:
    path = folder / "run" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def say(folder: Path, fraction: float, stage: str = "step 1 of 2") -> None:
    with (folder / OUTPUT).open("a") as file:
        file.write(json.dumps({"fraction": fraction, "stage": stage}) + "\n")


def look(folder: Path, process: Process | None = None) -> RunView:
    return RunWatcher(folder, process).view


def test_an_empty_folder_holds_no_run(tmp_path: Path) -> None:
    assert look(tmp_path) == RunView()


def test_a_process_that_still_loads_its_libraries_is_running(tmp_path: Path) -> None:
    assert look(tmp_path, Process()).state == RunState.RUNNING


@pytest.mark.parametrize(
    ("recorded", "report", "state"),
    [
        ("paused", {}, RunState.PAUSED),
        ("failed", {}, RunState.FAILED),
        ("finished", {"published": False}, RunState.PROVEN),
        ("finished", {"published": True}, RunState.PUBLISHED),
    ],
)
def test_the_end_of_a_run_is_read_from_its_folder(
    tmp_path: Path, recorded: str, report: dict[str, Any], state: RunState
) -> None:
    write(tmp_path, "state.json", {"state": recorded, "message": "because"})
    write(tmp_path, "report.json", report)
    view = look(tmp_path)
    assert view.state == state
    assert view.message == ("because" if state == RunState.FAILED else "")
    assert view.canResume == (state in (RunState.PAUSED, RunState.FAILED))


def test_whoever_holds_the_lock_is_working_and_pausing_after_the_wish(tmp_path: Path) -> None:
    write(tmp_path, "state.json", {"state": "running"})
    with held(tmp_path / "run" / ".lock"):
        watcher = RunWatcher(tmp_path)
        assert watcher.view.state == RunState.RUNNING
        watcher.pause()
        assert watcher.view.state == RunState.PAUSING
        with pytest.raises(OutputError, match="must have stopped before it is deleted"):
            watcher.discard()
    view = watcher.look()
    assert view.state == RunState.PAUSED  # killed before it could say how it ended
    assert "interrupted" in view.message


def test_a_process_that_ended_before_it_began_tells_its_last_line(tmp_path: Path) -> None:
    process = Process()
    process.exitCode = 2
    (tmp_path / ERRORS).write_text("warning: x\nwbcss-train: no encoder is published in the registry r\n")
    assert look(tmp_path, process) == RunView(
        state=RunState.FAILED, message="no encoder is published in the registry r"
    )
    assert look(tmp_path).message == "no encoder is published in the registry r"  # the next Slicer says the same


def test_half_a_line_and_words_of_libraries_are_waited_for_and_passed_over(tmp_path: Path) -> None:
    process = Process()
    say(tmp_path, 0.25)
    with (tmp_path / OUTPUT).open("a") as file:
        file.write('hello\n[1]\n{"fraction": 0.')
    watcher = RunWatcher(tmp_path, process)
    assert watcher.view.fraction == 0.25
    with (tmp_path / OUTPUT).open("a") as file:
        file.write('5, "stage": "encoded 2 of 4"}\n')
    assert (watcher.look().fraction, watcher.view.stage) == (0.5, "encoded 2 of 4")


def test_the_remaining_time_follows_the_pace_of_the_last_minute(tmp_path: Path) -> None:
    now = [0.0]
    watcher = RunWatcher(tmp_path, Process(), clock=lambda: now[0])
    for second in range(1, 11):  # a hundredth per second
        now[0] = float(second)
        say(tmp_path, second / 100)
        watcher.look()
    assert watcher.view.remainingS == pytest.approx(90)
    for second in range(11, 131):  # then ten times slower, for two minutes
        now[0] = float(second)
        say(tmp_path, 0.1 + (second - 10) / 1000)
        watcher.look()
    assert watcher.view.remainingS == pytest.approx((1 - 0.22) / 0.001, rel=0.05)


def test_steps_and_loss_come_from_the_log(tmp_path: Path) -> None:
    write(tmp_path, "run.json", {"steps": 40})
    (tmp_path / "run" / "metrics.jsonl").write_text(
        '{"step": 10, "loss": 0.9}\n{"step": 20, "loss": 0.5}\n{"step": 20, "validation_loss": 0.7}\n'
    )
    view = look(tmp_path, Process())
    assert (view.step, view.steps, view.loss) == (20, 40, 0.5)


def test_pictures_are_only_taken_from_the_run_folder(tmp_path: Path) -> None:
    write(tmp_path, "validation.json", {"overlays": ["case_2.png", "../../secret.png", "gone.png"]})
    (tmp_path / "run" / "overlays").mkdir()
    for path in (tmp_path / "run" / "overlays" / "case_2.png", tmp_path / "secret.png"):
        path.write_bytes(b"x")
    assert [path.name for path in RunWatcher(tmp_path).overlays] == ["case_2.png"]


def test_a_dropped_run_leaves_the_cases(tmp_path: Path) -> None:
    (tmp_path / "cases").mkdir()
    write(tmp_path, "state.json", {"state": "paused"})
    (tmp_path / OUTPUT).touch()
    watcher = RunWatcher(tmp_path)
    watcher.dropRun()
    assert [path.name for path in tmp_path.iterdir()] == ["cases"]
    watcher.discard()
    assert not tmp_path.exists()


def test_the_weights_of_a_card_are_the_full_decoder_or_a_step_of_the_trimming(tmp_path: Path) -> None:
    files = {"decoder.safetensors": b"full", "trim/step-1/decoder.safetensors": b"small"}
    for name, content in files.items():
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    watcher = RunWatcher(tmp_path)
    for name, content in files.items():
        assert watcher.weights(hashlib.sha256(content).hexdigest()) == tmp_path / "run" / name
    assert watcher.weights(hashlib.sha256(b"other").hexdigest()) is None
