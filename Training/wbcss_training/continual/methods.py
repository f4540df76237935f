"""The methods of the benchmark by name: published baselines, upper bounds, and ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Protocol

from wbcss.errors import SpecError
from wbcss.specs import spec_from_json

from .ilt import OutputsAndEncoder
from .lesson import Lesson
from .lwf import OldOutputs
from .mib import UnbiasedOutputs
from .ours import OwnDecoders
from .plop import LocalPod
from .shared import ElasticNetwork, JointNetwork, PseudoLabeledNetwork, SeparateNetworks, SharedNetwork
from .state import Learned

Scope = Literal["so_far", "own", "all"]


class Method(Protocol):
    """A way to learn task after task.

    Attributes:
        title: For people.
        scope: What can be asked of the network of cell i: tasks 0..i, task i alone (separate networks), or, of the
            only cell, everything (joint training).
    """

    @property
    def title(self) -> str: ...

    @property
    def scope(self) -> Scope: ...

    def learn(self, lesson: Lesson) -> Learned:
        """Learn one more task. The same lesson gives the same bits; interrupted, it goes on where it was."""
        ...


@dataclass(frozen=True)
class _Entry:
    """How a method is made, and the class that its hyperparameters are read into."""

    build: Callable[[Any], Method]
    settings: type[Any]


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """A method without hyperparameters."""


@dataclass(frozen=True, kw_only=True)
class ElasticSettings:
    """Hyperparameters of EWC: lambda, and patches over which the Fisher information is averaged."""

    weight: float = 100.0
    patches: int = 32


@dataclass(frozen=True, kw_only=True)
class PodSettings:
    """Hyperparameters of PLOP: weight and scales of local POD, and patches over which entropy medians are taken."""

    weight: float = 0.01
    scales: tuple[int, ...] = (1, 2, 4)
    patches: int = 16


@dataclass(frozen=True, kw_only=True)
class ContinualSettings:
    """Weights of the distances to the former self while an encoder goes on learning."""

    feature_distillation: float = 1.0
    decoder_distillation: float = 0.0


def _pod(settings: PodSettings) -> Method:
    pod = LocalPod(weight=settings.weight, scales=settings.scales)
    return PseudoLabeledNetwork("PLOP", head="background", pod=pod, num_patches=settings.patches)


_TABLE: Mapping[str, _Entry] = MappingProxyType(
    {
        "finetune": _Entry(lambda _: SharedNetwork("fine-tuning"), NoSettings),
        "lwf": _Entry(lambda term: SharedNetwork("LwF", terms=(term,)), OldOutputs),
        "ilt": _Entry(lambda term: SharedNetwork("ILT", terms=(term,)), OutputsAndEncoder),
        "ewc": _Entry(lambda s: ElasticNetwork("EWC", weight=s.weight, num_patches=s.patches), ElasticSettings),
        "mib": _Entry(
            lambda term: SharedNetwork("MiB", terms=(term,), old_organs="unknown", head="background"), UnbiasedOutputs
        ),
        "plop": _Entry(_pod, PodSettings),
        "ours": _Entry(lambda _: OwnDecoders("ours", encoder="frozen"), NoSettings),
        "ours_after_d1": _Entry(
            lambda _: OwnDecoders("ours, encoder trained on the first task, then frozen", encoder="first"), NoSettings
        ),
        "ours_continual": _Entry(
            lambda s: OwnDecoders(
                "ours, encoder trained continually",
                encoder="continual",
                feature_distillation=s.feature_distillation,
                decoder_distillation=s.decoder_distillation,
            ),
            ContinualSettings,
        ),
        "separate": _Entry(lambda _: SeparateNetworks("separate networks"), NoSettings),
        "separate_scratch": _Entry(
            lambda _: SeparateNetworks("separate networks from scratch", scratch=True), NoSettings
        ),
        "joint": _Entry(lambda _: JointNetwork("joint training"), NoSettings),
    }
)

METHODS = tuple(_TABLE)
"""Names of all methods, baselines first."""

UPPER_BOUND = "separate"
"""The method that the others are compared with."""


def build_method(name: str, settings: Mapping[str, Any]) -> Method:
    """The method ``name`` with its hyperparameters. Raises SpecError naming what is known."""
    if name not in _TABLE:
        raise SpecError(f"there is no method {name!r}; the methods are {', '.join(METHODS)}")
    entry = _TABLE[name]
    return entry.build(spec_from_json(entry.settings, settings))
