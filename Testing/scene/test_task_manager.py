"""The task manager: what is listed, what an action asks of the engine, and what the user reads."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_registry import new_registry, publish

from wbcss.errors import EXIT_FAILED, EXIT_INPUT, InputError, OutputError, RegistryError, RunError
from wbcss.labels import TaskId
from wbcss.package import export_task
from wbcss.registry import Registry
from WholeBodyCSSLib.CardText import validationOf, validationText
from WholeBodyCSSLib.CommandJob import CommandEnd
from WholeBodyCSSLib.RegistryPlaces import RegistryPlaces
from WholeBodyCSSLib.Settings import Settings
from WholeBodyCSSLib.TaskManager import TaskManager, TaskRow, sizeText, stateText

WHOLE_BODY = TaskId("wholebody")
LIMIT_S = 60.0


class FakeJob:
    """A command that ends when the test says so."""

    def __init__(self) -> None:
        self.end: CommandEnd | None = None
        self.isCancelled = False

    def poll(self) -> CommandEnd | None:
        return self.end

    def cancel(self) -> None:
        self.isCancelled = True


class FakeRunner:
    """Starts nothing and remembers what it was asked to start."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, ...]] = []
        self.jobs: list[FakeJob] = []

    def __call__(self, arguments: Sequence[str]) -> FakeJob:
        self.commands.append(tuple(arguments))
        self.jobs.append(FakeJob())
        return self.jobs[-1]


class Ends:
    """What the panel was told."""

    def __init__(self, manager: TaskManager) -> None:
        self.done: list[str] = []
        self.failed: list[str] = []
        manager.onDone, manager.onFailed = self.done.append, self.failed.append


@pytest.fixture
def shipped(tmp_path: Path) -> Registry:
    registry = new_registry(tmp_path / "shipped")
    publish(registry, "wholebody", {"liver": 5, "spleen": 1}, limits="Not for diagnosis.")
    return registry


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
def places(shipped: Registry, settings: Settings, tmp_path: Path) -> RegistryPlaces:
    return RegistryPlaces(settings, lambda: tmp_path / "own", shipped.root)


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def manager(places: RegistryPlaces, settings: Settings, runner: FakeRunner) -> TaskManager:
    return TaskManager(places, settings, runner)


@pytest.fixture
def package(shipped: Registry, tmp_path: Path) -> Path:
    """A task that another hospital taught the same encoder."""
    other = new_registry(tmp_path / "other")
    publish(other, "cyst", {"x_cyst": 10000})
    return export_task(other, TaskId("cyst"), tmp_path)


def _finish(manager: TaskManager) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while manager.isBusy and time.monotonic() < deadline_s:
        manager.poll()
        time.sleep(0.01)


def _row(manager: TaskManager, task: str = "wholebody") -> TaskRow:
    return next(row for row in manager.listing().rows if row.task == task)


# Listing


def test_a_task_is_listed_with_its_card_its_size_and_its_state(manager: TaskManager, shipped: Registry) -> None:
    (row,) = manager.listing().rows
    assert row.card is not None
    assert (row.card.title, row.state, row.problem) == ("wholebody@1", "on", "")
    assert row.sizeBytes == shipped.task_weights(row.card).stat().st_size
    assert (sizeText(12_600_000), sizeText(4_321), sizeText(0)) == ("12.6 MB", "4 kB", "unknown")


def test_the_card_is_shown_in_words(manager: TaskManager) -> None:
    text = manager.describe(_row(manager))
    for words in ("wholebody@1", "7 annotated scans", "Not for diagnosis.", "CC0-1.0", "random numbers", "Liver"):
        assert words in text
    assert "not measured" in text


def test_a_card_cannot_bring_markup_into_the_window(manager: TaskManager) -> None:
    row = _row(manager)
    assert row.card is not None
    hostile = dataclasses.replace(row.card, provenance="<img src='http://x/y'>")
    assert "<img" not in manager.describe(dataclasses.replace(row, card=hostile))


def test_a_damaged_task_is_listed_with_the_reason_and_the_others_still_work(places: RegistryPlaces) -> None:
    own = Registry(places.writable())
    publish(own, "cyst", {"x_cyst": 10000})
    card = own.root / "tasks/wholebody/1/card.json"
    card.write_bytes(card.read_bytes().replace(b"random numbers", b"random numbxrs"))
    manager = TaskManager(places, Settings(), FakeRunner())
    rows = manager.listing().rows
    assert [(row.task, row.state) for row in rows] == [("cyst", "on"), ("wholebody", "damaged")]
    assert "was changed after it was published" in rows[1].problem
    assert "Import the task again" in manager.describe(rows[1])


