"""One encoder and one shared decoder whose head grows with every task, as the published baselines have it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from wbcss.errors import SpecError
from wbcss.labels import OrganName, TaskId
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import Encoder
from wbcss.nn.model import WholeBodyModel

from ..config import TrainConfig
from ..former import FormerSelf
from ..learner import expect_background, supervised_loss, supervision_of
from ..losses import OrganLoss, draw_voxels
from ..patches import Patch
from .plop import IGNORED, pseudo_labels
from .view import Term, View

SHARED = TaskId("shared")
"""Name of the one decoder."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a baseline does against forgetting.

    Attributes:
        old_organs: What an organ of an earlier task is on the new task's data: ``background``, as its labels say, or
            ``unknown``, so that the background's probability takes its in (the unbiased cross-entropy of MiB).
        terms: Losses added from the second task on.
        thresholds: Entropy per former channel below which the former network labels the background (PLOP); None for
            no pseudo-labels.
    """

    old_organs: Literal["background", "unknown"] = "background"
    terms: Sequence[Term] = ()
    thresholds: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class _Relabeled:
    """A patch's labels in the channels of the shared head."""

    labels: torch.Tensor
    annotated: torch.Tensor


class _AcceptedLoss(OrganLoss):
    """OrganLoss over the voxels that are not IGNORED."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
        """Scalar loss of logits (B, C, N) against labels (B, N)."""
        kept = labels != IGNORED
        if bool(kept.all()):
            return super().forward(logits, labels, annotated)
        parts = [
            super(_AcceptedLoss, self).forward(row[None, :, keep], label[None, keep], annotated)
            for row, label, keep in zip(logits, labels, kept, strict=True)
            if bool(keep.any())
        ]
        return torch.stack(parts).mean() if parts else logits.sum() * 0.0


class IncrementalLearner(nn.Module):
    """Encoder and shared decoder that learn one more task (or several at once), with a recipe against forgetting.

    Args:
        model: Encoder and the decoder SHARED, its head grown already.
        organs: What channels 1, 2, ... of the head mean.
        tasks: Organs of every task that patches will come from, in their channel order.
        config: Schedule.
        recipe: What is done against forgetting.
        former: The network as it was; its head has the first channels of the grown one. None for a first task.
    """

    def __init__(
        self,
        model: WholeBodyModel,
        organs: Sequence[OrganName],
        tasks: Mapping[TaskId, Sequence[OrganName]],
        config: TrainConfig,
        recipe: Recipe = Recipe(),
        former: FormerSelf | None = None,
    ) -> None:
        super().__init__()
        if former is not None and config.finest_level != 0:
            raise SpecError(f"finest_level must be 0 to compare with a former network, got {config.finest_level}")
        self.model = model
        self.config = config
        self.recipe = recipe
        self.former = former
        self.loss = _AcceptedLoss(batch_dice=config.batch_dice)
        decoder = model.decoder(SHARED)
        self.supervision = supervision_of(decoder.spec, config)
        self._channels = {
            task: torch.tensor([0, *(1 + organs.index(organ) for organ in names)]) for task, names in tasks.items()
        }

    def forward(self, task: TaskId, patches: Sequence[Patch], *, step: int, generator: torch.Generator) -> torch.Tensor:
        """Scalar loss of a batch of one task's patches."""
        device = next(self.parameters()).device
        image = torch.stack([patch.image for patch in patches]).to(device)
        image = image.contiguous(memory_format=torch.channels_last_3d)
        decoder = self.model.decoder(SHARED)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.autocast):
            skips = self.model.encoder(image)
            levels = decoder.levels(skips, finest=self.config.finest_level)
            former = self._former(image)
        samples = [self._relabeled(task, patch) for patch in patches]
        share = 1.0
        if former is not None and self.recipe.thresholds is not None:
            samples, share = self._completed(samples, former)
        total = share * supervised_loss(
            levels,
            [decoder.head, *self.supervision.heads],
            samples,
            loss=self.loss,
            config=self.config,
            step=step,
            generator=generator,
        )
        if former is not None and self.recipe.terms:
            view = self._view(skips, levels, former, step=step, generator=generator)
            for term in self.recipe.terms:
                total = total + term(view)
        return total

    def _former(self, image: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]] | None:
        """Skips and levels of the former network."""
        if self.former is None or not (self.recipe.terms or self.recipe.thresholds is not None):
            return None
        skips = self.former.skips(image)
        with torch.no_grad():
            return skips, self.former.decoders[SHARED].levels(skips)

    def _relabeled(self, task: TaskId, patch: Patch) -> _Relabeled:
        channels = self._channels[task]
        num_channels = self.model.decoder(SHARED).head.out_channels
        annotated = torch.full((num_channels,), self.recipe.old_organs == "background")
        annotated[channels] = patch.annotated
        return _Relabeled(channels[patch.labels.long()], annotated)

    def _completed(
        self, samples: Sequence[_Relabeled], former: tuple[list[torch.Tensor], list[torch.Tensor]]
    ) -> tuple[list[_Relabeled], float]:
        """Labels completed by the former network, and the mean share of background that it was sure of."""
        assert self.former is not None  # noqa: S101 -- the caller asked
        assert self.recipe.thresholds is not None  # noqa: S101 -- the caller asked
        head = self.former.decoders[SHARED].head
        completed, shares = [], []
        for number, sample in enumerate(samples):
            with torch.no_grad():
                logits = F.conv3d(former[1][0][number : number + 1].float(), head.weight, head.bias)[0]
            labels, share = pseudo_labels(sample.labels.to(logits.device), logits, self.recipe.thresholds)
            completed.append(_Relabeled(labels, sample.annotated))
            shares.append(share)
        return completed, sum(shares) / len(shares)

    def _view(
        self,
        skips: Sequence[torch.Tensor],
        levels: Sequence[torch.Tensor],
        former: tuple[list[torch.Tensor], list[torch.Tensor]],
        *,
        step: int,
        generator: torch.Generator,
    ) -> View:
        """Both networks at voxels that are drawn as for the segmentation loss, over what the former network sees.

        The papers' means run over every pixel of a picture full of objects; in a CT the organs are a few per cent of
        the voxels, and without this oversampling the background would swamp the distillation of every baseline.
        """
        assert self.former is not None  # noqa: S101 -- the caller asked
        heads = self.model.decoder(SHARED).head, self.former.decoders[SHARED].head
        fraction = self.config.balanced_fraction_at(step)
        rows: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        for number in range(len(levels[0])):
            with torch.no_grad():
                seen = F.conv3d(former[1][0][number : number + 1].float(), heads[1].weight, heads[1].bias).argmax(dim=1)
            at = draw_voxels(seen[0], self.config.sampled_voxels, balanced_fraction=fraction, generator=generator)
            for place, (head, features) in enumerate(zip(heads, (levels[0], former[1][0]), strict=True)):
                flat = features[number].permute(1, 2, 3, 0).reshape(-1, features.shape[1]).index_select(0, at)
                rows[place].append(F.linear(flat.float(), head.weight.flatten(1).float(), head.bias))
        return View(
            logits=torch.stack(rows[0]).transpose(1, 2),
            former_logits=torch.stack(rows[1]).transpose(1, 2),
            skips=skips,
            former_skips=former[0],
            levels=levels,
            former_levels=former[1],
            parameters=dict(self.model.named_parameters()),
        )


def grown(
    decoder: Decoder, encoder: Encoder, *, num_new: int, start: Callable[[nn.Conv3d, int], None] | None = None
) -> Decoder:
    """A copy of ``decoder`` whose head has ``num_new`` more channels at the end.

    ``start`` is told the grown head and the number of former channels, background included; without it new rows begin
    as those of every fresh decoder do.
    """
    spec = dataclasses.replace(decoder.spec, num_organs=decoder.spec.num_organs + num_new)
    larger = Decoder(spec, encoder.spec)
    state = {name: value for name, value in decoder.state_dict().items() if not name.startswith("head.")}
    larger.load_state_dict(state, strict=False)
    num_old = decoder.head.out_channels
    with torch.no_grad():
        larger.head.weight[:num_old] = decoder.head.weight
        if larger.head.bias is not None and decoder.head.bias is not None:
            larger.head.bias[:num_old] = decoder.head.bias
    if start is None:
        expect_background(larger.head, first=num_old)
    else:
        start(larger.head, num_old)
    return larger
