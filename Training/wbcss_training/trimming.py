"""Making a trained decoder smaller: take channels out, distill, look at held-out cases, step back if it lost too much.

Progressive trimming (METHOD 1.3). The teacher of every step is the full decoder. What was decided depends on the record
in the folder alone, so a run that was stopped or killed anywhere goes on from there, on the CPU to the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from wbcss.cards import TaskCard
from wbcss.errors import RunError
from wbcss.io.atomic import write_bytes
from wbcss.loading import save_weights
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import Encoder
from wbcss.progress import IsCancelled, Progress
from wbcss.specs import DecoderSpec, EncoderSpec, spec_from_json, spec_to_json
from wbcss.storage import sha256_file

from .config import TrimConfig
from .continual.cost import decoder_cost
from .enrollment import Schedule
from .features import FeaturePool
from .heldout import load_staged
from .learner import fresh_decoder
from .narrowing import Kept, best_channels, filter_scores, fits_into, groups_for, narrow_decoder, taylor_scores
from .processes import any_process, process_rank, wait_for_all
from .rounds import train_in_rounds
from .runfolder import DECODER, VALIDATION, RunFolder
from .student import StudentLearner, Teacher

STEPS = "steps.json"
"""File of a trimming with what every step was and whether it was accepted."""

_START, _KEPT = "start.safetensors", "kept.json"
_SCORED_PATCHES = 8
"""Encoded patches on which channels are compared."""

_SHARES = 30
"""Widths that are tried between a whole step and none, to end a trimming just within its budget."""

Judge = Callable[[TaskCard, Path, Progress], Mapping[str, Any]]
"""Card and weights of a decoder to what held-out cases say of it, as ``heldout.judge``."""

_DISTILLED = 0.7
"""Of a step, when nothing is left but to look at the held-out cases."""


@dataclass(frozen=True, kw_only=True)
class TrimJob:
    """A trained decoder to be made smaller.

    Attributes:
        config: How.
        root: Folder for steps, checkpoints and the record.
        encoder: Frozen; only its spec is read.
        draft: Card of the full decoder, published or not.
        weights: Its weights.
        verdict: What held-out cases say of it.
        schedule: How it was trained; the patches are those of ``pool``.
        pool, held_out: Encoded patches to learn from, and those of held-out cases.
        judge: Looks at a smaller decoder.
        device: Where to train.
        tell: Told a sentence after every step.
        progress: Told fractions of the whole.
        cancelled: Asked all the time.
    """

    config: TrimConfig
    root: Path
    encoder: Encoder
    draft: TaskCard
    weights: Path
    verdict: Mapping[str, Any]
    schedule: Schedule
    pool: FeaturePool
    held_out: FeaturePool | None
    judge: Judge
    device: torch.device
    tell: Callable[[str], None]
    progress: Progress
    cancelled: IsCancelled


def hindrance(config: TrimConfig, verdict: Mapping[str, Any]) -> str | None:
    """Why the decoder that ``verdict`` speaks of cannot be trimmed; None if it can."""
    held_out = verdict["held_out"]
    if held_out["cases"] < config.min_cases:
        return (
            f"what a smaller decoder loses can be seen on at least {config.min_cases} held-out case(s) with these "
            f"organs only, got {held_out['cases']}"
        )
    if held_out["mean"]["dice"] is None:
        return "no held-out case has a Dice to compare"
    return None


def trim(job: TrimJob) -> None:
    """Trim (or go on trimming) until the budget is met or too many steps were taken back; all processes together.

    Raises:
        SpecError: the folder holds a trimming of something else.
        RunError: a distillation diverged, or a file of the run cannot be read.
        Cancelled: ``cancelled`` returned true; call again to go on.
    """
    folder = RunFolder(job.root)
    if process_rank() == 0:
        identity = {"trim": job.config.to_json(), "full_sha256": sha256_file(job.weights)}
        steps = job.config.distill_steps(job.schedule.config)
        if folder.is_begun:
            folder.recorded_steps(identity)
        else:
            folder.begin(identity, steps=steps, estimate={})
    wait_for_all()
    while (spec := next_spec(job.config, job.draft.spec, job.encoder.spec, read_steps(folder))) is not None:
        _Step(job, folder, tuple(read_steps(folder)), spec).take()
        wait_for_all()  # the first process has written the record that all read next


def read_steps(folder: RunFolder) -> list[dict[str, Any]]:
    """The record: one entry per step that is done. Raises RunError if it cannot be read."""
    return list(folder.read(STEPS)["steps"]) if folder.has(STEPS) else []


def next_spec(
    config: TrimConfig, full: DecoderSpec, encoder: EncoderSpec, steps: Sequence[Mapping[str, Any]]
) -> DecoderSpec | None:
    """Architecture to try after ``steps``; None when trimming has come to its end.

    First the finest level loses its convolutions, which are most of the arithmetic; taken back, it keeps them for
    good. Then widths shrink alike at all levels. After a step that was taken back the next one goes half as far; the
    last one goes no farther than the budget asks for.
    """
    if config.target is not None:
        return None if steps else config.target
    bare = replace(full, convs_per_stage=(0, *full.convs_per_stage[1:]))
    specs = {number: _spec_of(step) for number, step in enumerate(steps)}
    accepted = [specs[number] for number, step in enumerate(steps) if step["accepted"]]
    rejected = [specs[number] for number, step in enumerate(steps) if not step["accepted"] and specs[number] != bare]
    now = accepted[-1] if accepted else full
    limit = config.budget * decoder_cost(full, encoder).macs
    share: float = config.shrink ** (0.5 ** len(rejected))
    if len(rejected) > config.max_rejected or decoder_cost(now, encoder).macs <= limit:
        return None
    if not (config.keep_finest or steps or bare == full):
        return bare
    for step in (*np.linspace(1, share, _SHARES, endpoint=False)[1:], share):
        candidate = _narrower(now, float(step), multiple=config.multiple)
        if candidate != now and candidate not in rejected and decoder_cost(candidate, encoder).macs <= limit:
            return candidate
    candidate = _narrower(now, share, multiple=config.multiple)
    return None if candidate == now or candidate in rejected else candidate


def _narrower(spec: DecoderSpec, share: float, *, multiple: int) -> DecoderSpec:
    """``spec`` with ``share`` of its widths, rounded to multiples; a level that is no wider than one stays."""
    widths = tuple(
        min(width, max(multiple, round(width * share / multiple) * multiple)) for width in spec.stage_channels
    )
    return replace(spec, stage_channels=widths)


def _spec_of(step: Mapping[str, Any]) -> DecoderSpec:
    return spec_from_json(DecoderSpec, step["spec"])


@dataclass(frozen=True)
class _Step:
    """One step of a trimming, in a folder of its own."""

    job: TrimJob
    folder: RunFolder
    before: tuple[Mapping[str, Any], ...]
    spec: DecoderSpec

    @property
    def here(self) -> RunFolder:
        return step_folder(self.folder, len(self.before) + 1)

    def take(self) -> None:
        """Cut, distill, judge and record; what is done already is not done again."""
        if process_rank() == 0 and not self.here.has(_START):
            self.here.root.mkdir(parents=True, exist_ok=True)
            self.cut()
        wait_for_all()
        if any_process(not self.here.has(DECODER)):
            self.distill()
        wait_for_all()  # the first process has written the decoder
        if process_rank() == 0:
            self.record()

    def cut(self) -> None:
        """Where the distillation starts: the channels that matter most, or random weights for another architecture."""
        job, config = self.job, self.job.schedule.config
        place = last_accepted(self.before)
        former, path, kept_before = self.former(place)
        if fits_into(self.spec, former.spec):
            decoder = load_staged(path, former, job.encoder)
            if job.config.importance == "filters":
                scores = filter_scores(decoder)
            else:
                patches = (job.pool.patch(number) for number in range(min(_SCORED_PATCHES, job.pool.count)))
                scores = taylor_scores(decoder.to(job.device), job.pool.task, patches, config=config)
            kept = groups_for(best_channels(scores, self.spec.stage_channels), self.spec)
            torch.manual_seed(config.seed)
            start = narrow_decoder(decoder.cpu(), job.encoder.spec, self.spec, kept)
            self.here.write(_KEPT, {"kept": kept if kept_before is None else _composed(kept_before, kept)})
        else:
            torch.manual_seed(config.seed)
            start = fresh_decoder(self.spec, job.encoder.spec)
            self.here.write(_KEPT, {"kept": None})
        # Last, as it is what says that the cut was made.
        write_bytes(self.here.root / _START, safetensors.torch.save(dict(start.state_dict())))

    def former(self, place: int | None) -> tuple[TaskCard, Path, Kept | None]:
        """Card, weights and channels of the full decoder, of what this step starts from."""
        if place is None:
            return self.job.draft, self.job.weights, None
        folder = step_folder(self.folder, place + 1)
        card = replace(self.job.draft, spec=_spec_of(self.before[place]))
        return card, folder.root / DECODER, folder.read(_KEPT)["kept"]

    def distill(self) -> None:
        """Let the smaller decoder learn from labels and from the full one."""
        job = self.job
        config = replace(job.schedule.config, steps=job.config.distill_steps(job.schedule.config), finest_level=0)
        config = replace(config, warmup_steps=min(config.warmup_steps, config.steps // 4))
        schedule = replace(
            job.schedule,
            config=config,
            decoder=self.spec,
            coarse_steps=0,
            round_steps=min(job.schedule.round_steps, config.steps),
        )
        torch.manual_seed(config.seed)
        decoder = Decoder(self.spec, job.encoder.spec)
        decoder.load_state_dict(_read_start(self.here.root / _START))
        teacher = Teacher(load_staged(job.weights, job.draft, job.encoder))
        kept = self.here.read(_KEPT)["kept"]
        learner = StudentLearner(decoder, config, teacher=teacher, distill=job.config.distill, kept=kept)
        trained = train_in_rounds(
            learner.to(job.device),
            job.pool,
            job.held_out,
            schedule=schedule,
            run_dir=self.here.root,
            progress=lambda fraction, text: self.progress(_DISTILLED * fraction, text),
            cancelled=job.cancelled,
        )
        if process_rank() == 0:
            save_weights(trained.state, self.here.root / DECODER)

    def progress(self, fraction: float, text: str) -> None:
        """How many steps there will be nobody knows: after as many as expected three quarters are said to be done."""
        done = (len(self.before) + fraction) / self.job.config.expected_steps
        widths = "-".join(map(str, self.spec.stage_channels))
        self.job.progress(1 - 0.25**done, f"trimming to {widths}: {text}")

    def judging(self, fraction: float, text: str) -> None:
        """Progress of the look at the held-out cases."""
        self.progress(_DISTILLED + (1 - _DISTILLED) * fraction, text)

    def record(self) -> None:
        """Judge the smaller decoder on held-out cases and write down what is decided."""
        job, started = self.job, time.monotonic()
        card = replace(job.draft, spec=self.spec)
        if not self.here.has(VALIDATION):
            self.here.write(VALIDATION, job.judge(card, self.here.root / DECODER, self.judging))
        verdict = self.here.read(VALIDATION)
        before, now = job.verdict["held_out"]["mean"]["dice"], verdict["held_out"]["mean"]["dice"]
        accepted = now is not None and now >= before - job.config.tolerance
        cost, full = (decoder_cost(spec, job.encoder.spec) for spec in (self.spec, job.draft.spec))
        entry = {
            "spec": spec_to_json(self.spec),
            "parameters": cost.parameters,
            "macs": cost.macs,
            "dice": now,
            "accepted": accepted,
            "optimizer_steps": job.config.distill_steps(job.schedule.config),
            "validation_s": round(time.monotonic() - started, 1),
        }
        self.folder.write(STEPS, {"steps": [*self.before, entry]})
        dice = "no Dice" if now is None else f"Dice {now:.4f}"
        job.tell(
            f"{'-'.join(map(str, self.spec.stage_channels))} channels, {full.macs / cost.macs:.1f} times fewer "
            f"multiply-accumulates: {dice} against {before:.4f}, {'accepted' if accepted else 'taken back'}"
        )


def step_folder(folder: RunFolder, number: int) -> RunFolder:
    """Folder of step ``number``, counted from 1."""
    return RunFolder(folder.root / f"step-{number}")


def last_accepted(steps: Sequence[Mapping[str, Any]]) -> int | None:
    """Index of the last step that was accepted."""
    return max((number for number, step in enumerate(steps) if step["accepted"]), default=None)


def _composed(before: Kept, now: Kept) -> Kept:
    """Channels of the full decoder that are kept ``now``, numbered among those kept ``before``."""
    return tuple(
        tuple(tuple(former[channel] for channel in group) for former, group in zip(*levels, strict=True))
        for levels in zip(before, now, strict=True)
    )


def _read_start(path: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(
            f"the weights that a step of the trimming starts from, {path.name}, must be readable, got {error}; "
            "remove the folder of that step and resume"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """What is to be published after a trimming.

    Attributes:
        draft: Card of the decoder that was kept, the full one if no smaller was good enough.
        weights: Its weights.
        verdict: What held-out cases say of it.
        summary: For card and report: cost and accuracy of the full decoder, of the kept one and of every step; empty
            if no step was taken.
    """

    draft: TaskCard
    weights: Path
    verdict: Mapping[str, Any]
    summary: Mapping[str, Any]


def outcome(
    config: TrimConfig | None,
    root: Path,
    *,
    draft: TaskCard,
    weights: Path,
    verdict: Mapping[str, Any],
    encoder: EncoderSpec,
) -> Trimmed:
    """What the trimming in ``root`` of the full decoder (card, weights, verdict) has come to, if there was any."""
    folder = RunFolder(root)
    steps = read_steps(folder)
    if config is None or not steps:
        return Trimmed(draft=draft, weights=weights, verdict=verdict, summary={})
    place = last_accepted(steps)
    before = _facts(draft.spec, verdict, encoder)
    if place is None:
        kept, kept_draft, kept_weights, kept_verdict = before, draft, weights, verdict
    else:
        here = step_folder(folder, place + 1)
        kept_draft, kept_weights = replace(draft, spec=_spec_of(steps[place])), here.root / DECODER
        kept_verdict = here.read(VALIDATION)
        kept = _facts(kept_draft.spec, kept_verdict, encoder)
    summary = {
        "full": before,
        "kept": kept,
        "steps": steps,
        "tolerance": config.tolerance,
        "budget": config.budget if config.target is None else None,
        "note": "steps were accepted by the Dice on the same held-out cases",
    }
    return Trimmed(draft=kept_draft, weights=kept_weights, verdict=kept_verdict, summary=summary)


def _facts(spec: DecoderSpec, verdict: Mapping[str, Any], encoder: EncoderSpec) -> dict[str, Any]:
    """Architecture, cost for a tile of the encoder, and accuracy of one decoder."""
    cost, held_out = decoder_cost(spec, encoder), verdict["held_out"]
    return {
        "spec": spec_to_json(spec),
        "parameters": cost.parameters,
        "macs": cost.macs,
        "mean": dict(held_out["mean"]),
        "organs": {organ: row["dice"] for organ, row in held_out["organs"].items()},
    }
