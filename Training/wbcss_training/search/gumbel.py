"""Differentiable draws from a categorical distribution."""

from __future__ import annotations

import torch

from wbcss.errors import SpecError


def gumbel_softmax(logits: torch.Tensor, *, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """One relaxed one-hot draw: softmax((logits + G) / temperature) with G standard Gumbel noise.

    Jang, Gu, Poole, Categorical reparameterization with Gumbel-softmax, ICLR 2017, section 2. Whatever the
    temperature, entry n is the largest with probability softmax(logits)[n]; towards temperature 0 the draw becomes
    one-hot. Torch's own function takes no generator, and a resumed run must draw the same again.

    Args:
        logits: (..., N) unnormalized log probabilities.
        temperature: Above 0.
        generator: CPU generator of the noise.

    Returns:
        (..., N) of the type and device of ``logits``, positive, summing to 1.
    """
    if not temperature > 0:
        raise SpecError(f"the temperature of a draw must be above 0, got {temperature}")
    uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
    smallest = torch.finfo(torch.float64).tiny  # log(0) would make the draw NaN
    noise = -torch.log(-torch.log(uniform.clamp_min(smallest)))
    return torch.softmax((logits + noise.to(logits)) / temperature, dim=-1)


def temperature_at(progress: float, *, first: float, last: float) -> float:
    """Temperature after ``progress`` in [0, 1] of the annealing: falls by the same factor in every step."""
    return float(first * (last / first) ** min(1.0, max(0.0, progress)))
