"""The diagnosis: what it finds, and what it never says."""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import pytest
from tiny_registry import new_registry, publish

from wbcss import doctor, machine
from wbcss.cli.main import main
from wbcss.doctor import diagnose, hide_user
from wbcss.registry import Registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = new_registry(tmp_path / "registry")
    publish(made, "trunk", {"liver": 5, "spleen": 1})
    return made


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory_mib", lambda: (16000, 8000))
    monkeypatch.setattr(machine, "free_disk_mib", lambda folder: 50000)


@pytest.mark.usefixtures("roomy")
def test_a_sound_installation_has_no_problem(registry: Registry) -> None:
    diagnosis = diagnose(registry.root)
    assert diagnosis.problems == ()
    assert diagnosis.registry["sound"] is True
    assert diagnosis.registry["tasks"] == ["trunk@1"]
    assert diagnosis.registry["organs"] == 2
    assert diagnosis.versions["torch"] == importlib.metadata.version("torch")
    assert json.loads(json.dumps(diagnosis.to_json())) == diagnosis.to_json()


@pytest.mark.usefixtures("roomy")
def test_the_device_is_the_one_the_engine_takes_and_the_reason_is_given(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert diagnose(registry.root).device["why"] == "torch is built without CUDA"
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    device = diagnose(registry.root).device
    assert device["chosen"] == "cpu"
    assert device["why"] == "torch is built for CUDA 12.8 but sees no device"


@pytest.mark.usefixtures("roomy")
def test_a_changed_weight_file_is_found_and_the_remedy_told(registry: Registry) -> None:
    path = registry.task_weights(registry.tasks()[0])
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    problems = diagnose(registry.root).problems
    assert len(problems) == 1
    assert "decoder.safetensors" in problems[0].what
    assert "import the task again" in problems[0].remedy


@pytest.mark.usefixtures("roomy")
def test_a_missing_registry_and_an_empty_one_are_problems(tmp_path: Path) -> None:
    missing = diagnose(tmp_path / "nowhere")
    assert [p.remedy for p in missing.problems] == ["name a registry with --registry or WBCSS_REGISTRY"]
    assert missing.registry["sound"] is False
    empty = diagnose(new_registry(tmp_path / "registry").root)
    assert [p.remedy for p in empty.problems] == ["import one: wbcss tasks import"]


@pytest.mark.usefixtures("roomy")
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version

    def without_scipy(name: str) -> str:
        if name in ("scipy", "monai"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", without_scipy)
    diagnosis = diagnose(registry.root)
    assert [(p.what, p.remedy) for p in diagnosis.problems] == [("scipy is not installed", "pip install scipy")]
    assert diagnosis.versions["monai"] is None


def test_little_memory_and_disk_are_problems_with_their_numbers(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory_mib", lambda: (4000, 1234))
    monkeypatch.setattr(machine, "free_disk_mib", lambda folder: 567)
    found = [problem.what for problem in diagnose(registry.root).problems]
    assert found[0].startswith("only 1234 MiB of memory are free")
    assert found[1].startswith("only 567 MiB of disk are free")


def test_home_and_login_name_are_hidden_in_paths_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/maria"))
    monkeypatch.setattr(getpass, "getuser", lambda: "maria")
    assert hide_user("/home/maria") == "~"
    assert hide_user("cannot read /home/maria/reg/card.json: no") == "cannot read ~/reg/card.json: no"
    assert hide_user("/home/marian/reg") == "/home/marian/reg"
    assert hide_user("/mnt/maria/reg, /scratch/maria") == "/mnt/USER/reg, /scratch/USER"
    assert hide_user("ave maria") == "ave maria"


def test_the_name_of_the_computer_is_hidden_as_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "CT-Room3.clinic.example")
    assert hide_user("//ct-room3/share is full, CT-Room3 too") == "//HOST/share is full, HOST too"
    assert hide_user("CT-Room31") == "CT-Room31"
    monkeypatch.setattr(platform, "node", lambda: "ct")
    assert hide_user("no ct here") == "no ct here"


@pytest.mark.usefixtures("roomy")
def test_no_user_name_is_printed_for_a_registry_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home" / "Jörg"
    home.mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: home)
    registry = new_registry(home / "registry")
    publish(registry)
    registry.encoder_weights().unlink()
    assert main(["doctor", "--registry", str(registry.root)]) == 3
    told = capsys.readouterr()
    assert "Jörg" not in told.out + told.err
    assert "~/registry" in told.out
    assert told.err == "wbcss: 1 problem found; what to do is said with each\n"


@pytest.mark.usefixtures("roomy")
def test_the_command_prints_text_or_json(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--registry", str(registry.root)]) == 0
    text = capsys.readouterr().out
    assert "all is well" in text
    assert "trunk@1" in text
    assert main(["doctor", "--json", "--registry", str(registry.root)]) == 0
    values: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert sorted(values) == ["device", "problems", "registry", "system", "versions"]


def test_the_machine_tells_plausible_numbers(tmp_path: Path) -> None:
    total, available = machine.memory_mib()
    assert total is not None
    assert available is not None
    assert 0 < available <= total
    free = machine.free_disk_mib(tmp_path / "not" / "there")
    assert free is not None
    assert free > 0
    assert machine.usable_cores() >= 1
    assert machine.processor_name()


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "_CGROUP_LIMITS", (str(limit),))
    unlimited = machine.memory_mib()
    limit.write_text("104857600\n")
    assert machine.memory_mib() == (100, 100)
    limit.write_text("max\n")
    assert machine.memory_mib()[0] == unlimited[0]
