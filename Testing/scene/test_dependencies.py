"""What is missing is named, asked for and installed from a click; torch is left to its own extension."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from wbcss.errors import RunError
from WholeBodyCSSLib import Dependencies

ALL = {"torch", *Dependencies.MODULES.values()}
REQUIREMENTS = Path("requirements.txt")


def _installed(modules: set[str]) -> Dependencies.IsInstalled:
    return lambda module: module in modules


def test_nothing_happens_when_everything_is_there() -> None:
    Dependencies.ensure(SimpleNamespace(), REQUIREMENTS, _installed(ALL))


def test_torch_is_never_installed_here() -> None:
    with pytest.raises(RunError, match="PyTorch is missing: open the module PyTorch Utils"):
        Dependencies.ensure(SimpleNamespace(), REQUIREMENTS, _installed(ALL - {"torch"}))


def test_a_new_slicer_asks_and_installs_by_itself() -> None:
    present, asked = {"torch"}, []

    def pip_ensure(requirements: object, *, requester: str) -> None:
        asked.append((requirements, requester))
        present.update(ALL)

    packaging = SimpleNamespace(load_requirements=lambda path: [path], pip_ensure=pip_ensure)
    Dependencies.ensure(SimpleNamespace(packaging=packaging), REQUIREMENTS, _installed(present))
    assert asked == [([REQUIREMENTS], "WholeBodyCSS")]


@pytest.mark.parametrize("agrees", [True, False])
def test_an_older_slicer_installs_only_after_a_yes(agrees: bool) -> None:
    present, questions, installed = {"torch", "PIL"}, [], []

    def pip_install(names: str) -> None:
        installed.append(names)
        present.update(ALL)

    def confirm(question: str) -> bool:
        questions.append(question)
        return agrees

    util = SimpleNamespace(pip_install=pip_install, confirmOkCancelDisplay=confirm)
    slicer = SimpleNamespace(util=util)
    if agrees:
        Dependencies.ensure(slicer, REQUIREMENTS, _installed(present))
    else:
        with pytest.raises(RunError, match="needs safetensors, fastjsonschema; press"):
            Dependencies.ensure(slicer, REQUIREMENTS, _installed(present))
    assert installed == (["safetensors fastjsonschema"] if agrees else [])
    assert questions == ["Install safetensors, fastjsonschema into Slicer's Python?"]


def test_the_list_is_that_of_the_requirements_file() -> None:
    lines = (Path(Dependencies.__file__).parents[1] / "Resources/requirements.txt").read_text(encoding="utf-8").split()
    assert lines == list(Dependencies.MODULES)
