"""Fit how sure a published task is anew, on scans like those it will meet; its decoder keeps every bit.

A task that was learned from synthetic scans is too sure on real ones, and takes voxels from tasks that know better. A
temperature (Guo et al., ICML 2017) from tiles around the organs of a few annotated real scans mends much of that. Then
whole scans are segmented as the product does it, where a task also claims what lies far from its organs, and for every
organ that enough of them annotate a scale and a shift of the log odds are fitted to how often it is right there
(Platt, Advances in Large Margin Classifiers, 1999). They go beside the learned confidence; a task without one gets a
head that passes on the softmax.

One scale for all organs would be wrong: scans of one region say little about the organs of another, and a task that
is taught in necks to doubt itself loses the abdomen to whoever doubts less.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wbcss.anomaly import ConfidenceSums
from wbcss.cards import TaskCard
from wbcss.confidence import MAX_LOG_ODDS, PREFIX, ConfidenceHead
from wbcss.errors import CaseError
from wbcss.labels import TaskId
from wbcss.loading import LoadedModel, TaskEvidence, load_evidence, load_model, save_evidence
from wbcss.nn.decoder import Decoder
from wbcss.progress import IsCancelled, Progress, check_cancelled, never, silent
from wbcss.registry import Registry, StagedTask
from wbcss.storage import sha256_file
from wbcss.weights import confidence_shapes

from .annotation import Case
from .calibration import Calibration, calibrate, draw_organ_voxels
from .cases import CasePatches
from .certainty import draw_claimed_voxels, fit_odds, fit_scale, joined_voxels
from .features import FeatureSpec, encode_patch
from .heldout import calibration_json
from .patches import FeaturePatch
from .publishing import prove_unchanged, snapshot_before
from .reliability import calibration_error, reliability
from .scanclaims import ScanClaims, judge

OrganScales = Mapping[int, torch.Tensor]
"""Scale and shift, (2,) float32, by label value."""

MIN_SCANS = 2
"""An organ that fewer scans can judge stays as sure as it is."""

FEW_ORGANS = 0.5
"""With a smaller share of its organs annotated a task learns to be less sure of them all, but not to tell right from
wrong less: chest, judged by its esophagus alone, got one confidence for everything.
"""

TILES_PER_CASE = 2
_EVIDENCE = "evidence.safetensors"
_TILES_SHARE = 0.3


@dataclass(frozen=True, kw_only=True)
class Recalibrated:
    """A published version that differs from its former one in how sure it is.

    Attributes:
        card: As published.
        calibration: The fit of the temperature, on tiles.
        unchanged: Titles of the versions that were proven to answer bit for bit as before.
    """

    card: TaskCard
    calibration: Calibration
    unchanged: tuple[str, ...]


def recalibrate(
    registry: Registry,
    task: TaskId,
    cases: Sequence[Case],
    *,
    run_dir: Path,
    seed: int = 0,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> Recalibrated:
    """Publish a new version of ``task`` with the same weights and a confidence fitted on ``cases``.

    Args:
        registry: Holds the task; published to.
        task: Its newest version is taken.
        cases: Annotated scans that the task was not trained on; organs that they do not annotate judge nothing.
        run_dir: For prepared cases and the snapshot of what must not change.
        seed: Which tiles and voxels.
        progress: Told after every tile.
        cancelled: Asked before every tile.

    Raises:
        CaseError: the cases annotate no organ of the task, or not a voxel of one is met.
        RunError: something published has changed.
        Cancelled: ``cancelled`` returned true; nothing was published.
    """
    model = load_model(registry, [task])
    card = model.cards[task]
    patches = _encoded(model, card, cases, run_dir=run_dir, seed=seed, progress=progress, cancelled=cancelled)
    decoder = model.network.decoder(task)
    groups = [draw_organ_voxels(decoder, patch, seed=number) for number, patch in enumerate(patches)]
    if not any(len(group.labels) for group in groups):
        raise CaseError(
            f"{card.title} must meet a voxel of its organs in the cases to be judged by, got none; add cases"
        )
    found = calibrate(groups)
    facts = {**calibration_json(found), "recalibrated_on": len(cases)}
    shown = {organ.name for organ in card.organs} & {name for case in cases for name in case.values.values()}
    few = len(shown) < FEW_ORGANS * len(card.organs)
    evidence = _evidence(load_evidence(registry, card), found.temperature, decoder, patches, keeps_slope=few)
    scans = _scan_claims(
        replace(model, cards={task: replace(card, calibration=facts)}, evidence={task: evidence}),
        task,
        cases,
        progress=lambda share, text: progress(_TILES_SHARE + (1 - _TILES_SHARE) * share, text),
        cancelled=cancelled,
    )
    scales = fit_organs(scans)
    fitted = replace(
        card,
        version=0,
        sequence=0,
        calibration=facts,
        confidence={**scan_facts(scans), "usual": usual_confidences(scans, scales, card)}
        if scales
        else card.confidence,
        provenance=f"{card.provenance} Calibrated on {len(cases)} other annotated scan(s).",
        evidence_sha256="",
    )
    path = None
    if scales or evidence.certainty is not None or evidence.reference is not None:
        path = run_dir / _EVIDENCE
        save_evidence(rescaled(evidence, scales, card) if scales else evidence, path)
        fitted = replace(fitted, evidence_sha256=sha256_file(path))
    before = snapshot_before(registry, run_dir / "before.json", progress=progress, cancelled=cancelled)
    encoder = model.network.encoder
    prove_unchanged(registry, before, encoder=encoder)
    published = registry.publish(StagedTask(card=fitted, weights=registry.task_weights(card), evidence=path))
    return Recalibrated(card=published, calibration=found, unchanged=prove_unchanged(registry, before, encoder=encoder))


def _encoded(
    model: LoadedModel,
    card: TaskCard,
    cases: Sequence[Case],
    *,
    run_dir: Path,
    seed: int,
    progress: Progress,
    cancelled: IsCancelled,
) -> list[FeaturePatch]:
    """Tiles of the product's size around the organs, as the frozen encoder sees them."""
    names = {organ.name for organ in card.organs}
    known = tuple(case for case in cases if names & set(case.values.values()))
    if not known:
        raise CaseError(f"the cases must annotate an organ of {card.title}, got none; see `wbcss tasks show`")
    encoder = model.network.encoder
    source = CasePatches(
        task=card.task,
        organs=tuple(organ.name for organ in card.organs),
        cases=known,
        cache_dir=run_dir / "cases",
        encoder=encoder.spec,
        seed=seed,
        foreground_share=1.0,
        augmentation="none",
    )
    spec = FeatureSpec(patch=encoder.spec.tile, num_skips=1 + len(card.spec.stage_channels), autocast=False)
    made, total = [], TILES_PER_CASE * len(known)
    for number in range(total):
        check_cancelled(cancelled)
        progress(_TILES_SHARE * number / total, f"tile {number + 1} of {total}")
        made.append(encode_patch(source.patch(number), encoder, spec=spec, device=torch.device("cpu")))
    return made


