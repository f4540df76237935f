"""How long a part of a decoder, or a whole one, takes on this machine, run as the product runs it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from wbcss.backend_choice import has_fast_bfloat16
from wbcss.nn.blocks import ConvBlock
from wbcss.nn.decoder import Decoder
from wbcss.proof import this_machine
from wbcss.specs import EncoderSpec
from wbcss.volume import Shape3

from .parts import Part, level_shape

_MIN_RUNS, _MAX_RUNS, _ENOUGH_S = 5, 40, 0.2
"""A part is run at least and at most so often, and no more once it has been watched for so long."""

_FINE_S = 1e-5
"""A clock that counts in coarser steps, as that of threads does on Windows, cannot time a part."""

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What decides how long a part takes.

    Attributes:
        kind: Kind of device.
        name: Processor or graphics card, and the versions of the libraries.
        threads: CPU threads of the network; 0 on a graphics card.
        precision: Of the convolutions.
    """

    kind: Literal["cpu", "cuda"]
    name: str
    threads: int
    precision: Precision

    @classmethod
    def of(cls, device: torch.device) -> Machine:
        """This computer, with the precision in which the product runs torch on ``device``."""
        if device.type == "cpu":
            precision: Precision = "bfloat16" if has_fast_bfloat16() else "float32"
            return cls(kind="cpu", name=this_machine(), threads=torch.get_num_threads(), precision=precision)
        facts = torch.cuda.get_device_properties(device)
        name = f"{facts.name}, CUDA {torch.version.cuda}, torch {torch.__version__}"
        return cls(
            kind="cuda", name=name, threads=0, precision="bfloat16" if torch.cuda.is_bf16_supported() else "float16"
        )


def measure_part(part: Part, encoder: EncoderSpec, tile: Shape3, machine: Machine, device: torch.device) -> float:
    """Seconds that ``part`` takes for one tile: the shortest of several runs, as nothing but others lengthens one."""
    rig = _Rig(machine, device)
    layer = rig.laid_out(_layer(part))
    shape = level_shape(encoder, tile, part.level + 1 if part.kind == "up" else part.level)
    if part.kind != "join":
        values = rig.values(part.in_channels, shape, like=rig.raised if part.kind == "raised_head" else None)
        return shortest(lambda: rig.run(layer, values), device)
    pair = [
        rig.values(part.out_channels, shape, like=rig.raised),
        rig.values(part.in_channels - part.out_channels, shape),
    ]
    return shortest(lambda: rig.run(layer, pair), device)


def shortest(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the shortest of several calls of ``run``, after one that is not timed."""
    clock = _clock(device)
    run()
    best, spent, runs = float("inf"), 0.0, 0
    while runs < _MIN_RUNS or (runs < _MAX_RUNS and spent < _ENOUGH_S):
        _synchronize(device)
        started = clock()
        run()
        _synchronize(device)
        taken = clock() - started
        best, spent, runs = min(best, taken), spent + taken, runs + 1
    return best


def _clock(device: torch.device) -> Callable[[], float]:
    """Wall time; for a single thread of the CPU its own time, which stands still while others have the processor."""
    fine = time.get_clock_info("thread_time").resolution < _FINE_S
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone and fine else time.perf_counter


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_decoder(
    decoder: Decoder, encoder: EncoderSpec, tile: Shape3, machine: Machine, device: torch.device
) -> float:
    """Seconds that a whole decoder with its head takes for one tile, measured as its parts are."""
    rig = _Rig(machine, device)
    moved = rig.laid_out(copy.deepcopy(decoder))
    levels = range(len(decoder.spec.stage_channels) + 1)
    skips = [rig.values(encoder.stage_channels[level], level_shape(encoder, tile, level)) for level in levels]
    return shortest(lambda: rig.run(moved, skips), device)


class _Rig:
    """Runs networks as the product runs them in torch: precision, memory layout, types between blocks."""

    def __init__(self, machine: Machine, device: torch.device) -> None:
        self.precision: torch.dtype = getattr(torch, machine.precision)
        self._layout = torch.contiguous_format if machine.precision == "float32" else torch.channels_last_3d
        self._device = device
        self._generator = torch.Generator().manual_seed(0)
        # Type and layout of what a layer hands on follow from the library's rules: asked, not assumed.
        probe = torch.zeros(1, 2, 4, 4, 4, device=device)
        self.normed = self.run(self.laid_out(ConvBlock(2, 2, kernel=(1, 1, 1))), probe)
        self.raised = self.run(self.laid_out(nn.ConvTranspose3d(2, 2, 2, stride=2)), self.normed)

    def laid_out(self, layer: nn.Module) -> nn.Module:
        """``layer`` on the device, in the layout that convolutions like best there."""
        layer.eval()
        return layer.to(device=self._device, memory_format=self._layout)  # type: ignore[call-overload,no-any-return]

    def values(self, channels: int, shape: Shape3, *, like: torch.Tensor | None = None) -> torch.Tensor:
        """Random features (1, channels, I, J, K) of the type and layout of ``like``, by default a block's output."""
        like = self.normed if like is None else like
        values = torch.randn(1, channels, *shape, generator=self._generator).to(like)
        return values if like.is_contiguous() else values.contiguous(memory_format=torch.channels_last_3d)

    def run(self, layer: nn.Module, given: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
        """What ``layer`` makes of ``given``."""
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, self.precision, enabled=self.precision != torch.float32),
        ):
            out: torch.Tensor = layer(given)
        return out


class _Joined(nn.Module):
    """A block that reads several tensors together."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, given: list[torch.Tensor]) -> torch.Tensor:
        """Inputs (B, C_n, I, J, K) to (B, C, I, J, K)."""
        out: torch.Tensor = self.block(torch.cat(given, dim=1))
        return out


def _layer(part: Part) -> nn.Module:
    if part.kind == "up":
        return nn.ConvTranspose3d(part.in_channels, part.out_channels, part.kernel, stride=part.kernel)
    if part.kind in ("head", "raised_head"):
        return nn.Conv3d(part.in_channels, part.out_channels, 1)
    block = ConvBlock(part.in_channels, part.out_channels, kernel=part.kernel)
    return _Joined(block) if part.kind == "join" else block
