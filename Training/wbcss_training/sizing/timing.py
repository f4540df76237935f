"""How long the encoder, every decoder and all together take for one tile, run by the engine's own backends."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from wbcss.backend import TileEncoderDecoder
from wbcss.backend_choice import BackendRequest, Kind, candidates, make_backend
from wbcss.errors import SpecError
from wbcss.heads import TaskHead, channel_labels
from wbcss.labels import TaskId
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import freeze
from wbcss.nn.model import WholeBodyModel, build_model
from wbcss.progress import IsCancelled, check_cancelled, never
from wbcss.specs import DecoderSpec

from .sizes import ModelSize

_ORGANS = 1
"""Features do not depend on the number of organs: decoders that differ in it alone are timed once."""


@dataclass(frozen=True, kw_only=True)
class Runner:
    """One of the engine's ways to run the network.

    Attributes:
        device: Where.
        kind: Library and precision.
    """

    device: torch.device
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class TileTimes:
    """Seconds for one tile, each the median of several runs; on a CPU its own time, summed over threads.

    Attributes:
        backend: Device, library and precision that ran, as in ``cpu torch-float32``.
        clock: ``cpu`` is time of the processor, ``wall`` that of the clock on the wall.
        encoder_s: The encoder.
        decoders_s: A decoder without its last layer, by spec with one organ; ask with ``decoder_s``.
        heads_s: A last layer on every voxel of a tile, by features and organs; ask with ``head_s``.
        together_s: The decoders of all tasks as published, after one call of the encoder.
        full_together_s: The same as they were full.
    """

    backend: str
    clock: Literal["cpu", "wall"]
    encoder_s: float
    decoders_s: Mapping[DecoderSpec, float]
    heads_s: Mapping[tuple[int, int], float]
    together_s: float
    full_together_s: float

    def decoder_s(self, spec: DecoderSpec) -> float:
        """Time of a decoder without its last layer."""
        return self.decoders_s[replace(spec, num_organs=_ORGANS)]

    def head_s(self, spec: DecoderSpec) -> float:
        """Time of the last layer of a decoder.

        The engine runs it once per voxel of a scan, not once per tile: where tiles overlap, less often than here.
        """
        return self.heads_s[spec.num_features, spec.num_organs]


def runners(model: ModelSize, device: torch.device) -> tuple[Runner, ...]:
    """What the engine would choose from on the CPU and, if ``device`` is a graphics card, there; float32 is first."""
    found: list[Runner] = []
    with torch.random.fork_rng(devices=[]):
        network = build_model(model.encoder, {})
    for place in dict.fromkeys((torch.device("cpu"), device)):
        # What the engine offers depends on the device and on what is installed, not on the network.
        request = BackendRequest(network=network, tasks=(), device=place, tile=model.encoder.tile, num_tiles=1)
        kinds: dict[Kind, None] = {"float32": None, **dict.fromkeys(candidates(request))}
        found += [Runner(device=place, kind=kind) for kind in kinds]
    return tuple(found)


def time_model(
    model: ModelSize, runner: Runner, *, repeats: int, threads: int | None = None, cancelled: IsCancelled = never
) -> TileTimes:
    """Time ``model`` on ``runner``, on a tile of the encoder.

    Its networks have random weights, as time does not depend on them. Encoder and decoders are told apart by the
    engine's own seam between both, at which it asks what to decode.

    Raises:
        SpecError: ``repeats`` is below 1.
        DeviceError: ``runner`` is none of this machine.
        Cancelled: ``cancelled`` returned true.
    """
    if repeats < 1:
        raise SpecError(f"a time is the median of at least one run, got {repeats}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, named = _network(model)
        tile = 2 * torch.rand(1, model.encoder.in_channels, *model.encoder.tile) - 1
    request = BackendRequest(
        network=network,
        tasks=network.tasks,
        device=runner.device,
        tile=model.encoder.tile,
        num_tiles=repeats,
        threads=threads,
        is_gated=True,
    )
    backend = make_backend(request, runner.kind, cancelled)
    together, full_together = (
        tuple(named[replace(size.spec, num_organs=_ORGANS)] for size in sizes)
        for sizes in ([task.published for task in model.tasks], [task.full for task in model.tasks])
    )
    groups = list(dict.fromkeys([*((name,) for name in named.values()), together, full_together]))
    encoder_s, taken = _timed(backend, tile, groups, runner.device, repeats=repeats, cancelled=cancelled)
    groups_s = dict(zip(groups, taken, strict=True))
    heads = {(size.spec.num_features, size.spec.num_organs) for t in model.tasks for size in (t.published, t.full)}
    return TileTimes(
        backend=f"{runner.device.type} {backend.name}",
        clock="cpu" if runner.device.type == "cpu" else "wall",
        encoder_s=encoder_s,
        decoders_s={spec: groups_s[name,] for spec, name in named.items()},
        heads_s={head: _head_s(*head, model, runner.device, repeats=repeats) for head in sorted(heads)},
        together_s=groups_s[together],
        full_together_s=groups_s[full_together],
    )


def _network(model: ModelSize) -> tuple[WholeBodyModel, Mapping[DecoderSpec, TaskId]]:
    """The encoder with one decoder per architecture, and the name of each."""
    sizes = [size for task in model.tasks for size in (task.published, task.full)]
    specs = dict.fromkeys(replace(size.spec, num_organs=_ORGANS) for size in sizes)
    named = {spec: TaskId(f"decoder{number}") for number, spec in enumerate(specs)}
    network = build_model(model.encoder, {name: spec for spec, name in named.items()})
    freeze(network)
    return network, named


def _timed(
    backend: TileEncoderDecoder,
    tile: torch.Tensor,
    groups: Sequence[tuple[TaskId, ...]],
    device: torch.device,
    *,
    repeats: int,
    cancelled: IsCancelled,
) -> tuple[float, list[float]]:
    """Median seconds of the encoder and of every group of decoders.

    All groups take turns, so that another program's work falls on all alike; the first round is not counted.
    """
    encoder: list[float] = []
    decoders: list[list[float]] = [[] for _ in groups]
    for turn in range(1 + repeats):
        for group, taken in zip(groups, decoders, strict=True):
            check_cancelled(cancelled)
            before_s, after_s = _once(backend, tile, group, device)
            if turn:
                encoder.append(before_s)
                taken.append(after_s)
    return statistics.median(encoder), [statistics.median(taken) for taken in decoders]


def _once(
    backend: TileEncoderDecoder, tile: torch.Tensor, group: tuple[TaskId, ...], device: torch.device
) -> tuple[float, float]:
    """Seconds of one call before and after the engine asked what to decode."""
    asked_s: list[float] = []

    def choose(deepest: torch.Tensor) -> Sequence[TaskId]:
        asked_s.append(_now_s(device))
        return group

    started_s = _now_s(device)
    backend.features(tile, never, choose)
    return asked_s[0] - started_s, _now_s(device) - asked_s[0]


def _now_s(device: torch.device) -> float:
    """Time of this process on a CPU, which others do not lengthen; with a graphics card the wall's, when it is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _head_s(num_features: int, num_organs: int, model: ModelSize, device: torch.device, *, repeats: int) -> float:
    """Median seconds of a last layer on every voxel of a tile, as the engine runs it, whatever runs the decoder."""
    spec = DecoderSpec(
        stage_channels=(num_features,), kernels=((1, 1, 1),), convs_per_stage=(1,), num_organs=num_organs
    )
    labels = channel_labels(list(range(1, 1 + num_organs)))
    with torch.random.fork_rng(devices=[]):
        head = TaskHead.of(Decoder(spec, model.encoder), labels, temperature=1.0, device=device)
        voxels = torch.rand(math.prod(model.encoder.tile), num_features).to(device)
    taken: list[float] = []
    with torch.inference_mode():
        for _ in range(1 + repeats):
            started_s = _now_s(device)
            head.classify(voxels)
            taken.append(_now_s(device) - started_s)
    return statistics.median(taken[1:])
