"""What Slicer's Python lacks, and how the user gets it: asked first, never at start-up, never torch behind his back."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from wbcss.errors import RunError

MODULES = {"safetensors": "safetensors", "fastjsonschema": "fastjsonschema", "pillow": "PIL"}
"""Packages of Resources/requirements.txt, and the module that each one brings."""


IsInstalled = Callable[[str], bool]
"""Answers whether a module can be imported."""


def _isInstalled(module: str) -> bool:
    importlib.invalidate_caches()
    return importlib.util.find_spec(module) is not None


def missingPackages(isInstalled: IsInstalled = _isInstalled) -> tuple[str, ...]:
    """Packages of our own requirements that are not installed; torch is not among them."""
    return tuple(package for package, module in MODULES.items() if not isInstalled(module))


def ensure(slicer: Any, requirements: Path, isInstalled: IsInstalled = _isInstalled) -> None:
    """Install what is missing after asking; call it from a button only. Raises RunError saying what to do instead.

    torch is left to the PyTorch extension, which knows the graphics card. numpy, scipy and SimpleITK are Slicer's own.
    """
    if not isInstalled("torch"):
        raise RunError(
            "PyTorch is missing: open the module PyTorch Utils (extension PyTorch) and press Install PyTorch"
        )
    missing = missingPackages(isInstalled)
    if not missing:
        return
    packaging = getattr(slicer, "packaging", None)
    if packaging is not None:  # Slicer 5.12 and later ask by themselves
        packaging.pip_ensure(packaging.load_requirements(requirements), requester="WholeBodyCSS")
    elif slicer.util.confirmOkCancelDisplay(f"Install {_listed(missing)} into Slicer's Python?"):
        slicer.util.pip_install(" ".join(missing))
    still = missingPackages(isInstalled)
    if still:
        raise RunError(f"WholeBodyCSS needs {_listed(still)}; press the button again to install, then restart Slicer")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
