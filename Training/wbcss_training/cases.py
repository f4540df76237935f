"""Annotated scans as training patches: read, checked, resampled once to the model grid, then cropped and augmented."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.transforms.compose import Compose

from wbcss.errors import CaseError
from wbcss.labels import OrganName, TaskId
from wbcss.preprocess import AIR_HU, ModelGrid, PlaneReader
from wbcss.specs import EncoderSpec
from wbcss.volume import LabelMap, Volume

from .annotation import Case, read_case
from .augmentation import Strength, augmentation
from .layouts import read_case_list
from .patches import Patch, patch_rng, windowed

__all__ = ["Case", "CasePatches", "PreparedCase", "prepare_case", "read_case", "read_case_list"]

_BODY_HU = -300
"""Soft tissue, fat and bone are denser than this; air and most of the lung are not."""

_MARGIN = 1.3
"""A crop this much larger than the tile is cut before rotating, so that corners come from the scan."""


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case on the model grid, axes along R, A, S.

    Attributes:
        hu: (I, J, K) int16.
        channels: (I, J, K) uint8 decoder channels.
        annotated: (1 + num_organs,) bool.
    """

    hu: npt.NDArray[np.int16]
    channels: npt.NDArray[np.uint8]
    annotated: npt.NDArray[np.bool_]


def prepare_case(case: Case, *, organs: Sequence[OrganName], encoder: EncoderSpec) -> PreparedCase:
    """Read, check and resample one case. Raises CaseError naming what does not fit."""
    volume, labels = read_case(case)
    if len(organs) > 255:
        raise CaseError(f"a task may have at most 255 organs, got {len(organs)}; split it into several tasks")
    numbers = {organ: channel for channel, organ in enumerate(organs, start=1)}
    lookup = np.zeros(max(int(labels.max()), *case.values, 0) + 1, np.uint8)
    annotated = np.zeros(1 + len(organs), bool)
    annotated[0] = True
    found = set(np.unique(labels).tolist())
    for value, organ in case.values.items():
        channel = numbers.get(organ, 0)
        lookup[value] = channel
        if channel and (value in found or case.absent == "background"):
            annotated[channel] = True
    grid = ModelGrid.of(volume, encoder.spacing_mm)
    hu = _resample(volume, grid)
    return PreparedCase(hu, lookup[_nearest(labels, grid)], annotated)


def _resample(volume: Volume, grid: ModelGrid) -> npt.NDArray[np.int16]:
    i, j, k = grid.shape
    reader = PlaneReader(grid.orientation.view(volume.voxels), grid.axes, ((0, i), (0, j)), torch.device("cpu"))
    planes = reader.read(0, k).permute(1, 2, 0).round().clamp(-32768, 32767)
    hu: npt.NDArray[np.int16] = planes.to(torch.int16).numpy()
    return hu


def _nearest(labels: LabelMap, grid: ModelGrid) -> LabelMap:
    canonical = grid.orientation.view(labels)
    index = [
        np.clip(np.rint(axis.native_of(np.arange(axis.model_size))).astype(int), 0, axis.native_size - 1)
        for axis in grid.axes
    ]
    taken: LabelMap = canonical[np.ix_(*index)]
    return taken


@dataclass(frozen=True, kw_only=True)
class CasePatches:
    """PatchSource over annotated scans. Picklable; prepared cases are kept as arrays in ``cache_dir``.

    Attributes:
        foreground_share: Share of patches centered on a voxel of an organ drawn evenly (METHOD 1.2: 0.33); the others
            are centered anywhere in the body, as air has nothing to teach.
        augmentation: How much a patch differs from the scan it is cut from.
    """

    task: TaskId
    organs: tuple[OrganName, ...]
    cases: tuple[Case, ...]
    cache_dir: Path
    encoder: EncoderSpec
    seed: int = 0
    foreground_share: float = 0.33
    augmentation: Strength = "normal"
    _open: dict[int, PreparedCase] = field(default_factory=dict, repr=False, compare=False)

    def patch(self, index: int) -> Patch:
        """Draw patch ``index``."""
        rng = patch_rng(self.seed, index)
        case = self._case(int(rng.integers(len(self.cases))))
        size = tuple(int(np.ceil(n * _MARGIN)) for n in self.encoder.tile)
        low = self._center(case, rng) - np.asarray(size) // 2
        crop = {
            "hu": torch.from_numpy(_crop(case.hu, low, size, fill=int(AIR_HU)).astype(np.float32) - AIR_HU)[None],
            "labels": torch.from_numpy(_crop(case.channels, low, size, fill=0))[None],
        }
        augment = self._augment
        augment.set_random_state(seed=int(rng.integers(2**31)))
        out: Any = augment(crop)
        return Patch(
            image=windowed(torch.as_tensor(out["hu"])[0] + AIR_HU, self.encoder.windows_hu),
            labels=torch.as_tensor(out["labels"])[0].to(torch.uint8),
            annotated=torch.from_numpy(case.annotated),
        )

    @cached_property
    def _augment(self) -> Compose:
        return augmentation(self.augmentation, self.encoder.tile)

    def _case(self, number: int) -> PreparedCase:
        if number not in self._open:
            self._open[number] = self._cached(self.cases[number])
        return self._open[number]

    def _cached(self, case: Case) -> PreparedCase:
        """The prepared case, made once; the file name is a hash, so no identifier reaches the cache."""
        changed = [path.stat().st_mtime_ns for path in case.files]
        key = hashlib.sha256(repr((case, self.organs, self.encoder.spacing_mm, changed)).encode()).hexdigest()[:24]
        path = self.cache_dir / f"{key}.npz"
        if not path.is_file():
            prepared = prepare_case(case, organs=self.organs, encoder=self.encoder)
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.npz")  # several workers may make the same case at once
            np.savez(temporary, hu=prepared.hu, channels=prepared.channels, annotated=prepared.annotated)
            temporary.replace(path)
        with np.load(path, allow_pickle=False) as arrays:
            return PreparedCase(arrays["hu"], arrays["channels"], arrays["annotated"])

    def _center(self, case: PreparedCase, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        present = np.unique(case.channels)
        present = present[present > 0]
        if len(present) and rng.random() < self.foreground_share:
            inside = case.channels == rng.choice(present)
        else:
            inside = case.hu > _BODY_HU
        voxels = np.flatnonzero(inside)
        if not len(voxels):
            return np.array([int(rng.integers(n)) for n in case.hu.shape], np.int64)
        return np.array(np.unravel_index(voxels[int(rng.integers(len(voxels)))], inside.shape), np.int64)


def _crop(array: npt.NDArray[Any], low: npt.NDArray[np.int64], size: tuple[int, ...], *, fill: int) -> npt.NDArray[Any]:
    """The box of ``size`` at ``low``, filled where it leaves the array."""
    out = np.full(size, fill, array.dtype)
    source, target = [], []
    for axis, (start, n) in enumerate(zip(low, size, strict=True)):
        first, last = max(0, int(start)), min(array.shape[axis], int(start) + n)
        source.append(slice(first, max(first, last)))
        target.append(slice(first - int(start), max(first, last) - int(start)))
    out[tuple(target)] = array[tuple(source)]
    return out
