"""Training as processes: torchrun, and kill -9 at random moments."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_training
import torch
from process_runs import ENVIRONMENT, newest, torchrun

from wbcss_training.cli.main import main
from wbcss_training.loop import train

# batch_dice is off and every voxel is used, so that the batch loss is the mean of the patches' losses.
SHARED = {"steps": 4, "batch_size": 2, "batch_dice": False, "sampled_voxels": 10**6, "ema_decay": 0.5}
TWO_PROCESSES = f"""
import sys
from pathlib import Path
import torch
from torch import distributed
import tiny_training
from wbcss_training.loop import train
torch.set_num_threads(1)
distributed.init_process_group("gloo")
config = tiny_training.config(**{SHARED!r})
rank = distributed.get_rank()
stop = lambda: rank == 1 and len(sys.argv) > 2  # only one process wants to stop
run_dir = Path(sys.argv[1])
train(tiny_training.learner(config), [tiny_training.BoxPatches()], config=config, run_dir=run_dir, num_workers=0,
      stop_at=stop)
distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(TWO_PROCESSES)
    finished = torchrun(str(script), str(tmp_path / "two"))
    assert finished.returncode == 0, finished.stderr[-2000:]
    config = tiny_training.config(**SHARED)
    train(
        tiny_training.learner(config),
        [tiny_training.BoxPatches()],
        config=config,
        run_dir=tmp_path / "one",
        num_workers=0,
    )
    one, two = newest(tmp_path / "one"), newest(tmp_path / "two")
    start = {f"learner.{key}": value for key, value in tiny_training.learner(config).state_dict().items()}
    # As a whole, not number by number: where a gradient is rounding noise (a bias before a norm, a feature that is
    # hardly used), AdamW scales the noise to full steps.
    for part in ("learner.", "optimizer.exp_avg."):
        keys = [key for key in one if key.startswith(part) and not key.endswith(".conv.bias")]
        apart, moved = (
            sum(float((state[key] - other.get(key, torch.zeros(()))).square().sum()) for key in keys) ** 0.5
            for state, other in ((two, one), (one, start))
        )
        assert moved > 0
        assert apart < 0.02 * moved
    stopped = torchrun(str(script), str(tmp_path / "stopped"), "stop")
    assert stopped.returncode == 0, stopped.stderr[-2000:]
    assert [path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir()] == ["step-0000001"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_line_runs_under_torchrun(atlas_dir: Path, tmp_path: Path) -> None:
    source = {"kind": "atlas", "folder": str(atlas_dir)}
    plan = tiny_training.write_plan(tmp_path / "plan.json", source, steps=2, batch_size=2)
    options = [
        "--run-dir",
        str(tmp_path / "run"),
        "--registry",
        str(tmp_path / "registry"),
        "--validation-patches",
        "0",
    ]
    finished = torchrun("-m", "wbcss_training.cli", "encoder", str(plan), *options, "--workers", "0", "--json")
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert finished.stdout.count("step 2 of 2") == 1
    assert (tmp_path / "registry" / "encoder" / "card.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_again_and_again_a_run_ends_with_the_same_bits(
    atlas_dir: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    source = {"kind": "atlas", "folder": str(atlas_dir)}
    plan = str(tiny_training.write_plan(tmp_path / "plan.json", source, steps=60, checkpoint_every=1))
    quick = ["--workers", "0", "--threads", "1", "--device", "cpu"]
    assert main(["encoder", plan, "--run", str(tmp_path / "whole"), *quick]) == 0
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "wbcss_training.cli", "encoder", plan, "--run", str(killed), *quick, "--resume"]
    kills = 0
    for _ in range(5):
        before = set((killed / "checkpoints").glob("step-*"))
        process = subprocess.Popen([*command, "--json"], env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        while process.poll() is None and set((killed / "checkpoints").glob("step-*")) <= before:
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 0.5)))
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills >= 2
    assert main(["encoder", plan, "--run", str(killed), *quick, "--resume"]) == 0
    whole, resumed = newest(tmp_path / "whole"), newest(killed)
    assert whole.keys() == resumed.keys()
    assert [key for key in whole if not torch.equal(whole[key], resumed[key])] == []
    logs = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (tmp_path / "whole", killed)]
    assert [line.split(', "seconds"')[0] for line in logs[0]] == [line.split(', "seconds"')[0] for line in logs[1]]
