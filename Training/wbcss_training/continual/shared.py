"""Baselines and upper bounds: networks of one encoder and one decoder whose head holds all organs."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from wbcss.nn.model import WholeBodyModel

from ..former import FormerSelf
from .ewc import Anchor, Springs, fisher_diagonal
from .incremental import SHARED, IncrementalLearner, Recipe, grown
from .lesson import Lesson
from .mib import spread_background
from .plop import LocalPod, entropy_thresholds, normalized_entropy
from .state import Learned, known
from .view import Term

_ASIDE = 500_000_000
"""First index of patches that are looked at before or after a training, far from those it draws."""

OldOrgans = Literal["background", "unknown"]
HeadStart = Literal["fresh", "background"]


@dataclass(frozen=True)
class SharedNetwork:
    """One network that learns task after task, its head growing, with ``terms`` against forgetting."""

    title: str
    terms: Sequence[Term] = ()
    old_organs: OldOrgans = "background"
    head: HeadStart = "fresh"

    @property
    def scope(self) -> Literal["so_far"]:
        """One network answers for all tasks so far."""
        return "so_far"

    def learn(self, lesson: Lesson) -> Learned:
        """The network after the lesson's task."""
        task, former = lesson.task, lesson.former
        if task.published is not None:
            return self.remembering(known(lesson.published(), {SHARED: task.organs}), lesson)
        if former is None:
            return self.remembering(lesson.shared_start("shared", alone), lesson)
        old = former.organs[SHARED]
        new = tuple(organ for organ in task.organs if organ not in old)
        organs = (*old, *new)
        torch.manual_seed(task.train.seed + lesson.index)
        past = FormerSelf(former.model.encoder, {SHARED: former.model.decoder(SHARED)})
        start = spread_background if self.head == "background" else None
        decoder = grown(former.model.decoder(SHARED), former.model.encoder, num_new=len(new), start=start)
        encoder = copy.deepcopy(former.model.encoder).requires_grad_(True)
        model = WholeBodyModel(encoder, {SHARED: decoder})
        recipe = self.recipe(lesson, past)
        learner = IncrementalLearner(model, organs, {task.task: task.organs}, task.train, recipe, past)
        trained = _incremental(lesson.fit(learner))
        return self.remembering(known(trained.model, {SHARED: organs}), lesson)

    def recipe(self, lesson: Lesson, past: FormerSelf) -> Recipe:
        """What is done against forgetting in this lesson."""
        return Recipe(old_organs=self.old_organs, terms=self.terms)

    def remembering(self, learned: Learned, lesson: Lesson) -> Learned:
        """``learned`` with what the next task will need."""
        return learned


@dataclass(frozen=True)
class PseudoLabeledNetwork(SharedNetwork):
    """PLOP: local POD, pseudo-labels of the former network, head from the background as in its published code."""

    pod: LocalPod = field(default_factory=LocalPod)
    num_patches: int = 16

    def recipe(self, lesson: Lesson, past: FormerSelf) -> Recipe:
        """The median entropy of every former class on background of the new data decides what is sure."""
        source, decoder = lesson.source(), past.decoders[SHARED]
        entropies, winners = [], []
        past.to(lesson.device)
        for number in range(self.num_patches):
            patch = source.patch(_ASIDE + number)
            with torch.no_grad():
                logits = decoder(past.encoder(patch.image[None].to(lesson.device)))
            background = (patch.labels == 0).to(lesson.device)
            entropies.append(normalized_entropy(logits)[0][background].cpu())
            winners.append(logits.argmax(dim=1)[0][background].cpu())
        thresholds = entropy_thresholds(torch.cat(entropies), torch.cat(winners), num_classes=decoder.head.out_channels)
        return Recipe(terms=(self.pod,), thresholds=thresholds)


