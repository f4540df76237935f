"""A small head that reads levels of the body off the frozen encoder's deepest features."""

from __future__ import annotations

import torch
from torch import nn

MIDDLE_SCALE_CM, LOG_SPAN = 10.0, 3.0
"""How sure the head may be: from 0.5 to 200 cm."""

EMPTY_SCALE_CM = 60.0
"""What the head learns to say of a plane that holds no body."""

MIDDLE_CM, UNIT_CM = 85.0, 50.0
"""Levels are learned in these units, so that fresh weights answer somewhere in the middle of a body."""


class LevelHead(nn.Module):
    """Level and scale of every plane of a deep feature map (METHOD 1.4, proposal: no second network is needed).

    A plane is pooled by attention: which of its cells count (the body's, not the air's) is learned, as the features
    are all that is known of them here. The answer of a plane depends on no other plane and on no other tile.

    Args:
        channels: Of the encoder's deepest stage.
        hidden: Width of both layers.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Conv3d(channels, hidden, 1)
        self.attend = nn.Conv3d(channels, 1, 1)
        self.mix = nn.Linear(2 * hidden, hidden)
        self.answer = nn.Linear(hidden, 2)

    def forward(self, deep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, I, J, K) of any float type to levels in cm and their Laplace scales in cm, both (B, K) float32."""
        deep = deep.float()
        cells = torch.relu(self.embed(deep)).flatten(2, 3)
        share = self.attend(deep).flatten(2, 3).softmax(dim=2)
        pooled = torch.cat([(cells * share).sum(dim=2), cells.amax(dim=2)], dim=1).transpose(1, 2)
        level, scale = self.answer(torch.relu(self.mix(pooled))).unbind(dim=-1)
        # Bounded softly: a clamp would let no gradient through at its ends.
        log_scale = LOG_SPAN * torch.tanh(scale / LOG_SPAN)
        return MIDDLE_CM + UNIT_CM * level, MIDDLE_SCALE_CM * log_scale.exp()
