"""Learning without Forgetting: keep what the old outputs say on the new data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .view import View


def old_output_loss(now: torch.Tensor, former: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Distillation of Li and Hoiem ("Learning without Forgetting", ECCV 2016, equations 2 to 4).

    ``L_old = - sum_c y'_o(c) log y^'_o(c)`` with ``y' = y^(1/T) / sum y^(1/T)``: cross-entropy between the softened
    outputs for the old classes, the new classes left out of the softmax. Here a mean over voxels.

    Args:
        now: Logits (B, C, N) of the network in training; its first channels are the former network's.
        former: Logits (B, C_old, N).
        temperature: T; 2 in the paper.
    """
    ours = F.log_softmax(now[:, : former.shape[1]] / temperature, dim=1)
    return -(F.softmax(former / temperature, dim=1) * ours).sum(dim=1).mean()


@dataclass(frozen=True, kw_only=True)
class OldOutputs:
    """Term of LwF; ``weight`` is the paper's lambda_o."""

    weight: float = 1.0
    temperature: float = 2.0

    def __call__(self, view: View) -> torch.Tensor:
        """Weighted loss of one batch."""
        return self.weight * old_output_loss(view.logits, view.former_logits, temperature=self.temperature)
