"""`wbcss-train bodypart`: teach a small head to read levels of the body off the frozen encoder, and publish it."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from wbcss.bodypart import DOUBTS, MAX_DOUBT_CM, levels_of_planes, may_decide, observation_weight
from wbcss.errors import RunError, SpecError
from wbcss.io.atomic import write_text
from wbcss.labels import OrganName, parse_task_id
from wbcss.levelcard import LevelCard
from wbcss.levels import MAX_STRETCH, MIN_STRETCH, MM_PER_CM, LevelRange, fit_curve
from wbcss.levelstore import StagedLevelHead, publish_level_head
from wbcss.loading import load_encoder, save_weights
from wbcss.nn.levelhead import EMPTY_SCALE_CM, MIDDLE_SCALE_CM, LevelHead
from wbcss.progress import IsCancelled, Progress, check_cancelled, never, silent
from wbcss.registry import Registry
from wbcss.specs import EncoderSpec, spec_to_json

from .atlas import TABLE_FILE, prepare_atlas
from .bodylevels import ANCHORS_CM, REGIONS_CM, atlas_ranges
from .layouts import read_case_list
from .levelsamples import AtlasLevels, CaseLevels, LevelSample, LevelSource, encode_all
from .plan import chosen_cases, read_plan
from .processes import process_device
from .synthesis import SyntheticPatches, atlas_classes

_HELD_OUT_EVERY = 8
_ERROR_QUANTILE = 0.95
_WEIGHT_DECAY = 0.01
_MEMBERSHIPS = ("wholebody", "chest", "headneck")
"""Tasks of the atlas whose organs have a range."""

_RECORD = "run.json"
_HEAD = "body_part.safetensors"


@dataclass(frozen=True, kw_only=True)
class LevelConfig:
    """How a level head is trained.

    Attributes:
        patches: How many are encoded; every eighth is held out.
        hidden: Width of the head.
        steps: Optimizer steps.
        batch_size: Patches per step.
        learning_rate: Of AdamW; falls to 0 along a cosine.
        order_weight: Of the order of slabs against their levels.
        seed: Of patches and weights.
    """

    patches: int = 800
    hidden: int = 256
    steps: int = 4000
    batch_size: int = 16
    learning_rate: float = 5e-3
    order_weight: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("patches", "hidden", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} of a level head must be at least 1, got {getattr(self, name)}")
        if not self.learning_rate > 0 or not self.order_weight >= 0:
            raise SpecError(
                f"learning_rate must be above 0 and order_weight at least 0, got {self.learning_rate} and "
                f"{self.order_weight}"
            )


@dataclass(frozen=True, kw_only=True)
class LevelSources:
    """Where patches come from, and what the atlases among them say of organs.

    Attributes:
        sources: Taken in turn.
        ranges_cm: Where organs of the atlas may be.
        description: What they are, for the run record: kinds and counts, no path.
    """

    sources: tuple[LevelSource, ...]
    ranges_cm: Mapping[OrganName, LevelRange] = field(default_factory=dict)
    description: tuple[str, ...]


def open_level_sources(path: Path, encoder: EncoderSpec, *, cache_dir: Path, seed: int) -> LevelSources:
    """The sources that ``path`` names: a training plan, the folder of an atlas, or annotated cases.

    Raises SpecError or CaseError if it is none of them.
    """
    if (path / TABLE_FILE).is_file():
        facts: list[Mapping[str, Any]] = [{"kind": "atlas", "folder": str(path)}]
    elif path.is_file() and _is_plan(path):
        facts = [task.source for task in read_plan(path).tasks]
    else:
        facts = [{"kind": "cases", "path": str(path)}]
    opened: dict[str, LevelSource] = {}
    ranges: dict[OrganName, LevelRange] = {}
    described = []
    for number, fact in enumerate(facts):
        if fact["kind"] == "atlas":
            if fact["folder"] in opened:
                continue
            source, found = _atlas_source(Path(fact["folder"]), encoder, cache_dir=cache_dir, seed=seed + number)
            opened[fact["folder"]] = source
            ranges |= found
            described.append("atlas")
        else:
            cases = chosen_cases(fact) if "count" in fact else read_case_list(Path(fact["path"]))
            opened[f"cases {number}"] = CaseLevels(cases=tuple(cases), encoder=encoder, seed=seed + number)
            described.append(f"{len(cases)} cases")
    return LevelSources(sources=tuple(opened.values()), ranges_cm=ranges, description=tuple(described))


def _is_plan(path: Path) -> bool:
    try:
        return "tasks" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _atlas_source(
    folder: Path, encoder: EncoderSpec, *, cache_dir: Path, seed: int
) -> tuple[AtlasLevels, dict[OrganName, LevelRange]]:
    atlas = prepare_atlas(folder, cache_dir / "atlas")
    there = {task for row in atlas.table.values() for task in row.tasks}
    classes = [atlas_classes(atlas.table, task) for task in _MEMBERSHIPS if task in there]
    organs = sorted(set(classes[0].values())) if classes else []
    patches = SyntheticPatches(
        task=parse_task_id("levels"),
        organs=tuple(OrganName(name) for name in organs),
        atlas_dir=folder,
        cache_dir=cache_dir / "atlas",
        encoder=encoder,
        seed=seed,
        limb_share=0.5,  # legs are levels like any other
    )
    return AtlasLevels(source=patches), atlas_ranges(atlas, classes)


def level_loss(
    head: LevelHead, samples: Sequence[LevelSample], *, order_weight: float, device: torch.device
) -> torch.Tensor:
    """Scalar loss of a batch of samples of one shape.

    The error of known levels over ``MIDDLE_SCALE_CM``; the Laplace likelihood of that error, which teaches the scale
    alone (how sure the head is), for with a share in the levels it would let go of all that are hard, as legs are
    (Seitzer et al., On the Pitfalls of Heteroscedastic Uncertainty Estimation, ICLR 2022, section 3);
    ``EMPTY_SCALE_CM`` for slabs without body; and for pairs of slabs, known or not, a difference in level of
    ``MIN_STRETCH`` to ``MAX_STRETCH`` times that in height: slice order, in cm.
    """
    deep = torch.stack([sample.deep for sample in samples]).to(device)
    levels, scales = head(deep)
    known = torch.stack([sample.levels_cm for sample in samples]).to(device)
    body = torch.stack([sample.has_body for sample in samples]).to(device)
    told = body & torch.isfinite(known)
    target = torch.where(told, known, 0.0)
    off = (levels - target).abs()
    known_loss = (off / MIDDLE_SCALE_CM + off.detach() / scales + scales.log())[told].sum() / told.sum().clamp_min(1)
    empty = (scales / EMPTY_SCALE_CM).log().square()[~body].sum() / (~body).sum().clamp_min(1)
    heights = torch.stack([sample.heights_mm for sample in samples]).to(device) / MM_PER_CM
    lower = heights[:, :, None] - heights[:, None, :]  # cm by which slab b lies below slab a
    deeper = levels[:, None, :] - levels[:, :, None]
    pairs = body[:, :, None] & body[:, None, :] & (lower > 0)
    wrong = F.relu(MIN_STRETCH * lower - deeper) + F.relu(deeper - MAX_STRETCH * lower)
    order = (wrong / lower.clamp_min(1.0))[pairs].sum() / pairs.sum().clamp_min(1)
    total: torch.Tensor = known_loss + empty + order_weight * order
    return total


def train_level_head(
    samples: Sequence[LevelSample],
    config: LevelConfig,
    *,
    device: torch.device,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> LevelHead:
    """A head trained on ``samples``; equal samples, config and device give equal bits on the CPU.

    Raises RunError if the loss is not finite, Cancelled.
    """
    torch.manual_seed(config.seed)
    head = LevelHead(samples[0].deep.shape[0], config.hidden).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    rng = np.random.default_rng(config.seed)
    for step in range(config.steps):
        check_cancelled(cancelled)
        chosen = rng.choice(len(samples), min(config.batch_size, len(samples)), replace=False)
        batch = [samples[int(n)] for n in chosen]
        loss = level_loss(head, batch, order_weight=config.order_weight, device=device)
        if not bool(torch.isfinite(loss)):
            raise RunError(f"the loss of the level head must be finite, got {loss.item()} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress((step + 1) / config.steps, f"level head, step {step + 1} of {config.steps}")
    return head.cpu().eval().requires_grad_(False)


def held_out_errors(head: LevelHead, samples: Sequence[LevelSample]) -> dict[str, float]:
    """Errors in cm on the slabs of ``samples`` whose level is known: mean, 95% quantile, and how many.

    ``scale_factor`` is that of ``LevelCard``. Raises SpecError if no slab's level is known.
    """
    errors, told = [], []
    for sample in samples:
        levels, scales = levels_of_planes(head, sample.deep)
        off = np.abs(levels - sample.levels_cm.double().numpy())
        is_known = np.isfinite(off)
        errors.append(off[is_known])
        told.append(scales[is_known])
    off, scale = (np.concatenate(parts) if parts else np.zeros(0) for parts in (errors, told))
    if not len(off):
        raise SpecError("no held-out slab has a known level; add an atlas, or scans that show a vertebra as a whole")
    in_scales = float(np.quantile(off / scale, _ERROR_QUANTILE))
    return {
        "mean_absolute_error_cm": round(float(off.mean()), 3),
        "error_95_cm": round(float(np.quantile(off, _ERROR_QUANTILE)), 3),
        "scale_factor": round(in_scales / -math.log(1 - _ERROR_QUANTILE), 3),
        "slabs": float(len(off)),
    }


def held_out_margin(head: LevelHead, samples: Sequence[LevelSample], *, scale_factor: float) -> dict[str, float]:
    """What curves through single ``samples`` are off beyond the doubt about them, and how often a curve may decide.

    A tile is the least that a scan shows, and a curve through a whole scan is surer than those measured here. Samples
    whose curve may not decide by the rules of the product do not count. With none that may, the margin is
    ``MAX_DOUBT_CM``.
    """
    beyond, count = [], 0
    for sample in samples:
        told = torch.isfinite(sample.levels_cm)
        if not bool(told.any()):
            continue
        count += 1
        levels, scales = levels_of_planes(head, sample.deep)
        weights = [observation_weight(level, scale, scale_factor) for level, scale in zip(levels, scales, strict=True)]
        curve = fit_curve(sample.heights_mm.numpy(), levels, weights)
        if curve is not None and may_decide(curve):
            off = np.abs(curve.at(sample.heights_mm[told].numpy()) - sample.levels_cm[told].numpy())
            beyond.append(np.maximum(off - DOUBTS * curve.doubt_cm, 0.0))
    margin_cm = float(np.quantile(np.concatenate(beyond), _ERROR_QUANTILE)) if beyond else MAX_DOUBT_CM
    return {
        "margin_95_cm": round(margin_cm, 3),
        "tiles": float(count),
        "tiles_that_decide": round(len(beyond) / count, 3) if count else 0.0,
    }


def _parted(samples: Sequence[LevelSample], num_sources: int) -> tuple[list[LevelSample], list[LevelSample]]:
    """Samples to learn from and to hold out, of every source its share: they were drawn from the sources in turn."""
    parts: tuple[list[LevelSample], list[LevelSample]] = [], []
    for number, sample in enumerate(samples):
        parts[number // num_sources % _HELD_OUT_EVERY == 0].append(sample)
    return parts


def train_body_part(
    source: Path,
    registry: Registry,
    *,
    run_dir: Path,
    config: LevelConfig = LevelConfig(),
    license: str | None = None,
    provenance: str | None = None,
    cache_dir: Path | None = None,
    device: str = "auto",
    publish: bool = True,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> LevelCard:
    """Train a level head for the encoder of ``registry`` and publish it beside the encoder.

    A second call with the same folder encodes nothing again. Nothing that is published is touched.

    Args:
        source: Training plan, folder of an atlas, or annotated cases.
        registry: Holds the encoder, and no level head if ``publish``.
        run_dir: Encoded patches, the head and ``run.json`` go here.
        config: How to train.
        license: SPDX expression or text; None takes the encoder's.
        provenance: What the head is trained on; None takes the encoder's.
        cache_dir: Of the measured atlas; None for one in ``run_dir``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        publish: Otherwise stop with the head in the folder.
        progress: Told fractions of the whole.
        cancelled: Asked all the time.

    Raises:
        SpecError, CaseError: the source cannot be used, or the folder holds another run.
        RegistryError: the registry has no encoder, or a head already.
    """
    encoder_card = registry.encoder_card()
    opened = open_level_sources(
        source, encoder_card.spec, cache_dir=cache_dir or run_dir / "cache", seed=config.seed + 1
    )
    identity: dict[str, Any] = {
        "encoder_sha256": encoder_card.weights_sha256,
        "config": spec_to_json(config),
        "sources": list(opened.description),
    }
    _begin(run_dir, identity)
    place = process_device(device)
    samples = encode_all(
        opened.sources,
        load_encoder(registry),
        run_dir / "levels",
        count=config.patches,
        device=place,
        progress=lambda share, text: progress(0.9 * share, text),
        cancelled=cancelled,
    )
    training, held_out = _parted(samples, len(opened.sources))
    head = train_level_head(
        training,
        config,
        device=place,
        progress=lambda share, text: progress(0.9 + 0.09 * share, text),
        cancelled=cancelled,
    )
    save_weights(head.state_dict(), run_dir / _HEAD)
    errors = held_out_errors(head, held_out)
    errors |= held_out_margin(head, held_out, scale_factor=errors["scale_factor"])
    card = LevelCard(
        encoder_sha256=encoder_card.weights_sha256,
        weights_sha256=hashlib.sha256((run_dir / _HEAD).read_bytes()).hexdigest(),
        hidden=config.hidden,
        regions_cm=REGIONS_CM,
        anchors_cm=ANCHORS_CM,
        ranges_cm=opened.ranges_cm,
        scale_factor=errors["scale_factor"],
        margin_cm=errors["margin_95_cm"],
        training={**identity["config"], "sources": list(opened.description)},
        validation=errors,
        license=license or encoder_card.license,
        provenance=provenance or encoder_card.provenance,
        created=datetime.date.today().isoformat(),
    )
    if publish:
        publish_level_head(registry, StagedLevelHead(card=card, weights=run_dir / _HEAD))
    progress(1.0, f"level head {'published' if publish else 'trained'}")
    return card


def _begin(run_dir: Path, identity: Mapping[str, Any]) -> None:
    """Record what the run is, or refuse to go on with another one."""
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / _RECORD
    asked = json.loads(json.dumps(identity))
    if not path.is_file():
        write_text(path, json.dumps(asked, indent=1) + "\n")
        return
    known = json.loads(path.read_text(encoding="utf-8"))
    for name in asked:
        if known.get(name) != asked[name]:
            raise SpecError(
                f"the run in {run_dir} was begun with {name} {known.get(name)!r}, got {asked[name]!r}; resume it as it "
                "was begun, or name another run folder"
            )
