"""Dice and cross-entropy that know which organs a case annotates."""

from __future__ import annotations

import torch
from monai.losses.dice import DiceCELoss


def marginal_logits(logits: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
    """Fold the channels of unannotated organs into the background (marginal loss; METHOD 1.2, absent-label rule).

    Args:
        logits: (B, C, N), channel 0 background.
        annotated: (C,) bool, channel 0 True.

    Returns:
        (B, C', N) with C' annotated channels; softmax over it gives the background the sum of the probabilities of
        background and unannotated organs, so predicting an unannotated organ on unlabeled voxels costs nothing.
    """
    if bool(annotated.all()):
        return logits
    background = torch.logsumexp(torch.cat([logits[:, :1], logits[:, ~annotated]], dim=1), dim=1, keepdim=True)
    known = annotated.clone()
    known[0] = False
    return torch.cat([background, logits[:, known]], dim=1)


def marginal_labels(labels: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
    """Renumber ``labels`` (any shape, channel values) to the channels that ``marginal_logits`` keeps."""
    if bool(annotated.all()):
        return labels
    lookup = torch.cumsum(annotated.long(), dim=0) - 1
    lookup[~annotated] = 0
    return lookup[labels]


class OrganLoss(torch.nn.Module):
    """MONAI's Dice plus cross-entropy, background left out of Dice, organs absent from the sample left out too.

    An organ with no voxel among the sampled ones would have Dice 0 whatever is predicted elsewhere, so the Dice term
    runs over the organs present; false positives of absent organs are what cross-entropy punishes.
    """

    def __init__(self, *, batch_dice: bool) -> None:
        super().__init__()
        self.dice_ce = DiceCELoss(include_background=False, to_onehot_y=False, softmax=False, batch=batch_dice)
        self.dice = self.dice_ce.dice

    def forward(self, logits: torch.Tensor, labels: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
        """Scalar loss of logits (B, C, N) against channel labels (B, N) with ``annotated`` (C,) bool."""
        logits = marginal_logits(logits.float(), annotated)
        labels = marginal_labels(labels.long(), annotated)
        cross_entropy = torch.nn.functional.cross_entropy(logits, labels)
        present = torch.unique(labels)
        present = present[present > 0]
        if len(present) == 0:
            return cross_entropy
        kept = torch.cat([present.new_zeros(1), present])
        probability = torch.softmax(logits, dim=1)[:, kept]
        target = (labels[:, None] == kept[None, :, None]).to(probability.dtype)
        dice: torch.Tensor = self.dice(probability, target)
        return cross_entropy + dice


def draw_voxels(
    labels: torch.Tensor, count: int, *, balanced_fraction: float, generator: torch.Generator
) -> torch.Tensor:
    """Flat indices of ``count`` voxels of one patch: part uniform, part spread evenly over the labels present.

    Args:
        labels: (I, J, K) channel labels.
        count: Voxels to draw (with replacement); the whole patch is returned when it is not larger.
        balanced_fraction: Share drawn by label.
        generator: CPU generator.
    """
    flat = labels.reshape(-1)
    if flat.numel() <= count:
        return torch.arange(flat.numel(), device=labels.device)
    num_balanced = int(count * balanced_fraction)
    uniform = torch.randint(flat.numel(), (count - num_balanced,), generator=generator)
    if num_balanced == 0:
        return uniform.to(labels.device)
    order = torch.argsort(flat.cpu())
    values, sizes = torch.unique_consecutive(flat.cpu()[order], return_counts=True)
    starts = torch.cumsum(sizes, 0) - sizes
    which = torch.randint(len(values), (num_balanced,), generator=generator)
    within = (torch.rand(num_balanced, generator=generator, dtype=torch.float64) * sizes[which]).long()
    balanced = order[starts[which] + within]
    return torch.cat([uniform, balanced]).to(labels.device)
