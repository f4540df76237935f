"""House rules that no linter knows."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest
from project_tree import ENGINE, MODULE, SLICER_ROOM, imported_names, named, parsed, product_sources

SOURCES = product_sources()
MAX_LINES = 400
BANNED_NAMES = {"utils", "helpers", "common", "misc"}
BANNED_IMPORTS = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
# The slicer-core wheel flattens slicer.util into slicer; 3D Slicer does not. These exist in both.
SLICER_NAMES = re.compile(r"util|mrmlScene|modules|app|packaging|i18n|ScriptedLoadableModule|vtk\w+|q(MRML|Slicer)\w+")
ARRAY_FILES = {
    "CaseExport.py", "CaseFolder.py", "LabelReader.py", "OrganSegments.py", "SceneBridge.py", "SceneGeometry.py",
    "SurfaceFiles.py", "SurfaceMaking.py", "SurfaceWorker.py", "Surfaces.py",
}  # fmt: skip
"""The files of the Slicer room between MRML and arrays; all others are plain logic or plain Qt."""
PATIENT_WORDS = {
    "patient", "mrn", "accession", "birth", "sex", "study", "series", "institution", "hospital", "physician",
    "operator", "uid", "filename", "path", "paths", "file_path", "source_path",
}  # fmt: skip


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_the_syntax_is_that_of_python_3_10(path: Path) -> None:
    assert parsed(path).body, f"{path} is empty"


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_a_file_is_short_enough_to_hold_one_idea(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_a_file_is_named_after_what_it_holds(path: Path) -> None:
    assert path.stem not in BANNED_NAMES
    assert ast.get_docstring(parsed(path)), "a module says in its docstring what it is for"


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_nothing_is_unpickled(path: Path) -> None:
    tree = parsed(path)
    assert {name.split(".")[0] for name in imported_names(tree)}.isdisjoint(BANNED_IMPORTS)
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert "torch.load" not in calls
    allowed = [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "allow_pickle"]
    assert all(isinstance(node.value, ast.Constant) and node.value.value is False for node in allowed)


@pytest.mark.parametrize("path", [p for p in SOURCES if (ENGINE / "cli") not in p.parents], ids=named)
def test_only_the_command_line_prints(path: Path) -> None:
    called = [node.func for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]
    assert "print" not in [function.id for function in called if isinstance(function, ast.Name)]


@pytest.mark.parametrize("path", SLICER_ROOM, ids=named)
def test_only_names_of_the_real_slicer_are_used(path: Path) -> None:
    tree = parsed(path)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "slicer"
    }
    used |= {name.split(".")[1] for name in imported_names(tree) if name.startswith("slicer.")}
    assert {name for name in used if not SLICER_NAMES.fullmatch(name)} == set()


@pytest.mark.parametrize("path", [p for p in SLICER_ROOM if p.name not in ARRAY_FILES], ids=named)
def test_only_the_scene_side_knows_arrays_and_vtk(path: Path) -> None:
    unwanted = {"numpy", "scipy", "vtk", "vtkmodules", "torch"}
    assert {name.split(".")[0] for name in imported_names(parsed(path))}.isdisjoint(unwanted)


@pytest.mark.parametrize("path", SLICER_ROOM, ids=named)
def test_nothing_is_installed_at_file_scope(path: Path) -> None:
    outside = [node for node in parsed(path).body if not isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    calls = [call.func for node in outside for call in ast.walk(node) if isinstance(call, ast.Call)]
    assert [name for name in map(ast.unparse, calls) if "pip_" in name or name.startswith("subprocess")] == []


@pytest.mark.parametrize("path", sorted((MODULE / "Resources/Schemas").glob("*.json")), ids=named)
def test_a_schema_has_no_field_for_a_patient(path: Path) -> None:
    words = {word for name in _properties(json.loads(path.read_text(encoding="utf-8"))) for word in name.split("_")}
    assert words & PATIENT_WORDS == set()


def _properties(schema: object) -> set[str]:
    """Names of all fields that a JSON schema knows, at any depth."""
    if isinstance(schema, list):
        return set().union(*map(_properties, schema))
    if not isinstance(schema, dict):
        return set()
    own = schema.get("properties")
    return (set(own) if isinstance(own, dict) else set()).union(*map(_properties, schema.values()))


def test_a_short_module_file_for_slicer() -> None:
    assert len((MODULE / "WholeBodyCSS.py").read_text(encoding="utf-8").splitlines()) <= 150
