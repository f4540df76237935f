"""Does a trained network find its organs? Dice on synthetic scans it was not trained on decides what is shipped."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wbcss.errors import Cancelled, RunError, SpecError
from wbcss.labels import OrganName, TaskId
from wbcss.nn.model import WholeBodyModel
from wbcss.progress import IsCancelled, Progress, never, silent

from .patches import PatchSource
from .plan import EncoderPlan, open_sources
from .synthesis import SyntheticPatches

SEED_OFFSET = 1_000_003
"""Added to the seed of the training patches: the validation draws other bodies and other scans."""

_SLAB = 16
"""Planes whose logits are held at once; a whole patch of a hundred organs would take a gigabyte."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the validation says about one task.

    Attributes:
        kept: Organs that reach the asked Dice, in channel order.
        validation: JSON for the task card. ``dice`` is of the network with the kept organs only; ``left_out`` is what
            the others reached before (null where the patches held no voxel of the organ).
    """

    kept: tuple[OrganName, ...]
    validation: Mapping[str, Any]


def synthetic_dice(
    model: WholeBodyModel,
    source: PatchSource,
    *,
    num_patches: int,
    kept: Sequence[OrganName] | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> dict[OrganName, float]:
    """Dice of every organ over patches 0 .. ``num_patches`` - 1 of ``source``, intersections summed before dividing.

    Args:
        model: Runs in float32 where its parameters are; equal inputs give equal numbers on the CPU.
        source: Patches in the channel order of the task's decoder.
        num_patches: At least 1.
        kept: Organs that may answer; the channels of the others are switched off. Default: all.
        progress: Told after every patch.
        cancelled: Asked before every patch.

    Returns:
        Organ to Dice in [0, 1]. Organs without a voxel in the patches are missing: nothing is known about them.

    Raises:
        SpecError: ``num_patches`` is below 1.
        Cancelled: ``cancelled`` returned true.
    """
    if num_patches < 1:
        raise SpecError(f"a validation needs at least 1 patch, got {num_patches}")
    names = source.organs
    rows = [0, *(channel for channel, name in enumerate(names, start=1) if kept is None or name in kept)]
    size = 1 + len(names)
    both, found, true = (torch.zeros(size, dtype=torch.int64) for _ in range(3))
    for index in range(num_patches):
        if cancelled():
            raise Cancelled(f"the validation was stopped after {index} of {num_patches} patches")
        patch = source.patch(index)
        labels = patch.labels.long()
        predicted = _predicted(model, source.task, patch.image, torch.tensor(rows))
        both += torch.bincount(labels[labels == predicted], minlength=size)
        found += torch.bincount(predicted.flatten(), minlength=size)
        true += torch.bincount(labels.flatten(), minlength=size)
        progress((index + 1) / num_patches, f"validation {index + 1} of {num_patches}")
    return {names[row - 1]: float(2 * both[row] / (found[row] + true[row])) for row in rows[1:] if int(true[row]) > 0}


def _predicted(model: WholeBodyModel, task: TaskId, image: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Channel (I, J, K) int64 with the largest logit among ``rows``, for an image (C, I, J, K)."""
    device = next(model.parameters()).device
    head = model.decoder(task).head
    wanted = rows.to(device)
    weight, bias = head.weight[wanted], None if head.bias is None else head.bias[wanted]
    with torch.inference_mode():
        features = model.features(image[None].to(device), [task])[task]
        slabs = [
            torch.nn.functional.conv3d(features[:, :, start : start + _SLAB], weight, bias).argmax(dim=1)[0]
            for start in range(0, features.shape[2], _SLAB)
        ]
        return rows[torch.cat(slabs).cpu()]


def validate_task(
    model: WholeBodyModel,
    source: PatchSource,
    *,
    num_patches: int,
    min_dice: float,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> Verdict:
    """Measure a task, drop the organs below ``min_dice`` or never seen, and measure what is left.

    Raises:
        RunError: no organ is good enough.
    """
    first = synthetic_dice(model, source, num_patches=num_patches, progress=progress, cancelled=cancelled)
    kept = tuple(organ for organ in source.organs if first.get(organ, -1.0) >= min_dice)
    if not kept:
        best = max(first.values(), default=0.0)
        raise RunError(
            f"no organ of task {source.task!r} reaches a Dice of {min_dice:g} on {num_patches} synthetic patches "
            f"(the best is {best:.3f}); train longer or lower --min-dice"
        )
    dice = first
    if len(kept) < len(source.organs):
        dice = synthetic_dice(model, source, num_patches=num_patches, kept=kept, progress=progress, cancelled=cancelled)
    left_out = {
        str(organ): round(first[organ], 4) if organ in first else None for organ in source.organs if organ not in kept
    }
    facts = {
        "patches": num_patches,
        "dice": {str(organ): round(dice[organ], 4) for organ in kept},
        "min_dice": min_dice,
        "left_out": left_out,
    }
    return Verdict(kept=kept, validation={"synthetic": facts})


def validate_plan(
    model: WholeBodyModel,
    plan: EncoderPlan,
    *,
    cache_dir: Path,
    num_patches: int,
    min_dice: float,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> dict[TaskId, Verdict]:
    """Validate every task that is learned from synthetic scans; tasks learned from cases are judged on held-out cases.

    Raises:
        RunError: a task has no organ that is good enough.
    """
    verdicts = {}
    for source in open_sources(plan, cache_dir):
        if isinstance(source, SyntheticPatches):
            verdicts[source.task] = validate_task(
                model,
                dataclasses.replace(source, seed=source.seed + SEED_OFFSET),
                num_patches=num_patches,
                min_dice=min_dice,
                progress=progress,
                cancelled=cancelled,
            )
    return verdicts
