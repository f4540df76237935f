"""Frozen descriptions of networks and runs. JSON in, JSON out; no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from .errors import SpecError
from .volume import Shape3, Spacing_mm

Kernel3 = tuple[int, int, int]
Stride3 = tuple[int, int, int]
WindowHU = tuple[float, float]
Spec = TypeVar("Spec")


_LATER = {"later": True}
"""Metadata of a field that older files do not have: where it has its default it is not written either, so that a spec
that says nothing new reads and compares as it always did."""


def spec_to_json(spec: Any) -> dict[str, Any]:
    """A spec as plain JSON values (tuples become lists)."""
    return {
        field.name: _plain(getattr(spec, field.name))
        for field in dataclasses.fields(spec)
        if field.metadata != _LATER or getattr(spec, field.name) != field.default
    }


def spec_from_json(kind: type[Spec], values: Mapping[str, Any]) -> Spec:
    """Rebuild a spec; unknown or missing fields are named. Raises SpecError."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise SpecError(f"{kind.__name__} has no field {', '.join(unknown)}; its fields are {', '.join(fields)}")
    try:
        return kind(**{name: _frozen(value) for name, value in values.items()})
    except TypeError as error:
        raise SpecError(f"{kind.__name__} cannot be read from {sorted(values)}: {error}") from error


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def _check_kernels(owner: str, kernels: tuple[tuple[int, ...], ...]) -> None:
    for kernel in kernels:
        if any(n < 1 or n % 2 == 0 for n in kernel) or sum(1 for _ in kernel) != 3:
            raise SpecError(f"{owner} kernels must be three odd positive numbers, got {kernel}")


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """Architecture and input of the general encoder, nnU-Net style. Frozen once the first task is published.

    Attributes:
        stage_channels: Width of every stage, finest first.
        strides: Stride of the first convolution of every stage; the first is normally (1, 1, 1).
        kernels: Kernel of every stage.
        convs_per_stage: Convolution blocks in every stage, at least one.
        spacing_mm: Voxel size of the model grid along (R, A, S).
        windows_hu: One input channel per window (low, high): HU are clipped to it and mapped to [-1, 1].
        tile: Tile shape in voxels along (R, A, S) that the encoder was trained with.
    """

    stage_channels: tuple[int, ...]
    strides: tuple[Stride3, ...]
    kernels: tuple[Kernel3, ...]
    convs_per_stage: tuple[int, ...]
    spacing_mm: Spacing_mm = (1.5, 1.5, 1.5)
    windows_hu: tuple[WindowHU, ...] = ((-1000.0, 1000.0),)
    tile: Shape3 = (128, 128, 128)

    def __post_init__(self) -> None:
        n = len(self.stage_channels)
        lengths = {"strides": self.strides, "kernels": self.kernels, "convs_per_stage": self.convs_per_stage}
        for name, values in lengths.items():
            if len(values) != n:
                raise SpecError(f"{name} must have one entry per stage ({n}), got {len(values)}")
        if n < 2 or min(self.stage_channels) < 1 or min(self.convs_per_stage) < 1:
            raise SpecError(
                "an encoder needs at least two stages of at least one channel and one convolution, got channels "
                f"{self.stage_channels} and convolutions {self.convs_per_stage}"
            )
        _check_kernels("encoder", self.kernels)
        if any(min(s) < 1 or sum(1 for _ in s) != 3 for s in self.strides):
            raise SpecError(f"strides must be three positive numbers per stage, got {self.strides}")
        if min(self.spacing_mm) <= 0:
            raise SpecError(f"spacing_mm must be positive, got {self.spacing_mm}")
        if not self.windows_hu or any(not low < high for low, high in self.windows_hu):
            raise SpecError(f"windows_hu must be pairs low < high, got {self.windows_hu}")
        if any(t < 1 or t % d for t, d in zip(self.tile, self.divisor, strict=True)):
            raise SpecError(f"tile must be a multiple of the encoder's total stride {self.divisor}, got {self.tile}")

    @property
    def in_channels(self) -> int:
        """Input channels: one per intensity window."""
        return len(self.windows_hu)

    @property
    def divisor(self) -> Shape3:
        """Total stride along each axis; tile shapes are multiples of it."""
        i, j, k = (math.prod(stride[axis] for stride in self.strides) for axis in range(3))
        return i, j, k


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """Architecture of one task's decoder.

    Attributes:
        stage_channels: Width of every decoder level, finest first. Level ``l`` reads encoder stage ``l``; the level
            after the last one is where the decoder starts, so a decoder may be shallower than the encoder.
        kernels: Kernel of every level.
        convs_per_stage: Convolution blocks of every level. A level of none is its transposed convolution alone and
            does not read the encoder: at the finest level, where most of the arithmetic is, that is the cheapest.
        num_organs: Output channels without the background.
        then_kernels: For every level the kernel of one more block that follows each of its convolution blocks, as in
            (3, 3, 1) then (1, 1, 3), or () for none; () for the whole decoder where no level has one.
    """

    stage_channels: tuple[int, ...]
    kernels: tuple[Kernel3, ...]
    convs_per_stage: tuple[int, ...]
    num_organs: int
    then_kernels: tuple[tuple[int, ...], ...] = dataclasses.field(default=(), metadata=_LATER)

    def __post_init__(self) -> None:
        n = len(self.stage_channels)
        if n < 1 or len(self.kernels) != n or len(self.convs_per_stage) != n:
            raise SpecError(
                f"stage_channels, kernels and convs_per_stage must have one entry per level, got {n}, "
                f"{len(self.kernels)} and {len(self.convs_per_stage)}"
            )
        if min(self.stage_channels) < 1 or min(self.convs_per_stage) < 0:
            raise SpecError(
                f"every level needs a channel and no fewer than 0 convolutions, got {self.stage_channels} and "
                f"{self.convs_per_stage}"
            )
        _check_kernels("decoder", self.kernels)
        if self.then_kernels and (len(self.then_kernels) != n or not any(self.then_kernels)):
            raise SpecError(
                f"then_kernels must have one entry for each of the {n} levels, at least one of them a kernel, or none "
                f"at all, got {self.then_kernels}"
            )
        _check_kernels("decoder", tuple(kernel for kernel in self.then_kernels if kernel))
        if self.num_organs < 1:
            raise SpecError(f"num_organs must be at least 1, got {self.num_organs}")

    @property
    def num_features(self) -> int:
        """Channels entering the 1x1x1 head."""
        return self.stage_channels[0]

    def block_kernels(self, level: int) -> tuple[Kernel3, ...]:
        """Kernel of every convolution block of ``level``, in the order in which they run."""
        then = self.then_kernels[level] if self.then_kernels else ()
        pair = (self.kernels[level], (then[0], then[1], then[2])) if then else (self.kernels[level],)
        return pair * self.convs_per_stage[level]


