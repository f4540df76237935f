"""A task's last layer, evaluated once per voxel on averaged or interpolated features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .confidence import ConfidenceHead, log_odds_of_winner
from .errors import SpecError
from .labels import BACKGROUND, MAX_LABEL
from .nn.decoder import Decoder

CPU_CHUNK = 2**11
"""Voxels per product on the CPU: features and logits of a chunk stay in the second-level cache."""

GPU_CHUNK = 2**19


@dataclass(frozen=True, eq=False)
class TaskHead:
    """The 1x1x1 convolution of a decoder as a matrix, with what its channels mean.

    Attributes:
        weight: (F, 1 + organs) float32, scaled so that powers of two of the logits are the calibrated odds.
        bias: (1 + organs,) float32, scaled alike.
        global_labels: (1 + organs,) uint16: what a channel is written as; 0 for background and for what nobody asked.
        certainty: Learned confidence where an organ wins; None for that of the softmax everywhere.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    global_labels: npt.NDArray[np.uint16]
    certainty: ConfidenceHead | None = None

    @classmethod
    def of(
        cls,
        decoder: Decoder,
        labels: npt.NDArray[np.uint16],
        *,
        temperature: float,
        device: torch.device,
        certainty: ConfidenceHead | None = None,
    ) -> TaskHead:
        """Read the head of ``decoder``; ``labels`` has one global value per channel, background first.

        Raises SpecError if the number of labels or the temperature cannot be right.
        """
        channels = decoder.head.out_channels
        if labels.shape != (channels,):
            raise SpecError(f"a head of {channels} channels needs as many labels, got {labels.shape[0]}")
        if not (math.isfinite(temperature) and temperature > 0):
            raise SpecError(f"calibration temperature must be positive, got {temperature}")
        # exp(l / T) = 2 ** (l * log2(e) / T): powers of two cost a third of exp, and the order of logits is kept.
        scale = math.log2(math.e) / temperature
        weight = decoder.head.weight.detach().to(device, torch.float32)[:, :, 0, 0, 0].t().contiguous() * scale
        bias = decoder.head.bias
        shift = torch.zeros(channels, device=device) if bias is None else bias.detach().to(device, torch.float32)
        return cls(weight, shift * scale, labels, None if certainty is None else certainty.to(device))

    def classify(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (N, F) float32 to the winning channel (N,) int32 and its confidence (N,) float32.

        That is its probability by the softmax, or by ``certainty`` where an organ wins.
        """
        count = len(features)
        channel = torch.empty(count, dtype=torch.int32, device=features.device)
        confidence = torch.empty(count, dtype=torch.float32, device=features.device)
        chunk = CPU_CHUNK if features.device.type == "cpu" else GPU_CHUNK
        work = torch.empty((2, min(chunk, count), len(self.bias)), device=features.device)
        # A single winner sums to less than twice the number of channels, several to more, NaN to 0.
        channels = len(self.bias)
        numbers = torch.arange(channels, 2 * channels, dtype=torch.float32, device=features.device)
        for start in range(0, count, chunk):
            part = features[start : start + chunk]
            logits, winners = work[0, : len(part)], work[1, : len(part)]
            torch.addmm(self.bias, part, self.weight, out=logits)
            logits.sub_(logits.amax(dim=1, keepdim=True))
            torch.eq(logits, 0.0, out=winners)
            best = torch.mv(winners, numbers).sub_(channels).clamp_min_(0.0)
            ties = best >= channels
            if ties.any():
                best[ties] = winners[ties].argmax(dim=1).float()
            channel[start : start + chunk] = best
            total = logits.exp2_().sum(dim=1)
            confidence[start : start + chunk] = total.reciprocal()
            if self.certainty is not None:
                won = torch.nonzero(best)[:, 0]
                log_odds = log_odds_of_winner(total[won] - 1.0)
                confidence[start + won] = self.certainty.probability(part[won], log_odds, best[won].long() - 1)
        return channel, confidence


def channel_labels(labels: list[int]) -> npt.NDArray[np.uint16]:
    """Global label of every channel of a decoder from those of its organs; channel 0 is background."""
    if any(not 0 <= label <= MAX_LABEL for label in labels):
        raise SpecError(f"labels must be in 0..{MAX_LABEL}, got {labels}")
    values: npt.NDArray[Any] = np.array([BACKGROUND, *labels], dtype=np.uint16)
    return values
