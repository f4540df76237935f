"""Where things are in the checkout, for tests that look at source files rather than run them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
MODULE = ROOT / "WholeBodyCSS"
ENGINE = MODULE / "wbcss"
SLICER_ROOM = (MODULE / "WholeBodyCSS.py", *sorted((MODULE / "WholeBodyCSSLib").rglob("*.py")))
TRAINING = ROOT / "Training" / "wbcss_training"


def product_sources() -> list[Path]:
    """Every Python file that is shipped: the Slicer room, the engine, training."""
    return [*SLICER_ROOM, *sorted(ENGINE.rglob("*.py")), *sorted(TRAINING.rglob("*.py"))]


def parsed(path: Path) -> ast.Module:
    """The syntax tree of ``path``, read as Python 3.10."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 10))


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Dotted names that ``tree`` imports, ``from a import b`` as ``a.b``; relative ones keep their dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def named(path: Path) -> str:
    """``path`` as it is shown in a test's name."""
    return path.relative_to(ROOT).as_posix()


def pyproject() -> dict[str, Any]:
    """The parsed pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
