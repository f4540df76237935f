"""What is to be enrolled and how: the request, what follows from it, and what comes out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from wbcss.cards import EncoderCard, TaskCard
from wbcss.devices import Step
from wbcss.errors import SpecError
from wbcss.labels import OrganName, TaskId
from wbcss.segment import SegmentOptions
from wbcss.specs import DecoderSpec, EncoderSpec, spec_to_json
from wbcss.tiling import shrink_tile
from wbcss.volume import Shape3

from .annotation import Case
from .augmentation import Strength
from .config import TrainConfig, TrimConfig
from .features import FeatureSpec, patch_bytes

FEW_CASES = 10
"""Up to this many cases a network would learn the bodies by heart: stronger augmentation, early stopping."""

ENROLL_CONFIG = TrainConfig(
    steps=1500,
    batch_size=2,
    learning_rate=2e-3,
    warmup_steps=50,
    decay_fraction=0.3,
    ema_decay=0.99,
    sampled_voxels=32768,
    checkpoint_every=50,
)
"""A decoder on frozen features learns faster than a whole network, and its steps are cheap."""

_READ_AGAIN = 4
"""How often a patch is read in a run at least: encoding more would cost more than it teaches. With 8 the loss on
held-out cases rose from the second half on."""

_VALIDATION_PATCHES_PER_CASE, _MAX_VALIDATION_PATCHES = 4, 16
_ROUNDS, _PATIENCE = 20, 5
_MIN_WIDTH = 8
_COARSE_SHARE = 0.6


@dataclass(frozen=True, kw_only=True)
class EnrollmentRequest:
    """A task to be learned on the frozen encoder of a registry.

    Attributes:
        organs: Decoder channels 1, 2, ... in order.
        training, validation: Annotated scans to learn from and to hold out; no patient is in both.
        training_ids, validation_ids: Hash of each case's voxels; they name the encoded patches.
        decoder: Architecture (``num_organs`` follows from ``organs``); None for that of ``start``, or ``thin_decoder``.
        start: Published task whose decoder the new one begins as a copy of; None for random weights.
        published: Published task whose decoder is taken as it is instead of learning one, to be made smaller; the task
            and the decoder are its own.
        trim: Make the decoder smaller when it is learned; None publishes it as it is.
        train: Schedule; its ``steps`` count unless ``minutes`` is given.
        minutes: Choose the number of steps so that the whole run takes about this long on this machine.
        coarse_share: First part of the steps, in which the finest level of the decoder rests: what is where is learned
            at half the cost per step, borders are learned afterwards. None for 0.6, or 0 with a ``start``, whose
            finest level has learned already.
        cache_gib: Largest size of the encoded patches on disk.
        segmentation: How the held-out cases are segmented.
        license, provenance, limits: Words for the card; nothing that identifies a patient.
        on_request: Whether the published task runs only for those who name it.
        organ_cards: Fields of organs that the catalogue lacks, as ``publishing.new_organ`` takes them.
    """

    task: TaskId
    organs: tuple[OrganName, ...]
    training: tuple[Case, ...] = field(repr=False)
    validation: tuple[Case, ...] = field(default=(), repr=False)
    training_ids: tuple[str, ...] = field(repr=False)
    validation_ids: tuple[str, ...] = field(default=(), repr=False)
    decoder: DecoderSpec | None = None
    start: TaskCard | None = None
    published: TaskCard | None = None
    trim: TrimConfig | None = None
    train: TrainConfig = ENROLL_CONFIG
    minutes: float | None = None
    coarse_share: float | None = None
    cache_gib: float = 4.0
    segmentation: SegmentOptions = field(default_factory=SegmentOptions)
    license: str
    provenance: str
    limits: str = ""
    on_request: bool = False
    organ_cards: Mapping[OrganName, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.organs:
            raise SpecError(f"task {self.task!r} must learn at least one organ, got none")
        if not self.training:
            raise SpecError(f"task {self.task!r} must have at least one case to learn from, got none")
        for side, cases, ids in (
            ("training", self.training, self.training_ids),
            ("validation", self.validation, self.validation_ids),
        ):
            if len(cases) != len(ids):
                raise SpecError(f"{side}_ids must name each of the {len(cases)} cases, got {len(ids)}")
        if not (math.isfinite(self.cache_gib) and self.cache_gib > 0):
            raise SpecError(f"the cache must be larger than 0 GiB, got {self.cache_gib}")
        if self.coarse_share is not None and not 0 <= self.coarse_share <= 1:
            raise SpecError(f"coarse_share must be in [0, 1], got {self.coarse_share}")
        if self.minutes is not None and not (math.isfinite(self.minutes) and self.minutes > 0):
            raise SpecError(f"minutes must be a positive number, got {self.minutes}")
        if self.published is not None and (self.published.task != self.task or self.published.spec != self.decoder):
            raise SpecError(
                f"a published decoder must be taken with its own task and spec, {self.published.title} and "
                f"{self.published.spec}, got {self.task!r} and {self.decoder}"
            )

    @property
    def is_few_shot(self) -> bool:
        """Whether there are so few cases that learning them by heart must be kept from happening."""
        return len(self.training) <= FEW_CASES

    @property
    def training_cases(self) -> int:
        """How many cases the decoder has learned from, for its card."""
        return max(len(self.training), 0 if self.published is None else self.published.training_cases)

    @property
    def augmentation(self) -> Strength:
        """How much patches differ from the scans they are cut from."""
        return "strong" if self.is_few_shot else "normal"

    def decoder_spec(self, encoder: EncoderSpec) -> DecoderSpec:
        """Architecture of the task's decoder on ``encoder``."""
        asked = self.decoder if self.decoder is not None or self.start is None else self.start.spec
        if asked is None:
            return thin_decoder(encoder, num_organs=len(self.organs))
        return replace(asked, num_organs=len(self.organs))

    @property
    def full_provenance(self) -> str:
        """``provenance``, and whose weights the decoder began as: their license may bind those who pass it on."""
        if self.start is None:
            return self.provenance
        return f"{self.provenance} Began as a copy of the decoder of {self.start.title}, license {self.start.license}."

    @property
    def resting_share(self) -> float:
        """First part of the steps in which the finest level rests."""
        if self.coarse_share is not None:
            return self.coarse_share
        return _COARSE_SHARE if self.start is None else 0.0

    def identity(self, encoder: EncoderCard) -> dict[str, Any]:
        """Everything that decides the bits of the decoder, as JSON without a name or path of a case.

        Two requests with the same identity may continue each other's run. Trimming is not among it: what it starts
        from is the same whatever follows, and its own folder remembers how it was asked for.
        """
        ids = hashlib.sha256(repr((self.training_ids, self.validation_ids)).encode()).hexdigest()
        train = spec_to_json(self.train)
        if self.minutes is not None:
            del train["steps"]
        return {
            "task": self.task,
            "organs": list(self.organs),
            "encoder_sha256": encoder.weights_sha256,
            "decoder": spec_to_json(self.decoder_spec(encoder.spec)),
            "train": train,
            "start": None if self.start is None else self.start.title,
            **({} if self.published is None else {"published": self.published.title}),
            "minutes": self.minutes,
            "coarse_share": self.resting_share,
            "cache_gib": self.cache_gib,
            "training_cases": len(self.training),
            "validation_cases": len(self.validation),
            "cases_sha256": ids,
        }


