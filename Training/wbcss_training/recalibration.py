"""Fit how sure a published task is anew, on scans like those it will meet; its decoder keeps every bit.

A task that was learned from synthetic scans is too sure on real ones, and takes voxels from tasks that know better. A
temperature (Guo et al., ICML 2017) from tiles around the organs of a few annotated real scans mends much of that. Then
whole scans are segmented as the product does it, where a task also claims what lies far from its organs, and a scale
and a shift of the log odds are fitted to how often it is right there (Platt, Advances in Large Margin Classifiers,
1999). They become those of the learned confidence; a task without one gets a head that is nothing but them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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
from wbcss.specs import DecoderSpec
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
    evidence = _evidence(load_evidence(registry, card), found.temperature, decoder, patches)
    scans = _scan_claims(
        replace(model, cards={task: replace(card, calibration=facts)}, evidence={task: evidence}),
        task,
        cases,
        progress=lambda share, text: progress(_TILES_SHARE + (1 - _TILES_SHARE) * share, text),
        cancelled=cancelled,
    )
    scale = fit_odds(*_odds(scans)) if scans else None
    fitted = replace(
        card,
        version=0,
        sequence=0,
        calibration=facts,
        confidence=card.confidence
        if scale is None
        else {**scan_facts(scans), "usual": usual_confidences(scans, scale, card)},
        provenance=f"{card.provenance} Calibrated on {len(cases)} other annotated scan(s).",
        evidence_sha256="",
    )
    path = None
    if scale is not None or evidence.certainty is not None or evidence.reference is not None:
        path = run_dir / _EVIDENCE
        save_evidence(evidence if scale is None else rescaled(evidence, scale, decoder.spec), path)
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
    evidence: TaskEvidence, temperature: float, decoder: Decoder, patches: Sequence[FeaturePatch]
) -> TaskEvidence:
    """``evidence`` with the scale of a learned confidence, if it has one, fitted to ``patches``."""
    if evidence.certainty is None:
        return evidence
    drawn = [
        draw_claimed_voxels(decoder, patch, temperature=temperature, seed=number)
        for number, patch in enumerate(patches)
    ]
    voxels = joined_voxels([part for part in drawn if len(part)])
    certainty = dataclasses.replace(evidence.certainty, scale=fit_scale(voxels, evidence.certainty))
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


def _odds(scans: Sequence[ScanClaims]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log odds of what is claimed, and whether it is right, of all scans."""
    sure = torch.cat([claims.confidence for claims in scans])
    return torch.logit(sure).clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS), torch.cat([claims.right for claims in scans])


def rescaled(evidence: TaskEvidence, scale: torch.Tensor, spec: DecoderSpec) -> TaskEvidence:
    """``evidence`` with log odds multiplied by the first of ``scale`` (2,) and raised by the second.

    Without a learned confidence there is none to rescale, so a head that passes on those of the softmax is added.
    """
    head = evidence.certainty
    if head is None:
        shapes = confidence_shapes(spec)
        head = ConfidenceHead(**{name.removeprefix(PREFIX): torch.zeros(shape) for name, shape in shapes.items()})
        head = dataclasses.replace(head, scale=torch.tensor([1.0, 0.0]))
    both = torch.stack([scale[0] * head.scale[0], scale[0] * head.scale[1] + scale[1]])
    return dataclasses.replace(evidence, certainty=dataclasses.replace(head, scale=both))


def usual_confidences(scans: Sequence[ScanClaims], scale: torch.Tensor, card: TaskCard) -> dict[str, dict[str, float]]:
    """For the card: how sure the task, with the ``scale`` (2,), is of organs where they are, as ``ConfidenceSums``."""
    scale = scale.double()
    found: dict[str, list[float]] = {}
    for claims in scans:
        odds, _ = _odds([claims])
        sure = torch.sigmoid(odds * scale[0] + scale[1])
        for organ in card.organs:
            mine = claims.organs == organ.label
            if organ.label in claims.present and bool(mine.any()):
                found.setdefault(organ.name, []).append(float(sure[mine].mean()))
    return {name: dataclasses.asdict(ConfidenceSums.of(values)) for name, values in sorted(found.items())}


def scan_facts(scans: Sequence[ScanClaims]) -> dict[str, Any]:
    """For the card: calibration errors and reliability tables over whole scans, at least one.

    Every half of the scans is judged by the scale that fits the other half; a single scan by its own.
    """
    odds, right = _odds(scans)
    plain = torch.sigmoid(odds)
    halves = [scans[0::2], scans[1::2]] if len(scans) > 1 else [scans, scans]
    fitted = []
    for half, other in (halves, halves[::-1]) if len(scans) > 1 else (halves,):
        scale = fit_odds(*_odds(other)).double()
        half_odds, half_right = _odds(half)
        fitted.append((torch.sigmoid(half_odds * scale[0] + scale[1]), half_right))
    sure, judged = (torch.cat(parts) for parts in zip(*fitted, strict=True))
    return {
        "ece_before": round(calibration_error(plain, right), 5),
        "ece_after": round(calibration_error(sure, judged), 5),
        "accuracy": round(float(right.double().mean()), 5),
        "num_voxels": len(right),
        "scans": len(scans),
        "reliability_before": reliability(plain, right),
        "reliability": reliability(sure, judged),
        "note": "on claimed voxels of whole scans, as the product runs; each half judged by the fit of the other",
    }
