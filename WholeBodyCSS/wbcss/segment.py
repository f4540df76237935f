"""Segment a volume: orient, resample, tile, encode once, decode per task, merge, return to the caller's grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from .backend import TileEncoderDecoder
from .backend_choice import BackendName, BackendRequest, choose_backend
from .body import find_body
from .bodypart import BodyPartGate, BodyPartReport, Verdict, organ_levels
from .catalogue import Organ
from .checks import OrganFacts
from .devices import Step, descend, ladder, limited_threads, resolve_device
from .errors import InputError
from .heads import TaskHead, channel_labels
from .hounsfield import ValueDoubt, doubt_values
from .inference import Clock, Pass, Scan, TileFeeder
from .labels import OrganName, TaskId
from .levelcard import ranges_of
from .loading import LoadedModel, TaskEvidence
from .merge import Candidate, Merger
from .numbering import Renumbering, repair_numbering
from .preprocess import ModelGrid
from .progress import IsCancelled, Progress, never, silent
from .selection import Selection, select
from .specs import MergeRules, TileSpec
from .tiling import Extent, TilePlan, plan_tiles, shrink_tile
from .volume import Affine, Confidence, LabelMap, Shape3, Spacing_mm, Volume
from .witnesses import NO_TESTIMONY, Descriptors, Testimony, lesion_rules, open_pools, organ_facts, witnesses

COARSE = 2.5
"""Slices this many model voxels apart get a warning."""


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """How a volume is segmented.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        backend: What runs the network on the CPU; ``auto`` measures one tile and takes the faster.
        overlap: Fraction of a tile shared with its neighbor, 0 <= overlap < 1.
        merge: How organs claimed by several tasks are settled.
        threads: CPU threads, or None for the library's default.
        repair_numbering: Number vertebrae and ribs anew where their order says so; every change is reported.
        describe: Give the descriptors of organs, for the sums that an enrolment stores.
        body_part: Skip decoders and drop organs where they cannot be, if the registry has a level head.
    """

    device: str = "auto"
    backend: BackendName = "auto"
    overlap: float = 0.5
    merge: MergeRules = field(default_factory=MergeRules)
    threads: int | None = None
    repair_numbering: bool = False
    describe: bool = False
    body_part: bool = True

    def __post_init__(self) -> None:
        if self.backend not in ("auto", "torch", "openvino"):
            raise InputError(f"backend must be auto, torch or openvino, got {self.backend!r}")
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap must be in [0, 1), got {self.overlap}")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads must be at least 1, got {self.threads}")


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What a run did, for the report file and the log. Holds nothing about the patient.

    Attributes:
        device: Where the network ran at the end, as ``cpu`` or ``cuda:0``.
        backend: What ran it, with its precision, as ``torch-float32``.
        model_grid_shape: Shape (R, A, S) of the model grid inside the body box.
        model_spacing_mm: Spacing of the model grid.
        num_tiles: Tiles that were run.
        num_encoder_calls: Calls of the encoder, a batch counting once.
        stage_seconds: Wall time of every stage by name.
        warnings: One sentence each.
        ladder: Steps taken after running out of memory, in order.
        body_part: What the body-part check saw and did; None if there was none.
    """

    device: str
    backend: str
    model_grid_shape: Shape3
    model_spacing_mm: Spacing_mm
    num_tiles: int
    num_encoder_calls: int
    stage_seconds: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    ladder: tuple[str, ...] = ()
    body_part: BodyPartReport | None = None


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels on exactly the grid of the volume that was passed in.

    Attributes:
        labels: (I, J, K) uint16, global label values, 0 background.
        confidence: (I, J, K) float16 in [0, 1]: calibrated probability of the label written.
        affine: The caller's ijk to RAS mm.
        organs: Those asked for, in registry order.
        tasks: Those that ran.
        report: What the run did.
        facts: What is known of organs beside their voxels, for ``statistics``.
        candidates: Who claimed the organs that several tasks know, and who got them.
        descriptors: Of the organs of every task, if ``SegmentOptions.describe``.
        renumberings: What ``SegmentOptions.repair_numbering`` changed.
    """

    labels: LabelMap
    confidence: Confidence
    affine: Affine
    organs: tuple[Organ, ...]
    tasks: tuple[TaskId, ...]
    report: RunReport = field(repr=False)
    facts: Mapping[OrganName, OrganFacts] = field(default_factory=dict, repr=False)
    candidates: tuple[Candidate, ...] = field(default=(), repr=False)
    descriptors: Descriptors = field(default_factory=dict, repr=False)
    renumberings: tuple[Renumbering, ...] = ()


def segment(
    volume: Volume,
    model: LoadedModel,
    *,
    organs: Iterable[OrganName] | None = None,
    tasks: Iterable[TaskId] | None = None,
    options: SegmentOptions = SegmentOptions(),
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> Segmentation:
    """Segment ``organs`` (default: all of the usual ``tasks``) and return them on the grid of ``volume``.

    Only the tasks that know an organ asked for are run, and those on request only if it is one of theirs alone: see
    ``select``. Memory beyond the input, labels and confidence depends on the width of the body and the tile, not on
    the number of organs or slices.

    Raises:
        InputError: an organ, task or device is unknown, or the volume is not CT.
        GeometryError: the volume is larger than a patient can be.
        DeviceError: the device is missing, or memory ran out at every step of the ladder.
        Cancelled: ``cancelled`` returned true.
    """
    if volume.modality != "CT":
        raise InputError(f"the model reads CT in Hounsfield units, got a volume of modality {volume.modality}")
    chosen = select(model.cards, organs=organs, tasks=tasks)
    device = resolve_device(options.device)
    with limited_threads(options.threads), torch.inference_mode():
        return _Job(volume, model, chosen, options, _monotone(progress), cancelled).run(device)


def _monotone(progress: Progress) -> Progress:
    """Never report less than before: a step down the ladder begins anew."""
    best = 0.0

    def report(fraction: float, stage: str) -> None:
        nonlocal best
        best = min(1.0, max(best, fraction))
        progress(best, stage)

    return report


class _Job:
    """One call of ``segment``."""

    def __init__(
        self,
        volume: Volume,
        model: LoadedModel,
        chosen: Selection,
        options: SegmentOptions,
        progress: Progress,
        cancelled: IsCancelled,
    ) -> None:
        self._volume = volume
        self._model = model
        self._spec = model.encoder_card.spec
        self._chosen = chosen
        self._options = options
        self._progress = progress
        self._cancelled = cancelled
        self._clock = Clock()
        self._labels: LabelMap = np.zeros_like(volume.voxels, dtype=np.uint16)
        self._confidence: Confidence = np.ones_like(volume.voxels, dtype=np.float16)
        self._testimony = NO_TESTIMONY
        self._descriptors: Descriptors = {}

    def run(self, device: torch.device) -> Segmentation:
        self._progress(0.0, "read")
        grid = ModelGrid.of(self._volume, self._spec.spacing_mm)
        voxels = grid.orientation.view(self._volume.voxels)
        scan = Scan(voxels, grid, self._spec.windows_hu)
        with self._clock.stage("read"):
            i, j, k = (self._volume.spacing_mm[axis] for axis in grid.orientation.permutation)
            body = find_body(voxels, (i, j, k), grid)
            doubt = None if body.depth() is None else doubt_values(self._volume.voxels)
        steps = ladder(device, self._spec.tile, self._spec.divisor)
        report, taken = descend(steps, partial(self._attempt, scan, body), lambda text: self._progress(0.0, text))
        repaired: tuple[Renumbering, ...] = ()
        if self._options.repair_numbering:
            affine = self._volume.affine
            repaired = repair_numbering(self._labels, affine, self._chosen.organs, cancelled=self._cancelled)
        cards = {task: self._model.cards[task] for task in self._chosen.tasks}
        self._progress(1.0, "merge")
        return Segmentation(
            self._labels,
            self._confidence,
            self._volume.affine,
            self._chosen.organs,
            self._chosen.tasks,
            dataclasses.replace(
                report,
                ladder=taken,
                warnings=(*self._warnings(body, report, doubt), *(change.sentence for change in repaired), *taken),
            ),
            facts=organ_facts(
                self._testimony,
                cards,
                self._chosen.organs,
                repaired,
                values=doubt.found if doubt is not None and doubt.is_certain else "",
            ),
            candidates=self._testimony.candidates,
            descriptors=self._descriptors,
            renumberings=repaired,
        )

    def _attempt(self, scan: Scan, body: Extent, step: Step) -> RunReport:
        """Run on ``step``, and once more if organs contradict the body-part check."""
        grid = scan.grid
        plan = plan_tiles(grid.shape, TileSpec(size=step.tile, overlap=self._options.overlap), body)
        if plan is None:
            self._clear()
            return self._report(step, "none", (0, 0, 0), 0, 0)
        heads = self._heads(step.device)
        gate = self._gate(grid, body, step)
        with self._clock.stage("prepare"):
            backend = choose_backend(
                self._request(step, plan), partial(self._sample, scan, plan, step.device), heads, self._cancelled
            )
        self._run_pass(scan, plan, backend, heads, step, gate)
        verdict = Verdict() if gate is None else gate.verdict()
        if verdict.left_alone:
            gate = self._gate(grid, body, step, verdict)
            self._run_pass(scan, plan, backend, heads, step, gate)
        i, j, k = (last - first for first, last in plan.box)
        report = self._report(step, backend.name, (i, j, k), plan.num_tiles, backend.num_calls)
        return report if gate is None else dataclasses.replace(report, body_part=gate.report())

    def _clear(self) -> None:
        """Forget what an earlier attempt or pass has written."""
        self._labels.fill(0)
        self._confidence.fill(1)
        self._testimony, self._descriptors = NO_TESTIMONY, {}

    def _run_pass(
        self,
        scan: Scan,
        plan: TilePlan,
        backend: TileEncoderDecoder,
        heads: Mapping[TaskId, TaskHead],
        step: Step,
        gate: BodyPartGate | None,
    ) -> None:
        """Fill the outputs, from clean ones."""
        self._clear()
        merger = self._merger(scan.grid)
        pools = open_pools(self._model, heads, step.device, describe=self._options.describe)
        Pass(
            scan=scan,
            plan=plan,
            backend=backend,
            heads=heads,
            merger=merger,
            device=step.device,
            batch=step.batch,
            clock=self._clock,
            progress=lambda fraction, stage: self._progress(0.02 + 0.96 * fraction, stage),
            cancelled=self._cancelled,
            pools=pools,
            gate=gate,
        ).run()
        with self._clock.stage("merge"):
            self._progress(0.98, "merge")
            self._descriptors = {task: pool.descriptors() for task, pool in pools.items()}
            seen = witnesses(self._model, self._descriptors)
            merger.finish(self._cancelled, witnesses=seen)
            self._testimony = Testimony.of(
                merger, seen, orientation=scan.grid.orientation, shape=self._volume.shape, affine=self._volume.affine
            )

    def _request(self, step: Step, plan: TilePlan) -> BackendRequest:
        return BackendRequest(
            network=self._model.network,
            tasks=self._chosen.tasks,
            device=step.device,
            tile=plan.size,
            num_tiles=plan.num_tiles,
            wanted=self._options.backend,
            threads=self._options.threads,
            is_gated=self._model.levels is not None and self._options.body_part,
        )

    def _sample(self, scan: Scan, plan: TilePlan, device: torch.device) -> torch.Tensor:
        """The middle of a tile in the middle of the body, (1, C, I, J, K), half a tile along every axis."""
        layer = max(plan.layers, key=lambda layer: len(layer.starts_ij))
        feeder = TileFeeder(scan, plan, device)
        feeder.load(layer)
        tile = feeder.tiles([layer.starts_ij[len(layer.starts_ij) // 2]])
        size = shrink_tile(plan.size, self._spec.divisor, 0.5)
        i, j, k = (slice((t - n) // 2, (t - n) // 2 + n) for t, n in zip(plan.size, size, strict=True))
        return tile[:, :, i, j, k].contiguous()

    def _heads(self, device: torch.device) -> dict[TaskId, TaskHead]:
        heads = {}
        for task in self._chosen.tasks:
            card = self._model.cards[task]
            wanted = [organ.label if organ.name in self._chosen.names else 0 for organ in card.organs]
            heads[task] = TaskHead.of(
                self._model.network.decoder(task),
                channel_labels(wanted),
                temperature=card.temperature,
                device=device,
                certainty=self._model.evidence.get(task, TaskEvidence()).certainty,
            )
        return heads

    def _merger(self, grid: ModelGrid) -> Merger:
        return Merger(
            grid.orientation.view(self._labels),
            grid.orientation.view(self._confidence),
            organs={
                task: [o.label for o in self._model.cards[task].organs if o.name in self._chosen.names]
                for task in self._chosen.tasks
            },
            ranks={task: rank for rank, task in enumerate(self._chosen.tasks)},
            rules=self._options.merge,
            lesions=lesion_rules(self._model, self._chosen, self._options.merge, self._volume),
        )

    def _gate(self, grid: ModelGrid, body: Extent, step: Step, verdict: Verdict | None = None) -> BodyPartGate | None:
        """The body-part check, if it is wanted and the registry has a head for it."""
        levels = self._model.levels
        if levels is None or not self._options.body_part:
            return None
        organs = {}
        for task in self._chosen.tasks:
            card = self._model.cards[task]
            known = {organ.label: organ.name for organ in card.organs}
            organs[task] = organ_levels(known, ranges_of(card.body_part, levels.card))
        return BodyPartGate(
            levels.head,
            levels.card,
            organs,
            asked=self._chosen.names,
            grid=grid,
            extent=body,
            tile=step.tile,
            device=step.device,
            verdict=verdict,
        )

    def _report(self, step: Step, backend: str, shape: Shape3, num_tiles: int, num_calls: int) -> RunReport:
        return RunReport(
            device=str(step.device),
            backend=backend,
            model_grid_shape=shape,
            model_spacing_mm=self._spec.spacing_mm,
            num_tiles=num_tiles,
            num_encoder_calls=num_calls,
            stage_seconds=dict(self._clock.seconds),
        )

    def _warnings(self, body: Extent, report: RunReport, doubt: ValueDoubt | None) -> list[str]:
        warnings = [] if report.body_part is None else report.body_part.warnings()
        if body.depth() is None:
            warnings.append("the scan holds nothing but air; no organ was looked for")
        if doubt is not None:
            warnings.append(doubt.sentence)
        spacing = self._volume.spacing_mm
        if max(spacing) > COARSE * max(self._spec.spacing_mm):
            warnings.append(f"voxels are {max(spacing):.1f} mm apart along one axis; small organs may be missed")
        return warnings
