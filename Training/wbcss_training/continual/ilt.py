"""Incremental Learning Techniques: distill the output and the middle of the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .view import View


def masked_output_loss(now: torch.Tensor, former: torch.Tensor) -> torch.Tensor:
    """Output distillation of Michieli and Zanuttigh ("Incremental learning techniques for semantic segmentation",
    ICCV workshops 2019, equation 3).

    ``- sum_{c old} M_old(c) log M_now(c)``: cross-entropy with the former probabilities, masked to the old classes;
    unlike LwF's, the new network's softmax runs over all classes. Here a mean over voxels.

    Args:
        now: Logits (B, C, N); the first channels are the former network's.
        former: Logits (B, C_old, N).
    """
    ours = F.log_softmax(now, dim=1)[:, : former.shape[1]]
    return -(F.softmax(former, dim=1) * ours).sum(dim=1).mean()


def encoder_loss(now: torch.Tensor, former: torch.Tensor) -> torch.Tensor:
    """Feature distillation of the same paper (equation 5): squared L2 distance of the encoders' outputs.

    The paper sums; the mean over elements is the same up to a factor that the weight takes, and does not depend on
    the size of a patch. Both are (B, F, I, J, K) of the deepest stage.
    """
    return F.mse_loss(now.float(), former.detach().float())


@dataclass(frozen=True, kw_only=True)
class OutputsAndEncoder:
    """Both terms of ILT with their weights."""

    output_weight: float = 1.0
    encoder_weight: float = 10.0

    def __call__(self, view: View) -> torch.Tensor:
        """Weighted loss of one batch."""
        output = masked_output_loss(view.logits, view.former_logits)
        return self.output_weight * output + self.encoder_weight * encoder_loss(view.skips[-1], view.former_skips[-1])
