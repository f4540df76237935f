"""A student in training: law 9, what its loss is made of, and that its teacher is left alone."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import tiny_training
import torch
from torch.optim.swa_utils import AveragedModel

from wbcss.nn.decoder import Decoder
from wbcss.specs import DecoderSpec
from wbcss_training.config import DistillConfig, TrainConfig
from wbcss_training.distillation import feature_loss, voxel_kl, voxel_weights
from wbcss_training.learner import DecoderLearner
from wbcss_training.patches import FeaturePatch
from wbcss_training.student import StudentLearner, Teacher

ENCODER = tiny_training.ENCODER
CONFIG = tiny_training.config(sampled_voxels=10**6)  # every voxel: nothing is drawn
FULL = tiny_training.decoder_spec()
SMALL = dataclasses.replace(FULL, stage_channels=(2, 1))
SHALLOW = DecoderSpec(stage_channels=(2,), kernels=((3, 3, 3),), convs_per_stage=(1,), num_organs=3)
PLAIN = DistillConfig(logit_weight=0.0, feature_weight=0.0)


@pytest.fixture(scope="module")
def batch() -> list[FeaturePatch]:
    return tiny_training.encoded_patches()


def teacher(seed: int = 7, spec: DecoderSpec = FULL) -> Decoder:
    torch.manual_seed(seed)
    return Decoder(spec, ENCODER)


def student(
    spec: DecoderSpec = SMALL, config: TrainConfig = CONFIG, *, of: Decoder | None = None, **distill: Any
) -> StudentLearner:
    torch.manual_seed(1)
    return StudentLearner(
        Decoder(spec, ENCODER), config, teacher=Teacher(of or teacher()), distill=DistillConfig(**distill)
    )


def loss_of(learner: DecoderLearner, batch: list[FeaturePatch]) -> torch.Tensor:
    return learner(tiny_training.TASK, batch, step=0, generator=torch.Generator().manual_seed(0))


def imitation(learner: StudentLearner, batch: list[FeaturePatch]) -> float:
    """What is added to the loss of the labels."""
    total = float(loss_of(learner, batch).detach())
    learner.distill, distill = PLAIN, learner.distill
    alone = float(loss_of(learner, batch).detach())
    learner.distill = distill
    return total - alone


def test_a_student_that_is_its_teacher_pays_for_the_labels_only(batch: list[FeaturePatch]) -> None:
    of = teacher()
    learner = student(FULL, of=of)
    learner.decoder.load_state_dict(of.state_dict())
    torch.manual_seed(5)
    plain = DecoderLearner(copy.deepcopy(learner.decoder), CONFIG)
    plain.supervision.load_state_dict(learner.supervision.state_dict())
    for parameter in plain.parameters():
        parameter.requires_grad_(True)
    both = [loss_of(module, batch) for module in (learner, plain)]
    assert float(both[0].detach()) == float(both[1].detach())
    for loss in both:
        loss.backward()
    for ours, theirs in zip(learner.decoder.parameters(), plain.decoder.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-4)


def test_the_loss_is_that_of_the_labels_and_what_the_weights_add(batch: list[FeaturePatch]) -> None:
    distill = DistillConfig(logit_weight=0.7, feature_weight=0.3, foreground_weight=2.0, boundary_weight=5.0)
    learner = student(logit_weight=0.7, feature_weight=0.3, foreground_weight=2.0, boundary_weight=5.0)
    skips = [torch.stack(skip).float() for skip in zip(*(patch.skips for patch in batch), strict=True)]
    of = learner.teacher.decoder
    with torch.no_grad():
        ours, theirs = learner.decoder.levels(skips), of.levels(skips)
        projected = [project(level) for project, level in zip(learner.projections, ours, strict=True)]
        labels = torch.stack([patch.labels for patch in batch])
        logits, soft = learner.decoder.head(ours[0]).flatten(2), of.head(theirs[0]).flatten(2)
        weights = voxel_weights(labels, foreground=2.0, boundary=5.0).flatten(1)
        weights = weights + 2.0 * ((labels.flatten(1) == 0) & (soft.argmax(dim=1) > 0))
        added = 0.7 * voxel_kl(logits, soft, weights, temperature=distill.temperature)
        added = added + 0.3 * feature_loss(projected, theirs)
    assert imitation(learner, batch) == pytest.approx(float(added), rel=1e-4)


@pytest.mark.parametrize("name", ["logit_weight", "feature_weight"])
def test_either_part_can_be_left_out(batch: list[FeaturePatch], name: str) -> None:
    both = imitation(student(), batch)
    without = imitation(student(**{name: 0.0}), batch)
    assert 0 < without < both
    assert imitation(student(logit_weight=0.0, feature_weight=0.0), batch) == 0


def test_the_teacher_is_no_part_of_what_is_trained_kept_or_averaged(batch: list[FeaturePatch]) -> None:
    learner = student()
    before = {name: value.clone() for name, value in learner.teacher.decoder.state_dict().items()}
    assert not any("teacher" in name for name in learner.state_dict())
    assert AveragedModel(learner).module.teacher is learner.teacher
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    loss_of(learner, batch).backward()
    optimizer.step()
    after = learner.teacher.decoder
    assert all(torch.equal(value, before[name]) for name, value in after.state_dict().items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in after.parameters())


def test_all_of_the_student_learns_its_projections_too(batch: list[FeaturePatch]) -> None:
    learner = student()
    loss_of(learner, batch).backward()
    assert len(learner.projections) == 2
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in learner.parameters())


def test_a_projection_begins_by_putting_channels_where_they_were_taken_from() -> None:
    kept = (((0, 1), (0, 2)), ((1,), (2,)))
    learner = StudentLearner(
        Decoder(SMALL, ENCODER), CONFIG, teacher=Teacher(teacher()), distill=DistillConfig(), kept=kept
    )
    fine, coarse = (project.weight.flatten(1).tolist() for project in learner.projections)  # type: ignore[operator,union-attr]
    assert fine == [[1, 0], [0, 0], [0, 1]]
    assert coarse == [[0], [0], [1]]


def test_without_the_finest_level_only_features_are_imitated(batch: list[FeaturePatch]) -> None:
    coarse = dataclasses.replace(CONFIG, finest_level=1)
    assert imitation(student(config=coarse), batch) > 0
    assert imitation(student(config=coarse, feature_weight=0.0), batch) == pytest.approx(0)


@pytest.mark.parametrize("of", [FULL, SHALLOW])
def test_student_and_teacher_may_differ_in_depth(batch: list[FeaturePatch], of: DecoderSpec) -> None:
    learner = student(SHALLOW if of == FULL else FULL, of=teacher(spec=of))
    assert len(learner.projections) == 1
    assert imitation(learner, batch) > 0
