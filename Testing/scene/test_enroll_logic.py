"""One enrolment: what the back end is asked, what is remembered, and what an estimate allows."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from wbcss.errors import InputError, OutputError, RunError
from wbcss_training.config import TrimConfig
from WholeBodyCSSLib.CommandJob import CommandEnd
from WholeBodyCSSLib.EnrollCases import CaseRow, NameRow
from WholeBodyCSSLib.EnrollLogic import FOLDER_KEY, EnrollLogic, Needs, Resources
from WholeBodyCSSLib.EnrollOrgan import TaskDraft
from WholeBodyCSSLib.EnrollResult import caseScores, organScores, proofText
from WholeBodyCSSLib.RunWatcher import RunState
from WholeBodyCSSLib.Settings import Settings
from WholeBodyCSSLib.TrainProcess import JobEnd

FORECAST = {"estimate_s": {"encode": 10.0, "train": 50.0}, "steps": 300, "disk_bytes": 1 << 30, "memory_bytes": 1 << 31}


class Job:
    progress = (0.0, "")
    end: JobEnd | None = None
    isCancelled = False

    def poll(self) -> JobEnd | None:
        return self.end

    def cancel(self) -> None:
        self.isCancelled = True


class Run:
    exitCode: int | None = None

    def kill(self) -> None:
        self.exitCode = -9


class Command:
    def __init__(self, end: CommandEnd) -> None:
        self.end = end

    def poll(self) -> CommandEnd | None:
        return self.end

    def cancel(self) -> None: ...


class World:
    """A back end and a command line that only remember, and a machine with room."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings = Settings()
        self.asked: list[list[str]] = []
        self.job, self.run = Job(), Run()
        self.freeDiskMib: int | None = 100_000
        self.export = CommandEnd(exitCode=0)

    def logic(self) -> EnrollLogic:
        return EnrollLogic(
            self.settings,
            registry=lambda: self.root / "registry",
            base=lambda: self.root / "work",
            jobs=self._job,
            runs=self._run,
            commands=self._command,
            resources=Resources(
                freeDiskMib=lambda folder: self.freeDiskMib,
                freeMemoryMib=lambda: 100_000,
                now=lambda: datetime.datetime(2026, 11, 20, 9, 30),
            ),
        )

    def option(self, name: str) -> str:
        return self.asked[-1][self.asked[-1].index(name) + 1]

    def _job(self, arguments: Sequence[str]) -> Job:
        self.asked.append(list(arguments))
        self.job = Job()
        return self.job

    def _run(self, arguments: Sequence[str], folder: Path) -> Run:
        self.asked.append(list(arguments))
        self.run = Run()
        return self.run

    def _command(self, arguments: Sequence[str]) -> Command:
        self.asked.append(list(arguments))
        return Command(self.export)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def logic(world: World) -> EnrollLogic:
    """Checked cases of a new organ, and everything said that a card needs."""
    return described(world.logic())


def described(logic: EnrollLogic) -> EnrollLogic:
    logic.cases.path = Path("/data/smith")
    logic.cases.names = (NameRow(name="Lump", numCases=3, organ="lump", isNew=True),)
    logic.cases.rows = (CaseRow(title="smith.nii.gz"),) * 3
    logic.draft = TaskDraft(license="CC0-1.0", provenance="three CT")
    logic.takeOrgans()
    return logic


def write(logic: EnrollLogic, name: str, values: Any) -> None:
    path = logic.folder / "run" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def finish(world: World, logic: EnrollLogic, *, published: bool) -> None:
    write(logic, "state.json", {"state": "finished"})
    write(logic, "report.json", {"task": "lump@1", "published": published})
    world.run.exitCode = 0
    logic.poll()


def test_an_estimate_asks_for_everything_but_the_run(world: World, logic: EnrollLogic) -> None:
    logic.minutes = 20
    logic.estimate()
    assert world.asked[-1][-1] == "--dry-run"
    assert world.option("--organs") == "Lump=new:lump"
    assert world.option("--minutes") == "20"
    assert world.option("--run") == str(world.root / "work" / "20261120-093000" / "run")
    cards = json.loads(Path(world.option("--organ-cards")).read_text())
    assert cards["lump"]["display"] == "Lump"
    world.job.end = JobEnd(exitCode=0, lines=({"note": "x"}, FORECAST))
    logic.poll()
    assert logic.needs is not None
    assert (logic.needs.totalS, logic.needs.diskMib, logic.needs.memoryMib) == (60.0, 1024, 2048)
    assert logic.needs.problem == ""
    assert not logic.isEstimating


