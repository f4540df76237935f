"""Patches as the frozen encoder sees them: computed once, kept as float16 on disk, read in every epoch.

Training always reads what the disk holds, never what was just computed: a resumed run reads the same bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from wbcss.errors import Cancelled, RunError, SpecError
from wbcss.io.atomic import write_bytes
from wbcss.labels import TaskId
from wbcss.nn.encoder import Encoder
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.specs import EncoderSpec
from wbcss.volume import Shape3

from .loop import load_in_order
from .patches import FeaturePatch, Patch, PatchSource
from .processes import process_count, process_rank, wait_for_all

_SKIP = "skip"
_STREAM = 3
"""Number of the random stream that shuffles a pool, apart from those of the loop."""


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """Which patches are encoded and how.

    Attributes:
        patch: Shape in voxels, a multiple of the encoder's total stride.
        num_skips: Encoder stages to keep, finest first; a shallow decoder needs no deep ones.
        autocast: Run the encoder in bfloat16 where the processor has it, as training of whole networks does.
            Inference chooses per machine between float32 and bfloat16; the rounding to float16 is finer than the
            difference.
    """

    patch: Shape3
    num_skips: int
    autocast: bool = True


@dataclass(frozen=True, kw_only=True)
class FeaturePool:
    """A SampleSource over a pool of encoded patches; every epoch reads them all in another order. Picklable.

    Attributes:
        folder: Where ``encode_pool`` put them.
        count: Patches in the pool.
        seed: Of the order.
        first: Number of its first patch in the folder.
    """

    task: TaskId
    folder: Path
    count: int
    seed: int = 0
    first: int = 0

    def patch(self, index: int) -> FeaturePatch:
        """Sample ``index``: which patch that is depends on seed and index alone."""
        epoch, place = divmod(index, self.count)
        order = np.random.default_rng(np.random.SeedSequence([self.seed, _STREAM, epoch])).permutation(self.count)
        return read_features(_path(self.folder, self.first + int(order[place])))

    def part(self, low: int, high: int) -> FeaturePool:
        """Patches ``low`` .. ``high`` - 1 of the pool as a pool. Raises SpecError if those are none, or not its own."""
        if not 0 <= low < high <= self.count:
            raise SpecError(f"a part of a pool of {self.count} patches must lie within it, got {low} to {high}")
        return replace(self, first=self.first + low, count=high - low)


def patch_bytes(encoder: EncoderSpec, spec: FeatureSpec) -> int:
    """Size in bytes of one encoded patch on disk."""
    size = np.array(spec.patch)
    total = int(size.prod())  # the labels
    for stride, channels in list(zip(encoder.strides, encoder.stage_channels, strict=True))[: spec.num_skips]:
        size = size // np.array(stride)
        total += 2 * channels * int(size.prod())
    return total


def pool_key(encoder_sha256: str, identities: Sequence[str], facts: object) -> str:
    """Name of a pool's folder: a hash of the encoder, of the cases' voxels and of how patches are drawn.

    ``identities`` are hashes of the images, so no name or path of a case enters; ``facts`` is anything that JSON takes.
    """
    text = json.dumps([encoder_sha256, list(identities), facts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def encode_pool(
    source: PatchSource,
    encoder: Encoder,
    folder: Path,
    *,
    count: int,
    spec: FeatureSpec,
    device: torch.device,
    num_workers: int = 0,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> FeaturePool:
    """Encode patches 0 .. ``count`` - 1 of ``source`` into ``folder``; those that are there already are kept.

    With several processes each encodes its share, and all return when every patch is there.

    Raises:
        SpecError: the patches do not have the shape of ``spec``, or the encoder fewer stages than it names.
        RunError: a feature is not finite in float16.
        OutputError: the disk refuses.
        Cancelled: ``cancelled`` returned true; what is encoded stays for the next run.
    """
    if count < 1:
        raise SpecError(f"a pool needs at least 1 patch, got {count}")
    if not 1 <= spec.num_skips <= len(encoder.spec.stage_channels):
        raise SpecError(f"num_skips must be in 1..{len(encoder.spec.stage_channels)}, got {spec.num_skips}")
    folder.mkdir(parents=True, exist_ok=True)
    mine = range(process_rank(), count, process_count())
    missing = [index for index in mine if not is_readable(_path(folder, index))]
    encoder.to(device)
    done = len(mine) - len(missing)
    progress(done / max(1, len(mine)), f"encoded {done} of {len(mine)} patches")
    for index, patch in zip(missing, load_in_order(_Patches(source), missing, num_workers=num_workers), strict=True):
        if cancelled():
            raise Cancelled(f"the encoding was stopped after {done} of {len(mine)} patches; go on with --resume")
        write_features(_path(folder, index), encode_patch(patch, encoder, spec=spec, device=device))
        done += 1
        progress(done / len(mine), f"encoded {done} of {len(mine)} patches")
    wait_for_all()
    return FeaturePool(task=source.task, folder=folder, count=count)


@dataclass(frozen=True)
class _Patches(torch.utils.data.Dataset[Patch]):
    """A source as a DataLoader reads it."""

    source: PatchSource

    def __getitem__(self, index: int) -> Patch:
        return self.source.patch(index)


def encode_patch(patch: Patch, encoder: Encoder, *, spec: FeatureSpec, device: torch.device) -> FeaturePatch:
    """What the frozen encoder makes of a patch, on the CPU. Raises SpecError, RunError as ``encode_pool``."""
    if patch.image.shape[1:] != spec.patch:
        raise SpecError(f"patches to encode must have the shape {spec.patch}, got {tuple(patch.image.shape[1:])}")
    image = patch.image[None].to(device).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=spec.autocast):
        skips = encoder(image)[: spec.num_skips]
    halves = tuple(skip[0].to(torch.float16).cpu().contiguous() for skip in skips)
    for stage, half in enumerate(halves):
        if not bool(torch.isfinite(half).all()):
            raise RunError(
                f"features of the encoder must be finite and within +-65504 to be stored, got "
                f"{float(skips[stage].float().abs().max()):g} at stage {stage}; check the images of the cases"
            )
    return FeaturePatch(halves, patch.labels, patch.annotated)


def write_features(path: Path, patch: FeaturePatch) -> None:
    """Write one encoded patch, whole or not at all. Raises OutputError."""
    tensors = {f"{_SKIP}{stage}": skip for stage, skip in enumerate(patch.skips)}
    tensors |= {"labels": patch.labels.contiguous(), "annotated": patch.annotated.contiguous()}
    write_bytes(path, safetensors.torch.save({name: tensor.clone() for name, tensor in tensors.items()}))


def read_features(path: Path) -> FeaturePatch:
    """Read one encoded patch. Raises RunError if it is gone or damaged."""
    try:
        tensors = safetensors.torch.load_file(path)
        skips = tuple(tensors[f"{_SKIP}{stage}"] for stage in range(len(tensors) - 2))
        return FeaturePatch(skips, tensors["labels"], tensors["annotated"])
    except (OSError, KeyError, SafetensorError) as error:
        raise RunError(
            f"the encoded patch {path.name} must be readable, got {error}; resume the run to encode it again"
        ) from error


def is_readable(path: Path) -> bool:
    """Whether a whole encoded patch is there; its header says how long it must be."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {"labels", "annotated", f"{_SKIP}0"} <= set(file.keys())
    except (OSError, SafetensorError):
        return False


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.safetensors"
