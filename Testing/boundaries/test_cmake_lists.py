"""A file missing from CMake works from a checkout and is absent from the installed extension: compare both ways."""

from __future__ import annotations

import re
from pathlib import Path

from project_tree import MODULE, ROOT

CMAKE = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")


def _listed(variable: str) -> list[str]:
    found = re.search(rf"set\({variable}\s+(.*?)\)", CMAKE, flags=re.DOTALL)
    assert found is not None, f"{variable} is missing in {MODULE / 'CMakeLists.txt'}"
    return found.group(1).split()


def _tree(*folders: str, suffix: str = "") -> set[str]:
    files = (file for folder in folders for file in (MODULE / folder).rglob(f"*{suffix}") if file.is_file())
    return {file.relative_to(MODULE).as_posix() for file in files if not _is_generated(file)}


def _is_generated(file: Path) -> bool:
    return "__pycache__" in file.parts or file.name.startswith(".")


def test_every_python_file_is_listed_and_exists() -> None:
    expected = {"WholeBodyCSS.py"} | _tree("WholeBodyCSSLib", "wbcss", suffix=".py")
    assert set(_listed("MODULE_PYTHON_SCRIPTS")) == expected


def test_every_resource_is_listed_and_exists() -> None:
    assert set(_listed("MODULE_PYTHON_RESOURCES")) == _tree("Resources")


def test_no_file_is_listed_twice() -> None:
    listed = _listed("MODULE_PYTHON_SCRIPTS") + _listed("MODULE_PYTHON_RESOURCES")
    assert len(listed) == len(set(listed))


def test_every_test_for_slicer_is_registered() -> None:
    registered = re.findall(r"SCRIPT (\S+)\)", (MODULE / "Testing/Python/CMakeLists.txt").read_text(encoding="utf-8"))
    assert set(registered) == {file.name for file in (MODULE / "Testing/Python").glob("*Test.py")}


def test_the_extension_is_described_and_its_pictures_exist() -> None:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    fields = dict(re.findall(r'set\(EXTENSION_(\w+) "([^"]*)"\)', text))
    assert "project(WholeBodyCSS)" in text
    assert fields["CATEGORY"] == "Segmentation"
    assert fields["DEPENDS"] == "PyTorch"
    for url in (fields["ICONURL"], *fields["SCREENSHOTURLS"].split()):
        assert (ROOT / url.rpartition("/raw/main/")[2]).is_file(), url
