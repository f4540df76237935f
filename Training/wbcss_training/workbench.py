"""What the stages of an enrolment share: the request and where it is worked on, pools, draft, validation, progress."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wbcss.cards import TaskCard
from wbcss.errors import Cancelled
from wbcss.nn.encoder import Encoder
from wbcss.progress import IsCancelled, Progress, silent
from wbcss.registry import Registry
from wbcss.storage import sha256_file

from .casepools import Between, CasePools, encode_case_pools
from .enrollment import EnrollmentRequest, Schedule
from .evidence import gather_evidence, with_evidence
from .features import FeaturePool
from .heldout import judge, load_staged
from .processes import process_rank
from .publishing import organs_for
from .reliabilityplot import RELIABILITY, diagrams_of, draw_reliability
from .runfolder import DECODER, EVIDENCE, EVIDENCE_FACTS, FEATURES, OVERLAYS, RECORD, VALIDATION, RunFolder

PREPARED, VALIDATED = 0.02, 0.97
"""Of the whole, when encoding begins and when nothing but the proof is left."""

Tell = Callable[[str], None]


def tell_nobody(text: str) -> None:
    """A Tell that tells nobody."""


@dataclass(frozen=True)
class Workbench:
    """One call that works on a request in a run folder.

    Attributes:
        request: What is to be learned.
        registry: Holds the encoder.
        folder: Of the run.
        encoder: As loaded from the registry; it stays as it is.
        device: Where to encode and train.
        num_workers: Processes that draw patches while the encoder works.
        tell: Told sentences for a person.
        progress: Told fractions of the whole.
        cancelled: Asked all the time.
    """

    request: EnrollmentRequest
    registry: Registry
    folder: RunFolder
    encoder: Encoder
    device: torch.device
    num_workers: int
    tell: Tell
    progress: Progress
    cancelled: IsCancelled

    def pools(self, schedule: Schedule, progress: Between) -> CasePools:
        """Encoded patches of the cases; those that are there already are not encoded again."""
        return encode_case_pools(
            self.request,
            schedule,
            self.encoder,
            encoder_sha256=self.registry.encoder_card().weights_sha256,
            run_dir=self.folder.root,
            device=self.device,
            num_workers=self.num_workers,
            progress=progress,
            cancelled=self.cancelled,
        )

    def draft(self) -> TaskCard:
        """Card of the full decoder before it is validated."""
        return TaskCard(
            task=self.request.task,
            organs=organs_for(self.registry, self.request.organs, self.request.organ_cards),
            spec=self.request.decoder_spec(self.encoder.spec),
            encoder_sha256=self.registry.encoder_card().weights_sha256,
            training_cases=self.request.training_cases,
            license=self.request.license,
            provenance=self.request.full_provenance,
            limits=self.request.limits,
            on_request=self.request.on_request,
            created=datetime.date.today().isoformat(),
        )

    def validate(self, draft: TaskCard, trained: Mapping[str, Any]) -> None:
        """Let held-out cases judge the full decoder, unless they have."""
        if self.folder.has(VALIDATION):
            return
        with self.timed("validate"), resumable("the validation"):
            progress, pictures = self.part("validate"), self.folder.root / OVERLAYS
            verdict = self.judged(draft, self.folder.root / DECODER, progress, trained=trained, pictures=pictures)
            self.folder.write(VALIDATION, verdict)

    def judged(
        self,
        card: TaskCard,
        weights: Path,
        progress: Progress,
        *,
        trained: Mapping[str, Any],
        pictures: Path | None = None,
    ) -> Mapping[str, Any]:
        """What held-out cases say of the decoder of ``card``, as ``heldout.judge``; ``trained`` knows their patches."""
        encoder, pool = self.encoder.cpu(), self._pool(trained, "held_out")
        return judge(
            load_staged(weights, card, encoder),
            encoder,
            card=card,
            encoder_card=self.registry.encoder_card(),
            cases=self.request.validation,
            pool=pool,
            options=self.request.segmentation,
            chosen_on_them=self.request.is_few_shot,
            pictures=pictures,
            progress=progress,
            cancelled=self.cancelled,
        )

    def testified(self, card: TaskCard, weights: Path, trained: Mapping[str, Any]) -> tuple[TaskCard, Path | None]:
        """``card`` with the evidence of its decoder, gathered if it was not, and the file of it if there is any."""
        path, sha256 = self.folder.root / EVIDENCE, sha256_file(weights)
        if not self.folder.has(EVIDENCE_FACTS) or self.folder.read(EVIDENCE_FACTS)["weights_sha256"] != sha256:
            with self.timed("describe"), resumable("the description"):
                encoder = self.encoder.cpu()
                facts = gather_evidence(
                    load_staged(weights, card, encoder),
                    encoder,
                    card=card,
                    encoder_card=self.registry.encoder_card(),
                    training=self.request.training,
                    held_out=self.request.validation,
                    training_pool=self._pool(trained, "training"),
                    held_out_pool=self._pool(trained, "held_out"),
                    options=self.request.segmentation,
                    path=path,
                    seconds=self.folder.read(RECORD)["estimate"].get("describe", math.inf),
                    progress=self.part("describe"),
                    cancelled=self.cancelled,
                )
                self.folder.write(EVIDENCE_FACTS, {**facts, "weights_sha256": sha256})
        facts = self.folder.read(EVIDENCE_FACTS)
        card = with_evidence(card, facts)
        pairs = diagrams_of(card.calibration, card.confidence)
        if pairs:
            draw_reliability(pairs, self.folder.root / RELIABILITY)
        return (replace(card, evidence_sha256=sha256_file(path)), path) if facts["is_written"] else (card, None)

    def _pool(self, trained: Mapping[str, Any], side: str) -> FeaturePool | None:
        """Encoded patches of one side; None if there are none, or the run was begun before they were noted."""
        place = trained.get(side)
        if place is None:
            return None
        folder = self.folder.root / FEATURES / place["folder"]
        return FeaturePool(task=self.request.task, folder=folder, count=place["count"])

    def timed(self, stage: str) -> AbstractContextManager[None]:
        """Count the time of the block, in the process that writes."""
        return self.folder.timed(stage) if process_rank() == 0 else nullcontext()

    def part(self, stage: str, first: float = 0.0, last: float = 1.0) -> Progress:
        """Progress from ``first`` to ``last`` of a stage as a part of the whole, by the time that it was estimated."""
        seconds: dict[str, float] = self.folder.read(RECORD)["estimate"]
        if stage not in seconds:  # of a run that was begun without it
            return silent
        before_s = sum(list(seconds.values())[: list(seconds).index(stage)])
        total_s = sum(seconds.values()) or 1.0
        low, high = ((before_s + share * seconds[stage]) / total_s for share in (first, last))
        start, stop = (PREPARED + (VALIDATED - PREPARED) * share for share in (low, high))
        return lambda fraction, text: self.progress(start + (stop - start) * fraction, text)


@contextmanager
def resumable(stage: str) -> Iterator[None]:
    """Say of a cancelled block what to do next."""
    try:
        yield
    except Cancelled as error:
        raise Cancelled(f"{stage} of the enrolment was stopped; go on with --resume") from error
