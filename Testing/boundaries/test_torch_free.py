"""What the Slicer panel touches starts without the packages that a fresh Slicer does not have."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from project_tree import MODULE, pyproject

CONTRACTS = {contract["name"]: contract for contract in pyproject()["tool"]["importlinter"]["contracts"]}
CORE = CONTRACTS["The core is free of torch"]["source_modules"]
NOT_IN_SLICER = ("torch", "monai", "safetensors", "fastjsonschema", "PIL", "openvino", "nibabel", "psutil")


def _import_without(absent: tuple[str, ...], modules: list[str], *, before: str = "") -> str:
    """Import ``modules`` in a fresh interpreter where ``absent`` cannot be imported; what it complained about."""
    lines = ["import importlib", _hidden(absent), before]
    return _run("\n".join([*lines, *(f"importlib.import_module({module!r})" for module in modules)]))


def _hidden(absent: tuple[str, ...]) -> str:
    return "\n".join(["import sys", *(f"sys.modules[{name!r}] = None" for name in absent)])


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(MODULE)},
    )
    return done.stderr


def test_the_core_imports_without_torch() -> None:
    assert _import_without(("torch", "monai"), CORE) == ""


def test_the_panel_imports_in_a_fresh_slicer() -> None:
    fakes = """
import importlib.abc, importlib.machinery, types

class Stand(types.ModuleType):
    __path__ = ()
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *values, **named: None})

class Slicer(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        known = name.partition(".")[0] in ("slicer", "vtk", "vtkmodules")
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None
    def create_module(self, spec):
        return Stand(spec.name)
    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Slicer())
"""
    modules = [f"WholeBodyCSSLib.{path.stem}" for path in sorted((MODULE / "WholeBodyCSSLib").glob("[A-Z]*.py"))]
    assert "WholeBodyCSSLib.Dependencies" in modules
    assert _import_without(NOT_IN_SLICER, modules, before=fakes) == ""


def test_a_registry_names_the_package_that_it_lacks() -> None:
    """Without it the panel could not even be opened to install it."""
    read = (
        "from wbcss.registry import Registry, default_registry_path\nRegistry(default_registry_path()).encoder_card()"
    )
    complaint = _run(f"{_hidden(('fastjsonschema',))}\n{read}")
    assert "RunError: encoder/card.json cannot be checked without the package fastjsonschema; install it" in complaint


def test_the_doctor_reports_a_missing_package_instead_of_dying_of_it() -> None:
    diagnose = "from wbcss.cli.main import main\nsys.exit(main(['doctor']))"
    complaint = _run(f"{_hidden(('fastjsonschema', 'torch'))}\n{diagnose}")
    assert re.fullmatch(r"wbcss: \d problems? found; what to do is said with each\n", complaint)


@pytest.mark.parametrize("module", ["wbcss.nn.model", "wbcss.segment"])
def test_the_stub_would_catch_torch(module: str) -> None:
    assert "torch" in _import_without(("torch",), [module])


def test_importing_the_engine_sets_nothing_and_says_nothing() -> None:
    assert _import_without((), ["wbcss", "wbcss.cli.main"]) == ""
