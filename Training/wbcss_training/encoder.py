"""`wbcss-train encoder`: train the general encoder with one decoder per dataset, then freeze and publish it."""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from wbcss import __version__
from wbcss.cards import EncoderCard, TaskCard
from wbcss.catalogue import find
from wbcss.errors import RunError
from wbcss.labels import OrganName, TaskId
from wbcss.loading import load_model, save_weights
from wbcss.nn.encoder import Encoder
from wbcss.nn.model import WholeBodyModel
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.registry import Registry, StagedEncoder, StagedTask
from wbcss.specs import DecoderSpec

from .former import FormerSelf
from .initial import start_from
from .learner import Learner, build_learner
from .loop import CHECKPOINTS, train
from .patches import PatchSource
from .plan import EncoderPlan, TaskPlan, chosen_cases, open_sources, plan_to_json
from .processes import any_process, process_device, process_group, process_rank, terminated, wait_for_all


def train_encoder(
    plan: EncoderPlan,
    *,
    run_dir: Path,
    cache_dir: Path | None = None,
    device: str = "auto",
    num_workers: int = 1,
    minutes: float | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> WholeBodyModel:
    """Train (or resume) ``plan`` in ``run_dir`` and return the averaged encoder and decoders.

    Stops early, with a checkpoint, after ``minutes``, on SIGTERM, or when ``cancelled``. Joins the other processes
    when started by torchrun.
    """
    with process_group():
        torch.manual_seed(plan.train.seed)
        learner = build_learner(Encoder(plan.encoder), {task.task: task.decoder for task in plan.tasks}, plan.train)
        if plan.initial is not None and not (run_dir / CHECKPOINTS).is_dir():
            start_from(learner, plan.initial, {task.task: task.organs for task in plan.tasks})
        learner.former = _former_self(plan)
        learner.to(process_device(device))
        if learner.former is not None:
            learner.former.to(process_device(device))
        if process_rank() == 0:
            _write_config(plan, run_dir)
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        with terminated() as told_to_end:

            def stop() -> bool:
                return told_to_end() or cancelled() or (deadline is not None and time.monotonic() > deadline)

            average = AveragedModel(learner)
            for part in plan.parts:
                learner.config = part
                average = train(
                    learner,
                    _sources_of_all(dataclasses.replace(plan, earlier=(), train=part), cache_dir or run_dir / "cache"),
                    config=part,
                    run_dir=run_dir,
                    weights=[task.weight for task in plan.tasks],
                    num_workers=num_workers,
                    stop_at=stop,
                    progress=_scaled(progress, part.steps / plan.train.steps),
                )
                if any_process(stop()):
                    break
    return averaged_model(average)


def _former_self(plan: EncoderPlan) -> FormerSelf | None:
    """The published networks that ``plan`` keeps its encoder near to."""
    if plan.initial is None or not plan.distills:
        return None
    network = load_model(Registry(plan.initial)).network
    with_decoders = any(part.decoder_distillation > 0 for part in plan.parts)
    return FormerSelf(network.encoder, {task: network.decoder(task) for task in network.tasks if with_decoders})


def _scaled(progress: Progress, share: float) -> Progress:
    """``progress`` of a part of the run that ends at ``share`` of the whole."""
    return lambda fraction, stage: progress(fraction * share, stage)


def averaged_model(average: AveragedModel) -> WholeBodyModel:
    """The networks inside the moving average, on the CPU."""
    learner = average.module
    if not isinstance(learner, Learner):
        raise RunError(f"the average must hold a Learner, got {type(learner).__name__}")
    model = learner.model.cpu()
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return model


def publish_model(
    model: WholeBodyModel,
    plan: EncoderPlan,
    registry: Registry,
    *,
    run_dir: Path,
    organs: Mapping[TaskId, tuple[OrganName, ...]] | None = None,
    validation: Mapping[TaskId, Mapping[str, Any]] | None = None,
) -> None:
    """Freeze ``model``: publish its encoder, then every decoder.

    A run that kept its encoder near a published one carries the decoders of that one's other tasks over as they are.

    Args:
        model: Encoder and decoders of ``plan``.
        plan: Names, licence and provenance.
        registry: Must hold no encoder yet.
        run_dir: Where the weights are staged.
        organs: Organs to keep per task; the head's other channels are removed, so their voxels go to the next best
            organ or the background. Default: all.
        validation: Metrics for the cards.
    """
    today = datetime.date.today().isoformat()
    staged = run_dir / "encoder.safetensors"
    save_weights(model.encoder.state_dict(), staged)
    encoder = registry.publish_encoder(
        StagedEncoder(
            card=EncoderCard(
                name=plan.name,
                spec=plan.encoder,
                license=plan.license,
                provenance=plan.provenance,
                training={part: plan_to_json(plan)[part] for part in ("initial", "earlier", "train")},
                created=today,
            ),
            weights=staged,
        )
    )
    if plan.initial is not None and plan.distills:
        _carry_over(plan, registry, encoder_sha256=encoder.weights_sha256, run_dir=run_dir)
    for task in plan.tasks:
        kept = (organs or {}).get(task.task, task.organs)
        state, spec = keep_organs(model, task.task, task.organs, kept)
        path = run_dir / f"{task.task}.safetensors"
        save_weights(state, path)
        registry.publish(
            StagedTask(
                card=TaskCard(
                    task=task.task,
                    organs=find(kept),
                    spec=spec,
                    encoder_sha256=encoder.weights_sha256,
                    training_cases=_training_cases(plan, task),
                    validation=dict((validation or {}).get(task.task, {})),
                    license=plan.license,
                    provenance=plan.provenance,
                    limits=plan.limits,
                    created=today,
                ),
                weights=path,
            )
        )


def _carry_over(plan: EncoderPlan, registry: Registry, *, encoder_sha256: str, run_dir: Path) -> None:
    """Publish the decoders of the initial registry that ``plan`` did not train, on the new encoder.

    What was measured with the former encoder no longer holds and is left out of their cards.
    """
    assert plan.initial is not None  # noqa: S101 -- the caller asked
    former = load_model(Registry(plan.initial))
    trained = {task.task for task in plan.tasks}
    for task, card in former.cards.items():
        if task in trained:
            continue
        path = run_dir / f"{task}.safetensors"
        save_weights(former.network.decoder(task).state_dict(), path)
        carried = TaskCard(
            task=task,
            organs=card.organs,
            spec=card.spec,
            encoder_sha256=encoder_sha256,
            training_cases=card.training_cases,
            license=card.license,
            provenance=f"{card.provenance} The encoder was trained further afterwards ({plan.name}), this decoder not.",
            limits=card.limits,
            created=card.created,
        )
        registry.publish(StagedTask(card=carried, weights=path))


def _training_cases(plan: EncoderPlan, task: TaskPlan) -> int:
    """Scans in the list of ``task``, or synthetic scans drawn for it."""
    if task.source.get("kind") == "cases":
        return len(chosen_cases(task.source))
    share = task.weight / sum(other.weight for other in plan.tasks)
    return round(plan.train.steps * plan.train.batch_size * share)


def keep_organs(
    model: WholeBodyModel, task: TaskId, organs: tuple[OrganName, ...], kept: tuple[OrganName, ...]
) -> tuple[dict[str, torch.Tensor], DecoderSpec]:
    """State dict and spec of a decoder whose head has only the channels of ``kept``, in that order."""
    decoder = model.decoder(task)
    if not kept:
        raise RunError(f"task {task!r} must keep at least one organ, got none")
    unknown = sorted(set(kept) - set(organs))
    if unknown:
        raise RunError(f"task {task!r} was not trained for {', '.join(unknown)}; it knows {', '.join(organs)}")
    rows = torch.tensor([0, *(organs.index(organ) + 1 for organ in kept)])
    state = dict(decoder.state_dict())
    state["head.weight"] = state["head.weight"][rows]
    state["head.bias"] = state["head.bias"][rows]
    return state, dataclasses.replace(decoder.spec, num_organs=len(kept))


def _sources_of_all(plan: EncoderPlan, cache_dir: Path) -> Sequence[PatchSource]:
    """The sources of ``plan``, prepared by the first process while the others wait."""
    opened = open_sources(plan, cache_dir) if process_rank() == 0 else None
    wait_for_all()
    return opened or open_sources(plan, cache_dir)


def _write_config(plan: EncoderPlan, run_dir: Path) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    versions = {"wbcss": __version__, "torch": torch.__version__, "python": platform.python_version()}
    text = json.dumps({"versions": versions, **plan_to_json(plan)}, indent=1)
    temporary = run_dir / "config.tmp"
    temporary.write_text(text)
    temporary.replace(run_dir / "config.json")
