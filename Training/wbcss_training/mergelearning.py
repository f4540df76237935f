"""Fit the small logistic model of ``MergeRules`` to validation cases; see there for its inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from wbcss.errors import SpecError
from wbcss.ownership import logistic_score
from wbcss.specs import MERGE_WEIGHTS, MergeRules

TIE_DICE = 0.005
"""A candidate within half a point of the best is as good."""

PRIOR = 0.5
"""Weight of the squared distance to the rules one starts from: with few examples they hardly move."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One task's candidate for one organ of one case.

    Attributes:
        inputs: c, g, a, d, p of the logistic model.
        dice: Of the task alone.
        best: Of the best candidate for the organ in this case.
    """

    inputs: tuple[float, float, float, float, float]
    dice: float
    best: float

    @property
    def is_best(self) -> bool:
        """Whether the organ should go to it, or may as well."""
        return self.dice >= self.best - TIE_DICE


def learn_rules(examples: Sequence[Example], start: MergeRules) -> MergeRules:
    """Bias and weights with the largest posterior, near ``start``; weights stay at 0 or above.

    Raises SpecError if there is no example: no organ that two tasks know was annotated.
    """
    if not examples:
        raise SpecError("the rules learn from organs that at least two tasks claim, got none in these cases")
    inputs = np.array([example.inputs for example in examples])
    target = np.array([example.is_best for example in examples], float)
    signs = np.array([1.0, 1.0, -1.0, 1.0, 1.0])
    first = np.array([start.bias, *(getattr(start, name) for name in MERGE_WEIGHTS)])

    def objective(parameters: np.ndarray[Any, Any]) -> tuple[float, np.ndarray[Any, Any]]:
        z = parameters[0] + (inputs * signs) @ parameters[1:]
        missed = 1 / (1 + np.exp(-z)) - target
        pull = parameters - first
        value = float(np.sum(np.logaddexp(0, z) - target * z) + PRIOR * np.sum(pull**2))
        gradient = np.concatenate([[missed.sum()], (inputs * signs).T @ missed]) + 2 * PRIOR * pull
        return value, gradient

    bounds = [(None, None), *[(0.0, None)] * len(MERGE_WEIGHTS)]
    found = minimize(objective, first, jac=True, method="L-BFGS-B", bounds=bounds)
    bias, *weights = (round(float(value), 6) for value in found.x)
    return dataclasses.replace(start, strategy="evidence", bias=bias, **dict(zip(MERGE_WEIGHTS, weights, strict=True)))


def log_likelihood(examples: Sequence[Example], rules: MergeRules) -> float:
    """Mean log-likelihood of ``examples`` under ``rules``."""
    z = logistic_score(np.array([example.inputs for example in examples]), rules)
    target = np.array([example.is_best for example in examples], float)
    return float(np.mean(target * z - np.logaddexp(0, z)))
