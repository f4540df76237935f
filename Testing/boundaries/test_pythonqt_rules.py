"""Idioms that PySide6 takes and Slicer's PythonQt does not: the harness cannot refuse them while it runs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from project_tree import MODULE, SLICER_ROOM, named, parsed

SOURCES = [*SLICER_ROOM, *sorted((MODULE / "Testing/Python").glob("*.py"))]
SCOPED_ENUM = re.compile(r"(qt|ctk)\.\w+\.[A-Z]\w*\.[A-Z]\w*")
"""``qt.Qt.CheckState.Checked``: PythonQt knows ``qt.Qt.Checked`` only."""


def _calls_of_qt(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[0] in {"qt", "ctk"}:
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_enum_values_belong_to_the_class_itself(path: Path) -> None:
    names = {ast.unparse(node) for node in ast.walk(parsed(path)) if isinstance(node, ast.Attribute)}
    assert sorted(filter(SCOPED_ENUM.fullmatch, names)) == []


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_arguments_have_no_names(path: Path) -> None:
    assert [ast.unparse(call) for call in _calls_of_qt(parsed(path)) if call.keywords] == []


def test_the_rules_see_what_they_forbid() -> None:
    tree = ast.parse("qt.QLabel('a', parent=x); y = qt.Qt.CheckState.Checked; z = qt.Qt.Checked")
    assert [call.keywords[0].arg for call in _calls_of_qt(tree) if call.keywords] == ["parent"]
    names = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert list(filter(SCOPED_ENUM.fullmatch, names)) == ["qt.Qt.CheckState.Checked"]
