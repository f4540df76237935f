"""What a term against forgetting may look at in one training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, eq=False)
class View:
    """Both networks on one batch.

    Attributes:
        logits, former_logits: (B, C, N) and (B, C_old, N) float32 at the same N voxels of every patch. Channel 0 is
            background, and the first C_old channels mean the same in both.
        skips, former_skips: Encoder feature maps, finest first.
        levels, former_levels: Decoder levels, finest first.
        parameters: Name to parameter of the network in training.
    """

    logits: torch.Tensor
    former_logits: torch.Tensor
    skips: Sequence[torch.Tensor]
    former_skips: Sequence[torch.Tensor]
    levels: Sequence[torch.Tensor]
    former_levels: Sequence[torch.Tensor]
    parameters: Mapping[str, torch.Tensor]


class Term(Protocol):
    """A loss that is added to the segmentation loss from the second task on."""

    def __call__(self, view: View) -> torch.Tensor:
        """Scalar, already weighted."""
        ...
