"""PLOP: local pooled outputs stay what they were, and the old network labels its organs where it is sure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .view import View

IGNORED = -1
"""Pseudo-label of a voxel that no loss sees."""


def local_pod(features: torch.Tensor, *, scales: Sequence[int]) -> torch.Tensor:
    """Local POD embedding (Douillard et al., "PLOP", CVPR 2021, equations 2 to 5) in three dimensions.

    At scale s the volume is cut into s^3 regions, and in each the mean along every axis in turn is kept: the paper's
    two pooled strips of a plane become three pooled planes of a volume. Scales finer than the volume are left out.

    Args:
        features: (B, F, I, J, K).
        scales: Regions per axis: 1, 2, 4 in the paper.

    Returns:
        (B, E).
    """
    parts = []
    shape = features.shape[2:]
    for scale in scales:
        if scale > min(shape):
            continue
        edges = [[index * n // scale for index in range(scale + 1)] for n in shape]
        for a in range(scale):
            for b in range(scale):
                for c in range(scale):
                    i, j, k = (slice(edges[x][at], edges[x][at + 1]) for x, at in enumerate((a, b, c)))
                    region = features[:, :, i, j, k]
                    parts += [region.mean(dim=axis).flatten(1) for axis in (2, 3, 4)]
    return torch.cat(parts, dim=1)


def local_pod_loss(
    now: Sequence[torch.Tensor], former: Sequence[torch.Tensor], *, scales: Sequence[int]
) -> torch.Tensor:
    """Mean over the levels of the distance of the local POD embeddings (equation 6 of the paper).

    As in the authors' published code, features are squared before pooling, embeddings scaled to unit length, and the
    distance is the norm, not its square; so the value depends on neither width nor size of a patch.
    """
    parts = []
    for ours, theirs in zip(now, former, strict=True):
        new = F.normalize(local_pod(ours.float().square(), scales=scales), dim=1)
        old = F.normalize(local_pod(theirs.detach().float().square(), scales=scales), dim=1)
        parts.append(torch.linalg.vector_norm(new - old, dim=1).mean())
    return torch.stack(parts).mean()


def normalized_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy of the softmax over dimension 1 divided by its largest value, in [0, 1]; dimension 1 is gone."""
    log_probability = F.log_softmax(logits.float(), dim=1)
    return -(log_probability.exp() * log_probability).sum(dim=1) / math.log(logits.shape[1])


def entropy_thresholds(entropy: torch.Tensor, predicted: torch.Tensor, *, num_classes: int) -> torch.Tensor:
    """Median entropy of the voxels predicted as each class (the paper's tau_c, after equation 7).

    Args:
        entropy, predicted: (N,) normalized entropy and winning channel of voxels that the new labels leave background.
        num_classes: Channels of the former network.

    Returns:
        (num_classes,) float32, not below 0.001 as in the published code; a class never predicted gets that too.
    """
    floor = 0.001
    thresholds = torch.full((num_classes,), floor)
    for channel in range(num_classes):
        values = entropy[predicted == channel]
        if len(values):
            thresholds[channel] = max(floor, float(values.float().median()))
    return thresholds


def pseudo_labels(
    labels: torch.Tensor, former_logits: torch.Tensor, thresholds: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Labels completed by the former network (equation 8), and the factor nu of the loss (equation 9).

    A background voxel takes the former network's class where its entropy is below that class's threshold, and is
    IGNORED elsewhere. nu is the share of background voxels that were accepted.

    Args:
        labels: (I, J, K) int64 channels of the network in training, 0 where the new task sees background.
        former_logits: (C_old, I, J, K).
        thresholds: (C_old,).
    """
    predicted = former_logits.argmax(dim=0)
    sure = normalized_entropy(former_logits[None])[0] < thresholds.to(predicted.device)[predicted]
    background = labels == 0
    completed = torch.where(background, torch.where(sure, predicted, IGNORED), labels)
    num_background = int(background.sum())
    share = float((background & sure).sum()) / num_background if num_background else 1.0
    return completed, share


@dataclass(frozen=True, kw_only=True)
class LocalPod:
    """Feature term of PLOP; the weight grows with the square root of all classes over new ones, as published."""

    weight: float = 0.01
    scales: tuple[int, ...] = (1, 2, 4)

    def __call__(self, view: View) -> torch.Tensor:
        """Weighted loss of one batch."""
        num_all, num_old = view.logits.shape[1], view.former_logits.shape[1]
        growth = math.sqrt(num_all / max(1, num_all - num_old))
        now = [*view.skips, *view.levels]
        former = [*view.former_skips, *view.former_levels]
        return self.weight * growth * local_pod_loss(now, former, scales=self.scales)
