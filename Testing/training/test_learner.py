"""Deep supervision, sampling and masking of one batch."""

from __future__ import annotations

import dataclasses

import pytest
import tiny_training
import torch

from wbcss.nn.encoder import Encoder
from wbcss_training.learner import Learner, build_decoder_learner
from wbcss_training.losses import OrganLoss
from wbcss_training.patches import Patch

BATCH = [tiny_training.BoxPatches().patch(index) for index in range(2)]


def run(learner: Learner, patches: list[Patch] = BATCH, *, step: int = 0, seed: int = 0) -> torch.Tensor:
    return learner(tiny_training.TASK, patches, step=step, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("levels", [1, 2])
def test_weights_of_deep_supervision_sum_to_one(levels: int) -> None:
    learner = tiny_training.learner(tiny_training.config(deep_supervision=levels))
    learner.loss.forward = lambda logits, labels, annotated: logits.new_ones(())  # type: ignore[method-assign]
    assert float(run(learner)) == pytest.approx(1.0)


def test_no_more_levels_are_supervised_than_the_decoder_has() -> None:
    learner = tiny_training.learner(tiny_training.config(deep_supervision=9))
    assert [len(head.heads) for head in learner.supervision.values()] == [1]  # type: ignore[arg-type]


def test_loss_of_every_voxel_equals_the_loss_computed_plainly() -> None:
    learner = tiny_training.learner(tiny_training.config(sampled_voxels=10**6))
    images = torch.stack([patch.image for patch in BATCH])
    labels = torch.stack([patch.labels for patch in BATCH]).long()
    decoder = learner.model.decoder(tiny_training.TASK)
    levels = decoder.levels(learner.model.encoder(images))
    loss = OrganLoss(batch_dice=True)
    annotated = torch.ones(4, dtype=torch.bool)
    fine = loss(decoder.head(levels[0]).flatten(2), labels.flatten(1), annotated)
    coarse_head = learner.supervision[tiny_training.TASK].heads[0]  # type: ignore[union-attr,index]
    coarse = loss(coarse_head(levels[1]).flatten(2), labels[:, ::2, ::2, ::2].flatten(1), annotated)
    expected = (fine * 2 / 3 + coarse / 3).detach()
    torch.testing.assert_close(run(learner).detach(), expected, atol=1e-5, rtol=0)


def test_an_organ_that_a_case_does_not_annotate_counts_as_background_in_it() -> None:
    learner = tiny_training.learner(tiny_training.config(sampled_voxels=10**6, deep_supervision=1))
    annotated = torch.tensor([True, True, False, True])
    masked = [dataclasses.replace(patch, annotated=annotated) for patch in BATCH]
    erased = [
        dataclasses.replace(patch, labels=torch.where(patch.labels == 2, 0, patch.labels).to(torch.uint8))
        for patch in masked
    ]
    assert torch.equal(run(learner, masked), run(learner, erased))
    assert not torch.equal(run(learner, masked), run(learner))


def test_patches_that_annotate_different_organs_share_a_batch() -> None:
    learner = tiny_training.learner(tiny_training.config(sampled_voxels=10**6))
    other = dataclasses.replace(BATCH[1], annotated=torch.tensor([True, False, True, True]))
    alone = (run(learner, [BATCH[0]]) + run(learner, [other])) / 2
    torch.testing.assert_close(run(learner, [BATCH[0], other]).detach(), alone.detach(), atol=1e-6, rtol=0)


def test_equal_generators_sample_the_same_loss() -> None:
    learner = tiny_training.learner(tiny_training.config(sampled_voxels=300))
    assert torch.equal(run(learner, seed=3), run(learner, seed=3))
    assert not torch.equal(run(learner, seed=3), run(learner, seed=4))


def test_encoder_and_every_head_of_the_task_get_a_gradient() -> None:
    learner = tiny_training.learner()
    run(learner).backward()
    without = [name for name, parameter in learner.named_parameters() if parameter.grad is None]
    assert without == []


def test_a_fresh_decoder_of_an_enrolled_task_answers_background() -> None:
    """At every voxel and supervised level: an organ that few cases annotate must not start as likely as background."""
    encoder = Encoder(tiny_training.ENCODER)
    learner = build_decoder_learner(encoder, tiny_training.decoder_spec(), tiny_training.config(deep_supervision=2))
    images = torch.stack([patch.image for patch in BATCH])
    with torch.no_grad():
        levels = learner.decoder.levels(encoder(images))
        for head, features in zip([learner.decoder.head, *learner.supervision.heads], levels, strict=False):
            probability = head(features).softmax(dim=1)
            assert float(probability[:, 0].min()) > 0.5
            assert float(probability[:, 0].mean()) > 0.9
