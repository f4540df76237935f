"""`wbcss-train enroll`: learn a task on the frozen encoder, prove that nothing else changed, publish it.

Estimate, encode, train, validate, trim, prove, publish. Every stage leaves what it made in the run folder, whole or not
at all, so that a run that was stopped or killed anywhere goes on from there, on the CPU to the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from wbcss.cards import task_card_to_bytes
from wbcss.devices import Step, descend
from wbcss.errors import SpecError
from wbcss.io.atomic import write_bytes
from wbcss.loading import load_decoder, load_encoder, save_weights
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.registry import Registry, StagedTask

from .casepools import CasePools, case_patches
from .config import TrainConfig, TrimConfig
from .enrollment import EnrollmentReport, EnrollmentRequest, Schedule, schedule_of, training_ladder
from .estimate import Forecast, measure, steps_within
from .initial import start_decoder
from .learner import DecoderLearner, build_decoder_learner
from .levelranges import with_ranges
from .processes import any_process, process_count, process_device, process_group, process_rank, wait_for_all
from .publishing import prove_publishable, publish_proven, snapshot_before
from .rounds import TrainedDecoder, train_in_rounds
from .runfolder import BEFORE, CARD, DECODER, REPORT, TRAINED, TRIM, VALIDATION, RunFolder
from .trimming import TrimJob, hindrance, outcome, trim
from .workbench import VALIDATED, Tell, Workbench, resumable, tell_nobody

_ADVICE = "choose a smaller patch or decoder"


def enroll(
    request: EnrollmentRequest,
    registry: Registry,
    *,
    run_dir: Path,
    device: str = "auto",
    num_workers: int = 0,
    publish: bool = True,
    tell: Tell = tell_nobody,
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
        SpecError: the run folder holds another run, the cache or the time is too small for one, or a published decoder
            is to be made smaller without cases to see what that costs.
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
            with resumable("the start"):
                run.prepare()
        wait_for_all()
        if any_process(not folder.has(TRAINED)):
            run.learn()
        wait_for_all()  # the first process has written the decoder
        if request.trim is not None:
            run.trim(request.trim)
            wait_for_all()
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
        tell=tell_nobody,
        progress=silent,
        cancelled=never,
    )
    return run.estimate()


@dataclass(frozen=True)
class _Run(Workbench):
    """One call of ``enroll``."""

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
            held_out=(request.validation or request.training)[0],
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
        rungs = self._schedules()
        if process_count() > 1:
            rungs = dict([next(iter(rungs.items()))])  # one process cannot step down alone while the others wait for it
        descend(tuple(rungs), lambda rung: self._attempt(rungs[rung]), self._step_down, advice=_ADVICE)

    def _schedules(self) -> dict[Step, Schedule]:
        """What is left of the ladder, and what each rung means."""
        steps = self.folder.recorded_steps(self.request.identity(self.registry.encoder_card()))
        config = replace(self.request.train, steps=steps)
        rungs = training_ladder(
            self.device, config.batch_size, config.patch or self.encoder.spec.tile, self.encoder.spec.divisor
        )
        left = rungs[len(self.folder.ladder()) :]
        return {rung: self.schedule(replace(config, batch_size=rung.batch, patch=rung.tile)) for rung in left}

    def _step_down(self, text: str) -> None:
        self.folder.descended((*self.folder.ladder(), text))
        self.tell(text)

    def _attempt(self, schedule: Schedule) -> None:
        with self.timed("encode"):
            pools = self.pools(schedule, partial(self.part, "encode"))
        held_out = pools.held_out
        with self.timed("train"):
            trained = self._trained(schedule, pools)
        if process_rank() == 0:
            save_weights(trained.state, self.folder.root / DECODER)
            self.folder.write(
                TRAINED,
                {
                    "steps": trained.steps,
                    "best_step": trained.best_step,
                    "stopped_early": trained.steps < schedule.config.steps and self.request.published is None,
                    "held_out": None if held_out is None else {"folder": held_out.folder.name, "count": held_out.count},
                    "training": {"folder": pools.training.folder.name, "count": pools.training.count},
                },
            )

    def _trained(self, schedule: Schedule, pools: CasePools) -> TrainedDecoder:
        """The full decoder: learned, or the published one that is only to be made smaller."""
        if self.request.published is not None:
            return TrainedDecoder(load_decoder(self.registry, self.request.published).state_dict(), 0, 0)
        torch.manual_seed(schedule.config.seed)
        return train_in_rounds(
            self._learner(schedule),
            pools.training,
            pools.held_out,
            schedule=schedule,
            run_dir=self.folder.root,
            progress=self.part("train"),
            cancelled=self.cancelled,
        )

    def _learner(self, schedule: Schedule) -> DecoderLearner:
        """A fresh decoder, or a copy of the published one that the request starts from."""
        learner = build_decoder_learner(self.encoder, schedule.decoder, schedule.config)
        start = self.request.start
        if start is not None:
            theirs = load_decoder(self.registry, start).state_dict()
            start_decoder(learner.decoder, theirs, card=start, organs=self.request.organs)
        return learner.to(self.device)

    # After

    def trim(self, config: TrimConfig) -> None:
        """Make the full decoder smaller, where held-out cases can say what that costs."""
        draft, trained = self.draft(), self.folder.read(TRAINED)
        if process_rank() == 0:
            self.validate(draft, trained)
        wait_for_all()
        verdict, reason = self.folder.read(VALIDATION), self.hindrance()
        if reason is not None:
            if self.request.published is not None:
                raise SpecError(f"a decoder can be made smaller where that can be judged, but {reason}")
            self.tell(f"the decoder is not trimmed: {reason}")
            return
        schedule = next(iter(self._schedules().values()))
        pools = self.pools(schedule, lambda first, last: silent)  # they are there already
        job = TrimJob(
            config=config,
            root=self.folder.root / TRIM,
            encoder=self.encoder,
            draft=draft,
            weights=self.folder.root / DECODER,
            verdict=verdict,
            schedule=schedule,
            pool=pools.training,
            held_out=pools.held_out,
            judge=partial(self.judged, trained=trained),
            device=self.device,
            tell=self.tell,
            progress=self.part("trim"),
            cancelled=self.cancelled,
        )
        with self.timed("trim"), resumable("the trimming"):
            trim(job)

    def hindrance(self) -> str | None:
        """Why the full decoder, which has been validated, cannot be trimmed as asked; None if it can or need not."""
        config = self.request.trim
        return None if config is None else hindrance(config, self.folder.read(VALIDATION))

    def finish(self, *, publish: bool) -> EnrollmentReport:
        """Validate, calibrate, prove, publish; stages that are done already are not done again."""
        trained, draft = self.folder.read(TRAINED), self.draft()
        self.validate(draft, trained)
        done = outcome(
            self.request.trim,
            self.folder.root / TRIM,
            draft=draft,
            weights=self.folder.root / DECODER,
            verdict=self.folder.read(VALIDATION),
            encoder=self.encoder.spec,
        )
        verdict = done.verdict
        card = replace(
            done.draft,
            validation={"held_out": verdict["held_out"], **({"trimming": done.summary} if done.summary else {})},
            calibration=verdict["calibration"],
        )
        card = with_ranges(card, self.registry, self._pool(trained, "training"))
        card, evidence = self.testified(card, done.weights, trained)
        with self.timed("prove"):
            self.progress(VALIDATED, "proving that earlier tasks are unchanged")
            before = snapshot_before(self.registry, self.folder.root / BEFORE)
            staged = StagedTask(card=card, weights=done.weights, evidence=evidence)
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
            trimming=done.summary,
            untrimmed=self.hindrance() or "",
        )
        write_bytes(self.folder.root / CARD, task_card_to_bytes(proven))
        self.folder.write(REPORT, report.to_json())
        if self.request.published is not None and done.weights == self.folder.root / DECODER:
            self.tell(f"no smaller decoder was good enough; {proven.title} stays the newest version")
        self.progress(1.0, f"{proven.title} {'published' if publish else 'proven, not yet published'}")
        return report