def _evidence(
    evidence: TaskEvidence, temperature: float, decoder: Decoder, patches: Sequence[FeaturePatch], *, keeps_slope: bool
) -> TaskEvidence:
    """``evidence`` with the scale of a learned confidence, if it has one, or its shift alone fitted to ``patches``."""
    if evidence.certainty is None:
        return evidence
    drawn = [
        draw_claimed_voxels(decoder, patch, temperature=temperature, seed=number)
        for number, patch in enumerate(patches)
    ]
    voxels = joined_voxels([part for part in drawn if len(part)])
    certainty = dataclasses.replace(
        evidence.certainty, scale=fit_scale(voxels, evidence.certainty, keeps_slope=keeps_slope)
    )
    return dataclasses.replace(evidence, certainty=certainty)


def _scan_claims(
    model: LoadedModel, task: TaskId, cases: Sequence[Case], *, progress: Progress, cancelled: IsCancelled
) -> list[ScanClaims]:
    """What the task claims in every case that can judge it; cases without a claim are left out."""
    found = []
    for number, case in enumerate(cases):
        check_cancelled(cancelled)
        progress(number / len(cases), f"scan {number + 1} of {len(cases)}")
        against = judge(case, model.cards[task])
        if against is not None:
            found.append(against.claims(model, cancelled=cancelled))
    return [claims for claims in found if len(claims)]