def thin_decoder(encoder: EncoderSpec, *, num_organs: int) -> DecoderSpec:
    """Half as wide as the encoder at every level, at least 8, one convolution at the two finest levels.

    METHOD 1: decoders dominate the cost, and the finest levels hold most of it.
    """
    levels = len(encoder.stage_channels) - 1
    return DecoderSpec(
        stage_channels=tuple(max(_MIN_WIDTH, width // 2) for width in encoder.stage_channels[:levels]),
        kernels=encoder.kernels[:levels],
        convs_per_stage=tuple(1 if level < 2 else 2 for level in range(levels)),
        num_organs=num_organs,
    )


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What follows from a request, a number of steps and the memory at hand.

    Attributes:
        config: With the batch and patch that fit into memory.
        decoder: Architecture.
        features: What is kept of a patch.
        num_training, num_validation: Patches in the two pools.
        bytes_per_patch: On disk.
        coarse_steps: First steps without the finest level, whole rounds.
        round_steps: Steps between looks at the held-out cases.
        patience: Rounds of the finest level without a lower loss after which training stops; None trains to the end.
        trim: How the decoder is made smaller afterwards, if it is.
        learns: Whether there is a decoder to be learned, and not one to be taken from the registry.
    """

    config: TrainConfig
    decoder: DecoderSpec
    features: FeatureSpec
    num_training: int
    num_validation: int
    bytes_per_patch: int
    coarse_steps: int
    round_steps: int
    patience: int | None
    trim: TrimConfig | None = None
    learns: bool = True

    def config_at(self, step: int) -> TrainConfig:
        """Schedule of the round that begins at ``step``."""
        return replace(self.config, finest_level=1) if step < self.coarse_steps else self.config

    @property
    def cache_bytes(self) -> int:
        """Size of both pools on disk."""
        return self.bytes_per_patch * (self.num_training + self.num_validation)


def schedule_of(request: EnrollmentRequest, encoder: EncoderSpec, config: TrainConfig) -> Schedule:
    """Pools and rounds of a run of ``config``.

    Raises SpecError if the cache cannot hold a patch of training and those of validation, or the patch does not fit
    the encoder.
    """
    patch: Shape3 = config.patch or encoder.tile
    if any(n < 1 or n % d for n, d in zip(patch, encoder.divisor, strict=True)):
        raise SpecError(f"patch must be a multiple of the encoder's total stride {encoder.divisor}, got {patch}")
    decoder = request.decoder_spec(encoder)
    trim = request.trim
    target = decoder if trim is None or trim.target is None else trim.target
    levels = max(len(decoder.stage_channels), len(target.stage_channels))
    features = FeatureSpec(patch=patch, num_skips=1 + levels, autocast=config.autocast)
    size = patch_bytes(encoder, features)
    num_validation = min(_MAX_VALIDATION_PATCHES, _VALIDATION_PATCHES_PER_CASE * len(request.validation))
    room = int(request.cache_gib * 2**30) // size - num_validation
    if room < 1:
        raise SpecError(
            f"the cache must hold at least {1 + num_validation} encoded patches of {size / 2**20:.1f} MiB, got "
            f"{request.cache_gib:g} GiB; raise --cache-gib"
        )
    # Patches to learn from are as many as the full decoder needs, so that they are the same whatever follows.
    learns = request.published is None
    steps = config.steps if learns or trim is None else trim.expected_steps * trim.distill_steps(config)
    wanted = math.ceil(steps * config.batch_size / _READ_AGAIN)
    every = math.ceil(config.steps / _ROUNDS / config.log_every) * config.log_every
    supervised = min(config.deep_supervision, len(decoder.stage_channels))
    may_rest = supervised > 1 and config.finest_level == 0
    return Schedule(
        config=config,
        decoder=decoder,
        features=features,
        num_training=max(1, min(room, wanted)),
        num_validation=num_validation,
        bytes_per_patch=size,
        coarse_steps=int(request.resting_share * config.steps) // every * every if may_rest else 0,
        round_steps=every,
        patience=_PATIENCE if request.is_few_shot and request.validation else None,
        trim=trim,
        learns=learns,
    )


def training_ladder(
    device: torch.device, batch: int, patch: tuple[int, int, int], divisor: tuple[int, int, int]
) -> tuple[Step, ...]:
    """What to try in order: half the batch until it is one, then half the patch until it cannot be halved."""
    steps = [Step(device, batch, patch)]
    while steps[-1].batch > 1:
        steps.append(replace(steps[-1], batch=steps[-1].batch // 2))
    while (smaller := shrink_tile(steps[-1].tile, divisor, 0.5)) != steps[-1].tile:
        steps.append(replace(steps[-1], tile=smaller))
    return tuple(steps)


@dataclass(frozen=True, kw_only=True)
class EnrollmentReport:
    """What an enrolment did.

    Attributes:
        card: The published card, or the one that would be published.
        is_published: Whether it was.
        validation: As on the card, and ``cases`` with the metrics of every held-out case by its number.
        steps: Optimizer steps that were done.
        stopped_early: Whether the loss on held-out cases stopped falling before the end.
        seconds: Wall time of every stage, over all calls that a resumed run took.
        unchanged: Title of every earlier task version whose files and logits are bit for bit as before.
        unchanged_organs: How many organs those segment, each counted once.
        ladder: Steps taken after running out of memory.
        trimming: Cost and accuracy of the full decoder, the published one and every step between; empty if the full
            one was not trimmed.
        untrimmed: Why it could not be, in words; empty if it was, or was not to be.
    """

    card: TaskCard
    is_published: bool = True
    validation: Mapping[str, Any]
    steps: int
    stopped_early: bool
    seconds: Mapping[str, float]
    unchanged: tuple[str, ...]
    unchanged_organs: int
    ladder: tuple[str, ...] = ()
    trimming: Mapping[str, Any] = field(default_factory=dict)
    untrimmed: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: no path, name or identifier of a case."""
        return {
            "format": "wbcss-enrollment",
            "format_version": 1,
            "task": self.card.title,
            "published": self.is_published,
            "organs": [organ.name for organ in self.card.organs],
            "on_request": self.card.on_request,
            "weights_sha256": self.card.weights_sha256,
            "training_cases": self.card.training_cases,
            "steps": self.steps,
            "stopped_early": self.stopped_early,
            "calibration": dict(self.card.calibration),
            "confidence": dict(self.card.confidence),
            "validation": dict(self.validation),
            "seconds": {stage: round(seconds, 2) for stage, seconds in self.seconds.items()},
            "unchanged": list(self.unchanged),
            "unchanged_organs": self.unchanged_organs,
            "ladder": list(self.ladder),
            "trimming": dict(self.trimming),
            "untrimmed": self.untrimmed,
        }
