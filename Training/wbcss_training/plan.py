"""The plan of an encoder training: one JSON file that says networks, data and schedule."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wbcss.errors import CaseError, SpecError
from wbcss.labels import OrganName, TaskId, parse_organ_name, parse_task_id
from wbcss.registry import Registry
from wbcss.specs import DecoderSpec, EncoderSpec, spec_from_json, spec_to_json

from .atlas import TABLE_FILE, prepare_atlas, read_table
from .cases import Case, CasePatches, read_case_list
from .config import TrainConfig
from .patches import PatchSource
from .synthesis import SyntheticPatches, atlas_classes

_KINDS = ("atlas", "cases")


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """One dataset and the decoder that learns it.

    Attributes:
        source: ``{"kind": "atlas", "folder": ...}`` or ``{"kind": "cases", "path": ...}``.
        organs: Decoder channels 1, 2, ... in order.
        decoder: Architecture; ``num_organs`` follows from ``organs``.
        weight: Share of the steps.
    """

    task: TaskId
    source: Mapping[str, Any]
    organs: tuple[OrganName, ...]
    decoder: DecoderSpec
    weight: float

    def __post_init__(self) -> None:
        twice = sorted({organ for organ in self.organs if self.organs.count(organ) > 1})
        if twice:
            raise SpecError(f"task {self.task!r} may list an organ once, got {', '.join(twice)} more than once")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise SpecError(f"weight of task {self.task!r} must be a positive number, got {self.weight}")


@dataclass(frozen=True, kw_only=True)
class EncoderPlan:
    """Everything that an encoder training needs to start.

    Attributes:
        earlier: Parts of the run that come before ``train``, each up to its own ``steps``: small patches or coarse
            levels first. Give them a ``decay_fraction`` of 0.
        initial: Registry whose encoder and decoders the run starts from; None starts from random weights.
    """

    name: str
    encoder: EncoderSpec
    train: TrainConfig
    tasks: tuple[TaskPlan, ...]
    license: str
    provenance: str
    limits: str
    earlier: tuple[TrainConfig, ...] = ()
    initial: Path | None = None

    def __post_init__(self) -> None:
        lengths = [part.steps for part in self.parts]
        if any(later <= sooner for sooner, later in itertools.pairwise(lengths)):
            raise SpecError(f"every part of a plan must end after the one before it, got steps {lengths}")
        if self.distills and self.initial is None:
            raise SpecError(
                f"the training plan {self.name!r} keeps its encoder near a former one, so it must name that one under "
                "'initial', got none"
            )
        if not self.tasks:
            raise SpecError(f"the training plan {self.name!r} must have at least one task, got none")
        names = [task.task for task in self.tasks]
        if len(set(names)) != len(names):
            raise SpecError(f"every task of a plan must have a name of its own, got {', '.join(names)}")

    @property
    def distills(self) -> bool:
        """Whether the run keeps its encoder near the one it starts from."""
        return any(part.distills for part in self.parts)

    @property
    def parts(self) -> tuple[TrainConfig, ...]:
        """All parts of the run, in order; ``train`` is the last."""
        return (*self.earlier, self.train)

    def with_steps(self, steps: int | None) -> EncoderPlan:
        """The same plan with another length."""
        return self if steps is None else replace(self, train=replace(self.train, steps=steps))


def read_plan(path: Path) -> EncoderPlan:
    """Read a plan; relative paths in it are relative to the file. Raises SpecError naming what is wrong."""
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"expected a training plan in JSON, got {path.name}: {error}") from error
    try:
        return EncoderPlan(
            name=facts["name"],
            encoder=spec_from_json(EncoderSpec, facts["encoder"]),
            train=spec_from_json(TrainConfig, facts.get("train", {})),
            tasks=tuple(_task_plan(task, path.parent) for task in facts["tasks"]),
            license=facts["license"],
            provenance=facts["provenance"],
            limits=facts["limits"],
            earlier=tuple(
                spec_from_json(TrainConfig, {**facts.get("train", {}), **part}) for part in facts.get("earlier", ())
            ),
            initial=(path.parent / facts["initial"]).resolve() if "initial" in facts else None,
        )
    except KeyError as error:
        raise SpecError(f"the training plan {path.name} has no {error}") from error
    except (TypeError, AttributeError) as error:
        raise SpecError(f"the training plan {path.name} has a field of the wrong kind: {error}") from error


def _task_plan(facts: Mapping[str, Any], folder: Path) -> TaskPlan:
    source = dict(facts["source"])
    for key in ("folder", "path"):
        if key in source:
            source[key] = str((folder / source[key]).resolve())
    organs = tuple(parse_organ_name(organ) for organ in facts["organs"]) if "organs" in facts else _all_organs(source)
    excluded = set(facts.get("without", ()))
    organs = tuple(organ for organ in organs if organ not in excluded)
    if not organs:
        raise SpecError(f"task {facts['task']!r} must have at least one organ, got none")
    decoder = spec_from_json(DecoderSpec, {**facts["decoder"], "num_organs": len(organs)})
    return TaskPlan(
        task=parse_task_id(facts["task"]),
        source=source,
        organs=organs,
        decoder=decoder,
        weight=_number(facts.get("weight", 1.0), field="weight"),
    )


def _number(value: Any, *, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SpecError(f"{field} must be a number, got {value!r}")
    return float(value)


def _all_organs(source: Mapping[str, Any]) -> tuple[OrganName, ...]:
    """Every organ of a source, in the order of its label values."""
    if source["kind"] not in _KINDS:
        raise SpecError(f"the source of a task must be of kind {' or '.join(_KINDS)}, got {source['kind']!r}")
    if source["kind"] == "atlas":
        table = read_table(Path(source["folder"]) / TABLE_FILE)
        numbers = {row.name: label for label, row in table.items()}
        names = set(atlas_classes(table, source.get("membership", "wholebody")).values())
        return tuple(OrganName(name) for name in sorted(names, key=lambda name: numbers.get(name, 51)))
    values = read_case_list(Path(source["path"]))[0].values
    return tuple(values[value] for value in sorted(values))


def open_sources(plan: EncoderPlan, cache_dir: Path) -> Sequence[PatchSource]:
    """The patch source of every task of ``plan``; slow preparation is kept in ``cache_dir``."""
    return [_open_source(task, plan, cache_dir) for task in plan.tasks]


def _open_source(task: TaskPlan, plan: EncoderPlan, cache_dir: Path) -> PatchSource:
    encoder = plan.encoder if plan.train.patch is None else replace(plan.encoder, tile=plan.train.patch)
    return open_source(
        task.task, task.source, task.organs, encoder=encoder, seed=plan.train.seed + 1, cache_dir=cache_dir
    )


def open_source(
    task: TaskId,
    source: Mapping[str, Any],
    organs: tuple[OrganName, ...],
    *,
    encoder: EncoderSpec,
    seed: int,
    cache_dir: Path,
) -> PatchSource:
    """Patches of one source, as large as the tile of ``encoder``; slow preparation is kept in ``cache_dir``.

    Args:
        task: Name the patches carry.
        source: ``{"kind": "atlas", "folder": ..., "membership": "wholebody"}`` or ``{"kind": "cases", "path": ...,
            "first": 0, "count": ...}``; ``first`` and ``count`` choose among the cases of the list.
        organs: Channels 1, 2, ... of the patches.
        encoder: Grid and intensity windows.
        seed: Of the drawing.
        cache_dir: May be shared by sources.
    """
    kind = source.get("kind")
    if kind == "atlas":
        folder = Path(source["folder"])
        prepare_atlas(folder, cache_dir / "atlas")
        return SyntheticPatches(
            task=task,
            organs=organs,
            atlas_dir=folder,
            cache_dir=cache_dir / "atlas",
            encoder=encoder,
            seed=seed,
            membership=source.get("membership", "wholebody"),
        )
    if kind == "cases":
        return CasePatches(
            task=task,
            organs=organs,
            cases=chosen_cases(source),
            cache_dir=cache_dir / "cases",
            encoder=encoder,
            seed=seed,
        )
    raise SpecError(f"the source of task {task!r} must be of kind {' or '.join(_KINDS)}, got {kind!r}")


def chosen_cases(source: Mapping[str, Any]) -> tuple[Case, ...]:
    """The cases of a source of kind ``cases``: ``count`` of its list from ``first`` on, or all.

    Raises:
        CaseError: the list cannot be read, or has fewer cases.
    """
    cases = read_case_list(Path(source["path"]))
    first = int(source.get("first", 0))
    count = int(source.get("count", len(cases) - first))
    if first < 0 or count < 1 or first + count > len(cases):
        name = Path(source["path"]).name
        raise CaseError(f"{name} has {len(cases)} cases, got a plan that takes {count} from number {first} on")
    return cases[first : first + count]


def plan_to_json(plan: EncoderPlan) -> dict[str, Any]:
    """What is written into the run folder, without paths of cases."""
    return {
        "name": plan.name,
        "encoder": spec_to_json(plan.encoder),
        "earlier": [spec_to_json(part) for part in plan.earlier],
        "train": spec_to_json(plan.train),
        "initial": None if plan.initial is None else Registry(plan.initial).encoder_card().weights_sha256,
        "tasks": [
            {
                "task": task.task,
                "source": task.source.get("kind"),
                "organs": list(task.organs),
                "decoder": spec_to_json(task.decoder),
                "weight": task.weight,
            }
            for task in plan.tasks
        ],
    }
