"""The documents name commands, files and targets that exist; the pipelines can go red."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from project_tree import ROOT, TRAINING, named

from wbcss.cli.main import COMMANDS

DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Testing/README.md")]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PIPELINES = [ROOT / ".ci/run", *sorted((ROOT / ".github/workflows").glob("*.yml"))]


def _targets() -> set[str]:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert phony is not None
    return set(phony.group(1).split())


def _developer_commands() -> set[str]:
    source = (ROOT / "dev.py").read_text(encoding="utf-8")
    return set(re.findall(r'^    "([a-z-]+)": \w+,$', source, flags=re.MULTILINE))


def test_make_offers_what_the_script_offers() -> None:
    assert _targets() == _developer_commands() | {"help"}


@pytest.mark.parametrize("path", [*DOCUMENTS, *PIPELINES], ids=named)
def test_a_named_command_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```.*?```|`[^`]+`", text, flags=re.DOTALL)) if path.suffix == ".md" else text
    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", code)) <= _targets()
    assert set(re.findall(r"\bdev\.py ([a-z][a-z-]*)", code)) <= _developer_commands()
    assert set(re.findall(r"\bwbcss ([a-z][a-z-]*)", code)) <= set(COMMANDS)


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_a_linked_file_exists(path: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_readme_begins_with_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.index("make demo") < text.index("make test")


@pytest.mark.parametrize("path", PIPELINES, ids=named)
def test_a_pipeline_can_go_red(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^\s*continue-on-error:", text, flags=re.MULTILINE) is None
    assert "|| true" not in text


def test_the_pipeline_runs_the_second_command_of_the_readme() -> None:
    assert "step make test\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert os.name == "nt" or os.access(ROOT / ".ci/run", os.X_OK)


def test_the_license_is_apache() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_training_command_is_the_one_documented() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    sources = "".join(path.read_text(encoding="utf-8") for path in TRAINING.rglob("*.py"))
    named_commands = set(re.findall(r"wbcss-train ([a-z]+)", text))
    assert named_commands
    assert [command for command in named_commands if f'"{command}"' not in sources] == []
