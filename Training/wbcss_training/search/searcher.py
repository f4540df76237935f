"""What a search trains: the shared weights on one part of the patches, the choices on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from wbcss.errors import SpecError
from wbcss.labels import TaskId

from ..config import TrainConfig
from ..features import FeaturePool
from ..learner import expect_background, supervised_loss, supervision_of
from ..losses import OrganLoss
from ..patches import FeaturePatch
from .expected import Budget, LevelProbabilities
from .gumbel import gumbel_softmax, temperature_at
from .space import SearchSpace
from .supernet import SearchDecoder


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How choices are learned.

    Attributes:
        budget: Largest time of the decoder as a share of that of the full one.
        first_temperature, last_temperature: Of the draws, at the beginning and at the end (METHOD 1.3: 5 to 0.1).
        warmup_share: First part of the steps, in which only weights are learned, from draws that favor nothing.
        choice_every: After that, every so many steps one learns the choices instead.
        choice_share: Share of the encoded patches from which choices are learned and weights are not.
        choice_rate: How much faster than weights choices are learned.
        penalty: Weight of the expected time above the budget, relative to the budget. Above the worth of time in the
            segmentation loss it makes the solution keep the budget (an exact penalty), so nothing has to be tuned. Far
            above it AdamW remembers steep gradients and leaves budget unused: 4 ended at 0.11 of 0.15, 1 at 0.144.
        parameter_weight: Weight of the expected parameters as a share of the full decoder's.
    """

    budget: float = 0.15
    first_temperature: float = 5.0
    last_temperature: float = 0.1
    warmup_share: float = 0.2
    choice_every: int = 3
    choice_share: float = 0.25
    choice_rate: float = 10.0
    penalty: float = 1.0
    parameter_weight: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.budget <= 1:
            raise SpecError(
                f"the budget must be a share of the full decoder's time above 0 and at most 1, got {self.budget}"
            )
        if not 0 < self.last_temperature <= self.first_temperature:
            raise SpecError(
                "the temperature must fall from first_temperature to a last_temperature above 0, got "
                f"{self.first_temperature} to {self.last_temperature}"
            )
        for name in ("warmup_share", "choice_share"):
            if not 0 <= getattr(self, name) < 1:
                raise SpecError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if self.choice_share == 0 or self.choice_every < 2:
            raise SpecError(
                "choices need patches and steps of their own: choice_share above 0 and choice_every at least 2, got "
                f"{self.choice_share} and {self.choice_every}"
            )
        for name in ("choice_rate", "penalty"):
            if not getattr(self, name) > 0:
                raise SpecError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.parameter_weight < 0:
            raise SpecError(f"parameter_weight must not be negative, got {self.parameter_weight}")

    def warmup_steps(self, train: TrainConfig) -> int:
        """Steps in which no choice is learned."""
        return round(self.warmup_share * train.steps)

    def learns_choices(self, step: int, train: TrainConfig) -> bool:
        """Whether ``step`` (0-based) learns choices rather than weights."""
        since = step - self.warmup_steps(train)
        return since >= 0 and since % self.choice_every == self.choice_every - 1

    def temperature(self, step: int, train: TrainConfig) -> float:
        """Of the draws of ``step``; it begins to fall when the warm-up is over."""
        warmup = self.warmup_steps(train)
        progress = (step - warmup) / max(1, train.steps - 1 - warmup)
        return temperature_at(progress, first=self.first_temperature, last=self.last_temperature)


class Choices(nn.Module):
    """What is known about the best choice of every level; nothing at first.

    The parameters are the logits divided by ``rate``: the one optimizer of the loop moves all parameters by about the
    learning rate, which makes the logits move ``rate`` times faster than weights.
    """

    def __init__(self, space: SearchSpace, *, rate: float) -> None:
        super().__init__()
        self._rate = rate
        sizes = [
            {"widths": len(space.widths(n)), "kernels": len(space.kernels), "counts": len(space.counts(n))}
            for n in range(space.num_levels)
        ]
        self.groups = nn.ModuleList(
            nn.ParameterDict({name: nn.Parameter(torch.zeros(size)) for name, size in level.items()}) for level in sizes
        )

    def logits(self) -> list[dict[str, torch.Tensor]]:
        """Unnormalized log probabilities by level, finest first."""
        return [{name: self._rate * value for name, value in group.items()} for group in self.groups]  # type: ignore[operator]

    def probabilities(self) -> list[LevelProbabilities]:
        """Of every choice, with gradient."""
        return [
            LevelProbabilities(**{name: torch.softmax(value, 0) for name, value in level.items()})
            for level in self.logits()
        ]

    def draw(self, *, temperature: float, generator: torch.Generator) -> list[LevelProbabilities]:
        """One relaxed draw of every choice, with gradient."""
        return [
            LevelProbabilities(
                **{
                    name: gumbel_softmax(value, temperature=temperature, generator=generator)
                    for name, value in level.items()
                }
            )
            for level in self.logits()
        ]


