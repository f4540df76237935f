"""nnU-Net v2 itself as an outside peer of `wbcss-train benchmark`: one network per task of a sequence.

    ../bench-venv/bin/python Testing/benchmarks/peer_training.py SEQUENCE.json --work DIR --run RUN [--epochs N]

It plans, trains and predicts as nnU-Net does, without mirroring, which would exchange left and right organs; on the
same training cases and the same validation, measured by the same metrics. nnU-Net has no label that is unknown in some
cases only: a training case that leaves out an organ of its task is left out. The row goes into ``RUN/peers.json``,
which the benchmark's table reads. With ``--prepare`` it stops after writing the data.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wbcss.io.reading import read_labels
from wbcss.io.writing import write_volume
from wbcss_training.cases import Case, read_case
from wbcss_training.continual.peers import PEERS
from wbcss_training.continual.sequence import SequenceTask, read_sequence
from wbcss_training.metrics import agreement
from wbcss_training.plan import chosen_cases

FIRST_DATASET = 700
CONFIGURATION = "3d_fullres"
TRAINER = "nnUNetTrainerNoMirroring"


def main(argv: Sequence[str] | None = None) -> int:
    """Train and measure every task, or only write the data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequence", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="nnU-Net's folders")
    parser.add_argument("--run", type=Path, required=True, help="run folder of the benchmark")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--iterations", type=int, default=250, help="steps per epoch")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--prepare", action="store_true", help="only write the data")
    args = parser.parse_args(argv)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        folder = args.work / name
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder.resolve())  # nnU-Net reads them when it is imported
    dice, parameters, wall_s = [], 0, 0.0
    for number, task in enumerate(read_sequence(args.sequence).tasks, start=FIRST_DATASET):
        raw = args.work / "nnUNet_raw" / f"Dataset{number}_{task.task}"
        write_dataset(task, raw)
        if args.prepare:
            continue
        started = time.monotonic()
        _command("nnUNetv2_plan_and_preprocess", "-d", number, "-c", CONFIGURATION)
        planned = args.work / "nnUNet_preprocessed" / raw.name
        parameters += _train(planned, epochs=args.epochs, iterations=args.iterations, device=args.device)
        wall_s += time.monotonic() - started
        predicted = args.work / "predicted" / task.task
        options = ("-d", number, "-c", CONFIGURATION, "-f", "all", "-tr", TRAINER, "-device", args.device)
        _command("nnUNetv2_predict", "-i", raw / "imagesTs", "-o", predicted, *options, "--disable_tta")
        scores = measure(task, predicted)
        sys.stdout.write(json.dumps({"task": task.task, "dice": scores}) + "\n")
        dice.append(float(np.mean(list(scores.values()))))
    if dice:
        title = f"nnU-Net v2, {CONFIGURATION}, a network per task, {args.epochs * args.iterations} steps each"
        add_peer(args.run, {"title": title, "dice": float(np.mean(dice)), "parameters": parameters, "wall_s": wall_s})
    return 0


def write_dataset(task: SequenceTask, folder: Path) -> int:
    """nnU-Net's raw layout of one task: complete training cases and all validation images; returns how many train.

    Labels are renumbered to the task's channels; other organs of the file are background.
    """
    numbers = {organ: channel for channel, organ in enumerate(task.organs, start=1)}
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    written = 0
    for case in chosen_cases(task.source):
        volume, labels = read_case(case)
        renumbered = _renumbered(labels, case, numbers)
        if len(np.unique(renumbered)) <= len(numbers) and case.absent == "unknown":
            continue
        write_volume(folder / "imagesTr" / f"case_{written:03d}_0000.nii.gz", volume.voxels, volume.affine)
        write_volume(folder / "labelsTr" / f"case_{written:03d}.nii.gz", renumbered, volume.affine)
        written += 1
    for number, case in enumerate(chosen_cases(task.validation)):
        volume, _ = read_case(case)
        write_volume(folder / "imagesTs" / f"case_{number:03d}_0000.nii.gz", volume.voxels, volume.affine)
    facts = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{str(organ): channel for organ, channel in numbers.items()}},
        "numTraining": written,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(facts, indent=1))
    return written


def _renumbered(labels: Any, case: Case, numbers: Mapping[str, int]) -> Any:
    lookup = np.zeros(max(int(labels.max()), *case.values) + 1, np.uint8)
    for value, organ in case.values.items():
        lookup[value] = numbers.get(organ, 0)
    return lookup[labels]


def measure(task: SequenceTask, predicted: Path) -> dict[str, float]:
    """Mean Dice of every organ of ``task`` over the validation cases that have it."""
    found: dict[str, list[float]] = {}
    for number, case in enumerate(chosen_cases(task.validation)):
        volume, labels = read_case(case)
        answer, _, _ = read_labels(predicted / f"case_{number:03d}.nii.gz")
        values = {organ: value for value, organ in case.values.items()}
        for channel, organ in enumerate(task.organs, start=1):
            reference = labels == values.get(organ, -1)
            if reference.any():
                score = agreement(answer == channel, reference, spacing_mm=volume.spacing_mm)
                found.setdefault(str(organ), []).append(score.dice)
    return {organ: float(np.mean(values)) for organ, values in found.items()}


def add_peer(run: Path, row: Mapping[str, Any]) -> None:
    """Put ``row`` into the run's file of peers, in place of an earlier one of the same title."""
    run.mkdir(parents=True, exist_ok=True)
    path = run / PEERS
    rows = json.loads(path.read_text())["peers"] if path.is_file() else []
    rows = [other for other in rows if other["title"] != row["title"]]
    path.write_text(json.dumps({"peers": [*rows, dict(row)]}, indent=1))


def _train(folder: Path, *, epochs: int, iterations: int, device: str) -> int:
    """Train on all cases with nnU-Net's own trainer; returns the number of parameters."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    trainer = get_trainer_from_args(folder.name, CONFIGURATION, "all", TRAINER, device=torch.device(device))
    trainer.num_epochs, trainer.num_iterations_per_epoch = epochs, iterations
    trainer.num_val_iterations_per_epoch = max(1, iterations // 5)  # its own share: 50 to 250
    trainer.run_training()
    return sum(parameter.numel() for parameter in trainer.network.parameters())


def _command(name: str, *arguments: object) -> None:
    subprocess.run([Path(sys.executable).with_name(name), *map(str, arguments)], check=True)


if __name__ == "__main__":
    sys.exit(main())
