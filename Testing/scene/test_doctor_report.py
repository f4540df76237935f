"""The doctor's page: every finding has words, a state and a remedy; the report to copy names nobody."""

from __future__ import annotations

import dataclasses
import getpass
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_registry import new_registry, publish

from wbcss.errors import RunError
from WholeBodyCSSLib.CommandJob import CommandEnd
from WholeBodyCSSLib.DoctorCheck import DoctorCheck
from WholeBodyCSSLib.DoctorReport import Host, Line, Needs, Report, makeReport, needsOf
from WholeBodyCSSLib.RegistryPlaces import RegistryPlaces
from WholeBodyCSSLib.Settings import Settings

HOST = Host(slicerVersion="5.12.3")
SOUND: Mapping[str, Any] = {
    "versions": {"wbcss": "0.1.0", "python": "3.12.10", "torch": "2.13.0", "openvino": None, "monai": "1.6.1"},
    "system": {"memory_total_mib": 16384, "memory_available_mib": 8192, "temporary_free_mib": 51200},
    "device": {"chosen": "cuda:0", "why": "it is the first CUDA device", "cuda_devices": [
        {"name": "A card", "memory_total_mib": 8192, "memory_free_mib": 7168}]},
    "registry": {"tasks": ["wholebody@1"], "organs": 139, "sound": True},
    "problems": [],
}  # fmt: skip
NO_CARD = {**SOUND, "device": {"chosen": "cpu", "why": "torch is built without CUDA", "cuda_devices": []}}


def _line(report: Report, topic: str) -> Line:
    return next(line for line in report.lines if line.topic == topic)


def test_a_sound_installation_is_ready() -> None:
    report = makeReport(SOUND, HOST)
    assert report.problems == ()
    assert report.summary == "Ready to segment."
    assert not report.canRepair
    assert _line(report, "Device").found == "cuda:0, because it is the first CUDA device"
    assert _line(report, "cuda:0").found == "A card, 7.0 GB of 8.0 GB free"
    assert _line(report, "Memory").found == "8.0 GB of 16.0 GB free"
    assert _line(report, "Tasks").found == "Shipped registry: every file as published; tasks: 1, organs: 139"


def test_without_a_card_the_processor_is_used_and_the_cost_is_told() -> None:
    line = _line(makeReport(NO_CARD, HOST), "Device")
    assert (line.state, line.found) == ("note", "processor, because torch is built without CUDA")
    assert line.advice == "This works, but takes minutes instead of seconds."


def test_a_chosen_device_that_is_not_there_is_a_problem_with_a_remedy() -> None:
    line = _line(makeReport(NO_CARD, dataclasses.replace(HOST, device="cuda")), "Device")
    assert (line.state, line.found) == ("bad", "cuda was chosen, but torch is built without CUDA")
    assert line.advice == "Choose the device auto in the settings."
    assert _line(makeReport(SOUND, dataclasses.replace(HOST, device="cpu")), "Device").state == "good"


def test_without_torch_the_page_says_so_and_offers_to_repair() -> None:
    diagnosis = {**SOUND, "versions": {**SOUND["versions"], "torch": None}, "device": {"chosen": None, "why": "x"}}
    report = makeReport(diagnosis, dataclasses.replace(HOST, missing=("torch", "pillow")))
    assert [line.topic for line in report.problems] == ["PyTorch", "pillow"]
    assert report.summary == "2 problems found."
    assert report.canRepair
    assert _line(report, "Device").found == "unknown until PyTorch is installed"


def test_a_torch_that_does_not_start_has_the_reason_and_a_remedy() -> None:
    diagnosis = {**SOUND, "device": {"chosen": None, "why": "torch does not start: libcuda is broken"}}
    line = _line(makeReport(diagnosis, HOST), "Device")
    assert (line.state, line.found) == ("bad", "torch does not start: libcuda is broken")
    assert "uninstall PyTorch" in line.advice


