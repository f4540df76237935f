"""What is missing is named, asked for and installed from a click; nothing that Slicer owns is replaced."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from wbcss.errors import Cancelled, RunError
from WholeBodyCSSLib import Dependencies
from WholeBodyCSSLib.Dependencies import Machine
from WholeBodyCSSLib.Settings import Settings

ALL = {"torch", *Dependencies.MODULES.values()}
REQUIREMENTS = Path(Dependencies.__file__).parents[1] / "Resources/requirements.txt"


class FakeSlicer:
    """A Slicer whose Python holds ``present``, and what it was asked for."""

    def __init__(self, present: set[str], *, version: tuple[int, int] = (5, 10), testing: bool = False) -> None:
        self.present = present
        self.questions: list[str] = []
        self.installed: list[str] = []
        self.constraints: list[str] = []
        self.agrees = True
        self.failure: Exception | None = None
        self.app = SimpleNamespace(majorVersion=version[0], minorVersion=version[1], testingEnabled=lambda: testing)
        self.util = SimpleNamespace(
            confirmOkCancelDisplay=self.confirm, pip_install=self.pipInstall, WaitCursor=lambda: _Nothing()
        )
        if version >= (5, 12):
            self.packaging = SimpleNamespace(load_requirements=_lines, pip_ensure=self.pipEnsure)

    def confirm(self, question: str) -> bool:
        self.questions.append(question)
        return self.agrees

    def pipInstall(self, arguments: str) -> None:
        option, address, *names = arguments.split()
        assert option == "-c"
        self.take(names, Path(_path(address)).read_text(encoding="utf-8"))

    def pipEnsure(self, requirements: list[str], *, constraints: str, requester: str) -> None:
        if not self.confirm(requester):
            raise RuntimeError("User declined package installation")
        self.take(requirements, Path(constraints).read_text(encoding="utf-8"))

    def take(self, names: list[str], constraints: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.installed += names
        self.constraints += constraints.split()
        self.present.update({**Dependencies.MODULES, "torch": "torch"}[name] for name in names)

    def machine(self, site: Path, **changes: Any) -> Machine:
        facts: dict[str, Any] = {"freeMib": lambda folder: 90_000, "isOnline": lambda: True, **changes}
        return Machine(isInstalled=lambda module: module in self.present, site=site, **facts)


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").split()


def _path(address: str) -> str:
    from urllib.request import url2pathname

    return url2pathname(address.removeprefix("file:"))


def test_nothing_happens_when_everything_is_there() -> None:
    Dependencies.ensure(SimpleNamespace(), REQUIREMENTS, machine=Machine(isInstalled=lambda module: True))


@pytest.mark.parametrize("version", [(5, 10), (5, 12)])
def test_after_a_yes_what_is_missing_is_installed_and_what_is_slicers_is_kept(
    version: tuple[int, int], tmp_path: Path
) -> None:
    slicer = FakeSlicer({"torch", "PyTorchUtils"}, version=version)
    Dependencies.ensure(slicer, REQUIREMENTS, machine=slicer.machine(tmp_path))
    assert slicer.installed == list(Dependencies.MODULES)
    assert len(slicer.questions) == 1
    for package in ("numpy", "torch", "SimpleITK"):
        assert f"{package}=={importlib.metadata.version(package)}" in slicer.constraints


@pytest.mark.parametrize("version", [(5, 10), (5, 12)])
def test_after_a_no_nothing_is_installed_and_nothing_is_left_to_resume(
    version: tuple[int, int], tmp_path: Path
) -> None:
    slicer, settings = FakeSlicer({"torch", "PIL"}, version=version), Settings()
    slicer.agrees = False
    with pytest.raises(Cancelled, match="nothing was installed, as you wished"):
        Dependencies.ensure(slicer, REQUIREMENTS, settings, slicer.machine(tmp_path))
    assert slicer.installed == []
    assert not Dependencies.isInterrupted(settings, lambda module: False)


def test_an_older_slicer_asks_with_the_names_of_what_is_missing(tmp_path: Path) -> None:
    slicer = FakeSlicer({"torch", "PIL"})
    Dependencies.ensure(slicer, REQUIREMENTS, machine=slicer.machine(tmp_path))
    assert slicer.questions == [
        "WholeBodyCSS needs the Python packages safetensors, fastjsonschema. Download and install them into Slicer?"
    ]
    assert slicer.installed == ["safetensors", "fastjsonschema"]


@pytest.mark.parametrize(
    ("present", "options", "changes", "words"),
    [
        (set(), {"version": (5, 8)}, {}, "needs Slicer 5.10 or newer, got 5.8"),
        ({"torch"}, {"testing": True}, {}, "nothing is installed while Slicer is tested"),
        (ALL - {"torch"}, {}, {}, "open Extensions Manager, install PyTorch"),
        (ALL - {"PIL"}, {}, {"freeMib": lambda folder: 7}, "pillow need 100 MiB of disk, 7 MiB are free"),
    ],
    ids=["old Slicer", "a test", "no PyTorch extension", "full disk"],
)
def test_what_is_certain_to_fail_is_said_before_anybody_is_asked(
    present: set[str], options: dict[str, Any], changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    slicer, settings = FakeSlicer(set(present), **options), Settings()
    with pytest.raises(RunError, match=words):
        Dependencies.ensure(slicer, REQUIREMENTS, settings, slicer.machine(tmp_path, **changes))
    assert slicer.questions == []
    assert not settings.resumeInstallation


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    slicer = FakeSlicer({"torch"})
    site = tmp_path / "missing"
    with pytest.raises(RunError, match=r"must be installed into .*missing, which cannot be written; start Slicer once"):
        Dependencies.ensure(slicer, REQUIREMENTS, machine=slicer.machine(site))
    assert slicer.questions == []


@pytest.mark.parametrize(
    ("said", "isOnline", "words"),
    [
        ("ERROR: [Errno 28] No space left on device", True, "the disk is full"),
        ("ProxyError('Cannot connect to proxy.', 407)", True, "the proxy refused; set HTTPS_PROXY"),
        ("ssl: CERTIFICATE_VERIFY_FAILED", True, "certificate of the network is not known"),
        ("ERROR: ResolutionImpossible", True, "does not fit the versions that Slicer needs"),
        (None, False, "pypi.org cannot be reached; connect to the internet, or set HTTPS_PROXY"),
        (None, True, "pip ended with code 7; see Slicer's error log"),
    ],
)
def test_a_failed_installation_says_why_and_can_be_resumed(
    said: str | None, isOnline: bool, words: str, tmp_path: Path
) -> None:
    slicer, settings = FakeSlicer({"torch"}), Settings()
    slicer.failure = subprocess.CalledProcessError(7, "pip install", output=said)
    with pytest.raises(RunError, match=words):
        Dependencies.ensure(slicer, REQUIREMENTS, settings, slicer.machine(tmp_path, isOnline=lambda: isOnline))
    assert Dependencies.isInterrupted(settings, lambda module: False)
    slicer.failure = None
    Dependencies.ensure(slicer, REQUIREMENTS, settings, slicer.machine(tmp_path))
    assert not Dependencies.isInterrupted(settings, lambda module: True)


def test_an_installation_that_needs_a_restart_is_noticed_afterwards(tmp_path: Path) -> None:
    slicer, settings = FakeSlicer({"torch"}), Settings()
    slicer.present = _Forgetful(slicer.present)
    with pytest.raises(RunError, match="still needs safetensors, fastjsonschema, pillow: restart Slicer"):
        Dependencies.ensure(slicer, REQUIREMENTS, settings, slicer.machine(tmp_path))
    assert Dependencies.isInterrupted(settings, lambda module: False)


class _Forgetful(set[str]):
    """Python packages that show only after a restart."""

    def update(self, *others: object) -> None: ...


@pytest.fixture
def torchExtension(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeSlicer, bool], list[dict[str, Any]]]:
    """The PyTorch extension: what it was asked, and which constraints pip would have seen."""

    def install(slicer: FakeSlicer, agrees: bool) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def installTorch(_self: object, **options: Any) -> object:
            text = Path(_path(os.environ["PIP_CONSTRAINT"])).read_text(encoding="utf-8")
            asked.append({**options, "constraints": text.split()})
            if not agrees:
                return None
            slicer.present.add("torch")
            return object()

        module = ModuleType("PyTorchUtils")
        module.PyTorchUtilsLogic = type("Logic", (), {"installTorch": installTorch})  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
        return asked

    return install


def test_torch_comes_through_its_own_extension_after_a_question(torchExtension: Any, tmp_path: Path) -> None:
    slicer = FakeSlicer({"PyTorchUtils", *Dependencies.MODULES.values()})
    asked = torchExtension(slicer, True)
    Dependencies.ensure(slicer, REQUIREMENTS, machine=slicer.machine(tmp_path))
    (request,) = asked
    assert request["askConfirmation"] is True
    assert request["torchVersionRequirement"] == ">=2.2"
    assert f"numpy=={importlib.metadata.version('numpy')}" in request["constraints"]
    assert slicer.installed == []
    assert "PIP_CONSTRAINT" not in os.environ


def test_declining_torch_installs_nothing(torchExtension: Any, tmp_path: Path) -> None:
    slicer = FakeSlicer({"PyTorchUtils", *Dependencies.MODULES.values()})
    torchExtension(slicer, False)
    with pytest.raises(Cancelled, match="PyTorch was not installed, as you wished"):
        Dependencies.ensure(slicer, REQUIREMENTS, machine=slicer.machine(tmp_path))


def test_the_list_is_that_of_the_requirements_file() -> None:
    assert _lines(str(REQUIREMENTS)) == list(Dependencies.MODULES)


def test_pip_takes_the_constraints_from_a_folder_with_blanks_and_umlauts(tmp_path: Path) -> None:
    """By pip itself, offline: a version that contradicts the constraint is impossible."""
    folder = tmp_path / "Jörg Müller"
    folder.mkdir()
    constraints = folder / "constraints.txt"
    constraints.write_text("numpy==0.0.1\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--disable-pip-version-check", "numpy"],
        env={**os.environ, "PIP_CONSTRAINT": constraints.as_uri()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "numpy==0.0.1" in done.stdout + done.stderr


def test_who_teaches_an_organ_gets_the_packages_for_it(tmp_path: Path) -> None:
    slicer = FakeSlicer(ALL)
    requirements = REQUIREMENTS.with_name(Dependencies.TRAINING_REQUIREMENTS)
    modules = Dependencies.TRAINING_MODULES
    assert requirements.read_text(encoding="utf-8").split() == list(modules)
    machine = Machine(isInstalled=slicer.present.__contains__, site=tmp_path, freeMib=lambda folder: 99_999)
    slicer.take = lambda names, constraints: slicer.present.update(names)  # type: ignore[method-assign]
    Dependencies.ensure(slicer, requirements, Settings(), machine, modules)
    assert slicer.present == ALL | set(modules)
    (question,) = slicer.questions
    assert "monai, matplotlib" in question
