"""The panel's layout without Slicer: selectors are wired to the scene, and the code names widgets that exist."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from project_tree import MODULE, SLICER_ROOM, named

FILES = sorted((MODULE / "Resources/UI").glob("*.ui"))
KNOWN_WIDGETS = {
    "qMRMLWidget", "qMRMLNodeComboBox",
    "ctkCollapsibleButton", "ctkColorPickerButton", "ctkPathLineEdit", "ctkSearchBox",
}  # fmt: skip


def _root(path: Path) -> ElementTree.Element:
    return ElementTree.parse(path).getroot()


def _code(path: Path) -> str:
    """The Python file that loads a layout and has its name."""
    places = (MODULE, MODULE / "WholeBodyCSSLib/Panels")
    files = [place / f"{path.stem}.py" for place in places]
    return "".join(file.read_text(encoding="utf-8") for file in files if file.is_file())


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_layout_is_loaded_by_the_file_of_its_name(path: Path) -> None:
    assert re.search(rf'[/"]{path.stem}(\.ui)?"', _code(path))


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
    assert wired == selectors


@pytest.mark.parametrize("path", FILES, ids=named)
def test_the_code_and_the_layout_name_the_same_widgets(path: Path) -> None:
    in_layout = {str(item.get("name")) for kind in ("widget", "action") for item in _root(path).iter(kind)}
    assert _used(_code(path)) <= in_layout
    # A page may hand its widgets to a helper of its own.
    used_anywhere = set().union(*(_used(file.read_text(encoding="utf-8")) for file in SLICER_ROOM))
    assert {name for name in in_layout if name.endswith(("Button", "Selector", "Bar"))} <= used_anywhere


def _used(code: str) -> set[str]:
    """Widgets that are taken from ``self.ui`` or ``ui``; not those of another panel, as in ``panel.ui``."""
    return set(re.findall(r"(?:\bself\.|(?<![\w.]))ui\.(\w+)", code))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_no_style_sheet_fights_the_theme_of_slicer(path: Path) -> None:
    assert "styleSheet" not in path.read_text(encoding="utf-8")