def test_a_registry_that_is_not_there_is_a_sentence_and_not_a_crash(tmp_path: Path) -> None:
    places = RegistryPlaces(Settings(), lambda: tmp_path / "own", tmp_path / "nowhere")
    listing = TaskManager(places, Settings(), FakeRunner()).listing()
    assert listing.rows == ()
    assert "no encoder is published in the registry" in listing.problem


def test_quality_is_read_from_both_kinds_of_card_and_from_none(manager: TaskManager) -> None:
    card = _row(manager).card
    assert card is not None
    synthetic = {"synthetic": {"patches": 60, "dice": {"liver": 0.9, "spleen": 0.7}}}
    found = validationOf(dataclasses.replace(card, validation=synthetic))
    assert validationText(found) == "mean Dice 0.80 on 60 synthetic images"
    assert found.organs == (("spleen", 0.7), ("liver", 0.9))
    organs = {"liver": {"dice": 0.8, "hd95_mm": 3.0}, "spleen": {"dice": None}}
    held_out = {"held_out": {"cases": 3, "mean": {"dice": 0.85}, "organs": organs, "note": "few"}}
    found = validationOf(dataclasses.replace(card, validation=held_out))
    assert validationText(found) == "mean Dice 0.85 in 3 held-out scans"
    assert (found.organs, found.note) == ((("liver", 0.8),), "few")
    nothing = validationOf(dataclasses.replace(card, validation={"held_out": {"cases": 0, "note": "none held out"}}))
    assert validationText(nothing) == "not measured"
    assert validationOf(dataclasses.replace(card, validation={"held_out": "?"})).meanDice is None


def test_a_new_encoder_of_the_extension_is_explained(shipped: Registry, tmp_path: Path) -> None:
    own = new_registry(tmp_path / "own", seed=5)
    publish(own, "cyst", {"x_cyst": 10000})
    settings = Settings()
    manager = TaskManager(RegistryPlaces(settings, lambda: own.root, shipped.root), settings, FakeRunner())
    assert "came with a new model that your own tasks do not fit" in manager.listing().notice
    assert [row.task for row in manager.listing().rows] == ["cyst"]


# Switching off, retiring


def test_a_task_that_is_switched_off_is_not_run_and_not_deleted(manager: TaskManager, shipped: Registry) -> None:
    before = shipped.fingerprint()
    manager.setEnabled(WHOLE_BODY, False)
    assert manager.enabledTasks() == ()
    assert stateText(_row(manager)) == "switched off"
    manager.setEnabled(WHOLE_BODY, True)
    assert manager.enabledTasks() == (WHOLE_BODY,)
    assert shipped.fingerprint() == before


def test_retiring_hides_a_task_of_the_own_registry_and_never_of_the_shipped_one(
    manager: TaskManager, places: RegistryPlaces, shipped: Registry
) -> None:
    manager.retire(WHOLE_BODY)
    assert manager.registry == places.own
    assert _row(manager).state == "retired"
    assert manager.enabledTasks() == ()
    assert shipped.tasks() != ()


# Commands


def test_importing_goes_into_the_own_registry_and_reports_the_task(
    manager: TaskManager, places: RegistryPlaces, runner: FakeRunner, package: Path
) -> None:
    ends = Ends(manager)
    manager.importPackage(package)
    assert manager.isBusy
    assert manager.activity == "Importing cyst@1 ..."
    assert runner.commands == [("tasks", "import", str(package), "--registry", str(places.own), "--json")]
    manager.poll()
    assert ends.done == []
    runner.jobs[0].end = CommandEnd(exitCode=0, output={"task": "cyst", "version": 1, "organs": 1})
    manager.poll()
    assert ends.done == ["cyst, version 1, is ready. Organs: 1."]
    assert not manager.isBusy


def test_a_file_that_is_no_package_is_refused_before_anything_is_made(
    manager: TaskManager, places: RegistryPlaces, tmp_path: Path
) -> None:
    path = tmp_path / "holiday.wbtask"
    path.write_bytes(b"photo")
    with pytest.raises(RegistryError, match=r"holiday\.wbtask is no intact task package"):
        manager.importPackage(path)
    assert not places.own.exists()