@dataclass(frozen=True, kw_only=True)
class TileSpec:
    """How a volume is cut for inference.

    Attributes:
        size: Tile shape in voxels of the model grid (i, j, k).
        overlap: Fraction of the tile shared with its neighbor, 0 <= overlap < 1.
    """

    size: Shape3 = (128, 128, 128)
    overlap: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise SpecError(f"overlap must be in [0, 1), got {self.overlap}")
        if min(self.size) < 1:
            raise SpecError(f"tile size must be positive along every axis, got {self.size}")


MergeStrategy = Literal[
    "evidence", "most_confident", "registry_order", "last_writer", "fixed_priority", "max_confidence"
]


@dataclass(frozen=True, kw_only=True)
class MergeRules:
    """How voxels and organs claimed by several tasks are settled (METHOD 1.5): every threshold and weight.

    The first three strategies give an organ as a whole to one task: ``evidence`` to the best by the logistic model
    below, ``most_confident`` by the mean confidence over the union alone, ``registry_order`` to the task published
    first. The last three decide voxel by voxel and are there to be compared with: ``last_writer`` takes the task
    published last, ``fixed_priority`` the one published first, ``max_confidence`` the surest.

    The logistic model is ``z = bias + confidence_weight * c + gate_weight * g - anomaly_weight * a
    + agreement_weight * d + pathology_weight * p`` with, for one task and one organ,

    - c in [0, 1]: calibrated confidence, mean over the union of all tasks' claims (0 where this task claims nothing);
    - g in [0, 1]: the body-part gate, 1 where nothing is known;
    - a in [0, 3]: how far the organ is from the training data, 0 up to the threshold, 1 at twice the threshold;
    - d in [0, 1]: mean Dice with the claims of the other tasks, 0 if nobody else claims the organ;
    - p in {0, 1}: a lesion touches the organ and the task was trained on scans with such lesions.

    Weights are not negative: more confidence can never lose an organ. The defaults are a prior, not a measurement;
    ``wbcss-train evaluate --learn-rules`` fits them to validation cases, starting from here.

    Attributes:
        strategy: See above.
        min_confidence: A task whose mean confidence in its own claims of an organ is below this does not compete.
        bias, confidence_weight, gate_weight, anomaly_weight, agreement_weight, pathology_weight: Of the model.
        lesion_mm3: A connected lesion must have at least this volume to count as touching an organ.
    """

    strategy: MergeStrategy = "evidence"
    min_confidence: float = 0.0
    bias: float = -10.0
    confidence_weight: float = 8.0
    gate_weight: float = 4.0
    anomaly_weight: float = 2.0
    agreement_weight: float = 0.0
    pathology_weight: float = 4.0
    lesion_mm3: float = 200.0

    def __post_init__(self) -> None:
        if self.strategy not in get_args(MergeStrategy):
            raise SpecError(f"strategy must be one of {', '.join(get_args(MergeStrategy))}, got {self.strategy!r}")
        if not 0 <= self.min_confidence <= 1:
            raise SpecError(f"min_confidence must be in [0, 1], got {self.min_confidence}")
        if not math.isfinite(self.bias):
            raise SpecError(f"bias must be a number, got {self.bias}")
        for name in (*MERGE_WEIGHTS, "lesion_mm3"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise SpecError(f"{name} must be a number of at least 0, got {value}")

    @property
    def is_voxelwise(self) -> bool:
        """Whether voxels are settled one by one, so that an organ may become a patchwork of tasks."""
        return self.strategy in ("last_writer", "fixed_priority", "max_confidence")


MERGE_WEIGHTS = ("confidence_weight", "gate_weight", "anomaly_weight", "agreement_weight", "pathology_weight")
"""Of the logistic model, in the order of its inputs c, g, a, d, p; the third is subtracted."""
