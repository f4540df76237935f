"""Which room may import which: the contracts hold, and each of them catches a violation planted for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from project_tree import ENGINE, MODULE, ROOT, TRAINING, pyproject

CONTRACTS = [contract["name"] for contract in pyproject()["tool"]["importlinter"]["contracts"]]
VIOLATIONS = {
    "The engine never sees Slicer": ("wbcss/volume.py", "import slicer"),
    "The engine never sees training": ("wbcss/resources.py", "import wbcss_training.config"),
    "The core is free of torch": ("wbcss/labels.py", "def hidden():\n    import torch"),
    "The Slicer panel needs no package that Slicer lacks": ("WholeBodyCSSLib/SegmentLogic.py", "import PIL.Image"),
    "Engine layers": ("wbcss/errors.py", "from . import segment"),
    "Training layers": ("wbcss_training/losses.py", "from . import loop"),
}


def _lint(folders: list[Path], cache: Path) -> str:
    command = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=sys.argv[1]))"
    path = os.pathsep.join(str(folder) for folder in folders)
    done = subprocess.run(
        [sys.executable, "-c", command, str(cache)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def _verdicts(output: str) -> dict[str, str]:
    lines = re.findall(r"^(.+) (KEPT|BROKEN)(?: \(\d+ ignored imports?\))?$", output, flags=re.MULTILINE)
    return {name: verdict for name, verdict in lines if name in CONTRACTS}


def test_every_contract_is_kept(tmp_path: Path) -> None:
    output = _lint([MODULE, TRAINING.parent], tmp_path)
    assert _verdicts(output) == dict.fromkeys(CONTRACTS, "KEPT"), output


def test_a_violation_is_planted_for_every_contract() -> None:
    assert sorted(VIOLATIONS) == sorted(CONTRACTS)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_planted_violation_is_caught(contract: str, tmp_path: Path) -> None:
    rooms = tmp_path / "rooms"
    for package in (ENGINE, MODULE / "WholeBodyCSSLib", TRAINING):
        shutil.copytree(package, rooms / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    file, violation = VIOLATIONS[contract]
    with (rooms / file).open("a", encoding="utf-8") as stream:
        stream.write(f"\n{violation}\n")
    assert _verdicts(_lint([rooms], tmp_path / "cache"))[contract] == "BROKEN"