@pytest.mark.parametrize(("needs", "state"), [(Needs(8192, 51200), "good"), (Needs(8193, 51201), "bad")])
def test_memory_and_disk_are_held_against_the_chosen_scan(needs: Needs, state: str) -> None:
    report = makeReport(SOUND, dataclasses.replace(HOST, needs=needs))
    memory, disk = _line(report, "Memory"), _line(report, "Disk")
    assert (memory.state, disk.state) == (state, state)
    assert memory.found == "8.0 GB of 16.0 GB free; the chosen scan needs up to 8.0 GB"
    assert bool(memory.advice and disk.advice) == (state == "bad")


def test_the_estimate_grows_with_the_scan_and_the_tasks_and_not_with_the_organs() -> None:
    one, five = needsOf(192**3, 1), needsOf(192**3, 5)
    assert five.memoryMib - one.memoryMib == 4 * 350
    assert needsOf(0, 0).memoryMib == needsOf(0, 1).memoryMib == 1300
    assert needsOf(2 * 2**20, 1) == Needs(memoryMib=1300 + 68, diskMib=200 + 16)


def test_a_damaged_registry_is_named_with_the_engines_remedy() -> None:
    problems = [
        {"what": "only 1 MiB of memory are free, a large CT needs about 4096", "remedy": "close other programs"},
        {"what": "tasks/wholebody/1/decoder.safetensors is missing", "remedy": "import the task again"},
    ]
    diagnosis = {**SOUND, "registry": {**SOUND["registry"], "sound": False}, "problems": problems}
    report = makeReport(diagnosis, dataclasses.replace(HOST, isOwnRegistry=True))
    (line,) = report.problems
    assert line.found == "Your own registry: tasks/wholebody/1/decoder.safetensors is missing"
    assert line.advice == "Import the task again"


def test_no_write_access_is_a_note_because_segmenting_still_works() -> None:
    report = makeReport(SOUND, dataclasses.replace(HOST, isOwnWritable=False))
    assert _line(report, "Own tasks").state == "note"
    assert report.summary == "Ready to segment."


def test_an_interrupted_installation_can_be_taken_up() -> None:
    line = _line(makeReport(SOUND, dataclasses.replace(HOST, isInterrupted=True)), "Installation")
    assert line.advice == "Press Repair to go on."


def test_an_answer_that_lacks_everything_is_still_a_report() -> None:
    report = makeReport({"system": {}, "problems": [None, 3]}, HOST)
    assert _line(report, "Memory").found == "unknown of unknown free"
    assert _line(report, "Device").state == "bad"


# The report to copy


def test_the_copied_report_names_neither_user_nor_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    home = "/home/jörg.müller"
    monkeypatch.setattr(Path, "home", lambda: Path(home))
    monkeypatch.setattr(getpass, "getuser", lambda: "jörg.müller")
    monkeypatch.setattr(platform, "node", lambda: "radiology-7")
    what = f"{home}/WholeBodyCSS/registry/labels.json on radiology-7 cannot be read, nor /scratch/jörg.müller/x"
    diagnosis = {**SOUND, "registry": {"sound": False}, "problems": [{"what": what, "remedy": f"look at {home}"}]}
    text = makeReport(diagnosis, HOST).text()
    assert "~/WholeBodyCSS/registry/labels.json on HOST cannot be read, nor /scratch/USER/x" in text
    for secret in ("jörg", "müller", "radiology", home):
        assert secret not in text
    assert text.startswith("WholeBodyCSS 0.1.0, Slicer 5.12.3, Python 3.")


def test_what_the_report_is_made_of_has_no_place_for_a_patient() -> None:
    fields = {field.name for kind in (Host, Needs, Line) for field in dataclasses.fields(kind)}
    assert fields.isdisjoint({"volume", "volumeName", "node", "name", "path", "file", "patient", "study", "series"})


# The check


class FakeJob:
    def __init__(self, end: CommandEnd | None) -> None:
        self.end, self.isCancelled = end, False

    def poll(self) -> CommandEnd | None:
        return self.end

    def cancel(self) -> None:
        self.isCancelled = True


@pytest.fixture
def places(tmp_path: Path) -> RegistryPlaces:
    registry = new_registry(tmp_path / "shipped")
    publish(registry)
    return RegistryPlaces(Settings(), lambda: tmp_path / "Jörg" / "own", registry.root)