@dataclass(frozen=True)
class ElasticNetwork(SharedNetwork):
    """EWC: every task leaves an anchor, its parameters and their Fisher information."""

    weight: float = 100.0
    num_patches: int = 32

    def recipe(self, lesson: Lesson, past: FormerSelf) -> Recipe:
        """Springs to all anchors so far."""
        assert lesson.former is not None  # noqa: S101 -- there is a past
        memory = {name: value.to(lesson.device) for name, value in lesson.former.memory.items()}
        numbers = sorted({int(name.split(".", 2)[1]) for name in memory})
        anchors = [
            Anchor(
                center={k.split(".", 2)[2]: v for k, v in memory.items() if k.startswith(f"center.{number}.")},
                fisher={k.split(".", 2)[2]: v for k, v in memory.items() if k.startswith(f"fisher.{number}.")},
            )
            for number in numbers
        ]
        return Recipe(terms=(Springs(weight=self.weight, anchors=anchors),))

    def remembering(self, learned: Learned, lesson: Lesson) -> Learned:
        """One more anchor beside the former ones; the Fisher information is of this task's data."""
        source, model = lesson.source(), learned.model.to(lesson.device)
        parameters = dict(model.named_parameters())
        for parameter in parameters.values():
            parameter.requires_grad_(True)

        def logits_of(index: int) -> torch.Tensor:
            image = source.patch(_ASIDE + index).image[None].to(lesson.device)
            logits: torch.Tensor = model.decoder(SHARED)(model.encoder(image))[0].flatten(1)
            return logits

        generator = torch.Generator().manual_seed(lesson.task.train.seed)
        fisher = fisher_diagonal(parameters, logits_of, indices=range(self.num_patches), generator=generator)
        memory = dict(lesson.former.memory) if lesson.former is not None else {}
        memory |= {f"center.{lesson.index}.{name}": value.detach().cpu().clone() for name, value in parameters.items()}
        memory |= {f"fisher.{lesson.index}.{name}": value.cpu() for name, value in fisher.items()}
        return dataclasses.replace(known(model, learned.organs), memory=memory)


@dataclass(frozen=True)
class JointNetwork:
    """Upper bound: one network learns all tasks at once, with the steps of all; what a task leaves out is unknown."""

    title: str

    @property
    def scope(self) -> Literal["all"]:
        """The one network answers for all tasks."""
        return "all"

    def learn(self, lesson: Lesson) -> Learned:
        """The network after all tasks."""
        sequence = lesson.sequence
        organs = sequence.organs
        learned = [index for index, task in enumerate(sequence.tasks) if task.published is None]
        config = dataclasses.replace(
            lesson.task.train, steps=sum(sequence.tasks[index].train.steps for index in learned)
        )
        tasks = {task.task: task.organs for task in sequence.tasks}
        model = lesson.start(organs)
        learner = IncrementalLearner(model, organs, tasks, config, Recipe(old_organs="unknown"))
        sources = [lesson.source(index) for index in range(len(sequence.tasks))]
        return known(_incremental(lesson.fit(learner, sources, config=config)).model, {SHARED: organs})


@dataclass(frozen=True)
class SeparateNetworks:
    """Upper bound: a network of its own for every task, from the common start or from scratch."""

    title: str
    scratch: bool = False

    @property
    def scope(self) -> Literal["own"]:
        """Every network answers for its own task."""
        return "own"

    def learn(self, lesson: Lesson) -> Learned:
        """A network for the lesson's task alone."""
        task = lesson.task
        if task.published is not None and not self.scratch:
            return known(lesson.published(), {SHARED: task.organs})
        if lesson.index == 0 and not self.scratch:
            return lesson.shared_start("shared", alone)
        return alone(lesson, scratch=self.scratch)


def alone(lesson: Lesson, *, scratch: bool = False) -> Learned:
    """A network that learns the lesson's task and nothing else, from the common start or from scratch."""
    task = lesson.task
    model = lesson.start(task.organs, scratch=scratch)
    learner = IncrementalLearner(model, task.organs, {task.task: task.organs}, task.train)
    return known(_incremental(lesson.fit(learner)).model, {SHARED: task.organs})


def _incremental(module: nn.Module) -> IncrementalLearner:
    assert isinstance(module, IncrementalLearner)  # noqa: S101 -- narrows what the loop gives back
    return module
