"""Runs of the training commands as processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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


def kill_after(command: list[str], word: str, *, delay_s: float) -> bool:
    """Start (or resume) a training command, wait until a stage begins with ``word``, a little more, and kill it.

    Returns whether it still lived.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "wbcss_training.cli", *command, "--resume", "--json"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if f'"stage": "{word}' in line:
            break
    time.sleep(delay_s)
    lived = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return lived
