"""Dependencies are named, never pinned: inside 3D Slicer torch, numpy and SimpleITK are not ours to choose."""

from __future__ import annotations

import ast
import re

import pytest
from project_tree import MODULE, ROOT, parsed, pyproject

NAME = re.compile(r"[A-Za-z0-9]+(?:[-_.][A-Za-z0-9]+)*")
PROJECT = pyproject()["project"]
RUN_TIME = {"torch", "numpy", "scipy", "SimpleITK", "safetensors", "fastjsonschema", "pillow"}
EXTRAS = {name for extra in PROJECT["optional-dependencies"].values() for name in extra}
SLICER_REQUIREMENTS = (MODULE / "Resources/requirements.txt").read_text(encoding="utf-8").split()
PROVIDED_BY_SLICER = {"torch", "numpy", "scipy", "SimpleITK"}


def test_the_run_time_needs_seven_packages() -> None:
    assert set(PROJECT["dependencies"]) == RUN_TIME


@pytest.mark.parametrize("requirement", sorted(RUN_TIME | EXTRAS | set(SLICER_REQUIREMENTS)))
def test_a_requirement_is_a_bare_name(requirement: str) -> None:
    assert NAME.fullmatch(requirement)


def test_slicer_installs_what_it_does_not_bring() -> None:
    assert set(SLICER_REQUIREMENTS) == RUN_TIME - PROVIDED_BY_SLICER


def test_slicer_installs_what_training_needs_when_somebody_teaches_an_organ() -> None:
    needed = (MODULE / "Resources/requirements-training.txt").read_text(encoding="utf-8").split()
    assert set(needed) == set(PROJECT["optional-dependencies"]["train"])
    assert "DIRECTORY Training/wbcss_training" in (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")


def test_the_constraints_pin_exactly() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9.]+", pin)] == []


def test_the_version_is_the_same_everywhere() -> None:
    assert f'__version__ = "{PROJECT["version"]}"' in (MODULE / "wbcss/__init__.py").read_text(encoding="utf-8")


def test_an_old_python_is_told_so_by_the_developer_script() -> None:
    source = (ROOT / "dev.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 7))  # an older interpreter reaches the message
    assert source.index("Python 3.10 or newer is needed") < source.index("ArgumentParser(")


@pytest.mark.parametrize("script", sorted(PROJECT["scripts"].values()))
def test_an_entry_point_leads_to_a_function(script: str) -> None:
    module, function = script.split(":")
    room = MODULE if module.startswith("wbcss.") else ROOT / "Training"
    tree = parsed((room / module.replace(".", "/")).with_suffix(".py"))
    assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
