"""The two pools of encoded patches of a request: drawn from its cases, encoded once, found again by what they hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from wbcss.nn.encoder import Encoder
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.specs import EncoderSpec, spec_to_json

from .annotation import Case
from .cases import CasePatches
from .enrollment import EnrollmentRequest, Schedule
from .features import FeaturePool, encode_pool, pool_key
from .runfolder import FEATURES

_VALIDATION_SEED = 1_000_003
"""Added to the seed of the patches: held-out cases are cut elsewhere."""

Between = Callable[[float, float], Progress]
"""Progress from one share of a stage to another."""


@dataclass(frozen=True, kw_only=True)
class CasePools:
    """Encoded patches to learn from and, unless no case is held out, to look at."""

    training: FeaturePool
    held_out: FeaturePool | None


def case_patches(
    request: EnrollmentRequest,
    cases: tuple[Case, ...],
    schedule: Schedule,
    *,
    encoder: EncoderSpec,
    run_dir: Path,
    held_out: bool = False,
) -> CasePatches:
    """Patches of ``cases``; held-out ones as they are, each about an organ. Prepared cases are kept in ``run_dir``."""
    seed = schedule.config.seed + 1
    return CasePatches(
        task=request.task,
        organs=request.organs,
        cases=cases,
        cache_dir=run_dir / "cases",
        encoder=replace(encoder, tile=schedule.features.patch),
        seed=seed + _VALIDATION_SEED if held_out else seed,
        foreground_share=1.0 if held_out else 0.33,
        augmentation="none" if held_out else request.augmentation,
    )


def encode_case_pools(
    request: EnrollmentRequest,
    schedule: Schedule,
    encoder: Encoder,
    *,
    encoder_sha256: str,
    run_dir: Path,
    device: torch.device,
    num_workers: int = 0,
    progress: Between = lambda first, last: silent,
    cancelled: IsCancelled = never,
) -> CasePools:
    """Encode what is missing of both pools under ``run_dir``. Raises as ``encode_pool``."""
    sides = [(request.training, request.training_ids, schedule.num_training, False)]
    if schedule.num_validation:
        sides.append((request.validation, request.validation_ids, schedule.num_validation, True))
    total = sum(count for _, _, count, _ in sides)
    pools, done = [], 0
    for cases, ids, count, held_out in sides:
        source = case_patches(request, cases, schedule, encoder=encoder.spec, run_dir=run_dir, held_out=held_out)
        pool = encode_pool(
            source,
            encoder,
            run_dir / FEATURES / _key(source, ids, schedule, encoder_sha256),
            count=count,
            spec=schedule.features,
            device=device,
            num_workers=num_workers,
            progress=progress(done / total, (done + count) / total),
            cancelled=cancelled,
        )
        pools.append(replace(pool, seed=schedule.config.seed))
        done += count
    return CasePools(training=pools[0], held_out=pools[1] if len(pools) > 1 else None)


def _key(source: CasePatches, ids: tuple[str, ...], schedule: Schedule, encoder_sha256: str) -> str:
    facts = {
        "organs": list(source.organs),
        "features": spec_to_json(schedule.features),
        "seed": source.seed,
        "foreground_share": source.foreground_share,
        "augmentation": source.augmentation,
    }
    return pool_key(encoder_sha256, ids, facts)