def _reports(check: DoctorCheck) -> list[Report]:
    reports: list[Report] = []
    check.onReport = reports.append
    return reports


def test_the_engine_is_asked_about_the_registry_in_use(places: RegistryPlaces) -> None:
    commands: list[tuple[str, ...]] = []

    def run(arguments: Sequence[str]) -> FakeJob:
        commands.append(tuple(arguments))
        return FakeJob(CommandEnd(exitCode=0, output=SOUND))

    check = DoctorCheck(places, Settings(), "5.12.3", run, lambda module: True)
    reports = _reports(check)
    check.start(Needs(1, 1))
    assert reports == []
    check.poll()
    assert commands == [("doctor", "--registry", str(places.shipped), "--json")]
    assert [report.summary for report in reports] == ["Ready to segment."]
    assert not check.isRunning


def test_another_scan_is_held_against_what_was_found_without_asking_again(places: RegistryPlaces) -> None:
    asked: list[Sequence[str]] = []

    def run(arguments: Sequence[str]) -> FakeJob:
        asked.append(arguments)
        return FakeJob(CommandEnd(exitCode=0, output=SOUND))

    check = DoctorCheck(places, Settings(), "5.12.3", run, lambda module: True)
    reports = _reports(check)
    check.update(Needs(1, 1))
    assert reports == []
    check.start(Needs(1, 1))
    check.poll()
    check.update(Needs(9000, 1))
    assert [len(report.problems) for report in reports] == [0, 1]
    assert len(asked) == 1


def test_an_engine_that_dies_is_reported_with_its_last_words(places: RegistryPlaces) -> None:
    end = CommandEnd(exitCode=1, message="ModuleNotFoundError: No module named 'numpy'")
    check = DoctorCheck(places, Settings(), "5.12.3", lambda arguments: FakeJob(end), lambda module: True)
    reports = _reports(check)
    check.start()
    check.poll()
    (line,) = reports[0].problems
    assert line.found == "it cannot be started (code 1): ModuleNotFoundError: No module named 'numpy'"


def test_an_engine_that_cannot_be_started_is_reported(places: RegistryPlaces) -> None:
    def run(arguments: Sequence[str]) -> FakeJob:
        raise RunError("the command wbcss doctor cannot be started by PythonSlicer: no such file")

    check = DoctorCheck(places, Settings(), "5.12.3", run, lambda module: True)
    reports = _reports(check)
    check.start()
    assert "cannot be started by PythonSlicer" in reports[0].problems[0].found


def test_a_new_check_replaces_the_running_one_and_leaving_stops_it(places: RegistryPlaces) -> None:
    jobs = [FakeJob(None), FakeJob(None)]
    waiting = iter(jobs)
    check = DoctorCheck(places, Settings(), "5.12.3", lambda arguments: next(waiting), lambda module: True)
    reports = _reports(check)
    check.start()
    check.start()
    assert jobs[0].isCancelled
    check.close()
    assert jobs[1].isCancelled
    check.poll()
    assert reports == []


def test_a_folder_that_cannot_be_made_is_noticed(places: RegistryPlaces) -> None:
    places.own.parent.write_text("x", encoding="ascii")
    check = DoctorCheck(places, Settings(), "5", lambda arguments: FakeJob(CommandEnd(exitCode=0, output=SOUND)))
    reports = _reports(check)
    check.start()
    check.poll()
    assert any(line.topic == "Own tasks" for line in reports[0].lines)


@pytest.mark.slow
def test_the_real_engine_is_understood(places: RegistryPlaces) -> None:
    check = DoctorCheck(places, Settings(), "5.12.3")
    reports = _reports(check)
    check.start(needsOf(10**6, 1))
    deadline_s = time.monotonic() + 100
    while not reports and time.monotonic() < deadline_s:
        check.poll()
        time.sleep(0.02)
    report = reports[0]
    assert _line(report, "Tasks").found == "Shipped registry: every file as published; tasks: 1, organs: 2"
    assert _line(report, "Device").state in ("good", "note")
    assert str(Path.home()) not in report.text()
