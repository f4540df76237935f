"""What the level head learns from: deepest features of patches whose planes' levels are known, or at least in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError

from wbcss.errors import Cancelled, RunError, SpecError
from wbcss.io.atomic import write_bytes
from wbcss.labels import OrganName
from wbcss.nn.encoder import Encoder
from wbcss.preprocess import AIR_HU
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.specs import EncoderSpec
from wbcss.volume import Spacing_mm

from .annotation import Case
from .atlas import PreparedAtlas, open_atlas
from .bodylevels import curve_of_case, levels_of_voxels
from .cases import PreparedCase, prepare_case
from .patches import patch_rng, windowed
from .synthesis import SyntheticPatches

BODY_HU = -500.0
MIN_BODY = 0.003
"""A slab with a smaller share of body voxels is taken for empty."""

_TURN_SHARES = (0.2, 0.15)
"""Patches mirrored head to foot, and turned upside down about the axis from back to front: both are met in files."""

_CUT_SHARE = 0.2
_CUT_SIDES_MM = (100.0, 320.0)
"""Patches of which only a box stays, and how long its sides are.

Scans of one limb show neither the other nor air about it, and their features are not those of a whole body: the
encoder's norms see a tile that is mostly empty. Without them a thigh passes for a neck.
"""

_STREAM = 5
"""Number of the random stream that turns and cuts patches, apart from those that draw them."""


@dataclass(frozen=True, eq=False)
class LevelPatch:
    """A patch and where its planes lie.

    Attributes:
        hu: (I, J, K) float32.
        body: (I, J, K) bool.
        levels_cm: (I, J, K) or (1, 1, K) float32; NaN where nobody knows.
        heights_mm: (K,) float32, height in the patient: what is higher has a smaller level.
    """

    hu: torch.Tensor
    body: torch.Tensor
    levels_cm: torch.Tensor
    heights_mm: torch.Tensor


@dataclass(frozen=True, eq=False)
class LevelSample:
    """A patch as the head sees it; slabs are the planes of the deepest features.

    Attributes:
        deep: (C, I, J, K) float16.
        levels_cm: (K,) float32, mean over the body of the slab; NaN where unknown or empty.
        heights_mm: (K,) float32.
        has_body: (K,) bool.
    """

    deep: torch.Tensor
    levels_cm: torch.Tensor
    heights_mm: torch.Tensor
    has_body: torch.Tensor


class LevelSource(Protocol):
    """Patches with levels. The same index and seed always give the same patch."""

    @property
    def seed(self) -> int: ...

    def patch(self, index: int) -> LevelPatch: ...


@dataclass(frozen=True, kw_only=True)
class AtlasLevels:
    """Synthetic patches, whose levels are known exactly: a voxel's is that of the atlas voxel it comes from."""

    source: SyntheticPatches

    @property
    def seed(self) -> int:
        return self.source.seed

    @cached_property
    def _atlas(self) -> PreparedAtlas:
        return open_atlas(self.source.atlas_dir, self.source.cache_dir)

    def patch(self, index: int) -> LevelPatch:
        """Draw patch ``index``."""
        hu, labels, coordinates = self.source.draw_placed(patch_rng(self.seed, index))
        levels = levels_of_voxels(coordinates[2].numpy(), self._atlas)
        heights = torch.arange(hu.shape[2], dtype=torch.float32) * self.source.encoder.spacing_mm[2]
        return LevelPatch(hu, labels > 0, torch.from_numpy(levels.astype(np.float32)), heights)


@dataclass(frozen=True, kw_only=True)
class CaseLevels:
    """Patches of real scans. Levels follow from annotated organs of known level, where a scan shows one whole.

    Attributes:
        cases: Patch n is cut from case n modulo their number.
    """

    cases: tuple[Case, ...]
    encoder: EncoderSpec
    seed: int = 0
    _open: dict[int, PreparedCase] = field(default_factory=dict, repr=False, compare=False)

    def patch(self, index: int) -> LevelPatch:
        """Cut patch ``index``, about a voxel of the body."""
        rng = patch_rng(self.seed, index)
        number = index % len(self.cases)
        case = self._case(number)
        spacing_mm = self.encoder.spacing_mm[2]
        organs = _organs(self.cases[number])
        curve = curve_of_case(case.channels, organs, spacing_mm)
        low = _body_voxel(case.hu, rng) - np.array(self.encoder.tile) // 2
        hu = torch.full(self.encoder.tile, AIR_HU)
        inside, source = [], []
        for start, size, length in zip(low.tolist(), self.encoder.tile, case.hu.shape, strict=True):
            first, last = max(0, start), min(length, start + size)
            inside.append(slice(first - start, last - start))
            source.append(slice(first, last))
        hu[tuple(inside)] = torch.from_numpy(case.hu[tuple(source)].astype(np.float32))
        heights = (low[2] + np.arange(self.encoder.tile[2])) * spacing_mm
        levels = np.full(len(heights), np.nan) if curve is None else curve.at(heights)
        return LevelPatch(
            hu,
            hu > BODY_HU,
            torch.from_numpy(levels.astype(np.float32)).view(1, 1, -1),
            torch.from_numpy(heights.astype(np.float32)),
        )

    def _case(self, number: int) -> PreparedCase:
        if number not in self._open:
            self._open.clear()  # one at a time: they are large
            case = self.cases[number]
            self._open[number] = prepare_case(case, organs=_organs(case), encoder=self.encoder)
        return self._open[number]


