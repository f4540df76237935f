"""Learn how probably a decoder is right where it claims an organ, and measure that on held-out voxels.

A small head is trained on cached features of the training patches, when the decoder is done, to give the probability
that the decoder gives to the true class (Corbière et al., NeurIPS 2019, section 3.2, squared error). A decoder knows
its training patches too well, so a scale and a shift are then fitted on held-out voxels to the share of right answers
(Platt, Advances in Large Margin Classifiers, 1999). The errors after are cross-fitted: no voxel is judged by a scale
that has seen its patch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn import functional as F

from wbcss.confidence import ConfidenceHead, log_odds_of_winner
from wbcss.nn.decoder import Decoder
from wbcss.weights import confidence_shapes

from .losses import marginal_labels, marginal_logits
from .patches import FeaturePatch
from .reliability import calibration_error, reliability

VOXELS_PER_PATCH = 4096
MAX_TRAINING_PATCHES = 64
_STEPS, _BATCH, _RATE, _DECAY = 400, 4096, 3e-3, 1e-3
_RIDGE = 1e-3
"""Pulls scale and shift towards 1 and 0, for held-out voxels that are all right or all wrong."""


@dataclass(frozen=True, eq=False)
class ClaimedVoxels:
    """Voxels that a decoder gives to an organ which the case annotates.

    Attributes:
        features: (N, F) float32, what the head of the decoder reads.
        log_odds: (N,) of the winner's softmax after the temperature.
        raw_log_odds: (N,) of the winner's softmax without a temperature.
        true_class: (N,) probability of the true class.
        right: (N,) bool.
    """

    features: torch.Tensor
    log_odds: torch.Tensor
    raw_log_odds: torch.Tensor
    true_class: torch.Tensor
    right: torch.Tensor

    def __len__(self) -> int:
        return len(self.right)


def draw_claimed_voxels(decoder: Decoder, patch: FeaturePatch, *, temperature: float, seed: int) -> ClaimedVoxels:
    """At most 4096 claimed voxels of a patch, drawn without repetition."""
    with torch.inference_mode():
        features = decoder.features([skip[None].float() for skip in patch.skips])
        raw = decoder.head(features)[0].flatten(1).t()
        logits = raw / temperature
    winner = logits.argmax(dim=1)
    claimed = torch.nonzero((winner > 0) & patch.annotated[winner])[:, 0]
    order = torch.randperm(len(claimed), generator=torch.Generator().manual_seed(seed))[:VOXELS_PER_PATCH]
    chosen = claimed[order]
    raw, logits, winner = raw[chosen].clone(), logits[chosen].clone(), winner[chosen]
    labels = patch.labels.reshape(-1).long()[chosen]
    folded = torch.softmax(marginal_logits(logits.t()[None], patch.annotated)[0].t(), dim=1)
    true = folded.gather(1, marginal_labels(labels, patch.annotated)[:, None])[:, 0]
    rows = features[0].flatten(1).t()[chosen].clone()
    return ClaimedVoxels(rows, _winner_log_odds(logits), _winner_log_odds(raw), true, winner == labels)


def _winner_log_odds(logits: torch.Tensor) -> torch.Tensor:
    """As the product computes it: over all channels, for it does not know what a case annotates."""
    return log_odds_of_winner(torch.exp(logits - logits.amax(dim=1, keepdim=True)).sum(dim=1) - 1.0)


def joined_voxels(parts: Sequence[ClaimedVoxels]) -> ClaimedVoxels:
    """All voxels of ``parts``, of which there is at least one."""
    names = [item.name for item in dataclasses.fields(ClaimedVoxels)]
    return ClaimedVoxels(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True, kw_only=True, eq=False)
class Certainty:
    """What the fit says.

    Attributes:
        head: The learned head; None where the calibrated softmax is as good on held-out voxels, or there are too few.
        facts: For the card: errors before and after, and the reliability tables behind them.
    """

    head: ConfidenceHead | None
    facts: dict[str, Any]


def learn_certainty(
    decoder: Decoder,
    training: Sequence[ClaimedVoxels],
    held_out: Sequence[ClaimedVoxels],
    *,
    temperature: float,
    seed: int = 0,
) -> Certainty:
    """Train the head on ``training`` patches and keep it if it is better on ``held_out`` ones.

    Better is the smaller negative log-likelihood of being right, cross-fitted over halves of the patches.
    """
    training = [part for part in training if len(part)]
    held_out = [part for part in held_out if len(part)]
    if not training or len(held_out) < 2:
        return Certainty(head=None, facts={"note": "not learned: it takes two held-out patches with claimed voxels"})
    raw = train_head(joined_voxels(training), confidence_shapes(decoder.spec)["confidence.hidden_weight"][0], seed=seed)
    fitted = [dataclasses.replace(raw, scale=fit_scale(joined_voxels(held_out[half::2]), raw)) for half in range(2)]
    # Each half is judged by the fit of the other one.
    judged = [joined_voxels([*held_out[1::2]]), joined_voxels([*held_out[0::2]])]
    right = torch.cat([part.right for part in judged])
    softmax = torch.cat([torch.sigmoid(part.log_odds) for part in judged])
    odds = [h.log_odds(p.features, p.log_odds) for h, p in zip(fitted, judged, strict=True)]
    learned = torch.sigmoid(torch.cat(odds))
    losses = {"softmax": _loss(softmax, right), "learned": _loss(learned, right)}
    is_better = losses["learned"] < losses["softmax"]
    kept = learned if is_better else softmax
    plain = torch.sigmoid(torch.cat([part.raw_log_odds for part in judged]))
    facts = {
        "head": "learned" if is_better else "softmax",
        "ece_before": _rounded(calibration_error(plain, right)),
        "ece_softmax": _rounded(calibration_error(softmax, right)),
        "ece_learned": _rounded(calibration_error(learned, right)),
        "ece_after": _rounded(calibration_error(kept, right)),
        "loss": {name: _rounded(value) for name, value in losses.items()},
        "accuracy": _rounded(float(right.double().mean())),
        "temperature": _rounded(temperature),
        "num_voxels": len(right),
        "reliability_before": reliability(plain, right),
        "reliability": reliability(kept, right),
        "note": "on claimed voxels of held-out cases; the learned head on patches that its scale has not seen",
    }
    head = dataclasses.replace(raw, scale=fit_scale(joined_voxels(held_out), raw)) if is_better else None
    return Certainty(head=head, facts=facts)


def train_head(voxels: ClaimedVoxels, width: int, *, seed: int) -> ConfidenceHead:
    """Regress the probability of the true class, starting from that of the winner."""
    generator = torch.Generator().manual_seed(seed)
    size = voxels.features.shape[1] + 1
    weight = torch.randn(width, size, generator=generator) / size**0.5
    parameters = [weight, torch.zeros(width), torch.zeros(width), torch.zeros(1)]
    for parameter in parameters:
        parameter.requires_grad_(True)
    head = ConfidenceHead(parameters[0], parameters[1], parameters[2], parameters[3], torch.tensor([1.0, 0.0]))
    optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)
    for _ in range(_STEPS):
        index = torch.randint(len(voxels), (min(_BATCH, len(voxels)),), generator=generator)
        found = torch.sigmoid(head.log_odds(voxels.features[index], voxels.log_odds[index]))
        loss = F.mse_loss(found, voxels.true_class[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    weight, bias, out_weight, out_bias = (parameter.detach() for parameter in parameters)
    return ConfidenceHead(weight, bias, out_weight, out_bias, head.scale)


def fit_scale(voxels: ClaimedVoxels, head: ConfidenceHead, *, keeps_slope: bool = False) -> torch.Tensor:
    """Scale and shift of the head's log odds, (2,), that ``fit_odds`` finds; or the head's scale and a shift for it."""
    slope = float(head.scale[0]) if keeps_slope else None
    with torch.inference_mode():
        return fit_odds(head.raw_log_odds(voxels.features, voxels.log_odds), voxels.right, slope=slope)


def fit_odds(log_odds: torch.Tensor, is_right: torch.Tensor, *, slope: float | None = None) -> torch.Tensor:
    """Scale and shift of log odds (N,), (2,) float32, with the smallest negative log-likelihood of being right (N,).

    The scale is at least 0.05, so that the order of voxels is kept, or ``slope``, if that is given.
    """
    odds, right = log_odds.double().numpy(), is_right.numpy().astype(float)

    def objective(parameters: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        z = parameters[0] * odds + parameters[1]
        missed = 1 / (1 + np.exp(-z)) - right
        value = np.mean(np.logaddexp(0, z) - right * z) + _RIDGE * ((parameters[0] - 1) ** 2 + parameters[1] ** 2)
        pull = 2 * _RIDGE * np.array([parameters[0] - 1, parameters[1]])
        return float(value), np.array([np.mean(missed * odds), np.mean(missed)]) + pull

    slopes = (0.05, 20.0) if slope is None else (slope, slope)
    start = np.array([1.0 if slope is None else slope, 0.0])
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=[slopes, (-20, 20)])
    return torch.tensor(found.x, dtype=torch.float32)


def _loss(probability: torch.Tensor, right: torch.Tensor) -> float:
    clamped = probability.double().clamp(1e-6, 1 - 1e-6)
    return float(F.binary_cross_entropy(clamped, right.double()))


def _rounded(value: float) -> float:
    return round(value, 5)