def test_an_estimate_that_fails_says_why(world: World, logic: EnrollLogic) -> None:
    logic.estimate()
    world.job.end = JobEnd(exitCode=2, message="--minutes must leave time for 20 steps")
    logic.poll()
    assert (logic.needs, logic.message) == (None, "--minutes must leave time for 20 steps")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"freeDiskMib": 10}, "1024 MiB of disk are needed and 10 MiB are free"),
        ({"freeMemoryMib": 11}, "2048 MiB of memory are needed and 11 MiB are free"),
        ({"freeDiskMib": None, "freeMemoryMib": None}, ""),
    ],
)
def test_too_little_room_is_told_before_the_run(changes: dict[str, Any], problem: str) -> None:
    needs = Needs(seconds={}, diskMib=1024, freeDiskMib=9999, memoryMib=2048, freeMemoryMib=9999, steps=1)
    told = dataclasses.replace(needs, **changes).problem
    assert told.startswith(problem) if problem else told == ""


def test_nothing_runs_before_cases_and_words_are_there(world: World) -> None:
    logic = world.logic()
    with pytest.raises(InputError, match="choose cases first"):
        logic.estimate()
    described(logic).draft = TaskDraft()
    logic.takeOrgans()
    with pytest.raises(InputError, match="say in the license"):
        logic.start()
    assert world.asked == []


def test_a_run_is_found_by_the_next_slicer_and_resumed_with_the_same_words(world: World, logic: EnrollLogic) -> None:
    logic.start()
    first = world.asked[-1]
    assert first[-2:] == ["--resume", "--no-publish"]
    assert logic.view.state == RunState.RUNNING
    with pytest.raises(RunError, match="the run is working already"):
        logic.resume()
    write(logic, "state.json", {"state": "paused"})
    found = world.logic()  # another Slicer, which has only the settings
    assert (found.view.state, found.draft) == (RunState.PAUSED, logic.draft)
    found.resume()
    assert world.asked[-1] == first


@pytest.mark.parametrize(
    ("budget", "words"), [(0.15, ["--trim-budget", "0.15"]), (0.4, ["--trim-budget", "0.4"]), (None, ["--no-trim"])]
)
def test_the_size_of_the_decoder_is_asked_for_and_remembered(
    world: World, logic: EnrollLogic, budget: float | None, words: list[str]
) -> None:
    assert logic.trimBudget == 0.15
    logic.trimBudget = budget
    logic.start()
    assert [word for word in world.asked[-1] if "trim" in word] == words[:1]
    assert world.asked[-1][world.asked[-1].index(words[0]) :][: len(words)] == words
    write(logic, "state.json", {"state": "paused"})
    found = world.logic()
    assert found.trimBudget == budget
    found.forget()
    assert found.trimBudget == 0.15


def test_a_plan_without_a_size_goes_on_as_the_back_end_began_it(world: World, logic: EnrollLogic) -> None:
    logic.start()
    path = logic.folder / "wizard.json"
    plan = json.loads(path.read_text())
    del plan["trim_budget"]
    path.write_text(json.dumps(plan))
    assert world.logic().trimBudget == TrimConfig().budget


def test_the_settings_and_the_work_folder_are_named_after_the_time_alone(world: World, logic: EnrollLogic) -> None:
    logic.start()
    assert world.settings.store.value(FOLDER_KEY) == str(world.root / "work" / "20261120-093000")
    plan = (logic.folder / "wizard.json").read_text()
    assert "smith.nii.gz" not in plan  # titles are for the screen; the path of the cases has to be known to resume


