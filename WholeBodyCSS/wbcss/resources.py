"""Where the product's own data files lie: label spaces, card schemas, the starter registry."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CANDIDATES = (_PACKAGE.parent / "Resources", _PACKAGE / "resources")


def resource_path(*parts: str) -> Path:
    """Path of a shipped resource, as in ``resource_path("LabelSpaces", "organs.json")``.

    Beside the package in a checkout and inside Slicer, within it when installed from a wheel.
    """
    for root in _CANDIDATES:
        if root.is_dir():
            return root.joinpath(*parts)
    return _CANDIDATES[0].joinpath(*parts)


def starter_registry() -> Path:
    """Folder of the registry that ships with the product."""
    return resource_path("Models")
