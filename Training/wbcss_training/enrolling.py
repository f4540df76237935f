"""`wbcss-train enroll`: learn a task on the frozen encoder, prove that nothing else changed, publish it.

Estimate, encode, train, validate, prove, publish. Every stage leaves what it made in the run folder, whole or not at
all, so that a run that was stopped or killed anywhere goes on from there, on the CPU to the same bits.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from wbcss.cards import TaskCard, task_card_to_bytes
from wbcss.devices import Step, descend
from wbcss.errors import Cancelled
from wbcss.io.atomic import write_bytes
from wbcss.loading import load_decoder, load_encoder, save_weights
from wbcss.nn.encoder import Encoder
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.registry import Registry, StagedTask
from wbcss.tiling import shrink_tile

from .casepools import CasePools, case_patches, encode_case_pools
from .config import TrainConfig
from .enrollment import EnrollmentReport, EnrollmentRequest, Schedule, schedule_of
from .estimate import Forecast, measure, steps_within
from .features import FeaturePool
from .heldout import judge, load_staged
from .initial import start_decoder
from .learner import DecoderLearner, build_decoder_learner
from .processes import any_process, process_count, process_device, process_group, process_rank, wait_for_all
from .publishing import organs_for, prove_publishable, publish_proven, snapshot_before
from .rounds import train_in_rounds
from .runfolder import BEFORE, CARD, DECODER, FEATURES, OVERLAYS, RECORD, REPORT, TRAINED, VALIDATION, RunFolder

_ADVICE = "choose a smaller patch or decoder"
_PREPARED, _VALIDATED = 0.02, 0.97
"""Of the whole, when encoding begins and when nothing but the proof is left."""

Tell = Callable[[str], None]


def _tell_nobody(text: str) -> None:
    """A Tell that tells nobody."""


def enroll(
    request: EnrollmentRequest,
    registry: Registry,
    *,
    run_dir: Path,
    device: str = "auto",
    num_workers: int = 0,
    publish: bool = True,
    tell: Tell = _tell_nobody,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> EnrollmentReport | None:
    """Learn (or go on learning) the task of ``request`` in ``run_dir`` and publish it into ``registry``.

    Joins the other processes when started by torchrun; those after the first return None when training is over.

    Args:
        request: Checked and split cases; see ``casechoice.choose_cases``.
        registry: Holds the encoder; earlier tasks are proven to be unchanged before and after publishing.
        run_dir: Encoded patches, checkpoints, ``metrics.jsonl``, ``curves.png`` and ``report.json`` go here.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        num_workers: Processes that draw patches while the encoder works.
        publish: Otherwise stop after the proof; a later call with the same folder publishes.
        tell: Told sentences for a person: the estimate, steps down when memory runs out.
        progress: Told fractions of the whole.
        cancelled: Asked all the time.

    Raises:
        SpecError: the run folder holds another run, or the cache or the time is too small for one.
        RunError: training diverged, or something old has changed; nothing is published.
        DeviceError: the device is missing, or memory ran out at every step of the ladder.
        Cancelled: ``cancelled`` returned true; resume to go on.
    """
    folder = RunFolder(run_dir)
    with process_group():
        run = _Run(
            request,
            registry,
            folder,
            encoder=load_encoder(registry),
            device=process_device(device),
            num_workers=num_workers,
            tell=tell,
            progress=progress,
            cancelled=cancelled,
        )
        if process_rank() == 0:
            with _resumable("the start"):
                run.prepare()
        wait_for_all()
        if any_process(not folder.has(TRAINED)):
            run.learn()
        wait_for_all()  # the first process has written the decoder
        is_first = process_rank() == 0
    return run.finish(publish=publish) if is_first else None


def estimate_only(request: EnrollmentRequest, registry: Registry, *, run_dir: Path, device: str = "auto") -> Forecast:
    """What an enrolment would cost; prepared cases stay in ``run_dir``."""
    run = _Run(
        request,
        registry,
        RunFolder(run_dir),
        encoder=load_encoder(registry),
        device=process_device(device),
        num_workers=0,
        tell=_tell_nobody,
        progress=silent,
        cancelled=never,
    )
    return run.estimate()


@dataclass(frozen=True)
class _Run:
    """One call of ``enroll``."""

    request: EnrollmentRequest
    registry: Registry
    folder: RunFolder
    encoder: Encoder
    device: torch.device
    num_workers: int
    tell: Tell
    progress: Progress
    cancelled: IsCancelled

    # Before

    def prepare(self) -> None:
        """Refuse what cannot be published, estimate and record a new run, remember what the registry is now."""
        identity = self.request.identity(self.registry.encoder_card())
        if self.folder.is_begun:
            self.folder.recorded_steps(identity)
        else:
            self.folder.root.mkdir(parents=True, exist_ok=True)
            with self.timed("estimate"):
                forecast = self.estimate()
            self.tell(forecast.sentence)
            self.folder.begin(identity, steps=forecast.steps, estimate=forecast.seconds)
        with self.timed("prove"):
            snapshot_before(self.registry, self.folder.root / BEFORE, cancelled=self.cancelled)

    def estimate(self) -> Forecast:
        """What the whole run would cost."""
        request = self.request
        schedule = self.schedule(request.train)
        measured = measure(
            case_patches(request, request.training, schedule, encoder=self.encoder.spec, run_dir=self.folder.root),
            self.encoder,
            schedule,
            held_out=request.validation[0] if request.validation else None,
            device=self.device,
        )
        counts = {"num_training": len(request.training), "num_validation": len(request.validation)}
        if request.minutes is not None:
            steps = steps_within(
                request.minutes, measured, lambda n: self.schedule(replace(request.train, steps=n)), **counts
            )
            schedule = self.schedule(replace(request.train, steps=steps))
        return measured.forecast(schedule, **counts)

    def schedule(self, config: TrainConfig) -> Schedule:
        return schedule_of(self.request, self.encoder.spec, config)

    # Learning

    def learn(self) -> None:
        """Encode and train, with smaller batches and then smaller patches when memory runs out."""
        steps = self.folder.recorded_steps(self.request.identity(self.registry.encoder_card()))
        config = replace(self.request.train, steps=steps)
        rungs = training_ladder(
            self.device, config.batch_size, config.patch or self.encoder.spec.tile, self.encoder.spec.divisor
        )
        taken = self.folder.ladder()
        if process_count() > 1:
            rungs = rungs[: len(taken) + 1]  # one process cannot step down alone while the others wait for it
        descend(rungs[len(taken) :], partial(self._attempt, config), self._step_down, advice=_ADVICE)

    def _step_down(self, text: str) -> None:
        self.folder.descended((*self.folder.ladder(), text))
        self.tell(text)

    def _attempt(self, config: TrainConfig, rung: Step) -> None:
        schedule = self.schedule(replace(config, batch_size=rung.batch, patch=rung.tile))
        with self.timed("encode"):
            pools = self._pools(schedule)
        held_out = pools.held_out
        torch.manual_seed(config.seed)
        learner = self._learner(schedule)
        with self.timed("train"):
            trained = train_in_rounds(
                learner,
                pools.training,
                held_out,
                schedule=schedule,
                run_dir=self.folder.root,
                progress=self._part("train"),
                cancelled=self.cancelled,
            )
        if process_rank() == 0:
            save_weights(trained.state, self.folder.root / DECODER)
            self.folder.write(
                TRAINED,
                {
                    "steps": trained.steps,
                    "best_step": trained.best_step,
                    "stopped_early": trained.steps < schedule.config.steps,
                    "held_out": None if held_out is None else {"folder": held_out.folder.name, "count": held_out.count},
                },
            )

    def _learner(self, schedule: Schedule) -> DecoderLearner:
        """A fresh decoder, or a copy of the published one that the request starts from."""
        learner = build_decoder_learner(self.encoder, schedule.decoder, schedule.config)
        start = self.request.start
        if start is not None:
            theirs = load_decoder(self.registry, start).state_dict()
            start_decoder(learner.decoder, theirs, card=start, organs=self.request.organs)
        return learner.to(self.device)

    def _pools(self, schedule: Schedule) -> CasePools:
        return encode_case_pools(
            self.request,
            schedule,
            self.encoder,
            encoder_sha256=self.registry.encoder_card().weights_sha256,
            run_dir=self.folder.root,
            device=self.device,
            num_workers=self.num_workers,
            progress=partial(self._part, "encode"),
            cancelled=self.cancelled,
        )

    # After

    def finish(self, *, publish: bool) -> EnrollmentReport:
        """Validate, calibrate, prove, publish; stages that are done already are not done again."""
        trained = self.folder.read(TRAINED)
        organs = organs_for(self.registry, self.request.organs, self.request.organ_cards)
        draft = TaskCard(
            task=self.request.task,
            organs=organs,
            spec=self.request.decoder_spec(self.encoder.spec),
            encoder_sha256=self.registry.encoder_card().weights_sha256,
            training_cases=len(self.request.training),
            license=self.request.license,
            provenance=self.request.provenance,
            limits=self.request.limits,
            created=datetime.date.today().isoformat(),
        )
        if not self.folder.has(VALIDATION):
            with self.timed("validate"), _resumable("the validation"):
                self.folder.write(VALIDATION, self._judged(draft, trained))
        verdict = self.folder.read(VALIDATION)
        card = replace(draft, validation={"held_out": verdict["held_out"]}, calibration=verdict["calibration"])
        with self.timed("prove"):
            self.progress(_VALIDATED, "proving that earlier tasks are unchanged")
            before = snapshot_before(self.registry, self.folder.root / BEFORE)
            staged = StagedTask(card=card, weights=self.folder.root / DECODER)
            end = publish_proven if publish else prove_publishable
            proven, unchanged = end(self.registry, staged, before, encoder=self.encoder)
        earlier = {organ.name for card in self.registry.all_cards() if card.title in unchanged for organ in card.organs}
        report = EnrollmentReport(
            card=proven,
            is_published=publish,
            validation={**verdict["held_out"], "scores": verdict["scores"]},
            steps=int(trained["steps"]),
            stopped_early=bool(trained["stopped_early"]),
            seconds=self.folder.seconds(),
            unchanged=unchanged,
            unchanged_organs=len(earlier),
            ladder=self.folder.ladder(),
        )
        write_bytes(self.folder.root / CARD, task_card_to_bytes(proven))
        self.folder.write(REPORT, report.to_json())
        self.progress(1.0, f"{proven.title} {'published' if publish else 'proven, not yet published'}")
        return report

    def _judged(self, draft: TaskCard, trained: Mapping[str, Any]) -> Mapping[str, Any]:
        encoder, place = self.encoder.cpu(), trained["held_out"]
        pool = None
        if place is not None:
            pool = FeaturePool(
                task=draft.task, folder=self.folder.root / FEATURES / place["folder"], count=place["count"]
            )
        return judge(
            load_staged(self.folder.root / DECODER, draft, encoder),
            encoder,
            card=draft,
            encoder_card=self.registry.encoder_card(),
            cases=self.request.validation,
            pool=pool,
            options=self.request.segmentation,
            chosen_on_them=self.request.is_few_shot,
            pictures=self.folder.root / OVERLAYS,
            progress=self._part("validate"),
            cancelled=self.cancelled,
        )

    def timed(self, stage: str) -> AbstractContextManager[None]:
        """Count the time of the block, in the process that writes."""
        return self.folder.timed(stage) if process_rank() == 0 else nullcontext()

    def _part(self, stage: str, first: float = 0.0, last: float = 1.0) -> Progress:
        """Progress from ``first`` to ``last`` of a stage as a part of the whole, by the time that it was estimated."""
        seconds: dict[str, float] = self.folder.read(RECORD)["estimate"]
        before_s = sum(list(seconds.values())[: list(seconds).index(stage)])
        total_s = sum(seconds.values()) or 1.0
        low, high = ((before_s + share * seconds[stage]) / total_s for share in (first, last))
        start, stop = (_PREPARED + (_VALIDATED - _PREPARED) * share for share in (low, high))
        return lambda fraction, text: self.progress(start + (stop - start) * fraction, text)


@contextmanager
def _resumable(stage: str) -> Iterator[None]:
    """Say of a cancelled block what to do next."""
    try:
        yield
    except Cancelled as error:
        raise Cancelled(f"{stage} of the enrolment was stopped; go on with --resume") from error


def training_ladder(
    device: torch.device, batch: int, patch: tuple[int, int, int], divisor: tuple[int, int, int]
) -> tuple[Step, ...]:
    """What to try in order: half the batch until it is one, then half the patch until it cannot be halved."""
    steps = [Step(device, batch, patch)]
    while steps[-1].batch > 1:
        steps.append(replace(steps[-1], batch=steps[-1].batch // 2))
    while (smaller := shrink_tile(steps[-1].tile, divisor, 0.5)) != steps[-1].tile:
        steps.append(replace(steps[-1], tile=smaller))
    return tuple(steps)
