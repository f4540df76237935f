"""Enrolling as processes: torchrun, and kill -9 at 20 random moments."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_cases
import tiny_enrollment
import tiny_training
import torch
from process_runs import kill_after, newest, torchrun

from wbcss.nn.encoder import Encoder, freeze
from wbcss.registry import Registry
from wbcss_training.cli.main import main
from wbcss_training.features import FeaturePool, FeatureSpec, encode_pool
from wbcss_training.learner import build_decoder_learner
from wbcss_training.loop import train

# batch_dice is off and every voxel is used, so that the batch loss is the mean of the patches' losses.
SHARED = {"steps": 1, "batch_size": 2, "batch_dice": False, "sampled_voxels": 10**6, "ema_decay": 0.5}
TWO_PROCESSES = """
import sys
from pathlib import Path
import torch
from torch import distributed
import tiny_training
from test_enroll_processes import SHARED, fresh_learner
from wbcss_training.features import FeaturePool
from wbcss_training.loop import train
torch.set_num_threads(1)
distributed.init_process_group("gloo")
config = tiny_training.config(**SHARED)
pool = FeaturePool(task=tiny_training.TASK, folder=Path(sys.argv[2]), count=2)
train(fresh_learner(), [pool], config=config, run_dir=Path(sys.argv[1]), num_workers=0)
distributed.destroy_process_group()
"""


def fresh_learner() -> torch.nn.Module:
    """The same weights in every process."""
    torch.manual_seed(0)
    encoder = Encoder(tiny_training.ENCODER)
    return build_decoder_learner(encoder, tiny_training.decoder_spec(), tiny_training.config(**SHARED))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    """After one step AdamW's first moment is a tenth of the gradient; the weights would amplify its rounding."""
    torch.manual_seed(0)
    encoder = Encoder(tiny_training.ENCODER)
    freeze(encoder)
    spec = FeatureSpec(patch=tiny_training.ENCODER.tile, num_skips=3, autocast=False)
    source = tiny_training.BoxPatches()
    encode_pool(source, encoder, tmp_path / "pool", count=2, spec=spec, device=torch.device("cpu"))
    script = tmp_path / "run.py"
    script.write_text(TWO_PROCESSES)
    finished = torchrun(str(script), str(tmp_path / "two"), str(tmp_path / "pool"))
    assert finished.returncode == 0, finished.stderr[-2000:]
    pool = FeaturePool(task=source.task, folder=tmp_path / "pool", count=2)
    train(fresh_learner(), [pool], config=tiny_training.config(**SHARED), run_dir=tmp_path / "one", num_workers=0)
    one, two = newest(tmp_path / "one"), newest(tmp_path / "two")
    keys = [key for key in one if key.startswith("optimizer.exp_avg.")]
    assert len(keys) > 10
    ours, theirs = (torch.cat([state[key].flatten() for key in keys]) for state in (two, one))
    assert float(theirs.norm()) > 0
    assert float((ours - theirs).norm()) < 1e-5 * float(theirs.norm())


def command_in(root: Path) -> list[str]:
    """A quick enrolment in ``root``."""
    registry = tiny_enrollment.registry_with_earlier_task(root / "registry")
    tiny_cases.write_list(root / "cases", tiny_enrollment.write_pairs(root / "cases", count=4))
    return tiny_enrollment.command(root, root / "cases" / "list.json", registry)


def decoder_of(root: Path) -> bytes:
    registry = Registry(root / "registry")
    assert registry.verify() == []
    assert registry.versions(tiny_enrollment.TASK) == (1,)
    return registry.task_weights(registry.card(tiny_enrollment.TASK)).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_task_is_enrolled_by_two_processes(tmp_path: Path) -> None:
    command = ["--run-dir" if word == "--run" else word for word in command_in(tmp_path)]
    finished = torchrun("-m", "wbcss_training.cli", "enroll", *command, "--steps", "4", "--json")
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert finished.stdout.count('"wbcss-enrollment"') == 1
    decoder_of(tmp_path)


MOMENTS = ("encoded", "step", "case", "proving")
"""What a run says when it begins to encode, train, validate and publish."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_20_random_moments_a_run_ends_with_the_same_bits(tmp_path: Path, rng: np.random.Generator) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    quick = ["--steps", "12"]
    command = [*command_in(whole), *quick]
    untouched = tmp_path / "untouched"
    shutil.copytree(whole / "registry", untouched)
    assert main(["enroll", *command]) == 0
    decoder = decoder_of(whole)
    kills = 0
    for number in range(5):
        killed = tmp_path / f"killed{number}"
        shutil.copytree(untouched, killed / "registry")
        moved = [word.replace(f"{whole}/r", f"{killed}/r") for word in command]  # registry and run, not the cases
        for word in MOMENTS:
            kills += kill_after(["enroll", *moved], word, delay_s=float(rng.exponential(0.15)))
            assert Registry(killed / "registry").verify() == []
        assert main(["enroll", *moved, "--resume"]) == 0
        assert decoder_of(killed) == decoder
    assert kills >= 15  # a run may have ended in the little while
