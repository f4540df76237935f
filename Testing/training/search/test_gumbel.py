"""Draws of the search against the distribution that they are draws of."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from wbcss.errors import SpecError
from wbcss_training.search.gumbel import gumbel_softmax, temperature_at

LOGITS = torch.tensor([0.5, -1.0, 1.5, 0.0])


def draws(count: int, *, temperature: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return gumbel_softmax(LOGITS.expand(count, 4), temperature=temperature, generator=generator)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_a_choice_is_the_largest_as_often_as_its_probability_says(temperature: float) -> None:
    """Oracle: Gumbel-max; a frequency over n draws has the standard deviation sqrt(p (1 - p) / n)."""
    count = 40_000
    largest = draws(count, temperature=temperature).argmax(dim=1)
    found = torch.bincount(largest, minlength=4) / count
    p = torch.softmax(LOGITS, 0)
    assert bool(((found - p).abs() < 4 * torch.sqrt(p * (1 - p) / count)).all())


def test_a_draw_is_the_formula_of_its_uniform_numbers() -> None:
    uniform = torch.rand(5, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64).numpy()
    scores = (LOGITS.numpy() - np.log(-np.log(uniform))) / 0.7
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(draws(5, temperature=0.7, seed=3).numpy(), expected, rtol=1e-5)


def test_draws_are_soft_when_hot_and_one_hot_when_cold() -> None:
    hot, cold = draws(1000, temperature=100.0), draws(1000, temperature=0.01)
    torch.testing.assert_close(hot.sum(dim=1), torch.ones(1000))
    assert float((hot - 0.25).abs().max()) < 0.1
    assert float((cold.max(dim=1).values > 0.99).float().mean()) > 0.9


def test_a_seed_repeats_its_draws_and_another_does_not() -> None:
    assert torch.equal(draws(3, temperature=1.0), draws(3, temperature=1.0))
    assert not torch.equal(draws(3, temperature=1.0), draws(3, temperature=1.0, seed=1))


def test_the_gradient_reaches_the_logits() -> None:
    """Oracle: the Jacobian of softmax(z / t) is (diag(y) - y y') / t."""
    logits = LOGITS.clone().requires_grad_(True)
    y = gumbel_softmax(logits, temperature=0.5, generator=torch.Generator().manual_seed(1))
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    (y * weight).sum().backward()
    expected = (torch.diag(y) - torch.outer(y, y)) @ weight / 0.5
    torch.testing.assert_close(logits.grad, expected.detach())


def test_the_temperature_falls_by_equal_factors() -> None:
    values = [temperature_at(n / 4, first=5.0, last=0.1) for n in range(5)]
    assert (values[0], values[-1]) == (5.0, pytest.approx(0.1))
    ratios = [after / before for before, after in itertools.pairwise(values)]
    assert ratios == pytest.approx([0.02**0.25] * 4)
    assert temperature_at(-1.0, first=5.0, last=0.1) == 5.0


def test_a_draw_at_no_temperature_is_refused() -> None:
    with pytest.raises(SpecError, match=r"the temperature of a draw must be above 0, got 0\.0"):
        draws(1, temperature=0.0)
