"""Modeling the Background: what is background now may be an old organ, and what was background may be a new one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .view import View


def unbiased_distillation(now: torch.Tensor, former: torch.Tensor) -> torch.Tensor:
    """Distillation of Cermelli et al. ("Modeling the Background", CVPR 2020, equations 7 and 8).

    ``- 1/|I| sum_i sum_{c old} q_old(i, c) log q^(i, c)``, where ``q^`` of the background is the sum of the
    probabilities of the background and of all new classes: the former network saw the new organs as background.
    The paper's other half, the unbiased cross-entropy (equations 5 and 6), is ``marginal_logits`` with every old organ
    unannotated.

    Args:
        now: Logits (B, C, N); the first channels are the former network's.
        former: Logits (B, C_old, N).
    """
    num_old = former.shape[1]
    background = torch.cat([now[:, :1], now[:, num_old:]], dim=1).logsumexp(dim=1, keepdim=True)
    unnormalized = torch.cat([background, now[:, 1:num_old]], dim=1)
    ours = unnormalized - now.logsumexp(dim=1, keepdim=True)
    return -(F.softmax(former, dim=1) * ours).sum(dim=1).mean()


def spread_background(head: torch.nn.Conv3d, num_old: int) -> None:
    """Start new channels from the background's (equation 9 of the paper), in place.

    Weights are the background's; biases are its bias less log of the number of channels that share it, so that the
    old background's probability is spread evenly over the background and the new organs.

    Args:
        head: 1x1x1 convolution whose first ``num_old`` channels are the former network's.
        num_old: Former channels, background included.
    """
    with torch.no_grad():
        sharing = 1 + head.out_channels - num_old
        new = slice(num_old, None)
        head.weight[new] = head.weight[:1]
        if head.bias is not None:
            head.bias[:1] -= math.log(sharing)
            head.bias[new] = head.bias[:1]


@dataclass(frozen=True, kw_only=True)
class UnbiasedOutputs:
    """Term of MiB; ``weight`` is the paper's lambda."""

    weight: float = 1.0

    def __call__(self, view: View) -> torch.Tensor:
        """Weighted loss of one batch."""
        return self.weight * unbiased_distillation(view.logits, view.former_logits)