def test_a_plan_that_cannot_be_read_is_no_run(world: World, logic: EnrollLogic) -> None:
    logic.start()
    (logic.folder / "wizard.json").write_text("{")
    assert world.logic().view.state == RunState.NONE
    world.settings.store.setValue(FOLDER_KEY, str(world.root / "gone"))
    assert world.logic().watcher is None


def test_publishing_comes_after_the_proof_and_without_no_publish(world: World, logic: EnrollLogic) -> None:
    logic.start()
    finish(world, logic, published=False)
    assert (logic.view.state, logic.publishedTitle) == (RunState.PROVEN, "lump@1")
    logic.publish()
    assert world.asked[-1][-1] == "--resume"
    assert "--no-publish" not in world.asked[-1]
    finish(world, logic, published=True)
    assert logic.view.state == RunState.PUBLISHED


def test_a_published_task_is_exported_by_its_title(world: World, logic: EnrollLogic) -> None:
    logic.start()
    finish(world, logic, published=True)
    logic.export(world.root / "lump-1.wbtask")
    assert world.asked[-1] == [
        *("tasks", "export", "lump@1", "--registry", str(world.root / "registry")),
        *("-o", str(world.root / "lump-1.wbtask")),
    ]
    assert logic.isExporting
    logic.poll()
    assert logic.exported == world.root / "lump-1.wbtask"
    world.export = CommandEnd(exitCode=2, message="the disk is full")
    logic.export(world.root / "again.wbtask")
    logic.poll()
    assert (logic.exported, logic.message) == (None, "the disk is full")


def test_a_cancelled_run_is_stopped_and_dropped_and_its_cases_stay(world: World, logic: EnrollLogic) -> None:
    logic.start()
    write(logic, "state.json", {"state": "running"})
    (logic.casesFolder()).mkdir()
    logic.cancelRun()
    assert world.run.exitCode == -9
    assert logic.view.state == RunState.NONE
    assert [path.name for path in sorted(logic.folder.iterdir())] == ["cases", "organs.json", "wizard.json"]
    assert world.logic().watcher is None
    logic.start()  # and it can be begun again
    assert logic.view.state == RunState.RUNNING


def test_another_enrolment_begins_with_nothing_left_of_this_one(world: World, logic: EnrollLogic) -> None:
    logic.start()
    with pytest.raises(OutputError, match="must have stopped before it is deleted"):
        logic.discard()
    folder = logic.folder
    finish(world, logic, published=True)
    logic.discard()
    assert not folder.exists()
    assert (logic.draft, logic.cases.rows, logic.view.state) == (TaskDraft(), (), RunState.NONE)
    assert world.settings.store.value(FOLDER_KEY, "") == ""


def test_a_work_folder_that_cannot_be_made_is_told(world: World, logic: EnrollLogic) -> None:
    (world.root / "work").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot make the work folder .*20261120-093000"):
        logic.start()


def test_the_report_is_read_worst_organ_first() -> None:
    row = {"count": 2, "dice": 0.9, "hd95_mm": 2.0, "surface_dice": 0.95, "dice_ci95": [0.8, 0.95]}
    bad = {"count": 1, "dice": 0.2, "hd95_mm": None, "surface_dice": 0.1, "dice_ci95": None}
    scores = [{"number": 1, "organs": {"liver": row}}, {"number": 2, "organs": {"liver": row, "lump": bad}}]
    report = {"validation": {"organs": {"liver": row, "lump": bad}, "scores": scores}}
    worst, best = organScores(report)
    assert (worst.organ, worst.dice, worst.hd95Mm, worst.interval) == ("lump", 0.2, None, None)
    assert (best.organ, best.cases, best.interval) == ("liver", 2, (0.8, 0.95))
    assert [(row.organ, row.cases) for row in caseScores(report)] == [("liver", 1), ("liver", 2), ("lump", 2)]
    assert organScores({}) == caseScores({}) == ()


def test_the_proof_is_a_sentence() -> None:
    assert proofText({"unchanged": ["a@1", "b@2"], "unchanged_organs": 143}) == (
        "143 of 143 earlier organs unchanged, bit for bit. Published task versions compared: 2."
    )
    assert "first task of the registry" in proofText({"unchanged": [], "unchanged_organs": 0})
    assert proofText({}) == ""
