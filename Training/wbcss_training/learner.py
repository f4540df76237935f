"""Encoder and decoders in training: forward pass, sampled loss and deep supervision of one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from wbcss.labels import TaskId
from wbcss.nn.decoder import Decoder, DeepSupervision
from wbcss.nn.encoder import Encoder
from wbcss.nn.model import WholeBodyModel
from wbcss.specs import DecoderSpec

from .config import TrainConfig
from .losses import OrganLoss, draw_voxels
from .patches import Patch


class Learner(nn.Module):
    """The networks that a run trains, with the heads of deep supervision that are thrown away afterwards."""

    def __init__(self, model: WholeBodyModel, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.loss = OrganLoss(batch_dice=config.batch_dice)
        self.supervision = nn.ModuleDict(
            {
                str(task): DeepSupervision(
                    model.decoder(task).spec,
                    num_levels=min(config.deep_supervision, len(model.decoder(task).spec.stage_channels)),
                )
                for task in model.tasks
            }
        )

    def forward(self, task: TaskId, patches: Sequence[Patch], *, step: int, generator: torch.Generator) -> torch.Tensor:
        """Scalar loss of a batch of one task's patches; those that annotate the same organs share their Dice."""
        device = next(self.parameters()).device
        finest = self.config.finest_level
        image = torch.stack([patch.image for patch in patches]).to(device)
        image = image.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.autocast):
            levels = self.model.decoder(task).levels(self.model.encoder(image), finest=finest)
        labels = torch.stack([patch.labels for patch in patches]).to(device)
        heads = [self.model.decoder(task).head, *self.supervision[task].heads]  # type: ignore[misc]
        total = image.new_zeros(())
        for level, head in enumerate(heads[finest:], start=finest):
            weight = 2.0**-level / sum(2.0**-other for other in range(finest, len(heads)))
            for members in _alike(patches):
                total = total + weight * (len(members) / len(patches)) * self._level_loss(
                    levels[level - finest],
                    head,
                    labels,
                    patches[members[0]].annotated.to(device),
                    members=members,
                    count=self._count(level),
                    step=step,
                    generator=generator,
                )
        return total

    def _count(self, level: int) -> int:
        return max(1, self.config.sampled_voxels >> level)

    def _level_loss(
        self,
        features: torch.Tensor,
        head: nn.Conv3d,
        labels: torch.Tensor,
        annotated: torch.Tensor,
        *,
        members: Sequence[int],
        count: int,
        step: int,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Loss of ``members`` at one level: features (B, F, I', J', K') against full-resolution labels (B, I, J, K)."""
        stride = [n // m for n, m in zip(labels.shape[1:], features.shape[2:], strict=True)]
        coarse = labels[:, :: stride[0], :: stride[1], :: stride[2]].long()
        fraction = self.config.balanced_fraction_at(step)
        drawn = [draw_voxels(coarse[b], count, balanced_fraction=fraction, generator=generator) for b in members]
        num = min(len(index) for index in drawn)
        rows = [
            features[b].permute(1, 2, 3, 0).reshape(-1, features.shape[1]).index_select(0, index[:num])
            for b, index in zip(members, drawn, strict=True)
        ]
        targets = torch.stack([coarse[b].reshape(-1)[index[:num]] for b, index in zip(members, drawn, strict=True)])
        weight = head.weight.flatten(1).float()
        logits = torch.stack([F.linear(row.float(), weight, head.bias) for row in rows]).transpose(1, 2)
        loss: torch.Tensor = self.loss(logits, targets, annotated)
        return loss


def _alike(patches: Sequence[Patch]) -> list[list[int]]:
    """Numbers of the patches, those that annotate the same organs together."""
    groups: dict[tuple[bool, ...], list[int]] = {}
    for number, patch in enumerate(patches):
        groups.setdefault(tuple(patch.annotated.tolist()), []).append(number)
    return list(groups.values())


def build_learner(encoder: Encoder, decoders: Mapping[TaskId, DecoderSpec], config: TrainConfig) -> Learner:
    """Fresh decoders on ``encoder``, in the memory layout that convolutions like best."""
    model = WholeBodyModel(encoder, {task: Decoder(spec, encoder.spec) for task, spec in decoders.items()})
    learner = Learner(model, config)
    learner.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return learner
