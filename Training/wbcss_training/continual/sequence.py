"""A sequence of tasks that methods learn one after another: one JSON file that says data, networks and budget."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wbcss.errors import SpecError
from wbcss.labels import OrganName, TaskId, parse_organ_name, parse_task_id
from wbcss.registry import Registry
from wbcss.specs import DecoderSpec, EncoderSpec, spec_from_json, spec_to_json

from ..config import TrainConfig
from ..patches import PatchSource
from ..plan import open_source

SEED_OFFSET = 1_000_003
"""Added to the seed of a task's patches where patches are drawn to judge by."""


@dataclass(frozen=True, kw_only=True)
class SequenceTask:
    """One task of a sequence.

    Attributes:
        source: Where patches come from, as ``plan.open_source`` reads it.
        organs: What the task adds or learns again.
        validation: ``{"kind": "cases", "path": ..., "first": 0, "count": ...}``, or ``{"kind": "patches", "count":
            ...}`` for patches of the task's own source drawn with another seed.
        train: Schedule of this task.
        published: Name of a task of the initial registry that is taken over as it is instead of learned; or None.
    """

    task: TaskId
    source: Mapping[str, Any]
    organs: tuple[OrganName, ...]
    validation: Mapping[str, Any]
    train: TrainConfig
    published: TaskId | None = None


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """Learning curve of one task: the first few of its cases only.

    Attributes:
        task: Which task of the sequence.
        counts: Numbers of cases.
        methods: Who learns them.
    """

    task: TaskId
    counts: tuple[int, ...] = (1, 3, 10, 30)
    methods: tuple[str, ...] = ("ours", "separate_scratch")


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """Everything that a benchmark needs to start.

    Attributes:
        encoder, decoder: Architecture of every network; the decoder's ``num_organs`` is set as needed.
        initial: Registry that every method starts from; None for random weights.
        initial_task: Its task whose decoder they start from.
        hyperparameters: Per method what differs from its defaults.
        overlap: Of tiles when scans are segmented.
        backend: What runs the networks then.
    """

    name: str
    encoder: EncoderSpec
    decoder: DecoderSpec
    tasks: tuple[SequenceTask, ...]
    initial: Path | None = None
    initial_task: TaskId | None = None
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    overlap: float = 0.25
    backend: str = "torch"
    few_shot: FewShot | None = None

    def __post_init__(self) -> None:
        names = [task.task for task in self.tasks]
        if not names or len(set(names)) != len(names):
            raise SpecError(f"a sequence needs tasks with a name each, got {', '.join(names) or 'none'}")
        for number, task in enumerate(self.tasks):
            if task.train.finest_level != 0:
                raise SpecError(f"finest_level must be 0 in a sequence, got {task.train.finest_level}")
            if task.published is not None and (number > 0 or self.initial is None):
                raise SpecError(
                    f"only the first task of a sequence may be taken from its initial registry, got {task.task!r}"
                )
        if self.few_shot is not None and self.few_shot.task not in names:
            raise SpecError(f"few_shot must name a task of {', '.join(names)}, got {self.few_shot.task!r}")

    @property
    def organs(self) -> tuple[OrganName, ...]:
        """Union of the tasks' organs, in the order they are learned."""
        return tuple(dict.fromkeys(organ for task in self.tasks for organ in task.organs))

    def decoder_for(self, num_organs: int) -> DecoderSpec:
        """The decoder with a head for ``num_organs``."""
        return replace(self.decoder, num_organs=num_organs)

    def source(self, index: int, cache_dir: Path) -> PatchSource:
        """Patches that task ``index`` is learned from."""
        task = self.tasks[index]
        patch = task.train.patch
        encoder = self.encoder if patch is None else replace(self.encoder, tile=patch)
        return open_source(
            task.task, task.source, task.organs, encoder=encoder, seed=task.train.seed + 1, cache_dir=cache_dir
        )

    def validation_patches(self, index: int, cache_dir: Path) -> PatchSource:
        """Tile-sized patches of the source of task ``index`` that no method was trained on."""
        task = self.tasks[index]
        seed = task.train.seed + 1 + SEED_OFFSET
        return open_source(task.task, task.source, task.organs, encoder=self.encoder, seed=seed, cache_dir=cache_dir)


