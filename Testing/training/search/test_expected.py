"""Expected costs and the choice within a budget, against all decoders of the space written out."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import tiny_search
import torch

from wbcss.errors import SpecError
from wbcss_training.search.expected import Budget, LevelProbabilities, SpaceCosts
from wbcss_training.search.space import LevelChoice

SPACE = tiny_search.SPACE
SECONDS = SpaceCosts(SPACE, tiny_search.seconds_of)


def everything(levels: list[LevelProbabilities]) -> list[tuple[tuple[LevelChoice, ...], float, float]]:
    """Choices, probability and seconds of every decoder of the space; without convolutions all kernels are one."""
    options = []
    for n, level in enumerate(levels):
        likely: dict[LevelChoice, float] = {}
        for (width, p), (kernel, q), (count, r) in product(
            zip(SPACE.widths(n), level.widths, strict=True),
            zip(SPACE.kernels, level.kernels, strict=True),
            zip(SPACE.counts(n), level.counts, strict=True),
        ):
            choice = LevelChoice(width=width, kernel=kernel if count else "3x3x3", count=count)
            likely[choice] = likely.get(choice, 0.0) + float(p * q * r)
        options.append(list(likely.items()))
    model = tiny_search.model()
    return [
        (
            tuple(choice for choice, _ in chosen),
            math.prod(p for _, p in chosen),
            model.cost(SPACE.spec([choice for choice, _ in chosen])).seconds,
        )
        for chosen in product(*options)
    ]


def test_the_expected_cost_is_the_mean_over_all_decoders(rng: np.random.Generator) -> None:
    for _ in range(3):
        levels = tiny_search.probabilities(rng)
        mean = sum(p * seconds for _, p, seconds in everything(levels))
        assert float(SECONDS.expected(levels)) == pytest.approx(mean)


def test_the_expected_cost_of_every_certain_choice_is_that_of_its_spec() -> None:
    model = tiny_search.model()
    budget = Budget.of(SPACE, model, share=0.5)
    sizes = [(SPACE.widths(n), SPACE.kernels, SPACE.counts(n)) for n in range(2)]
    counts = set()
    for chosen in product(*(product(*groups) for groups in sizes)):
        one_hot = [
            LevelProbabilities(
                *(
                    torch.tensor([float(name == picked) for name in names])
                    for names, picked in zip(groups, level, strict=True)
                )
            )
            for groups, level in zip(sizes, chosen, strict=True)
        ]
        spec = SPACE.spec([LevelChoice(width=width, kernel=kernel, count=count) for width, kernel, count in chosen])
        cost = model.cost(spec)
        assert float(budget.seconds.expected(one_hot)) == pytest.approx(cost.seconds)
        assert float(budget.parameters.expected(one_hot)) == cost.parameters
        assert budget.seconds.most_probable(one_hot, limit=cost.seconds * (1 + 1e-12)) is not None
        counts.add(spec.convs_per_stage)
    assert counts == {(2, 1), (1, 1), (0, 1)}


def test_the_expected_parameters_of_a_certain_choice_are_its_parameters() -> None:
    """Every level at its full width with cubes: the full decoder."""

    def first(size: int) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(0), size).double()

    levels = [LevelProbabilities(first(len(SPACE.widths(n))), first(3), first(len(SPACE.counts(n)))) for n in range(2)]
    budget = Budget.of(SPACE, tiny_search.model(), share=0.5)
    assert float(budget.parameters.expected(levels)) == budget.full_parameters
    assert float(budget.time_share(levels)) == pytest.approx(1)
    assert float(budget.parameter_share(levels)) == 1


def test_the_chosen_decoder_is_the_most_probable_that_the_budget_allows(rng: np.random.Generator) -> None:
    for _ in range(4):
        levels = tiny_search.probabilities(rng)
        decoders = everything(levels)
        for limit in np.quantile([seconds for _, _, seconds in decoders], [0.01, 0.1, 0.5, 1.0]):
            best = max((d for d in decoders if d[2] <= limit), key=lambda d: d[1])
            assert SECONDS.most_probable(levels, limit=float(limit) * (1 + 1e-12)) == best[0]


def test_a_budget_below_the_cheapest_decoder_is_refused(rng: np.random.Generator) -> None:
    levels = tiny_search.probabilities(rng)
    cheapest = min(seconds for _, _, seconds in everything(levels))
    with pytest.raises(SpecError, match=rf"must allow the cheapest decoder, {cheapest:.4g}, got 1e-05; raise it"):
        SECONDS.most_probable(levels, limit=1e-5)


def test_a_budget_that_nothing_fits_is_refused_before_a_search() -> None:
    with pytest.raises(SpecError, match="must allow the cheapest decoder, "):
        Budget.of(SPACE, tiny_search.model(), share=1e-4)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_budget_is_a_share(share: float) -> None:
    with pytest.raises(SpecError, match=rf"a share of the full decoder's time above 0 and at most 1, got {share}"):
        Budget.of(SPACE, tiny_search.model(), share=share)


def test_a_whole_budget_lets_probability_decide_and_a_smaller_one_never_finds_more(rng: np.random.Generator) -> None:
    levels = tiny_search.probabilities(rng)
    free = Budget.of(SPACE, tiny_search.model(), share=1.0).choose(levels)
    assert free == SPACE.spec(max(everything(levels), key=lambda decoder: decoder[1])[0])
    for share in (0.2, 0.4, 0.8):
        budget = Budget.of(SPACE, tiny_search.model(), share=share)
        assert budget.model.cost(budget.choose(levels)).seconds <= share * budget.full_seconds
