"""What the decoders of a space cost on average, and the most probable one that a budget allows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from wbcss.errors import SpecError
from wbcss.specs import DecoderSpec

from .costmodel import CostModel
from .parts import Part, block_part, head_part, up_part
from .space import KERNELS, LevelChoice, SearchSpace


@dataclass(frozen=True, eq=False)
class LevelProbabilities:
    """Probabilities of the choices of one level, in the order of the space.

    Attributes:
        widths, kernels, counts: (N,) each, summing to 1.
    """

    widths: torch.Tensor
    kernels: torch.Tensor
    counts: torch.Tensor


@dataclass(frozen=True, eq=False)
class _LevelCosts:
    """Costs of one level: ``up`` (widths below, widths), ``first`` and ``further`` (kernels, widths)."""

    up: torch.Tensor
    first: torch.Tensor
    further: torch.Tensor


class SpaceCosts:
    """One additive cost (seconds, parameters) of all decoders of a space, by table.

    Args:
        space: What is chosen from.
        cost_of: Of one part.
    """

    def __init__(self, space: SearchSpace, cost_of: Callable[[Part], float]) -> None:
        self.space = space
        self._levels = [_level_costs(space, level, cost_of) for level in range(space.num_levels)]
        organs, may_be_bare = space.full.num_organs, 0 in space.counts(0)
        self._heads = {
            is_bare: torch.tensor(
                [cost_of(head_part(width=w, num_organs=organs, is_bare=is_bare)) for w in space.widths(0)],
                dtype=torch.float64,
            )
            for is_bare in ((False, True) if may_be_bare else (False,))
        }

    def expected(self, levels: Sequence[LevelProbabilities]) -> torch.Tensor:
        """Mean cost when every choice is drawn on its own, a float64 scalar with gradient; exact, not sampled."""
        below = torch.ones(1, dtype=torch.float64)
        total = torch.zeros((), dtype=torch.float64)
        for costs, chosen, counts in reversed(list(zip(self._levels, levels, self._counts(), strict=True))):
            widths, kernels, depth = (p.cpu().double() for p in (chosen.widths, chosen.kernels, chosen.counts))
            first, further = (depth * (counts > 0)).sum(), (depth * (counts - 1).clamp_min(0)).sum()
            blocks = first * costs.first + further * costs.further
            total = total + below @ costs.up @ widths + kernels @ blocks @ widths
            below = widths
        depth, is_none = levels[0].counts.cpu().double(), self._counts()[0] == 0
        for is_bare, heads in self._heads.items():
            total = total + depth[is_none == is_bare].sum() * (levels[0].widths.cpu().double() * heads).sum()
        return total

    def _counts(self) -> list[torch.Tensor]:
        return [torch.tensor(self.space.counts(level), dtype=torch.float64) for level in range(self.space.num_levels)]

    def most_probable(self, levels: Sequence[LevelProbabilities], *, limit: float) -> tuple[LevelChoice, ...]:
        """The most probable decoder that costs at most ``limit``, finest level first.

        Exact: from the coarsest level on, every width keeps those beginnings that no other beats in both cost and
        probability. Raises SpecError if even the cheapest decoder costs more.
        """
        states: list[list[_Path]] = [[_Path(0.0, 0.0, ())]]
        for level in reversed(range(self.space.num_levels)):
            states = self._extended(states, level, levels[level])
        ends = [path for paths in states for path in paths]
        affordable = [path for path in ends if path.cost <= limit]
        if not affordable:
            cheapest = min(path.cost for path in ends)
            raise SpecError(f"the budget must allow the cheapest decoder, {cheapest:.4g}, got {limit:.4g}; raise it")
        return max(affordable, key=lambda path: (path.log_probability, -path.cost)).choices

    def _extended(self, below: list[list[_Path]], level: int, chosen: LevelProbabilities) -> list[list[_Path]]:
        costs = self._levels[level]
        extended: list[list[_Path]] = []
        for w in range(len(self.space.widths(level))):
            options = self._options(level, w, chosen)
            extended.append(
                _undominated(
                    [
                        _Path(
                            path.cost + float(costs.up[b, w]) + cost,
                            path.log_probability + log,
                            (choice, *path.choices),
                        )
                        for b, paths in enumerate(below)
                        for path in paths
                        for cost, log, choice in options
                    ]
                )
            )
        return extended

    def _options(self, level: int, w: int, chosen: LevelProbabilities) -> list[tuple[float, float, LevelChoice]]:
        """Cost of the blocks, log probability and choice of everything that a level of width number ``w`` can be.

        The head, which reads the finest level, counts with it.
        """
        costs, space = self._levels[level], self.space
        widths, kernels, counts = (
            [_log(p) for p in group.tolist()] for group in (chosen.widths, chosen.kernels, chosen.counts)
        )
        options: list[tuple[float, float, LevelChoice]] = []
        for n, count in enumerate(space.counts(level)):
            log, width = widths[w] + counts[n], space.widths(level)[w]
            head = float(self._heads[count == 0][w]) if level == 0 else 0.0
            if count == 0:  # whatever the kernel, it is one decoder
                options.append((head, log, LevelChoice(width=width, kernel=space.kernels[0], count=0)))
                continue
            for k, kernel in enumerate(space.kernels):
                cost = head + float(costs.first[k, w] + (count - 1) * costs.further[k, w])
                options.append((cost, log + kernels[k], LevelChoice(width=width, kernel=kernel, count=count)))
        return options


@dataclass(frozen=True)
class _Path:
    """A decoder from its coarsest level up to some level."""

    cost: float
    log_probability: float
    choices: tuple[LevelChoice, ...]


def _undominated(paths: list[_Path]) -> list[_Path]:
    """Those that are more probable than every cheaper one, cheapest first."""
    kept: list[_Path] = []
    for path in sorted(paths, key=lambda path: (path.cost, -path.log_probability)):
        if not kept or path.log_probability > kept[-1].log_probability:
            kept.append(path)
    return kept


def _log(probability: float) -> float:
    return math.log(max(probability, 1e-300))


def _level_costs(space: SearchSpace, level: int, cost_of: Callable[[Part], float]) -> _LevelCosts:
    encoder = space.encoder
    is_last = level == space.num_levels - 1
    below = (encoder.stage_channels[level + 1],) if is_last else space.widths(level + 1)
    widths = space.widths(level)
    up = [[cost_of(up_part(encoder, level, below=b, width=w)) for w in widths] for b in below]

    def blocks(*, first: bool) -> list[list[float]]:
        rows = []
        for kernel, then in (KERNELS[name] for name in space.kernels):
            row = []
            for width in widths:
                cost = cost_of(block_part(encoder, level, width=width, kernel=kernel, first=first))
                if then:
                    second = (then[0], then[1], then[2])
                    cost += cost_of(block_part(encoder, level, width=width, kernel=second, first=False))
                row.append(cost)
            rows.append(row)
        return rows

    tables = (up, blocks(first=True), blocks(first=False))
    return _LevelCosts(*(torch.tensor(rows, dtype=torch.float64) for rows in tables))


def space_parts(space: SearchSpace) -> tuple[Part, ...]:
    """Every part of every decoder of the space, each once: what must be measured before a search."""
    parts: dict[Part, None] = {}

    def note(part: Part) -> float:
        parts[part] = None
        return 0.0

    SpaceCosts(space, note)
    return tuple(parts)


def _undecided(space: SearchSpace, level: int) -> LevelProbabilities:
    sizes = (len(space.widths(level)), len(space.kernels), len(space.counts(level)))
    return LevelProbabilities(*(torch.full((size,), 1 / size) for size in sizes))


@dataclass(frozen=True, eq=False)
class Budget:
    """What a search may spend.

    Attributes:
        model: Costs on the target machine.
        seconds, parameters: Costs of the space by choice.
        full_seconds, full_parameters: Of the full decoder.
        share: Largest time of the chosen decoder as a share of that of the full one.
    """

    model: CostModel
    seconds: SpaceCosts
    parameters: SpaceCosts
    full_seconds: float
    full_parameters: int
    share: float

    @classmethod
    def of(cls, space: SearchSpace, model: CostModel, *, share: float) -> Budget:
        """Raises SpecError for a share outside (0, 1], or below that of the cheapest decoder."""
        if not 0 < share <= 1:
            raise SpecError(f"the budget must be a share of the full decoder's time above 0 and at most 1, got {share}")
        full = model.cost(space.full)
        budget = cls(
            model=model,
            seconds=SpaceCosts(space, model.part_seconds),
            parameters=SpaceCosts(space, lambda part: part.parameters),
            full_seconds=full.seconds,
            full_parameters=full.parameters,
            share=share,
        )
        budget.choose([_undecided(space, level) for level in range(space.num_levels)])
        return budget

    def time_share(self, levels: Sequence[LevelProbabilities]) -> torch.Tensor:
        """Expected time as a share of the full decoder's."""
        return self.seconds.expected(levels) / self.full_seconds

    def parameter_share(self, levels: Sequence[LevelProbabilities]) -> torch.Tensor:
        """Expected parameters as a share of the full decoder's."""
        return self.parameters.expected(levels) / self.full_parameters

    def choose(self, levels: Sequence[LevelProbabilities]) -> DecoderSpec:
        """The most probable decoder within the budget. Raises SpecError if there is none."""
        space = self.seconds.space
        return space.spec(self.seconds.most_probable(levels, limit=self.share * self.full_seconds))
