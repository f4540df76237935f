"""Runs of the training commands as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("WholeBodyCSS", "Training", "Testing", "Testing/training")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in FOLDERS),
    "OMP_NUM_THREADS": "1",
}


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Two processes that train together."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False)


def newest(run_dir: Path) -> dict[str, torch.Tensor]:
    """Tensors of the newest checkpoint of a run."""
    return load_file(max((run_dir / "checkpoints").glob("step-*")) / "state.safetensors")