def _log_odds(confidence: torch.Tensor) -> torch.Tensor:
    return torch.logit(confidence).clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS)


def fit_organs(scans: Sequence[ScanClaims]) -> OrganScales:
    """Scale and shift (2,) of the log odds of every organ, by label value, that ``MIN_SCANS`` scans can judge.

    Only claims of organs that a scan annotates count: of another one only its errors on what is annotated are known.
    """
    judged: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for claims in scans:
        for label in claims.judged:
            mine = claims.organs == label
            if bool(mine.any()):
                judged.setdefault(label, []).append((claims.confidence[mine], claims.right[mine]))
    scales = {}
    for label, parts in sorted(judged.items()):
        if len(parts) >= MIN_SCANS:
            sure, right = (torch.cat(values) for values in zip(*parts, strict=True))
            scales[label] = fit_odds(_log_odds(sure), right)
    return scales


def scaled(claims: ScanClaims, scales: OrganScales) -> torch.Tensor:
    """(N,) confidence of ``claims`` after the ``scales`` of their organs; without one it is as it was."""
    sure = claims.confidence.clone()
    for label, scale in scales.items():
        mine = claims.organs == label
        slope, shift = scale.double()
        sure[mine] = torch.sigmoid(_log_odds(sure[mine]) * slope + shift)
    return sure


def rescaled(evidence: TaskEvidence, scales: OrganScales, card: TaskCard) -> TaskEvidence:
    """``evidence`` with log odds of the organs of ``card`` rescaled once more, after the scales they have.

    Without a learned confidence there is none to rescale, so a head that passes on those of the softmax is added.
    """
    head = evidence.certainty
    if head is None:
        shapes = confidence_shapes(card.spec)
        head = ConfidenceHead(**{name.removeprefix(PREFIX): torch.zeros(shape) for name, shape in shapes.items()})
        head = dataclasses.replace(head, scale=torch.tensor([1.0, 0.0]))
    own = torch.tensor([[1.0, 0.0]]).repeat(len(card.organs), 1) if head.organ_scale is None else head.organ_scale
    own = own.clone()
    for row, organ in enumerate(card.organs):
        if organ.label in scales:
            slope, shift = scales[organ.label]
            own[row] = torch.stack([slope * own[row, 0], slope * own[row, 1] + shift])
    return dataclasses.replace(evidence, certainty=dataclasses.replace(head, organ_scale=own))


def usual_confidences(scans: Sequence[ScanClaims], scales: OrganScales, card: TaskCard) -> dict[str, dict[str, float]]:
    """For the card: how sure the task, with ``scales``, is of organs where they are, as ``ConfidenceSums``."""
    found: dict[str, list[float]] = {}
    for claims in scans:
        sure = scaled(claims, scales)
        for organ in card.organs:
            mine = claims.organs == organ.label
            if organ.label in claims.present and bool(mine.any()):
                found.setdefault(organ.name, []).append(float(sure[mine].mean()))
    return {name: dataclasses.asdict(ConfidenceSums.of(values)) for name, values in sorted(found.items())}


def scan_facts(scans: Sequence[ScanClaims]) -> dict[str, Any]:
    """For the card: calibration errors and reliability tables over whole scans, at least one.

    Every half of the scans is judged by the scales that fit the other half; a single scan by its own.
    """
    halves = [scans[0::2], scans[1::2]] if len(scans) > 1 else [scans, scans]
    plain, sure, right = [], [], []
    for half, other in (halves, halves[::-1]) if len(scans) > 1 else (halves,):
        scales = fit_organs(other)
        for claims in half:
            known = claims.is_known
            plain.append(claims.confidence[known])
            sure.append(scaled(claims, scales)[known])
            right.append(claims.right[known])
    before, after, is_right = torch.cat(plain), torch.cat(sure), torch.cat(right)
    return {
        "ece_before": round(calibration_error(before, is_right), 5),
        "ece_after": round(calibration_error(after, is_right), 5),
        "accuracy": round(float(is_right.double().mean()), 5),
        "num_voxels": len(is_right),
        "scans": len(scans),
        "reliability_before": reliability(before, is_right),
        "reliability": reliability(after, is_right),
        "note": "claims of annotated organs in whole scans, as the product runs; each half judged by the other's fit",
    }
