"""How long will an enrolment take, and how much memory? Measured on one encoded patch and one step, not guessed."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch

from wbcss.console import duration
from wbcss.errors import SpecError
from wbcss.io.reading import read_volume
from wbcss.nn.encoder import Encoder
from wbcss.preprocess import ModelGrid
from wbcss.tiling import tile_starts

from .annotation import Case
from .config import TrainConfig
from .enrollment import Schedule
from .features import encode_patch
from .learner import build_decoder_learner
from .normality import NUM_DESCRIBED
from .patches import PatchSource

_Result = TypeVar("_Result")

MIN_STEPS = 20
"""A decoder that was trained for less is not worth publishing."""


DESCRIBE_SHARE = 0.2
"""Telling what organs normally look like may take this share of all the rest; with less time, fewer cases tell it."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the parts of a run cost on this machine.

    Attributes:
        prepare_s: Reading and resampling one case.
        patch_s: Drawing and encoding one patch.
        step_s: One optimizer step.
        coarse_step_s: One step without the finest level.
        validate_s: Segmenting one case.
        peak_bytes: Largest memory so far: of the process on the CPU, of torch on a GPU; 0 where the
            system does not tell.
    """

    prepare_s: float
    patch_s: float
    step_s: float
    coarse_step_s: float
    validate_s: float
    peak_bytes: int

    def stages(self, schedule: Schedule, *, num_training: int, num_validation: int) -> dict[str, float]:
        """Seconds by stage."""
        patches = schedule.num_training + schedule.num_validation
        fine_steps, coarse_steps = schedule.config.steps - schedule.coarse_steps, schedule.coarse_steps
        validate_s = self.validate_s * num_validation
        stages = {
            "encode": self.prepare_s * (num_training + num_validation) + self.patch_s * patches,
            "train": self.step_s * fine_steps + self.coarse_step_s * coarse_steps if schedule.learns else 0.0,
            "validate": validate_s,
        }
        if schedule.trim is not None and num_validation >= schedule.trim.min_cases:
            # What a narrower decoder saves of a step goes to the answer of the full one.
            distill_s = self.step_s * schedule.trim.distill_steps(schedule.config)
            stages["trim"] = schedule.trim.expected_steps * (distill_s + validate_s)
        describe_s = self.validate_s * (min(num_training, NUM_DESCRIBED) + num_validation)
        stages["describe"] = min(describe_s, DESCRIBE_SHARE * sum(stages.values()))
        return stages

    def sentence(self, schedule: Schedule, *, num_training: int, num_validation: int) -> str:
        """The same for a person."""
        stages = self.stages(schedule, num_training=num_training, num_validation=num_validation)
        parts = ", ".join(f"{duration(seconds)} to {stage}" for stage, seconds in stages.items())
        return (
            f"{num_training} case(s) to learn from, {num_validation} held out; "
            f"{schedule.num_training + schedule.num_validation} patches of "
            f"{'x'.join(map(str, schedule.features.patch))}, {schedule.config.steps} steps; about "
            f"{duration(sum(stages.values()))} in all ({parts}), {schedule.cache_bytes / 2**30:.2f} GiB of disk"
            + (f", {self.peak_bytes / 2**30:.1f} GiB of memory" if self.peak_bytes else "")
        )

    def forecast(self, schedule: Schedule, *, num_training: int, num_validation: int) -> Forecast:
        """What a run of ``schedule`` would cost."""
        counts = {"num_training": num_training, "num_validation": num_validation}
        return Forecast(
            sentence=self.sentence(schedule, **counts),
            seconds=self.stages(schedule, **counts),
            steps=schedule.config.steps,
            disk_bytes=schedule.cache_bytes,
            memory_bytes=self.peak_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run would cost on this machine.

    Attributes:
        sentence: For a person.
        seconds: By stage.
        steps: Optimizer steps.
        disk_bytes: Size of the encoded patches.
        memory_bytes: As ``Estimate.peak_bytes``.
    """

    sentence: str
    seconds: Mapping[str, float]
    steps: int
    disk_bytes: int
    memory_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"estimate_s": dict(self.seconds), **{k: v for k, v in asdict(self).items() if k != "seconds"}}


def measure(
    source: PatchSource, encoder: Encoder, schedule: Schedule, *, held_out: Case | None, device: torch.device
) -> Estimate:
    """Draw and encode one patch and do one step on it; nothing is kept.

    ``held_out`` is a case to validate on; its size says how many tiles the product will run.
    """
    first_s, _ = _timed(lambda: source.patch(0), device)
    draw_s, patch = _timed(lambda: source.patch(0), device)
    encoder.to(device)
    encode_patch(patch, encoder, spec=schedule.features, device=device)  # the first call sets the library up
    encode_s, features = _timed(lambda: encode_patch(patch, encoder, spec=schedule.features, device=device), device)
    learner = build_decoder_learner(encoder, schedule.decoder, schedule.config).to(device)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=schedule.config.learning_rate)

    def step() -> None:
        generator = torch.Generator().manual_seed(0)
        loss = learner(source.task, [features] * schedule.config.batch_size, step=0, generator=generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def step_of(config: TrainConfig) -> float:
        learner.config = config
        step()
        return _timed(step, device)[0]

    step_s = step_of(schedule.config)
    coarse_step_s = step_of(schedule.config_at(0)) if schedule.coarse_steps else step_s
    # A step is a forward and a backward pass, the latter twice as long; inference does the former.
    tile_s = encode_s + step_s / 3 / schedule.config.batch_size
    return Estimate(
        prepare_s=max(0.0, first_s - draw_s),
        patch_s=draw_s + encode_s,
        step_s=step_s,
        coarse_step_s=coarse_step_s,
        validate_s=0.0 if held_out is None else tile_s * _num_tiles(held_out, encoder, schedule),
        peak_bytes=_peak_bytes(device),
    )


def steps_within(
    minutes: float,
    estimate: Estimate,
    schedule_for: Callable[[int], Schedule],
    *,
    num_training: int,
    num_validation: int,
) -> int:
    """The largest number of steps whose whole run is estimated to take at most ``minutes``.

    Raises SpecError if that is below ``MIN_STEPS``.
    """

    def takes_s(steps: int) -> float:
        schedule = schedule_for(steps)
        return sum(estimate.stages(schedule, num_training=num_training, num_validation=num_validation).values())

    if takes_s(MIN_STEPS) > 60 * minutes:
        raise SpecError(
            f"--minutes must leave time for {MIN_STEPS} steps, about {duration(takes_s(MIN_STEPS))} in all here, got "
            f"{minutes:g} min"
        )
    low, high = MIN_STEPS, 2 * MIN_STEPS
    while takes_s(high) <= 60 * minutes:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if takes_s(middle) <= 60 * minutes else (low, middle)
    return low


def _timed(work: Callable[[], _Result], device: torch.device) -> tuple[float, _Result]:
    """Wall time of ``work`` and what it returns."""
    started = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, result


def _num_tiles(case: Case, encoder: Encoder, schedule: Schedule) -> int:
    """Tiles of half an overlap that cover the scan of ``case``, air and all."""
    shape = ModelGrid.of(read_volume(case.image_path).volume, encoder.spec.spacing_mm).shape
    counts = [len(tile_starts(n, t, 0.5)) for n, t in zip(shape, schedule.features.patch, strict=True)]
    return math.prod(counts)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource  # Unix only

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