class SearchNetwork(nn.Module):
    """The decoder of all choices with the heads of deep supervision: everything that has weights."""

    def __init__(self, space: SearchSpace, config: TrainConfig) -> None:
        super().__init__()
        self.decoder = SearchDecoder(space)
        expect_background(self.decoder.head)
        self.supervision = supervision_of(space.full, config)
        self.config = config
        self.loss = OrganLoss(batch_dice=config.batch_dice)

    def forward(
        self,
        patches: Sequence[FeaturePatch],
        mixture: Sequence[LevelProbabilities],
        *,
        step: int,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Scalar segmentation loss of a batch of encoded patches under ``mixture``."""
        device = self.decoder.head.weight.device
        dtype = torch.bfloat16 if self.config.autocast else torch.float32
        skips = [
            torch.stack(skip).to(device=device, dtype=dtype).contiguous(memory_format=torch.channels_last_3d)
            for skip in zip(*(patch.skips for patch in patches), strict=True)
        ]
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.autocast):
            levels = self.decoder.levels(skips, mixture)
        heads = [self.decoder.head, *self.supervision.heads]
        return supervised_loss(
            levels, heads, patches, loss=self.loss, config=self.config, step=step, generator=generator
        )


class SearchLearner(nn.Module):
    """Shared weights and choices; a step learns either those or these, so that no choice fits its own weights' data.

    The two levels of the problem are approximated by alternation, as in DARTS (Liu et al., ICLR 2019, section 2.3,
    first order) and FBNet (Wu et al., CVPR 2019, section 3.3).
    """

    def __init__(self, space: SearchSpace, budget: Budget, config: TrainConfig, search: SearchConfig) -> None:
        super().__init__()
        self.network = SearchNetwork(space, config)
        self.choices = Choices(space, rate=search.choice_rate)
        self.config = config
        self.search = search
        self._budget = budget

    def forward(
        self, task: TaskId, patches: Sequence[FeaturePatch], *, step: int, generator: torch.Generator
    ) -> torch.Tensor:
        """Scalar loss of a batch; its gradient reaches the choices or the weights, as ``step`` is one of either."""
        mixture = self.choices.draw(temperature=self.search.temperature(step, self.config), generator=generator)
        if not self.search.learns_choices(step, self.config):
            fixed = [LevelProbabilities(p.widths.detach(), p.kernels.detach(), p.counts.detach()) for p in mixture]
            loss: torch.Tensor = self.network(patches, fixed, step=step, generator=generator)
            return loss
        weights = {name: parameter.detach() for name, parameter in self.network.named_parameters()}
        how = {"step": step, "generator": generator}
        loss = torch.func.functional_call(self.network, weights, (patches, mixture), how)
        return loss + self.cost().to(loss)

    def cost(self) -> torch.Tensor:
        """What the decoders of the present probabilities cost on average: time above the budget, and parameters."""
        levels = self.choices.probabilities()
        above = torch.relu(self._budget.time_share(levels) / self._budget.share - 1)
        return self.search.penalty * above + self.search.parameter_weight * self._budget.parameter_share(levels)

    def state(self) -> Mapping[str, Any]:
        """Probabilities and expected shares as JSON, for the path of the search."""
        with torch.no_grad():
            levels = self.choices.probabilities()
            return {
                "time_share": round(float(self._budget.time_share(levels)), 5),
                "parameter_share": round(float(self._budget.parameter_share(levels)), 5),
                "levels": [
                    {name: [round(float(p), 5) for p in getattr(level, name)] for name in _GROUPS} for level in levels
                ],
            }


_GROUPS = ("widths", "kernels", "counts")


@dataclass(frozen=True, kw_only=True)
class SplitPool:
    """A SampleSource that reads the last part of a pool in steps that learn choices, and the first in the others.

    Attributes:
        pool: All encoded patches.
        config, search: They say which step is which.
    """

    pool: FeaturePool
    config: TrainConfig
    search: SearchConfig

    @property
    def task(self) -> TaskId:
        """Of the pool."""
        return self.pool.task

    @property
    def num_for_choices(self) -> int:
        """Patches from which choices are learned: at least one, and at least one is left."""
        wanted = round(self.search.choice_share * self.pool.count)
        return min(max(1, wanted), self.pool.count - 1)

    def patch(self, index: int) -> FeaturePatch:
        """Sample ``index`` of the run."""
        step, place = divmod(index, self.config.batch_size)
        split = self.pool.count - self.num_for_choices
        if self.search.learns_choices(step, self.config):
            number = (step - self.search.warmup_steps(self.config)) // self.search.choice_every
            return self.pool.part(split, self.pool.count).patch(number * self.config.batch_size + place)
        return self.pool.part(0, split).patch(index)
