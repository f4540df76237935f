"""How probably a decoder is right where it claims an organ: a small learned head beside the decoder.

The head corrects the odds of the softmax by what the decoder's features tell, and a scale and shift fitted on held-out
voxels makes the result the share of right answers, so that numbers of different decoders mean the same. After Corbière
et al., Addressing Failure Prediction by Learning Model Confidence, NeurIPS 2019 (section 3: regress the probability of
the true class), and Platt scaling. Organs may have a scale of their own: a decoder that is wrong about an esophagus
may be right about a liver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

MAX_LOG_ODDS = 10.0
"""Of the softmax; beyond it float32 no longer tells how sure a decoder is."""

PREFIX = "confidence."


@dataclass(frozen=True, eq=False)
class ConfidenceHead:
    """A hidden layer of H units on F features and the softmax; pointwise, so that tiles cannot matter.

    Attributes:
        hidden_weight: (H, F + 1) float32; the last column reads the log odds of the softmax over ``MAX_LOG_ODDS``.
        hidden_bias: (H,).
        out_weight: (H,).
        out_bias: (1,).
        scale: (2,): log odds are multiplied by the first and the second is added.
        organ_scale: (organs, 2): then the same again for the organ that wins; None leaves all as they are.
    """

    hidden_weight: torch.Tensor
    hidden_bias: torch.Tensor
    out_weight: torch.Tensor
    out_bias: torch.Tensor
    scale: torch.Tensor
    organ_scale: torch.Tensor | None = None

    @classmethod
    def of(cls, tensors: Mapping[str, torch.Tensor]) -> ConfidenceHead | None:
        """The head among the ``tensors`` of an evidence file, or None."""
        own = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
        return cls(**own) if own else None

    def tensors(self) -> dict[str, torch.Tensor]:
        """What ``of`` reads."""
        return {f"{PREFIX}{name}": value for name, value in vars(self).items() if value is not None}

    def to(self, device: torch.device) -> ConfidenceHead:
        """The same head on ``device``."""
        return ConfidenceHead(**{name: value.to(device) for name, value in vars(self).items() if value is not None})

    def raw_log_odds(self, features: torch.Tensor, softmax_log_odds: torch.Tensor) -> torch.Tensor:
        """(N, F) features and (N,) log odds of the winner's probability to (N,) log odds before ``scale``."""
        inputs = torch.cat([features, softmax_log_odds[:, None] / MAX_LOG_ODDS], dim=1)
        hidden = torch.relu(torch.addmm(self.hidden_bias, inputs, self.hidden_weight.t()))
        return softmax_log_odds + torch.mv(hidden, self.out_weight) + self.out_bias

    def log_odds(self, features: torch.Tensor, softmax_log_odds: torch.Tensor) -> torch.Tensor:
        """(N,) after ``scale``, whatever the organ."""
        return self.raw_log_odds(features, softmax_log_odds) * self.scale[0] + self.scale[1]

    def probability(self, features: torch.Tensor, softmax_log_odds: torch.Tensor, organs: torch.Tensor) -> torch.Tensor:
        """(N,) in [0, 1]: how probably the winners ``organs`` (N,) int64, 0 for the first, are right."""
        log_odds = self.log_odds(features, softmax_log_odds)
        if self.organ_scale is not None:
            own = self.organ_scale[organs]
            log_odds = log_odds * own[:, 0] + own[:, 1]
        return torch.sigmoid(log_odds)


def log_odds_of_winner(others: torch.Tensor) -> torch.Tensor:
    """Log odds of the winner's softmax from the sum of exp(logit - largest logit) over all other channels, (N,)."""
    return others.log().neg().clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS)
