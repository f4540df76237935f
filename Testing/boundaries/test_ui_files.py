"""The panel's layout without Slicer: selectors are wired to the scene, and the code names widgets that exist."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from project_tree import MODULE, named

FILES = sorted((MODULE / "Resources/UI").glob("*.ui"))
KNOWN_WIDGETS = {"qMRMLWidget", "qMRMLNodeComboBox", "ctkCollapsibleButton"}


def _root(path: Path) -> ElementTree.Element:
    return ElementTree.parse(path).getroot()


def test_there_is_a_panel() -> None:
    assert [path.name for path in FILES] == ["WholeBodyCSS.ui"]


@pytest.mark.parametrize("path", FILES, ids=named)
def test_custom_widgets_are_those_of_slicer_and_all_are_declared(path: Path) -> None:
    root = _root(path)
    used = {widget.get("class", "") for widget in root.iter("widget")}
    declared = {item.findtext("class") for item in root.iter("customwidget")}
    assert declared <= KNOWN_WIDGETS
    assert {name for name in used if not re.fullmatch(r"Q[A-Z]\w*", name)} == declared


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_node_selector_follows_the_scene(path: Path) -> None:
    root = _root(path)
    selectors = {w.get("name") for w in root.iter("widget") if w.get("class") == "qMRMLNodeComboBox"}
    wired = {
        c.findtext("receiver")
        for c in root.iter("connection")
        if c.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"
        and c.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
        and c.findtext("sender") == root.findtext("class")
    }
    assert selectors
    assert wired == selectors


def test_the_code_and_the_layout_name_the_same_widgets() -> None:
    code = (MODULE / "WholeBodyCSS.py").read_text(encoding="utf-8")
    used = set(re.findall(r"\.ui\.(\w+)", code))
    in_layout = {str(widget.get("name")) for widget in _root(FILES[0]).iter("widget")}
    assert used <= in_layout
    assert {name for name in in_layout if name.endswith(("Button", "Selector", "Bar"))} <= used


@pytest.mark.parametrize("path", FILES, ids=named)
def test_no_style_sheet_fights_the_theme_of_slicer(path: Path) -> None:
    assert "styleSheet" not in path.read_text(encoding="utf-8")
