"""What Slicer's Python lacks, and how the user gets it: from a click, asked first, never at start-up or in a test.

Nothing of Slicer's own is replaced: the installed versions of Resources/protected-packages.txt go to pip as
constraints. torch comes through the PyTorch extension, which knows the graphics card.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sysconfig
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbcss.errors import Cancelled, RunError
from wbcss.machine import free_disk_mib

from .Settings import Settings
from .Translation import _

MODULES = {"safetensors": "safetensors", "fastjsonschema": "fastjsonschema", "pillow": "PIL"}
"""Packages of Resources/requirements.txt, and the module that each one brings."""
TRAINING_MODULES = {"monai": "monai", "matplotlib": "matplotlib"}
"""Packages of Resources/requirements-training.txt: only who teaches an organ needs them."""

TRAINING_REQUIREMENTS = "requirements-training.txt"
TORCH = "torch"
TORCH_VERSIONS = ">=2.2"
MIN_SLICER = (5, 10)
PROTECTED = "protected-packages.txt"
_REQUESTER = "WholeBodyCSS"
_INDEX = "https://pypi.org/simple/pip/"
_INDEX_TIMEOUT_S = 5.0
_NEEDED_MIB = {TORCH: 2048}
"""Disk that a package needs at least; what is not named needs little."""
_LITTLE_MIB = 100

IsInstalled = Callable[[str], bool]
"""Answers whether a module can be imported."""


def _isInstalled(module: str) -> bool:
    importlib.invalidate_caches()
    return importlib.util.find_spec(module) is not None


def _isOnline() -> bool:
    """Whether the package index answers, through whatever proxy is set. Asked only after an installation failed."""
    try:
        with urllib.request.urlopen(urllib.request.Request(_INDEX, method="HEAD"), timeout=_INDEX_TIMEOUT_S):
            return True
    except (OSError, ValueError, urllib.error.URLError):
        return False


@dataclass(frozen=True)
class Machine:
    """What is asked of the computer; replaced in tests.

    Attributes:
        isInstalled: Whether a module can be imported.
        site: Folder that pip installs into.
        freeMib: Free disk of a folder.
        isOnline: Whether the package index answers.
    """

    isInstalled: IsInstalled = _isInstalled
    site: Path = Path(sysconfig.get_path("purelib"))
    freeMib: Callable[[Path], int | None] = free_disk_mib
    isOnline: Callable[[], bool] = _isOnline


def missingPackages(isInstalled: IsInstalled = _isInstalled, modules: Mapping[str, str] = MODULES) -> tuple[str, ...]:
    """Packages of ``modules`` that are needed and not installed, torch first."""
    needed = {TORCH: TORCH, **modules}
    return tuple(package for package, module in needed.items() if not isInstalled(module))


def isInterrupted(settings: Settings, isInstalled: IsInstalled = _isInstalled) -> bool:
    """Whether an installation began and did not end, as when Slicer restarted in between: offer to go on."""
    if settings.resumeInstallation and not missingPackages(isInstalled):
        settings.resumeInstallation = False
    return settings.resumeInstallation


def ensure(
    slicer: Any,
    requirements: Path | str,
    settings: Settings | None = None,
    machine: Machine | None = None,
    modules: Mapping[str, str] = MODULES,
) -> None:
    """Install what is missing, after asking. Call it from a button only, on the main thread.

    Args:
        slicer: The package; replaced in tests.
        requirements: Resources/requirements.txt, or the file that names ``modules``.
        settings: Remembers that an installation has begun, for ``isInterrupted``.
        machine: Replaced in tests.
        modules: Packages of ``requirements``, and the module that each one brings.

    Raises:
        Cancelled: the user declined; nothing was installed.
        RunError: it cannot be installed here, or it failed; the message says what to do instead.
    """
    machine, settings = machine or Machine(), settings or Settings()
    missing = missingPackages(machine.isInstalled, modules)
    if not missing:
        settings.resumeInstallation = False
        return
    _check(slicer, missing, machine)
    settings.resumeInstallation = True
    own = [package for package in missing if package != TORCH]
    try:
        with _constraints(Path(requirements).with_name(PROTECTED)) as constraints:
            if own:
                _installOwn(slicer, Path(requirements), own, constraints)
            if TORCH in missing:
                _installTorch(slicer, constraints)
    except Cancelled:
        settings.resumeInstallation = False
        raise
    except subprocess.CalledProcessError as error:
        raise RunError(_reason(error, missing, machine)) from error
    still = missingPackages(machine.isInstalled, modules)
    if still:
        raise RunError(f"WholeBodyCSS still needs {_listed(still)}: restart Slicer, then press the button again")
    settings.resumeInstallation = False


def _check(slicer: Any, missing: tuple[str, ...], machine: Machine) -> None:
    """Raise RunError for what is certain to fail, before the user is asked."""
    version = (int(slicer.app.majorVersion), int(slicer.app.minorVersion))
    if version < MIN_SLICER:
        raise RunError(f"WholeBodyCSS needs Slicer 5.10 or newer, got {version[0]}.{version[1]}; install a newer one")
    if slicer.app.testingEnabled():
        raise RunError(
            f"{_listed(missing)} must be installed before a test, nothing is installed while Slicer is tested"
        )
    if TORCH in missing and not machine.isInstalled("PyTorchUtils"):
        raise RunError(
            "PyTorch is missing, and so is the extension that installs it: open Extensions Manager, install PyTorch, "
            "restart Slicer, then press the button again"
        )
    if not _isWritable(machine.site):
        raise RunError(
            f"{_listed(missing)} must be installed into {machine.site}, which cannot be written; start Slicer once as "
            "administrator, or install Slicer into a folder of your own"
        )
    needed = sum(_NEEDED_MIB.get(package, _LITTLE_MIB) for package in missing)
    free = machine.freeMib(machine.site)
    if free is not None and free < needed:
        raise RunError(f"{_listed(missing)} need {needed} MiB of disk, {free} MiB are free; free some space")


def _installOwn(slicer: Any, requirements: Path, packages: list[str], constraints: Path) -> None:
    packaging = getattr(slicer, "packaging", None)
    if packaging is not None:  # Slicer 5.12 and later ask, show progress and offer a restart by themselves
        try:
            packaging.pip_ensure(
                packaging.load_requirements(str(requirements)), constraints=str(constraints), requester=_REQUESTER
            )
        except RuntimeError as error:
            raise Cancelled("nothing was installed, as you wished") from error
        return
    question = _("WholeBodyCSS needs the Python packages {names}. Download and install them into Slicer?")
    if not slicer.util.confirmOkCancelDisplay(question.format(names=_listed(packages))):
        raise Cancelled("nothing was installed, as you wished")
    # As an address, because Slicer splits the text at blanks and a user's folder may hold some.
    slicer.util.pip_install(f"-c {constraints.as_uri()} {' '.join(packages)}")


def _installTorch(slicer: Any, constraints: Path) -> None:
    """Through the PyTorch extension, which asks by itself."""
    utilities = importlib.import_module("PyTorchUtils")
    with _environment("PIP_CONSTRAINT", constraints.as_uri()), _waiting(slicer):
        logic = utilities.PyTorchUtilsLogic()
        if logic.installTorch(askConfirmation=True, torchVersionRequirement=TORCH_VERSIONS) is None:
            raise Cancelled("PyTorch was not installed, as you wished")


@contextlib.contextmanager
def _constraints(protected: Path) -> Iterator[Path]:
    """A file for pip that keeps every protected package that is installed at its version."""
    names = [line.strip() for line in protected.read_text(encoding="utf-8").splitlines()]
    lines = []
    for name in names:
        if name and not name.startswith("#"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                lines.append(f"{name}=={importlib.metadata.version(name)}\n")
    with tempfile.TemporaryDirectory(prefix="WholeBodyCSS-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "constraints.txt"
        path.write_text("".join(lines), encoding="utf-8")
        yield path


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def _waiting(slicer: Any) -> contextlib.AbstractContextManager[Any]:
    cursor: contextlib.AbstractContextManager[Any] = slicer.util.WaitCursor()
    return cursor


def _isWritable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


_SIGNS = (
    (("No space left", "Errno 28"), "the disk is full; free some space"),
    (("Permission denied", "Errno 13", "Access is denied"), "its folder cannot be written; close other Slicer windows"),
    (("407", "ProxyError", "Cannot connect to proxy"), "the proxy refused; set HTTPS_PROXY with a name and a password"),
    (("CERTIFICATE_VERIFY_FAILED",), "the certificate of the network is not known; ask its administrator"),
    (("ResolutionImpossible", "conflict"), "it does not fit the versions that Slicer needs; nothing of Slicer changed"),
)


def _reason(error: subprocess.CalledProcessError, missing: Iterable[str], machine: Machine) -> str:
    """Why pip failed, as far as it can be told: Slicer often hands over an exit code and nothing else."""
    said = " ".join(text for text in (error.output, error.stderr) if isinstance(text, str))
    for signs, words in _SIGNS:
        if any(sign in said for sign in signs):
            return f"{_listed(missing)} could not be installed: {words}"
    if not machine.isOnline():
        return (
            f"{_listed(missing)} could not be installed: the package index pypi.org cannot be reached; connect to the "
            "internet, or set HTTPS_PROXY before Slicer starts, or see Installation without internet in the README"
        )
    return f"{_listed(missing)} could not be installed, pip ended with code {error.returncode}; see Slicer's error log"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
