"""Elastic weight consolidation: parameters that mattered for earlier tasks are held by springs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from .view import View

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Anchor:
    """What is remembered of one task: its parameters and how much each mattered.

    Attributes:
        center: Name to parameter after the task.
        fisher: Name to diagonal of the Fisher information, same shapes.
    """

    center: Tensors
    fisher: Tensors


def fisher_diagonal(
    parameters: Tensors,
    logits_of: Callable[[int], torch.Tensor],
    *,
    indices: Iterable[int],
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Diagonal of the Fisher information of one voxel's answer (Kirkpatrick et al., PNAS 114:3521, 2017).

    ``F_i = E_x E_{y ~ p(y | x)} [(d log p(y | x) / d theta_i)^2]`` with labels drawn from the model itself. Voxels of
    a patch are taken as independent observations: the cross terms of their scores vanish in expectation, so N times
    the square of the gradient of the mean over N voxels estimates the mean of the squares with one backward pass.

    Args:
        parameters: Name to parameter that may get a gradient.
        logits_of: Patch number to logits (C, N) with a graph to ``parameters``.
        indices: Patches to average over, at least one.
        generator: CPU generator of the drawn labels.

    Returns:
        Name to float32 tensor of the parameter's shape; zeros where no gradient came.
    """
    sums = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in parameters.items()}
    count = 0
    for index in indices:
        logits = logits_of(index).float()
        probability = F.softmax(logits.detach(), dim=0).t().cpu()
        drawn = torch.multinomial(probability, 1, generator=generator)[:, 0].to(logits.device)
        mean_log = F.log_softmax(logits, dim=0).gather(0, drawn[None]).mean()
        gradients = torch.autograd.grad(mean_log, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                sums[name] += logits.shape[1] * gradient.detach().float().square()
        count += 1
    return {name: value / max(1, count) for name, value in sums.items()}


def elastic_penalty(parameters: Tensors, anchors: Sequence[Anchor]) -> torch.Tensor:
    """``1/2 sum_k sum_i F_ki (theta_i - theta*_ki)^2`` over the earlier tasks k (equation 3 of the paper).

    A head that has grown since is compared in its former rows only.
    """
    total = next(iter(parameters.values())).new_zeros((), dtype=torch.float32)
    for anchor in anchors:
        for name, center in anchor.center.items():
            now = parameters[name].float()[: center.shape[0]]
            total = total + (anchor.fisher[name] * (now - center).square()).sum()
    return total / 2


@dataclass(frozen=True, kw_only=True)
class Springs:
    """Term of EWC; ``weight`` is the paper's lambda."""

    weight: float = 100.0
    anchors: Sequence[Anchor] = field(default=(), repr=False)

    def __call__(self, view: View) -> torch.Tensor:
        """Weighted penalty; the batch does not matter."""
        return self.weight * elastic_penalty(view.parameters, self.anchors)
