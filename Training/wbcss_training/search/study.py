"""`wbcss-train search`: encode once, measure once, then search, sweep or compare in the same run folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from wbcss.console import duration
from wbcss.errors import SpecError
from wbcss.io.atomic import write_text
from wbcss.loading import load_encoder
from wbcss.nn.encoder import Encoder
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.registry import Registry
from wbcss.specs import DecoderSpec, spec_to_json

from ..casepools import encode_case_pools
from ..enrollment import EnrollmentRequest, Schedule, schedule_of
from ..runfolder import RunFolder
from .candidate import Candidate, Classroom
from .compare import BARE, SEARCHED, SWEPT, Pair, candidate_table, comparison_json, comparison_markdown
from .costmodel import CostModel, DecoderCost
from .expected import Budget, space_parts
from .latency import cache_folder, measured_table, read_table, write_table
from .run import SearchJob, search_decoder
from .searcher import SearchConfig
from .space import SearchSpace, without_finest
from .sweep import pick, sweep_widths, widest_within

SPEC = "decoder.json"
"""The chosen architecture, as ``wbcss-train enroll --decoder`` reads it."""

REPORT, TABLE, LATENCY = "search.json", "search.md", "latency.json"

Mode = Literal["search", "sweep", "compare"]
_MEASURED, _ENCODED = 0.05, 0.2
"""Of the whole, when encoding begins and when it is done."""


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """What is asked.

    Attributes:
        task: Cases, organs, schedule and seed; its decoder is the full one that is shrunk.
        mode: ``search`` by gradient, ``sweep`` one width for all levels, ``compare`` both at equal cost.
        search: Budget, and how choices are learned.
        tolerance: Dice that the sweep may lose against its most accurate width.
        seeds: Of the comparison.
        target: Device whose time counts, or a table that was measured there.
        latency_dir: Where measured tables are kept for other runs.
    """

    task: EnrollmentRequest
    mode: Mode = "search"
    search: SearchConfig = field(default_factory=SearchConfig)
    tolerance: float = 0.005
    seeds: tuple[int, ...] = (0, 1, 2)
    target: torch.device | Path
    latency_dir: Path = field(default_factory=cache_folder)

    def __post_init__(self) -> None:
        if self.task.decoder is None:
            raise SpecError("a search needs the full decoder that it shrinks, got None")
        if not 0 <= self.tolerance <= 1:
            raise SpecError(f"tolerance must be a Dice in [0, 1], got {self.tolerance}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SpecError(f"a comparison needs seeds, each once, got {self.seeds}")


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """What came out.

    Attributes:
        spec: The chosen decoder; of a comparison the searched one of its first seed.
        cost, full: Predicted cost of it and of the full decoder.
        candidates: Trained decoders, in the order of the table.
        facts: For ``search.json``.
        text: For a person.
    """

    spec: DecoderSpec
    cost: DecoderCost
    full: DecoderCost
    candidates: tuple[Candidate, ...]
    facts: Mapping[str, Any]
    text: str


def run_study(
    request: StudyRequest,
    registry: Registry,
    *,
    run_dir: Path,
    device: torch.device,
    num_workers: int = 0,
    tell: Callable[[str], None] = lambda text: None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> StudyReport:
    """Search (or go on searching) in ``run_dir``; writes ``decoder.json``, ``search.json`` and pictures there.

    Raises:
        SpecError: the run folder holds another run, or nothing fits the budget.
        RunError: training diverged.
        Cancelled: ``cancelled`` returned true; resume to go on.
    """
    folder = RunFolder(run_dir)
    study = _Study(request, registry, folder, load_encoder(registry), device, tell, progress, cancelled)
    study.begin()
    model = study.cost_model()
    budget = Budget.of(study.space, model, share=request.search.budget)
    tell(
        f"the full decoder takes {1000 * budget.full_seconds:.1f} ms per tile on {model.table.machine.name}; "
        f"the budget is {budget.share:.1%} of that, {1000 * budget.share * budget.full_seconds:.1f} ms"
    )
    pools = encode_case_pools(
        request.task,
        study.schedule,
        study.encoder,
        encoder_sha256=registry.encoder_card().weights_sha256,
        run_dir=run_dir,
        device=device,
        num_workers=num_workers,
        progress=lambda first, last: _between(
            progress, *(_MEASURED + (_ENCODED - _MEASURED) * share for share in (first, last))
        ),
        cancelled=cancelled,
    )
    classroom = Classroom(study.encoder, pools, study.schedule, model, device)
    report = {"search": study.searched, "sweep": study.swept, "compare": study.compared}[request.mode](
        classroom, budget
    )
    write_text(run_dir / SPEC, json.dumps(spec_to_json(report.spec), indent=1) + "\n")
    write_text(run_dir / TABLE, report.text)
    folder.write(REPORT, report.facts)
    progress(1.0, f"{request.mode}: {'-'.join(map(str, report.spec.stage_channels))} channels")
    return report


def _between(progress: Progress, low: float, high: float) -> Progress:
    return lambda fraction, text: progress(low + (high - low) * fraction, text)


@dataclass(frozen=True)
class _Study:
    """One call of ``run_study``."""

    request: StudyRequest
    registry: Registry
    folder: RunFolder
    encoder: Encoder
    device: torch.device
    tell: Callable[[str], None]
    progress: Progress
    cancelled: IsCancelled

    @property
    def space(self) -> SearchSpace:
        """What is chosen from."""
        return SearchSpace(encoder=self.encoder.spec, full=self.request.task.decoder_spec(self.encoder.spec))

    @property
    def schedule(self) -> Schedule:
        """Pools and schedule of the task."""
        return schedule_of(self.request.task, self.encoder.spec, self.request.task.train)

    def begin(self) -> None:
        """Record a new run, or refuse to go on with another one."""
        request = self.request
        identity = {
            **request.task.identity(self.registry.encoder_card()),
            "mode": request.mode,
            "search": dataclasses.asdict(request.search),
            "tolerance": request.tolerance if request.mode == "sweep" else None,
            "seeds": list(request.seeds) if request.mode == "compare" else None,
        }
        if self.folder.is_begun:
            self.folder.recorded_steps(identity)
        else:
            self.folder.begin(identity, steps=request.task.train.steps, estimate={})

    def cost_model(self) -> CostModel:
        """Costs on the target. A run keeps the table that it began with: another would lead the search elsewhere."""
        path = self.folder.root / LATENCY
        target = self.request.target
        if not path.is_file():
            table = (
                read_table(target)
                if isinstance(target, Path)
                else measured_table(
                    space_parts(self.space),
                    self.encoder.spec,
                    device=target,
                    folder=self.request.latency_dir,
                    progress=_between(self.progress, 0.0, _MEASURED),
                    cancelled=self.cancelled,
                )
            )
            write_table(table, path)
        return CostModel(read_table(path), self.encoder.spec)

    def searched(self, classroom: Classroom, budget: Budget) -> StudyReport:
        """Search with the seed of the task."""
        seed = self.request.task.train.seed
        spec = self._search(classroom, budget, self.folder.root, seed, _between(self.progress, _ENCODED, 1.0))
        return self._report(spec, budget, ())

    def _search(
        self, classroom: Classroom, budget: Budget, run_dir: Path, seed: int, progress: Progress
    ) -> DecoderSpec:
        train = dataclasses.replace(classroom.schedule.config, seed=seed)
        job = SearchJob(space=self.space, budget=budget, train=train, search=self.request.search)
        pool = dataclasses.replace(classroom.pools.training, seed=seed)
        return search_decoder(
            job, pool, run_dir=run_dir, device=self.device, progress=progress, cancelled=self.cancelled
        )

    def swept(self, classroom: Classroom, budget: Budget) -> StudyReport:
        """Train every width and pick one."""
        candidates = sweep_widths(
            classroom,
            self.space,
            self.folder.root,
            seed=self.request.task.train.seed,
            progress=_between(self.progress, _ENCODED, 1.0),
            cancelled=self.cancelled,
        )
        chosen = pick(candidates, tolerance=self.request.tolerance, limit_s=budget.share * budget.full_seconds)
        return self._report(chosen.spec, budget, candidates)

    def compared(self, classroom: Classroom, budget: Budget) -> StudyReport:
        """Per seed: search, then train what was found and the decoders of one width of equal cost alike."""
        pairs = []
        count = 4 * len(self.request.seeds)
        for number, seed in enumerate(self.request.seeds):
            parts = [
                _between(self.progress, *(_ENCODED + (1 - _ENCODED) * (4 * number + n + end) / count for end in (0, 1)))
                for n in range(4)
            ]
            root = self.folder.root / f"seed-{seed}"
            spec = self._search(classroom, budget, root / "search", seed, parts[0])
            full, limit_s = self.space.full, budget.model.cost(spec).seconds
            specs = {
                SEARCHED: spec,
                SWEPT: widest_within(budget.model, full, limit_s=limit_s),
                BARE: widest_within(budget.model, without_finest(full), limit_s=limit_s),
            }
            found = {
                name: classroom.candidate(
                    candidate,
                    root / name.replace(" ", "-"),
                    name=name,
                    seed=seed,
                    progress=part,
                    cancelled=self.cancelled,
                )
                for (name, candidate), part in zip(specs.items(), parts[1:], strict=True)
            }
            pairs.append(Pair(searched=found[SEARCHED], swept=found[SWEPT], bare=found[BARE]))
        report = self._report(pairs[0].searched.spec, budget, ())
        facts = {"full_seconds": budget.full_seconds, "budget": budget.share}
        return dataclasses.replace(
            report,
            candidates=tuple(candidate for pair in pairs for candidate in pair.by_name.values()),
            facts={**report.facts, "comparison": comparison_json(pairs, **facts)},
            text=comparison_markdown(pairs, **facts),
        )

    def _report(self, spec: DecoderSpec, budget: Budget, candidates: Sequence[Candidate]) -> StudyReport:
        cost, full = budget.model.cost(spec), budget.model.cost(self.space.full)
        table = budget.model.table
        shares = {name: getattr(cost, name) / getattr(full, name) for name in ("seconds", "parameters", "macs")}
        facts = {
            "format": "wbcss-search",
            "format_version": 1,
            "mode": self.request.mode,
            "seed": self.request.task.train.seed,
            "organs": list(self.request.task.organs),
            "budget": budget.share,
            "machine": dataclasses.asdict(table.machine),
            "tile": list(table.tile),
            "spec": spec_to_json(spec),
            "cost": dataclasses.asdict(cost),
            "full": dataclasses.asdict(full),
            "shares": shares,
            "candidates": [candidate.to_json() for candidate in candidates],
        }
        rows = candidate_table(candidates, full.seconds) + "\n" if candidates else ""
        return StudyReport(
            spec=spec,
            cost=cost,
            full=full,
            candidates=tuple(candidates),
            facts=facts,
            text=rows + _sentence(spec, cost, shares),
        )


def _sentence(spec: DecoderSpec, cost: DecoderCost, shares: Mapping[str, float]) -> str:
    widths = "-".join(map(str, spec.stage_channels))
    return (
        f"chosen: {widths} channels, {'-'.join(map(str, spec.convs_per_stage))} convolutions; "
        f"{duration(cost.seconds) if cost.seconds >= 1 else f'{1000 * cost.seconds:.1f} ms'} per tile "
        f"({shares['seconds']:.1%} of full), {cost.parameters / 1e6:.3f} M parameters ({shares['parameters']:.1%}), "
        f"{cost.macs / 1e9:.2f} GMAC ({shares['macs']:.1%})\n"
    )