def read_sequence(path: Path) -> Sequence:
    """Read a sequence; relative paths in it are relative to the file. Raises SpecError naming what is wrong."""
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"expected a sequence of tasks in JSON, got {path.name}: {error}") from error
    try:
        return _sequence(facts, path.parent)
    except KeyError as error:
        raise SpecError(f"the sequence {path.name} has no {error}") from error
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"the sequence {path.name} has a field of the wrong kind: {error}") from error


def _sequence(facts: Mapping[str, Any], folder: Path) -> Sequence:
    initial = (folder / facts["initial"]).resolve() if "initial" in facts else None
    initial_task = parse_task_id(facts["initial_task"]) if "initial_task" in facts else None
    if initial is not None:
        registry = Registry(initial)
        encoder = registry.encoder_card().spec
        if initial_task is None:
            raise SpecError("a sequence that starts from a registry must name its 'initial_task', got none")
        decoder = registry.card(initial_task).spec
    else:
        encoder = spec_from_json(EncoderSpec, facts["encoder"])
        decoder = spec_from_json(DecoderSpec, {"num_organs": 1, **facts["decoder"]})
    evaluation = facts.get("evaluation", {})
    return Sequence(
        name=facts["name"],
        encoder=encoder,
        decoder=decoder,
        tasks=tuple(_task(task, facts.get("train", {}), folder, initial) for task in facts["tasks"]),
        initial=initial,
        initial_task=initial_task,
        hyperparameters=dict(facts.get("methods", {})),
        overlap=float(evaluation.get("overlap", 0.25)),
        backend=str(evaluation.get("backend", "torch")),
        few_shot=spec_from_json(FewShot, facts["few_shot"]) if "few_shot" in facts else None,
    )


def _task(facts: Mapping[str, Any], train: Mapping[str, Any], folder: Path, initial: Path | None) -> SequenceTask:
    published = parse_task_id(facts["published"]) if "published" in facts else None
    if published is not None and initial is not None:
        organs = tuple(organ.name for organ in Registry(initial).card(published).organs)
    else:
        organs = tuple(parse_organ_name(name) for name in facts["organs"])
    return SequenceTask(
        task=parse_task_id(facts["task"]),
        source=_resolved(facts["source"], folder),
        organs=organs,
        validation=_resolved(facts["validation"], folder),
        train=spec_from_json(TrainConfig, {**train, **facts.get("train", {})}),
        published=published,
    )


def _resolved(source: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """``source`` with its paths made absolute."""
    resolved = dict(source)
    for key in ("folder", "path"):
        if key in resolved:
            resolved[key] = str((folder / resolved[key]).resolve())
    return resolved


def sequence_to_json(sequence: Sequence) -> dict[str, Any]:
    """What decides the result, without paths: written into the run folder, and compared on resume."""
    return {
        "name": sequence.name,
        "encoder": spec_to_json(sequence.encoder),
        "decoder": spec_to_json(sequence.decoder),
        "initial": None if sequence.initial is None else Registry(sequence.initial).encoder_card().weights_sha256,
        "initial_task": sequence.initial_task,
        "evaluation": {"overlap": sequence.overlap, "backend": sequence.backend},
        "tasks": [
            {
                "task": task.task,
                "source": _without_paths(task.source),
                "organs": list(task.organs),
                "validation": _without_paths(task.validation),
                "train": spec_to_json(task.train),
                "published": task.published,
            }
            for task in sequence.tasks
        ],
    }


def _without_paths(source: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in source.items() if key not in ("folder", "path")}
