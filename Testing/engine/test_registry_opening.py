"""Opening a registry: fast, without the network library, where the environment says."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_registry import (
    new_registry,
    publish,
    task_card,
)

import wbcss
from wbcss.cards import task_card_to_bytes
from wbcss.registry import Registry, default_registry_path
from wbcss.resources import starter_registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return new_registry(tmp_path / "registry")


def test_an_open_registry_sees_what_others_publish(registry: Registry) -> None:
    reader = Registry(registry.root)
    assert reader.tasks() == ()
    publish(registry, "liver")
    assert [card.title for card in reader.tasks()] == ["liver@1"]
    publish(registry, "liver", seed=2)
    assert [card.title for card in reader.tasks()] == ["liver@2"]


def test_a_hundred_tasks_open_in_a_tenth_of_a_second(registry: Registry) -> None:
    publish(registry, "liver")
    for number in range(100):
        card = task_card(
            f"task{number}",
            {"liver": 5, "spleen": 1, "x_cyst": 10000},
            encoder_sha256=registry.encoder_card().weights_sha256,
            version=1,
            sequence=number + 2,
            weights_sha256="ab" * 32,
        )
        folder = registry.root / "tasks" / card.task / "1"
        folder.mkdir(parents=True)
        (folder / "card.json").write_bytes(task_card_to_bytes(card))  # no weights: opening must not miss them
    seconds = []
    for _ in range(3):
        start = time.process_time()  # of the processor: a busy machine must not fail this
        assert len(Registry(registry.root).tasks()) == 101
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.1


def test_opening_a_registry_imports_no_torch(registry: Registry) -> None:
    publish(registry)
    code = (
        "import sys; from pathlib import Path; from wbcss.registry import Registry; r = Registry(Path(sys.argv[1]));"
        "print(len(r.tasks()), r.verify(), sorted({'torch', 'SimpleITK', 'scipy'} & set(sys.modules)))"
    )
    package_root = str(Path(wbcss.__file__).parents[1])
    command = [sys.executable, "-c", code, str(registry.root)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": package_root}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1 [] []"


def test_the_environment_names_the_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WBCSS_REGISTRY", str(tmp_path))
    assert default_registry_path() == tmp_path
    monkeypatch.delenv("WBCSS_REGISTRY")
    assert default_registry_path() == starter_registry()
