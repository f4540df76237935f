"""Choose what runs the network: by device, by wish, else by measuring a piece of the scan at hand."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from . import backend_openvino
from .backend import TileEncoderDecoder, TorchBackend
from .errors import DeviceError
from .heads import TaskHead
from .labels import TaskId
from .nn.model import WholeBodyModel
from .progress import IsCancelled, never
from .volume import Shape3

_log = logging.getLogger(__name__)

BackendName = Literal["auto", "torch", "openvino"]
"""``torch`` is the reference: float32 on the CPU. ``auto`` is the fastest whose labels agree with it."""

Kind = Literal["float32", "bfloat16", "float16", "openvino"]

MIN_AGREEMENT = 0.99
"""A faster backend is taken by itself only if it gives this fraction of the measured voxels float32's label."""

MIN_TILES_TO_MEASURE = 2
"""A single tile is faster run than measured."""

_measured: weakref.WeakKeyDictionary[WholeBodyModel, dict[tuple[TaskId, ...], Kind]] = weakref.WeakKeyDictionary()
"""What was found fastest on this machine for a network that is still loaded."""


@dataclass(frozen=True)
class BackendRequest:
    """What a backend is wanted for.

    Attributes:
        network: On the CPU, frozen.
        tasks: Tasks to decode.
        device: Where to run.
        tile: Tile shape.
        num_tiles: Tiles that will be run.
        wanted: The user's choice.
        threads: CPU threads, or None for the library's default.
        is_gated: Whether tasks will be left out of tiles.
    """

    network: WholeBodyModel
    tasks: tuple[TaskId, ...]
    device: torch.device
    tile: Shape3
    num_tiles: int
    wanted: BackendName = "auto"
    threads: int | None = None
    is_gated: bool = False


def choose_backend(
    request: BackendRequest,
    sample: Callable[[], torch.Tensor],
    heads: Mapping[TaskId, TaskHead],
    cancelled: IsCancelled,
) -> TileEncoderDecoder:
    """The backend to use.

    Args:
        request: What for.
        sample: Gives (1, C, I, J, K) of the scan at hand, smaller than a tile is enough; called only if there is
            something to measure.
        heads: To compare labels.
        cancelled: Asked while building and measuring.

    Raises DeviceError if the wish cannot be fulfilled here.
    """
    kinds = candidates(request)
    if len(kinds) == 1:
        return make_backend(request, kinds[0], cancelled)
    if request.num_tiles < MIN_TILES_TO_MEASURE:
        return make_backend(request, "float32", cancelled)
    known = _measured.setdefault(request.network, {})
    if request.tasks not in known:
        known[request.tasks] = measure(request, kinds, sample(), heads, cancelled)
    return make_backend(request, known[request.tasks], cancelled)


def candidates(request: BackendRequest) -> tuple[Kind, ...]:
    """What can run here; the reference comes first. Raises DeviceError if the wish cannot be fulfilled."""
    if request.device.type == "cuda":
        if request.wanted == "openvino":
            raise DeviceError("backend openvino runs on the CPU only; use --device cpu, or leave the backend to torch")
        return ("bfloat16",) if torch.cuda.is_bf16_supported() else ("float16",)
    if request.wanted != "auto":
        return ("openvino",) if request.wanted == "openvino" else ("float32",)
    if backend_openvino.is_installed():
        # It was never slower than torch in bfloat16 on any processor measured, so that one need not be tried.
        return ("float32", "openvino")
    return ("float32", "bfloat16") if has_fast_bfloat16() else ("float32",)


def make_backend(request: BackendRequest, kind: Kind, cancelled: IsCancelled = never) -> TileEncoderDecoder:
    """Build the backend ``kind``. Raises Cancelled."""
    if kind == "openvino":
        return backend_openvino.OpenVinoBackend(
            request.network,
            request.tasks,
            tile=request.tile,
            threads=request.threads,
            is_gated=request.is_gated,
            cancelled=cancelled,
        )
    return TorchBackend(request.network, request.tasks, request.device, getattr(torch, kind))


def measure(
    request: BackendRequest,
    kinds: Sequence[Kind],
    sample: torch.Tensor,
    heads: Mapping[TaskId, TaskHead],
    cancelled: IsCancelled,
) -> Kind:
    """The fastest of ``kinds`` whose labels on ``sample`` agree with those of the first; the first run is not timed."""
    size = (sample.shape[2], sample.shape[3], sample.shape[4])
    reference: dict[TaskId, torch.Tensor] = {}
    best, best_seconds = kinds[0], float("inf")
    for kind in kinds:
        backend = make_backend(_resized(request, size), kind, cancelled)
        backend.features(sample, cancelled)
        started = time.perf_counter()
        features = backend.features(sample, cancelled)
        seconds = time.perf_counter() - started
        labels = {task: _labels(features[task], heads[task]) for task in request.tasks}
        reference = reference or labels
        agreement = min(float((labels[task] == reference[task]).float().mean()) for task in request.tasks)
        _log.info("backend %s: %.3f s for a tile of %s, %.4f of labels as float32", kind, seconds, size, agreement)
        if seconds < best_seconds and agreement >= MIN_AGREEMENT:
            best, best_seconds = kind, seconds
    return best


def _resized(request: BackendRequest, size: Shape3) -> BackendRequest:
    return BackendRequest(
        network=request.network,
        tasks=request.tasks,
        device=request.device,
        tile=size,
        num_tiles=1,
        threads=request.threads,
    )


def _labels(features: torch.Tensor, head: TaskHead) -> torch.Tensor:
    voxels = features[0].float().reshape(features.shape[1], -1).t().contiguous()
    return head.classify(voxels)[0]


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32."""
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
