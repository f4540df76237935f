"""Networks in training: forward pass, sampled loss and deep supervision of one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from wbcss.errors import SpecError
from wbcss.labels import TaskId
from wbcss.nn.decoder import Decoder, DeepSupervision
from wbcss.nn.encoder import Encoder, Skips
from wbcss.nn.model import WholeBodyModel
from wbcss.specs import DecoderSpec, EncoderSpec

from .config import TrainConfig
from .former import FormerSelf
from .losses import OrganLoss, draw_voxels
from .patches import FeaturePatch, Patch, Sample


class Learner(nn.Module):
    """Encoder and decoders that a run trains, with the heads of deep supervision that are thrown away afterwards.

    ``former`` is what the encoder is kept near to, by the weights of ``config``.
    """

    def __init__(self, model: WholeBodyModel, config: TrainConfig, former: FormerSelf | None = None) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.former = former
        self.loss = OrganLoss(batch_dice=config.batch_dice)
        self.supervision = nn.ModuleDict(
            {str(task): supervision_of(model.decoder(task).spec, config) for task in model.tasks}
        )

    def forward(self, task: TaskId, patches: Sequence[Patch], *, step: int, generator: torch.Generator) -> torch.Tensor:
        """Scalar loss of a batch of one task's patches; those that annotate the same organs share their Dice."""
        device = next(self.parameters()).device
        image = torch.stack([patch.image for patch in patches]).to(device)
        image = image.contiguous(memory_format=torch.channels_last_3d)
        decoder = self.model.decoder(task)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.autocast):
            skips = self.model.encoder(image)
            levels = decoder.levels(skips, finest=self.config.finest_level)
            drift = self._drift(image, skips)
        heads = [decoder.head, *self.supervision[task].heads]  # type: ignore[misc]
        loss = supervised_loss(
            levels, heads, patches, loss=self.loss, config=self.config, step=step, generator=generator
        )
        return loss if drift is None else loss + drift

    def _drift(self, image: torch.Tensor, skips: Skips) -> torch.Tensor | None:
        """How far the encoder has gone from its former self on ``image``, weighted."""
        if self.former is None or not self.config.distills:
            return None
        return self.former.drift(
            skips,
            self.former.skips(image),
            weight=self.config.feature_distillation,
            decoder_weight=self.config.decoder_distillation,
        )


class DecoderLearner(nn.Module):
    """One decoder that learns on features of a frozen encoder, which it never sees.

    Its state dict holds no weight of the encoder, so neither does a checkpoint of the run.
    """

    def __init__(self, decoder: Decoder, config: TrainConfig) -> None:
        super().__init__()
        self.decoder = decoder
        self.config = config
        self.loss = OrganLoss(batch_dice=config.batch_dice)
        self.supervision = supervision_of(decoder.spec, config)

    def forward(
        self, task: TaskId, patches: Sequence[FeaturePatch], *, step: int, generator: torch.Generator
    ) -> torch.Tensor:
        """Scalar loss of a batch of encoded patches; those that annotate the same organs share their Dice."""
        levels = self.levels(patches)
        heads = [self.decoder.head, *self.supervision.heads]
        return supervised_loss(
            levels, heads, patches, loss=self.loss, config=self.config, step=step, generator=generator
        )

    def levels(self, patches: Sequence[FeaturePatch]) -> list[torch.Tensor]:
        """Decoder levels of encoded patches from ``config.finest_level`` on, as ``Decoder.levels``."""
        return self.levels_of(self.decoder, self.skips(patches))

    def levels_of(self, decoder: Decoder, skips: Skips) -> list[torch.Tensor]:
        """What ``decoder`` makes of ``skips`` from ``config.finest_level`` on."""
        with torch.autocast(skips[-1].device.type, torch.bfloat16, enabled=self.config.autocast):
            return decoder.levels(skips, finest=self.config.finest_level)

    def skips(self, patches: Sequence[FeaturePatch]) -> Skips:
        """Skips (B, C_s, I / d_s, J / d_s, K / d_s) of encoded patches, as a decoder is trained on them."""
        device = next(self.parameters()).device
        # Float16 is for the disk: mixed with bfloat16 it would make every concatenation float32.
        dtype = torch.bfloat16 if self.config.autocast else torch.float32
        finest = self.config.finest_level  # finer skips are not read, so they are not converted either
        return [torch.empty(0)] * finest + [
            torch.stack(skip).to(device=device, dtype=dtype).contiguous(memory_format=torch.channels_last_3d)
            for skip in zip(*(patch.skips[finest:] for patch in patches), strict=True)
        ]


ORGAN_LOG_ODDS = -5.0
"""What a fresh row of a head thinks of its organ before it has seen one."""


