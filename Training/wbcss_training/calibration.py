"""How sure is a decoder, and rightly so? One temperature, fitted on held-out voxels.

Temperature scaling and expected calibration error: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from wbcss.errors import SpecError
from wbcss.nn.decoder import Decoder

from .losses import marginal_labels, marginal_logits
from .patches import FeaturePatch
from .reliability import calibration_error, reliability

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
_VOXELS_PER_PATCH = 8192


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the fit says.

    Attributes:
        temperature: Logits are divided by it; 1 where nothing was held out.
        ece_before, ece_after: Expected calibration error with temperature 1 and with ``temperature``, in [0, 1].
        num_voxels: Voxels it was fitted on.
        before, after: The reliability diagrams behind the errors, see ``reliability.reliability``.
    """

    temperature: float
    ece_before: float
    ece_after: float
    num_voxels: int
    before: tuple[dict[str, Any], ...] = ()
    after: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Voxels:
    """Logits (N, C) float32 and channel labels (N,) of voxels that annotate the same organs, ``annotated`` (C,)."""

    logits: torch.Tensor
    labels: torch.Tensor
    annotated: torch.Tensor

    def folded(self, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N, C') over what is annotated, after the temperature, and labels (N,) renumbered alike."""
        logits = marginal_logits((self.logits / temperature).t()[None], self.annotated)[0].t()
        return logits, marginal_labels(self.labels, self.annotated)


def draw_organ_voxels(decoder: Decoder, patch: FeaturePatch, *, seed: int) -> Voxels:
    """Voxels of a patch that the reference or the decoder gives to an organ; at most 8192, drawn without repetition.

    The rest is background that nobody doubts: it would hide how sure the decoder is of its organs. So are organs that
    the patch does not annotate.
    """
    with torch.inference_mode():
        logits = decoder([skip[None].float() for skip in patch.skips])[0].flatten(1).t()
    labels = patch.labels.reshape(-1).long()
    winner = logits.argmax(dim=1)
    inside = torch.nonzero((labels > 0) | ((winner > 0) & patch.annotated[winner]))[:, 0]
    order = torch.randperm(len(inside), generator=torch.Generator().manual_seed(seed))[:_VOXELS_PER_PATCH]
    chosen = inside[order]
    return Voxels(logits[chosen].clone(), labels[chosen], patch.annotated)


def calibrate(groups: Iterable[Voxels]) -> Calibration:
    """The temperature with the smallest negative log-likelihood over all voxels of ``groups``.

    Raises SpecError if there is not a single voxel.
    """
    kept = [group for group in groups if len(group.labels)]
    num_voxels = sum(len(group.labels) for group in kept)
    if num_voxels == 0:
        raise SpecError("a calibration needs at least one voxel of an organ, got none")

    def likelihood(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        total = sum(float(F.cross_entropy(*group.folded(temperature), reduction="sum")) for group in kept)
        return total / num_voxels

    # Convex in 1 / T, so there is one minimum; the bounds keep a perfect or a hopeless decoder finite.
    bounds = (math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    found = minimize_scalar(likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    temperature = math.exp(float(found.x))
    plain, fitted = _answers(kept, 1.0), _answers(kept, temperature)
    return Calibration(
        temperature=temperature,
        ece_before=calibration_error(*plain),
        ece_after=calibration_error(*fitted),
        num_voxels=num_voxels,
        before=tuple(reliability(*plain)),
        after=tuple(reliability(*fitted)),
    )


def expected_calibration_error(groups: Sequence[Voxels], temperature: float) -> float:
    """Mean gap between confidence and accuracy over 15 bins of equal width, weighted by their voxels."""
    return calibration_error(*_answers(groups, temperature))


def _answers(groups: Sequence[Voxels], temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Confidence (N,) float64 of the most probable class, and whether it is right, (N,) bool."""
    confidence, right = [], []
    for group in groups:
        logits, labels = group.folded(temperature)
        best = torch.softmax(logits, dim=1).max(dim=1)
        confidence.append(best.values.double())
        right.append(best.indices == labels)
    return torch.cat(confidence), torch.cat(right)
