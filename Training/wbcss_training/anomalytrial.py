"""Do the checks see what is wrong? Every case as it is, for false alarms, and with planted faults, for detections."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from wbcss.errors import InputError
from wbcss.labels import OrganName
from wbcss.loading import LoadedModel
from wbcss.progress import IsCancelled, Progress, check_cancelled, never, silent
from wbcss.segment import Segmentation, SegmentOptions, segment
from wbcss.statistics import organ_statistics
from wbcss.volume import LabelMap, Volume

from .annotation import Case, organs_named, read_case
from .faults import KINDS, WHOLE_SCAN, Fault, FaultKind, plant
from .findings import Notes
from .imagecheck import check_image

LEAST_VOXELS = 27
"""An organ with fewer voxels in the reference gets no fault: there is nothing to plant it in."""

Watcher = Callable[[int, OrganName, Volume, Fault], object]
"""Called with the number of a case, the organ, the scan as it is and with a fault."""


@dataclass(frozen=True, kw_only=True)
class OrganOutcome:
    """What the product says of an organ that it found.

    Attributes:
        flags: Of *please check*.
        anomaly: Distance to the training data over its threshold, minus 1; None if no task can say.
        is_annotated: Whether the reference holds a voxel of it.
    """

    flags: tuple[str, ...]
    anomaly: float | None
    is_annotated: bool


@dataclass(frozen=True, kw_only=True)
class ScanOutcome:
    """What the product says of a scan.

    Attributes:
        organs: Of every organ that it found.
        warnings: Of the run.
        refused: Why it was not segmented; "" if it was.
        case_check: Kinds of errors by which a training image is refused; ``wbcss segment`` does not ask for them.
    """

    organs: Mapping[OrganName, OrganOutcome] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    refused: str = ""
    case_check: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FaultTrial:
    """One planted fault, and what the product says before and after.

    Attributes:
        kind: Of the fault.
        organ: In which it was planted; with another modality, in the middle of the picture only.
        affected: Organs that must be flagged: ``organ``, or all annotated ones that were found before.
        facts: As of ``Fault``.
        before, after: What the product says of the scan.
    """

    kind: FaultKind
    organ: OrganName
    affected: tuple[OrganName, ...]
    facts: Mapping[str, float]
    before: ScanOutcome
    after: ScanOutcome

    def flags(self, *, new: bool = False, before: bool = False) -> tuple[str, ...]:
        """Flags of the affected organs, each once: after, before, or only those that an organ had not before."""
        outcome = self.before if before else self.after
        found: list[str] = []
        for organ in self.affected:
            had = self.before.organs[organ].flags if new else ()
            found += [flag for flag in _flags(outcome, organ) if flag not in had]
        return tuple(sorted(set(found)))

    @property
    def is_detected(self) -> bool:
        """A flag fires on an affected organ, or the scan is refused."""
        return bool(self.flags()) or bool(self.after.refused)

    @property
    def is_detected_anew(self) -> bool:
        """The same, but a flag counts only where the organ did not have it without the fault."""
        return bool(self.flags(new=True)) or bool(self.after.refused)

    @property
    def vanished(self) -> tuple[OrganName, ...]:
        """Affected organs of which nothing is found any more: no flag can tell of them."""
        return tuple(organ for organ in self.affected if organ not in self.after.organs)


def _flags(outcome: ScanOutcome, organ: OrganName) -> tuple[str, ...]:
    return outcome.organs[organ].flags if organ in outcome.organs else ()


@dataclass(frozen=True, kw_only=True)
class CaseTrial:
    """One case, known by its number in the list only."""

    number: int
    healthy: ScanOutcome
    faults: tuple[FaultTrial, ...]


@dataclass(frozen=True, kw_only=True)
class AnomalyTrial:
    """Everything that was tried."""

    cases: tuple[CaseTrial, ...]
    kinds: tuple[FaultKind, ...]
    tasks: tuple[str, ...]
    seed: int
    encoder_sha256: str

    def of_kind(self, kind: FaultKind) -> list[FaultTrial]:
        """All faults of a kind."""
        return [fault for case in self.cases for fault in case.faults if fault.kind == kind]


def try_anomalies(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    kinds: Sequence[FaultKind] = KINDS,
    seed: int = 0,
    options: SegmentOptions = SegmentOptions(),
    watcher: Watcher | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> AnomalyTrial:
    """Segment every case as it is and once with a fault of each kind, in an organ that is drawn.

    A fault depends on ``seed``, the number of the case and its kind, so leaving out kinds changes no other. Organs to
    choose from are annotated, known to the model and found in the scan as it is.

    Raises:
        CaseError: no organ of the cases is known to the model, or a case cannot be used.
        Cancelled: ``cancelled`` returned true.
    """
    organs_named(cases, known={organ.name for card in model.cards.values() for organ in card.organs})
    tried = []
    for number, case in enumerate(cases, start=1):
        check_cancelled(cancelled)

        def part(step: int, what: str, number: int = number) -> None:
            done = (number - 1 + step / (1 + len(kinds))) / len(cases)
            progress(done, f"case {number} of {len(cases)}, {what}")

        bench = _Bench(model, options, cancelled, watcher, part, seed)
        tried.append(bench.case(number, case, kinds))
    progress(1.0, "done")
    return AnomalyTrial(
        cases=tuple(tried),
        kinds=tuple(kinds),
        tasks=tuple(card.title for card in model.cards.values()),
        seed=seed,
        encoder_sha256=model.encoder_card.weights_sha256,
    )


@dataclass(frozen=True)
class _Bench:
    """What the trials of a case share."""

    model: LoadedModel
    options: SegmentOptions
    cancelled: IsCancelled
    watcher: Watcher | None
    part: Callable[[int, str], None]
    seed: int

    def case(self, number: int, case: Case, kinds: Sequence[FaultKind]) -> CaseTrial:
        volume, reference = read_case(case)
        values = {name: value for value, name in case.values.items()}
        self.part(0, "as it is")
        healthy = self.outcome(volume, _annotated(reference, values))
        fit = [
            organ
            for organ, value in sorted(values.items())
            if organ in healthy.organs and int((reference == value).sum()) >= LEAST_VOXELS
        ]
        faults = []
        for step, kind in enumerate(kinds if fit else (), start=1):
            self.part(step, kind)
            rng = np.random.default_rng([self.seed, number, zlib.crc32(kind.encode())])
            organ = fit[int(rng.integers(len(fit)))]
            fault = plant(kind, volume, reference == values[organ], rng)
            if fault is None:
                continue
            if self.watcher is not None:
                self.watcher(number, organ, volume, fault)
            affected = tuple(fit) if kind in WHOLE_SCAN else (organ,)
            after = self.outcome(fault.volume, frozenset(fit))
            faults.append(
                FaultTrial(kind=kind, organ=organ, affected=affected, facts=fault.facts, before=healthy, after=after)
            )
        return CaseTrial(number=number, healthy=healthy, faults=tuple(faults))

    def outcome(self, volume: Volume, annotated: frozenset[OrganName]) -> ScanOutcome:
        """Segment a scan and read the checks, as the product does for its table."""
        notes = Notes(case=1)
        check_image(volume, "", notes)
        errors = tuple(finding.kind for finding in notes.findings if finding.severity == "error")
        try:
            result = segment(
                volume, self.model, tasks=list(self.model.cards), options=self.options, cancelled=self.cancelled
            )
        except InputError as error:
            return ScanOutcome(refused=str(error), case_check=errors)
        return ScanOutcome(
            organs=self.organs(volume, result, annotated), warnings=result.report.warnings, case_check=errors
        )

    def organs(
        self, volume: Volume, result: Segmentation, annotated: frozenset[OrganName]
    ) -> dict[OrganName, OrganOutcome]:
        rows = organ_statistics(
            volume, result.labels, result.confidence, result.affine, result.organs, facts=result.facts
        )
        return {
            row.organ: OrganOutcome(
                flags=row.flags, anomaly=result.facts[row.organ].anomaly, is_annotated=row.organ in annotated
            )
            for row in rows
            if row.voxels
        }


def _annotated(reference: LabelMap, values: Mapping[OrganName, int]) -> frozenset[OrganName]:
    present = set(np.unique(reference).tolist())
    return frozenset(organ for organ, value in values.items() if value in present)