def expect_background(head: nn.Conv3d, *, first: int = 1) -> None:
    """Let the fresh rows of a head, channels ``first`` and after, begin with the answer background.

    Where a case leaves an organ unannotated, the marginal loss does not say whether unlabeled voxels are background
    or that organ: what is more probable at first only grows. Heads that began undecided drew liters of an organ that
    few cases annotate.
    """
    if head.bias is None:
        raise SpecError("a head needs a bias to begin with the answer background, got one without")
    with torch.no_grad():
        head.bias[first:] += ORGAN_LOG_ODDS


def supervision_of(spec: DecoderSpec, config: TrainConfig) -> DeepSupervision:
    """Fresh heads for as many levels as ``config`` asks for and the decoder has."""
    supervision = DeepSupervision(spec, num_levels=min(config.deep_supervision, len(spec.stage_channels)))
    for head in supervision.heads:
        expect_background(head)  # type: ignore[arg-type]
    return supervision


def supervised_loss(
    levels: Sequence[torch.Tensor],
    heads: Sequence[nn.Module],
    samples: Sequence[Sample],
    *,
    loss: OrganLoss,
    config: TrainConfig,
    step: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Loss of a batch under deep supervision; level l weighs 1 / 2^l, and the weights sum to 1.

    Args:
        levels: Decoder outputs (B, F_l, I / d_l, J / d_l, K / d_l) from ``config.finest_level`` on.
        heads: 1x1x1 convolution of every supervised level, level 0 first.
        samples: The B samples; those that annotate the same organs share their Dice.
        loss: Of logits at sampled voxels.
        config: Number of voxels and how they are drawn.
        step: Of the run; the drawing depends on it.
        generator: CPU generator of the drawing.
    """
    finest = config.finest_level
    device = levels[0].device
    labels = torch.stack([sample.labels for sample in samples]).to(device)
    total = torch.zeros((), device=device)
    for level, head in enumerate(heads[finest:], start=finest):
        weight = 2.0**-level / sum(2.0**-other for other in range(finest, len(heads)))
        for members in _alike(samples):
            logits, targets = _drawn(
                levels[level - finest],
                head,
                labels,
                members=members,
                count=max(1, config.sampled_voxels >> level),
                balanced_fraction=config.balanced_fraction_at(step),
                generator=generator,
            )
            annotated = samples[members[0]].annotated.to(device)
            total = total + weight * (len(members) / len(samples)) * loss(logits, targets, annotated)
    return total


def _drawn(
    features: torch.Tensor,
    head: nn.Module,
    labels: torch.Tensor,
    *,
    members: Sequence[int],
    count: int,
    balanced_fraction: float,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B', C, N) and channel labels (B', N) of ``members`` at N drawn voxels of one level.

    ``features`` are (B, F, I', J', K'), ``labels`` (B, I, J, K) at full resolution.
    """
    stride = [n // m for n, m in zip(labels.shape[1:], features.shape[2:], strict=True)]
    coarse = labels[:, :: stride[0], :: stride[1], :: stride[2]].long()
    drawn = [draw_voxels(coarse[b], count, balanced_fraction=balanced_fraction, generator=generator) for b in members]
    num = min(len(index) for index in drawn)
    rows = [
        features[b].permute(1, 2, 3, 0).reshape(-1, features.shape[1]).index_select(0, index[:num])
        for b, index in zip(members, drawn, strict=True)
    ]
    targets = torch.stack([coarse[b].reshape(-1)[index[:num]] for b, index in zip(members, drawn, strict=True)])
    weight = head.weight.flatten(1).float()  # type: ignore[operator]
    logits = torch.stack([F.linear(row.float(), weight, head.bias) for row in rows])  # type: ignore[arg-type]
    return logits.transpose(1, 2), targets


def _alike(samples: Sequence[Sample]) -> list[list[int]]:
    """Numbers of the samples, those that annotate the same organs together."""
    groups: dict[tuple[bool, ...], list[int]] = {}
    for number, sample in enumerate(samples):
        groups.setdefault(tuple(sample.annotated.tolist()), []).append(number)
    return list(groups.values())


def fresh_decoder(spec: DecoderSpec, encoder: EncoderSpec) -> Decoder:
    """A decoder that has learned nothing yet and answers background."""
    decoder = Decoder(spec, encoder)
    expect_background(decoder.head)
    return decoder


def build_learner(encoder: Encoder, decoders: Mapping[TaskId, DecoderSpec], config: TrainConfig) -> Learner:
    """Fresh decoders on ``encoder``, in the memory layout that convolutions like best."""
    model = WholeBodyModel(encoder, {task: fresh_decoder(spec, encoder.spec) for task, spec in decoders.items()})
    learner = Learner(model, config)
    learner.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return learner


def build_decoder_learner(encoder: Encoder, spec: DecoderSpec, config: TrainConfig) -> DecoderLearner:
    """A fresh decoder for the features of ``encoder``, which is not kept."""
    learner = DecoderLearner(fresh_decoder(spec, encoder.spec), config)
    learner.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return learner
