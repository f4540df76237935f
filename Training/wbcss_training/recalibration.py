"""Fit how sure a published task is anew, on scans like those it will meet; its decoder keeps every bit.

A task that was learned from synthetic scans is too sure on real ones, and takes voxels from tasks that know better. A
temperature (Guo et al., ICML 2017) from a few annotated real scans mends that; where a learned confidence lies beside
the decoder, its scale and shift are fitted anew too (Platt 1999).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from wbcss.cards import TaskCard
from wbcss.errors import CaseError
from wbcss.labels import TaskId
from wbcss.loading import LoadedModel, load_evidence, load_model, save_evidence
from wbcss.progress import IsCancelled, Progress, check_cancelled, never, silent
from wbcss.registry import Registry, StagedTask
from wbcss.storage import sha256_file

from .annotation import Case
from .calibration import Calibration, calibrate, draw_organ_voxels
from .cases import CasePatches
from .certainty import draw_claimed_voxels, fit_scale, joined_voxels
from .features import FeatureSpec, encode_patch
from .heldout import calibration_json
from .patches import FeaturePatch
from .publishing import prove_unchanged, snapshot_before

TILES_PER_CASE = 2
_EVIDENCE = "evidence.safetensors"


@dataclass(frozen=True, kw_only=True)
class Recalibrated:
    """A published version that differs from its former one in how sure it is.

    Attributes:
        card: As published.
        calibration: The fit.
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
    """Publish a new version of ``task`` with the same weights and a temperature fitted on ``cases``.

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
    provenance = f"{card.provenance} Calibrated on {len(cases)} other annotated scan(s)."
    fitted = replace(card, version=0, sequence=0, calibration=facts, provenance=provenance, evidence_sha256="")
    evidence = _evidence(registry, card, fitted, model, patches, run_dir)
    if evidence is not None:
        fitted = replace(fitted, evidence_sha256=sha256_file(evidence))
    before = snapshot_before(registry, run_dir / "before.json", progress=progress, cancelled=cancelled)
    encoder = model.network.encoder
    prove_unchanged(registry, before, encoder=encoder)
    published = registry.publish(StagedTask(card=fitted, weights=registry.task_weights(card), evidence=evidence))
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
        progress(number / total, f"tile {number + 1} of {total}")
        made.append(encode_patch(source.patch(number), encoder, spec=spec, device=torch.device("cpu")))
    return made


def _evidence(
    registry: Registry,
    card: TaskCard,
    fitted: TaskCard,
    model: LoadedModel,
    patches: Sequence[FeaturePatch],
    run_dir: Path,
) -> Path | None:
    """The evidence of ``card`` with the scale of a learned confidence fitted to ``patches``; None if it has none."""
    evidence = load_evidence(registry, card)
    if evidence.certainty is None and evidence.reference is None:
        return None
    if evidence.certainty is not None:
        decoder = model.network.decoder(card.task)
        drawn = [
            draw_claimed_voxels(decoder, patch, temperature=fitted.temperature, seed=number)
            for number, patch in enumerate(patches)
        ]
        voxels = joined_voxels([part for part in drawn if len(part)])
        certainty = dataclasses.replace(evidence.certainty, scale=fit_scale(voxels, evidence.certainty))
        evidence = dataclasses.replace(evidence, certainty=certainty)
    save_evidence(evidence, run_dir / _EVIDENCE)
    return run_dir / _EVIDENCE
