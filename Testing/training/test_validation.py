"""Which organs are good enough to be published."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tiny_training
import torch

from wbcss.errors import Cancelled, RunError, SpecError
from wbcss.labels import OrganName, TaskId
from wbcss.nn.model import WholeBodyModel
from wbcss_training.patches import Patch
from wbcss_training.plan import read_plan
from wbcss_training.validation import synthetic_dice, validate_plan, validate_task

LIVER, SPLEEN, VERTEBRA = tiny_training.ORGANS


@dataclasses.dataclass(frozen=True)
class Painted:
    """Patches whose image holds the answer and whose labels hold the truth: (answer, truth) per patch."""

    pairs: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    task: TaskId = tiny_training.TASK
    organs: tuple[OrganName, ...] = tiny_training.ORGANS

    def patch(self, index: int) -> Patch:
        answer, truth = self.pairs[index]
        return Patch(image=answer[None].float(), labels=truth, annotated=torch.ones(4, dtype=torch.bool))


class Copying(WholeBodyModel):
    """A model that answers what its image says."""

    def __init__(self) -> None:
        model = tiny_training.learner().model
        super().__init__(model.encoder, {tiny_training.TASK: model.decoder(tiny_training.TASK)})
        head = self.decoder(tiny_training.TASK).head
        # -(c - x)^2 without the x^2 that all channels share: 2 c x - c^2
        channel = torch.arange(4.0)
        with torch.no_grad():
            head.weight.zero_()
            head.weight[:, 0, 0, 0, 0] = 2 * channel
            head.bias.copy_(-(channel**2))  # type: ignore[union-attr]

    def features(self, x: torch.Tensor, tasks: object) -> dict[object, torch.Tensor]:  # type: ignore[override]
        return {tiny_training.TASK: torch.cat([x, torch.zeros_like(x), torch.zeros_like(x)], dim=1)}


def volume(**counts: int) -> torch.Tensor:
    """(20, 4, 4) with the first voxels liver, then spleen, then vertebra, by count."""
    values = torch.zeros(320, dtype=torch.long)
    start = 0
    for channel, name in enumerate(("liver", "spleen", "vertebra"), start=1):
        values[start : start + counts.get(name, 0)] = channel
        start += counts.get(name, 0)
    return values.reshape(20, 4, 4)


PAIRS = (
    (volume(liver=100), volume(liver=50)),  # intersection 50, sizes 100 and 50
    (volume(liver=10, spleen=6), volume(liver=10, spleen=2)),  # liver 10 of 10 and 10; spleen 2 of 6 and 2
)


def test_intersections_are_summed_before_dividing() -> None:
    found = synthetic_dice(Copying(), Painted(PAIRS), num_patches=2)
    assert found == pytest.approx({LIVER: 2 * 60 / (110 + 60), SPLEEN: 2 * 2 / (6 + 2)})


def test_an_organ_without_a_voxel_is_not_judged() -> None:
    assert VERTEBRA not in synthetic_dice(Copying(), Painted(PAIRS), num_patches=2)


def test_a_channel_that_is_switched_off_loses_its_voxels_to_the_next_best() -> None:
    pairs = ((volume(liver=10, spleen=6), volume(liver=10, spleen=6)),)
    found = synthetic_dice(Copying(), Painted(pairs), num_patches=1, kept=[LIVER])
    assert found == pytest.approx({LIVER: 2 * 10 / (16 + 10)})  # spleen 2 is nearer to liver 1 than to background 0


def test_organs_below_the_limit_are_left_out_and_the_rest_is_measured_again() -> None:
    pairs = ((volume(liver=20, spleen=60), volume(liver=20, spleen=10)),)
    verdict = validate_task(Copying(), Painted(pairs), num_patches=1, min_dice=0.5)
    assert verdict.kept == (LIVER,)
    facts = verdict.validation["synthetic"]
    assert facts["patches"] == 1
    assert facts["left_out"] == {"spleen": pytest.approx(2 * 10 / 70, abs=1e-4), "vertebrae_L1": None}
    assert facts["dice"] == {"liver": pytest.approx(2 * 20 / (80 + 20), abs=1e-4)}


def test_good_organs_are_all_kept_in_their_order() -> None:
    verdict = validate_task(Copying(), Painted(PAIRS), num_patches=2, min_dice=0.3)
    assert verdict.kept == (LIVER, SPLEEN)


def test_when_no_organ_is_good_enough_the_best_is_named() -> None:
    with pytest.raises(RunError, match=r"no organ of task 'boxes' reaches a Dice of 0.9 on 2 .*the best is 0.706"):
        validate_task(Copying(), Painted(PAIRS), num_patches=2, min_dice=0.9)


def test_a_validation_needs_patches() -> None:
    with pytest.raises(SpecError, match="a validation needs at least 1 patch, got 0"):
        synthetic_dice(Copying(), Painted(PAIRS), num_patches=0)


def test_a_validation_can_be_stopped() -> None:
    with pytest.raises(Cancelled, match="stopped after 0 of 2 patches"):
        synthetic_dice(Copying(), Painted(PAIRS), num_patches=2, cancelled=lambda: True)


def test_a_plan_is_validated_on_other_patches_than_its_training_and_always_the_same(
    atlas_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_training.write_plan(tmp_path / "p.json", {"kind": "atlas", "folder": str(atlas_dir)})
    plan = read_plan(path)
    model = tiny_training.learner(num_organs=6).model
    seeds = []
    draw = tiny_training.patch_rng
    monkeypatch.setattr(
        "wbcss_training.synthesis.patch_rng", lambda seed, index: seeds.append(seed) or draw(seed, index)
    )
    first, second = (
        validate_plan(model, plan, cache_dir=tmp_path / "cache", num_patches=2, min_dice=0.0) for _ in range(2)
    )
    assert first == second
    assert set(seeds) == {plan.train.seed + 1 + 1_000_003}