def _organs(case: Case) -> tuple[OrganName, ...]:
    return tuple(dict.fromkeys(case.values[value] for value in sorted(case.values)))


def _body_voxel(hu: npt.NDArray[np.int16], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    voxels = np.flatnonzero(hu > BODY_HU)
    if not len(voxels):
        return np.array(hu.shape, np.int64) // 2
    return np.array(np.unravel_index(voxels[int(rng.integers(len(voxels)))], hu.shape), np.int64)


def turned(patch: LevelPatch, rng: np.random.Generator) -> LevelPatch:
    """``patch``, or mirrored head to foot, or upside down: its slabs keep their levels."""
    mirrored, upside_down = _TURN_SHARES
    drawn = rng.random()
    if drawn >= mirrored + upside_down:
        return patch
    axes = (2,) if drawn < mirrored else (0, 2)
    return LevelPatch(patch.hu.flip(axes), patch.body.flip(axes), patch.levels_cm.flip(axes), patch.heights_mm.flip(0))


def cut(patch: LevelPatch, rng: np.random.Generator, *, spacing_mm: Spacing_mm) -> LevelPatch:
    """``patch``, or a box of it about a voxel of its body with air around, as if the scan ended there."""
    if rng.random() >= _CUT_SHARE or not bool(patch.body.any()):
        return patch
    voxels = torch.nonzero(patch.body)
    center = voxels[int(rng.integers(len(voxels)))].tolist()
    inside = torch.zeros_like(patch.body)
    sides = [side / spacing for side, spacing in zip(rng.uniform(*_CUT_SIDES_MM, 3), spacing_mm, strict=True)]
    starts = [int(at - rng.random() * side) for at, side in zip(center, sides, strict=True)]
    inside[tuple(slice(max(0, s), int(s + side) + 1) for s, side in zip(starts, sides, strict=True))] = True
    return replace(patch, hu=torch.where(inside, patch.hu, torch.tensor(AIR_HU)), body=patch.body & inside)


def encode_levels(patch: LevelPatch, encoder: Encoder, *, device: torch.device) -> LevelSample:
    """What the frozen encoder, which is on ``device``, makes of ``patch``. Raises RunError if it is not finite."""
    image = windowed(patch.hu, encoder.spec.windows_hu)[None].to(device)
    with torch.inference_mode():
        deep = encoder(image)[-1][0].to(torch.float16).cpu()
    if not bool(torch.isfinite(deep).all()):
        raise RunError("features of the encoder must be finite in 16 bits, got others; check the images of the cases")
    slabs = deep.shape[-1]
    step = patch.hu.shape[2] // slabs
    planes = patch.hu.shape[0] * patch.hu.shape[1]
    count = patch.body.sum(dim=(0, 1)).float().view(slabs, step)
    levels = torch.where(patch.body, patch.levels_cm, torch.zeros(())).sum(dim=(0, 1)).view(slabs, step)
    has_body = count.sum(dim=1) >= MIN_BODY * planes * step
    mean = levels.sum(dim=1) / count.sum(dim=1)
    return LevelSample(
        deep=deep,
        levels_cm=torch.where(has_body, mean, torch.nan),
        heights_mm=patch.heights_mm.view(slabs, step).mean(dim=1),
        has_body=has_body,
    )


def encode_all(
    sources: Sequence[LevelSource],
    encoder: Encoder,
    folder: Path,
    *,
    count: int,
    device: torch.device,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> list[LevelSample]:
    """Samples 0 .. ``count`` - 1, from the sources in turn; those that lie in ``folder`` are not made again.

    Raises:
        SpecError: there is no source, or nothing to draw.
        OutputError: the disk refuses.
        Cancelled: ``cancelled`` returned true; what is there stays for the next run.
    """
    if count < 2 or not sources:
        raise SpecError(f"a level head needs at least 2 patches of at least 1 source, got {count} of {len(sources)}")
    folder.mkdir(parents=True, exist_ok=True)
    encoder.to(device)
    samples = []
    for number in range(count):
        if cancelled():
            raise Cancelled(f"the encoding was stopped after {number} of {count} patches; go on with --resume")
        path = folder / f"{number:06d}.safetensors"
        sample = _read(path)
        if sample is None:
            source = sources[number % len(sources)]
            rng = np.random.default_rng(np.random.SeedSequence([source.seed, _STREAM, number]))
            patch = turned(source.patch(number // len(sources)), rng)
            patch = cut(patch, rng, spacing_mm=encoder.spec.spacing_mm)
            sample = encode_levels(patch, encoder, device=device)
            _write(path, sample)
        samples.append(sample)
        progress((number + 1) / count, f"encoded {number + 1} of {count} patches")
    encoder.cpu()
    return samples


def _write(path: Path, sample: LevelSample) -> None:
    tensors = {
        "deep": sample.deep,
        "levels_cm": sample.levels_cm,
        "heights_mm": sample.heights_mm,
        "has_body": sample.has_body,
    }
    write_bytes(path, safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def _read(path: Path) -> LevelSample | None:
    """The sample that lies at ``path``; None if there is none, or none that can be read."""
    try:
        return LevelSample(**safetensors.torch.load_file(path))
    except (OSError, TypeError, SafetensorError):
        return None


def at_tile(source: SyntheticPatches, encoder: EncoderSpec, *, seed: int) -> AtlasLevels:
    """Patches of ``source`` as large as a tile of inference, so that norms see as much as they will there."""
    return AtlasLevels(source=replace(source, encoder=encoder, seed=seed))
