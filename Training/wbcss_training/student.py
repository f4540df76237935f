"""A small decoder that learns from labels and from a larger decoder at once; both read the same encoded patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from wbcss.labels import TaskId
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import freeze

from .config import DistillConfig, TrainConfig
from .distillation import feature_loss, voxel_kl, voxel_weights
from .learner import DecoderLearner, supervised_loss
from .losses import draw_voxels
from .narrowing import Kept
from .patches import FeaturePatch


class Teacher:
    """A frozen decoder.

    It is no module, so neither the optimizer nor a checkpoint nor a moving average takes it for part of the student;
    a copy of the student shares it.
    """

    def __init__(self, decoder: Decoder) -> None:
        freeze(decoder)
        self.decoder: Decoder = decoder.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def __deepcopy__(self, memo: object) -> Teacher:
        return self

    def on(self, device: torch.device) -> Decoder:
        """The decoder, on ``device``."""
        return self.decoder.to(device)


class StudentLearner(DecoderLearner):
    """A decoder in training that imitates a teacher (METHOD 1.3).

    Its projections ``P_l`` to the widths of the teacher are trained with it and thrown away afterwards. Between
    levels of the same width a projection begins as the identity, so that a student that is its teacher feels nothing;
    with ``kept`` it begins by putting every channel where it was taken from.
    """

    def __init__(
        self,
        decoder: Decoder,
        config: TrainConfig,
        *,
        teacher: Teacher,
        distill: DistillConfig,
        kept: Kept | None = None,
    ) -> None:
        super().__init__(decoder, config)
        self.teacher = teacher
        self.distill = distill
        widths = zip(decoder.spec.stage_channels, teacher.decoder.spec.stage_channels, strict=False)
        self.projections = nn.ModuleList(
            _projection(ours, theirs, kept=None if kept is None else kept[level][-1])
            for level, (ours, theirs) in enumerate(widths)
            if distill.feature_weight > 0
        )
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(
        self, task: TaskId, patches: Sequence[FeaturePatch], *, step: int, generator: torch.Generator
    ) -> torch.Tensor:
        """Scalar loss of a batch of encoded patches: that of labels plus that of imitation."""
        skips = self.skips(patches)
        ours = self.levels_of(self.decoder, skips)
        loss = supervised_loss(
            ours,
            [self.decoder.head, *self.supervision.heads],
            patches,
            loss=self.loss,
            config=self.config,
            step=step,
            generator=generator,
        )
        if self.distill.logit_weight == self.distill.feature_weight == 0:
            return loss
        teacher = self.teacher.on(skips[-1].device)
        with torch.no_grad():
            theirs = self.levels_of(teacher, skips)
        if self.distill.feature_weight > 0:
            loss = loss + self.distill.feature_weight * self._feature_loss(ours, theirs)
        if self.distill.logit_weight > 0 and self.config.finest_level == 0:  # no logits without the finest level
            heads = self.decoder.head, teacher.head
            kl = self._logit_loss((ours[0], theirs[0]), heads, patches, step=step, generator=generator)
            loss = loss + self.distill.logit_weight * kl
        return loss

    def _feature_loss(self, ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Over the levels that both have; the coarsest of a deeper one has no partner."""
        projections = list(self.projections)[self.config.finest_level :]
        with torch.autocast(ours[0].device.type, torch.bfloat16, enabled=self.config.autocast):
            projected = [project(level) for project, level in zip(projections, ours, strict=False)]
        return feature_loss(projected, theirs[: len(projected)])

    def _logit_loss(
        self,
        finest: tuple[torch.Tensor, torch.Tensor],
        heads: tuple[nn.Conv3d, nn.Conv3d],
        patches: Sequence[FeaturePatch],
        *,
        step: int,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """KL at drawn voxels; what the teacher calls an organ counts as one where the case does not annotate it."""
        labels = torch.stack([patch.labels for patch in patches]).to(finest[0].device).long()
        weights = voxel_weights(
            labels, foreground=self.distill.foreground_weight, boundary=self.distill.boundary_weight
        )
        drawn = [
            draw_voxels(
                patch,
                self.config.sampled_voxels,
                balanced_fraction=self.config.balanced_fraction_at(step),
                generator=generator,
            )
            for patch in labels
        ]
        student, teacher = (_logits(level, head, drawn) for level, head in zip(finest, heads, strict=True))
        weight, label = (
            torch.cat([row.reshape(-1)[index] for row, index in zip(values, drawn, strict=True)])[None]
            for values in (weights, labels)
        )
        unseen = (label == 0) & (teacher.argmax(dim=1) > 0)
        weight = weight + self.distill.foreground_weight * unseen
        return voxel_kl(student, teacher, weight, temperature=self.distill.temperature)


def _projection(ours: int, theirs: int, *, kept: Sequence[int] | None) -> nn.Conv3d:
    """P of one level: 1x1x1, without a bias, which would be a feature that nobody computed."""
    projection = nn.Conv3d(ours, theirs, 1, bias=False)
    if kept is None and ours == theirs:
        kept = range(theirs)
    if kept is not None:
        with torch.no_grad():
            projection.weight.zero_()
            for channel, place in enumerate(kept):
                projection.weight[place, channel] = 1.0
    return projection


def _logits(features: torch.Tensor, head: nn.Conv3d, drawn: Sequence[torch.Tensor]) -> torch.Tensor:
    """Logits (1, C, N) of ``head`` at the drawn voxels of all samples; ``features`` are (B, F, I, J, K)."""
    rows = [
        sample.permute(1, 2, 3, 0).reshape(-1, features.shape[1]).index_select(0, index)
        for sample, index in zip(features, drawn, strict=True)
    ]
    logits = F.linear(torch.cat(rows).float(), head.weight.flatten(1).float(), head.bias)
    return logits.t()[None]
