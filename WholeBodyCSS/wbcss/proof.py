"""Law 1 as a command: what every published task answers on one fixed tile, hashed, before and after an enrolment."""

from __future__ import annotations

import functools
import hashlib
import platform

import numpy as np
import torch

from .devices import limited_threads
from .loading import load_decoder, load_encoder
from .machine import processor_name
from .phantom import make_phantom
from .preprocess import AIR_HU, Array, hu_to_channels
from .progress import IsCancelled, Progress, check_cancelled, never, silent
from .registry import Registry
from .snapshot import LogitHashes, Snapshot
from .specs import EncoderSpec
from .tiling import shrink_tile
from .volume import Shape3

_REGION_SPACING_MM = 6.0


def take_snapshot(registry: Registry, *, progress: Progress = silent, cancelled: IsCancelled = never) -> Snapshot:
    """Hashes of all published files and of all logits, as they are now. Raises RegistryError, Cancelled."""
    return Snapshot(files=registry.fingerprint(), logits=hash_logits(registry, progress=progress, cancelled=cancelled))


def hash_logits(registry: Registry, *, progress: Progress = silent, cancelled: IsCancelled = never) -> LogitHashes:
    """SHA-256 of the logits of every version of every task, retired ones too, on ``proof_tile``.

    In float32 on one thread of the CPU, so that the same files on the same machine give the same bits.

    Raises:
        RegistryError: a file is not what its card says.
        Cancelled: ``cancelled`` returned true.
    """
    hashes: dict[str, str] = {}
    cards = registry.all_cards()
    with limited_threads(1), torch.inference_mode():
        skips = load_encoder(registry)(proof_tile(registry.encoder_card().spec)) if cards else []
        for number, card in enumerate(cards):
            check_cancelled(cancelled)
            progress(number / len(cards), f"logits of {card.title}")
            logits = load_decoder(registry, card)(skips)
            hashes[card.title] = hashlib.sha256(logits.contiguous().numpy().tobytes()).hexdigest()
    progress(1.0, "logits")
    return LogitHashes(machine=this_machine(), tasks=hashes)


def proof_tile(spec: EncoderSpec) -> torch.Tensor:
    """The fixed input (1, C, I, J, K): the middle of a synthetic abdomen, half a tile along every axis.

    Its voxels are taken as they are, whatever the spacing of the encoder: only bits are compared.
    """
    size = shrink_tile(spec.tile, spec.divisor, 0.5)
    return hu_to_channels(torch.from_numpy(_middle(_abdomen_hu(), size))[None], spec.windows_hu)


@functools.cache
def _abdomen_hu() -> Array:
    spacing_mm = (_REGION_SPACING_MM,) * 3
    return make_phantom("abdomen", seed=0, spacing_mm=spacing_mm).volume.voxels.astype(np.float32)


def _middle(hu: Array, size: Shape3) -> Array:
    """The box of ``size`` in the middle of ``hu`` (I, J, K); what it lacks is air."""
    padded = np.pad(
        hu, [(max(0, n - m), max(0, n - m)) for n, m in zip(size, hu.shape, strict=True)], constant_values=AIR_HU
    )
    low = [(m - n) // 2 for n, m in zip(size, padded.shape, strict=True)]
    return padded[tuple(slice(start, start + n) for start, n in zip(low, size, strict=True))]


def this_machine() -> str:
    """Everything that may change the rounding of a convolution on the CPU, in words."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{processor_name()}, {platform.machine()} {capability}, torch {torch.__version__}"