def test_a_refusal_of_the_engine_reaches_the_user_word_for_word(
    manager: TaskManager, runner: FakeRunner, package: Path
) -> None:
    ends = Ends(manager)
    manager.importPackage(package)
    runner.jobs[0].end = CommandEnd(exitCode=EXIT_INPUT, message="cyst-1.wbtask: the label value 10000 is taken")
    manager.poll()
    assert ends.failed == ["cyst-1.wbtask: the label value 10000 is taken"]
    assert not manager.isBusy


def test_a_second_action_waits_for_the_first(manager: TaskManager, package: Path) -> None:
    manager.importPackage(package)
    with pytest.raises(RunError, match=r"one action at a time: .* got another while 'Importing cyst@1 \.\.\.'"):
        manager.verify()


def test_cancelling_stops_the_command_and_says_nothing_went_wrong(manager: TaskManager, runner: FakeRunner) -> None:
    ends = Ends(manager)
    manager.verify()
    manager.cancel()
    assert runner.jobs[0].isCancelled
    assert ends.failed == [""]
    assert not manager.isBusy


def test_verifying_reports_the_number_of_files_or_the_first_problem(manager: TaskManager, runner: FakeRunner) -> None:
    ends = Ends(manager)
    manager.verify()
    runner.jobs[0].end = CommandEnd(exitCode=0, output={"files": 4, "problems": []})
    manager.poll()
    manager.verify()
    runner.jobs[1].end = CommandEnd(exitCode=EXIT_FAILED, output={"files": 4, "problems": ["a is missing", "b too"]})
    manager.poll()
    assert ends.done == ["Verified: all 4 files are as they were published."]
    assert ends.failed == ["2 of the registry's files are not as published: a is missing"]


def test_no_action_on_a_disk_without_access_leaves_anything(
    manager: TaskManager, places: RegistryPlaces, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Path:
        raise OutputError("cannot make a folder for your own tasks at X: Permission denied")

    monkeypatch.setattr(places, "writable", refuse)
    for action in (lambda: manager.importPackage(package), lambda: manager.retire(WHOLE_BODY)):
        with pytest.raises(OutputError, match="Permission denied"):
            action()
    assert not manager.isBusy


def test_only_a_readable_task_is_exported_and_only_a_newer_one_updated(manager: TaskManager, tmp_path: Path) -> None:
    row = TaskRow(task=WHOLE_BODY, state="damaged")
    with pytest.raises(InputError, match="only a readable task can be exported, got 'wholebody'"):
        manager.exportTask(row, tmp_path)
    with pytest.raises(InputError, match="must have a newer version of a task to update it, got 'wholebody'"):
        manager.update(row)


# With the engine


@pytest.fixture
def real(places: RegistryPlaces, settings: Settings) -> TaskManager:
    return TaskManager(places, settings)


def test_a_task_is_imported_exported_and_not_imported_twice(real: TaskManager, package: Path, tmp_path: Path) -> None:
    ends = Ends(real)
    real.importPackage(package)
    _finish(real)
    assert ends.done == ["cyst, version 1, is ready. Organs: 1."]
    assert real.enabledTasks() == (WHOLE_BODY, TaskId("cyst"))
    target = tmp_path / "für Zürich"
    target.mkdir()
    real.exportTask(_row(real, "cyst"), target)
    _finish(real)
    exported = target / "cyst-1.wbtask"
    assert ends.done[1:] == [f"cyst@1 was written to {exported}"]
    assert exported.read_bytes() == package.read_bytes()
    real.importPackage(package)
    _finish(real)
    assert len(ends.failed) == 1
    assert "is already published in the registry" in ends.failed[0]


def test_an_update_is_published_beside_the_old_version(
    real: TaskManager, places: RegistryPlaces, shipped: Registry, settings: Settings
) -> None:
    places.writable()
    publish(shipped, "wholebody", {"liver": 5, "spleen": 1}, seed=9)
    row = _row(real)
    assert row.update is not None
    assert row.update.title == "wholebody@2"
    ends = Ends(real)
    real.update(row)
    _finish(real)
    assert ends.done == ["wholebody, version 2, is ready. Organs: 2."]
    assert Registry(places.own).versions(WHOLE_BODY) == (1, 2)
    assert _row(real).update is None


def test_a_task_new_in_the_extension_is_offered(
    real: TaskManager, places: RegistryPlaces, shipped: Registry, settings: Settings
) -> None:
    places.writable()
    publish(shipped, "chest", {"heart": 51})
    row = _row(real, "chest")
    assert stateText(row) == "not installed"
    assert "Heart" in real.describe(row)
    real.update(row)
    _finish(real)
    assert _row(real, "chest").state == "on"
