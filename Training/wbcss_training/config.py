"""Frozen descriptions of training, distilling and trimming; written beside their results, read again on resume."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from wbcss.errors import SpecError
from wbcss.specs import DecoderSpec, spec_to_json
from wbcss.volume import Shape3


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a network is trained.

    The learning rate warms up, stays constant and decays linearly to zero over the last part of the run, so that a
    run may be prolonged from any checkpoint of its constant phase without having wasted a step.

    Attributes:
        steps: Optimizer steps in all.
        patch: Shape of a patch in voxels along (R, A, S), a multiple of the encoder's total stride; None for the
            encoder's own tile. Small patches first make a run see more bodies in the same time.
        batch_size: Patches per step, over all processes.
        learning_rate: AdamW peak learning rate.
        weight_decay: AdamW weight decay.
        warmup_steps: Steps of linear warm-up.
        decay_fraction: Last part of the run over which the learning rate falls linearly to zero.
        ema_decay: Decay of the exponential moving average of the weights; the average is what is published.
        sampled_voxels: Voxels per patch on which the loss is computed at the finest level. The head is pointwise, so
            a random subset gives the same gradient in expectation at a fraction of the cost of a whole patch.
        balanced_fraction: Share of those voxels drawn evenly over the organs present (foreground oversampling); it
            falls linearly to zero over the decay phase, where the true prior is learned.
        deep_supervision: Supervised decoder levels, finest included; level l weighs 1 / 2^l.
        finest_level: Finest decoder level that is computed and supervised. 1 in a first part of a run learns what is
            where at half the cost per step; a later part with 0 learns the borders.
        batch_dice: Sum intersections over the batch before dividing.
        gradient_clip: Largest gradient norm.
        feature_distillation: Weight of the loss that keeps the skips of an encoder in training near those of the
            published encoder that the run started from (METHOD 1.1).
        decoder_distillation: The same for what the heads of the published decoders read; they stay frozen.
        autocast: Run the network in bfloat16 where the processor has it.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between lines in metrics.jsonl.
        seed: Seed of weights, patches and voxel draws.
    """

    steps: int = 4000
    patch: Shape3 | None = None
    batch_size: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    decay_fraction: float = 0.3
    ema_decay: float = 0.995
    sampled_voxels: int = 65536
    balanced_fraction: float = 0.5
    deep_supervision: int = 3
    finest_level: int = 0
    batch_dice: bool = True
    gradient_clip: float = 12.0
    feature_distillation: float = 0.0
    decoder_distillation: float = 0.0
    autocast: bool = True
    checkpoint_every: int = 100
    log_every: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "sampled_voxels", "deep_supervision", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.finest_level < self.deep_supervision:
            raise SpecError(
                f"finest_level must be at least 0 and below deep_supervision ({self.deep_supervision}), "
                f"got {self.finest_level}"
            )
        for name in ("decay_fraction", "balanced_fraction", "ema_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise SpecError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "seed", "feature_distillation", "decoder_distillation"):
            if getattr(self, name) < 0:
                raise SpecError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("learning_rate", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise SpecError(f"{name} must be positive, got {getattr(self, name)}")

    @property
    def distills(self) -> bool:
        """Whether the run keeps its encoder near a former one."""
        return self.feature_distillation > 0 or self.decoder_distillation > 0

    @property
    def decay_start(self) -> int:
        """First step of the decay phase."""
        return round(self.steps * (1 - self.decay_fraction))

    def decay_progress(self, step: int) -> float:
        """0 before the decay phase, rising linearly to 1 at the last step."""
        span = max(1, self.steps - self.decay_start)
        return min(1.0, max(0.0, (step - self.decay_start) / span))

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of ``step`` (0-based)."""
        warmup = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return self.learning_rate * warmup * (1 - self.decay_progress(step))

    def balanced_fraction_at(self, step: int) -> float:
        """Share of voxels of ``step`` drawn evenly over the organs present."""
        return self.balanced_fraction * (1 - self.decay_progress(step))


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """How a decoder learns from a larger one: METHOD 1.3, L = L_seg + a T^2 KL + b sum of feature terms.

    Attributes:
        temperature: T: logits of both are divided by it before they are compared.
        logit_weight: a; 0 leaves the logits of the teacher out.
        feature_weight: b; 0 leaves its features out.
        foreground_weight: What a voxel of an organ weighs in the KL beside the 1 of every voxel, which background
            would swamp.
        boundary_weight: What a voxel beside another label weighs on top, as it is there that small decoders fail.
    """

    temperature: float = 2.0
    logit_weight: float = 1.0
    feature_weight: float = 0.1
    foreground_weight: float = 3.0
    boundary_weight: float = 3.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise SpecError(f"temperature must be a positive number, got {self.temperature}")
        for name in ("logit_weight", "feature_weight", "foreground_weight", "boundary_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise SpecError(f"{name} must be a number of at least 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class TrimConfig:
    """How a trained decoder is made smaller, step by step (METHOD 1.3).

    Attributes:
        budget: Share of the full decoder's multiply-accumulates at which trimming ends.
        tolerance: Mean Dice in [0, 1] on held-out cases that the smaller decoder may lose against the full one.
        shrink: Widths of a step as a share of those before it; after a step that loses too much, its square root.
        multiple: Widths are multiples of it, as processors work on several channels at once.
        max_rejected: Steps that may be taken back before trimming ends.
        keep_finest: Whether the finest level keeps its convolutions; else trimming begins with a try without them.
        step_share: Length of the distillation after a step as a share of ``TrainConfig.steps``.
        importance: What tells which channels stay: ``taylor``, how much the loss would change without them, or
            ``filters``, how large the weights are that read them.
        distill: How the smaller decoder learns from the full one.
        target: Go straight to this architecture in a single step instead, such as one that a search has found.
        min_cases: Held-out cases without which nothing is trimmed, as nobody could see what it costs.
    """

    budget: float = 0.15
    tolerance: float = 0.005
    shrink: float = 0.7
    multiple: int = 4
    max_rejected: int = 2
    keep_finest: bool = False
    step_share: float = 0.25
    importance: Literal["taylor", "filters"] = "taylor"
    distill: DistillConfig = field(default_factory=DistillConfig)
    target: DecoderSpec | None = None
    min_cases: int = 3

    def __post_init__(self) -> None:
        for name in ("budget", "shrink", "step_share"):
            if not 0 < getattr(self, name) <= 1 or (name == "shrink" and self.shrink == 1):
                raise SpecError(
                    f"{name} must be above 0 and {'below' if name == 'shrink' else 'at most'} 1, got "
                    f"{getattr(self, name)}"
                )
        if not 0 <= self.tolerance <= 1:
            raise SpecError(f"tolerance must be a Dice in [0, 1], got {self.tolerance}")
        for name, least in (("multiple", 1), ("max_rejected", 0), ("min_cases", 1)):
            if getattr(self, name) < least:
                raise SpecError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.importance not in ("taylor", "filters"):
            raise SpecError(f"importance must be taylor or filters, got {self.importance!r}")

    @property
    def expected_steps(self) -> int:
        """Steps that a run will probably take, one of them in vain; multiply-accumulates go with the squared width."""
        if self.target is not None:
            return 1
        return max(1, math.ceil(math.log(self.budget) / (2 * math.log(self.shrink)))) + 1

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        target = None if self.target is None else spec_to_json(self.target)
        return {**spec_to_json(self), "distill": spec_to_json(self.distill), "target": target}

    def distill_steps(self, train: TrainConfig) -> int:
        """Optimizer steps of the distillation after a step."""
        return max(1, round(self.step_share * train.steps))
