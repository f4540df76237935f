"""What running a decoder in fewer bits costs: Dice on held-out patches and time, in float32, bfloat16 and int8.

Int8 is a choice to be measured, not one that the engine makes: weights are rounded per channel and the inputs of
convolution blocks per tensor, in the ranges that training patches show (post-training quantization: Jacob et al.,
Quantization and training of neural networks for efficient integer-arithmetic-only inference, CVPR 2018, sections 2.1
and 3). Transposed convolutions and what lies between convolutions stay in floating point.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wbcss.backend_openvino import decoder_graph, is_installed, load_openvino  # the engine's own graph of a decoder
from wbcss.errors import DeviceError, SpecError
from wbcss.labels import parse_task_id
from wbcss.loading import load_decoder
from wbcss.nn.blocks import ConvBlock
from wbcss.nn.decoder import Decoder
from wbcss.progress import IsCancelled, Progress, check_cancelled, never, silent
from wbcss.registry import Registry
from wbcss.specs import EncoderSpec
from wbcss.volume import Shape3

from ..features import FeaturePool
from ..patches import FeaturePatch
from ..runfolder import FEATURES, RECORD, TRAINED, RunFolder
from ..search.accuracy import mean_dice

Range = tuple[float, float]

FLOAT32, HALF, INT8 = "float32", "openvino", "int8"
"""The reference in torch, the engine's graph in the precision that it asks for, and the same with int8 convolutions."""

_CALIBRATING = 8
"""Patches that show how large inputs of convolutions get."""

_LEVELS = 256
_SMALLEST = 1e-6


@dataclass(frozen=True, kw_only=True)
class PrecisionCost:
    """What one task's decoder does in every precision.

    Attributes:
        title: As in ``liver@2``.
        patch: Voxels of a patch.
        patches: How many held-out patches it was asked about.
        dice: By precision: mean over organs, over all voxels of all patches.
        seconds: By precision: processor time of one patch, the median over patches.
    """

    title: str
    patch: Shape3
    patches: int
    dice: dict[str, float]
    seconds: dict[str, float]


def input_ranges(decoder: Decoder, patches: Iterable[FeaturePatch]) -> tuple[Range, ...]:
    """Smallest and largest input of every convolution block of ``decoder``, in the order in which blocks run.

    0 is in every range, as padding is 0. Raises SpecError if there is no patch.
    """
    found: dict[str, Range] = {}
    names = {module: name for name, module in decoder.named_modules() if isinstance(module, ConvBlock)}

    def note(block: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        low, high = found.get(names[block], (0.0, 0.0))  # type: ignore[index]
        found[names[block]] = (min(low, float(given[0].min())), max(high, float(given[0].max())))  # type: ignore[index]

    handles = [block.register_forward_pre_hook(note) for block in names]
    seen = 0
    try:
        with torch.inference_mode():
            for patch in patches:
                decoder.features([skip[None].float() for skip in patch.skips])
                seen += 1
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise SpecError("ranges for int8 need at least one patch, got none")
    return tuple(found.values())


class GraphDecoder(Decoder):
    """A decoder whose features come from the engine's OpenVINO graph, optionally with int8 convolutions.

    Args:
        decoder: Source of the weights.
        encoder: What it reads.
        patch: Shape of what it will be asked about.
        ranges: As ``input_ranges``; None runs the graph as the engine does.
        threads: CPU threads.

    Raises DeviceError without OpenVINO.
    """

    def __init__(
        self,
        decoder: Decoder,
        encoder: EncoderSpec,
        patch: Shape3,
        *,
        ranges: Sequence[Range] | None = None,
        threads: int | None = None,
    ) -> None:
        if not is_installed():
            raise DeviceError("decoders are measured in int8 by the package openvino, got none; pip install openvino")
        super().__init__(decoder.spec, encoder)
        self.load_state_dict(decoder.state_dict())
        self.eval()
        core = load_openvino().Core()
        graph = decoder_graph(self, encoder, patch)
        if ranges is not None:
            _quantize(graph, ranges)
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        self._request = core.compile_model(graph, "CPU", options).create_infer_request()

    def features(self, skips: Sequence[torch.Tensor]) -> torch.Tensor:
        """As ``Decoder.features`` for a batch of one."""
        used = skips[: 1 + len(self.ups)]
        self._request.infer([np.ascontiguousarray(skip.float().numpy()) for skip in used])
        return torch.from_numpy(np.array(self._request.get_output_tensor(0).data))


def _quantize(graph: Any, ranges: Sequence[Range]) -> None:
    """Round inputs and weights of every convolution of ``graph`` to 8 bits."""
    from openvino import opset13 as ops

    convolutions = [node for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution"]
    if len(convolutions) != len(ranges):
        raise SpecError(f"each of the {len(convolutions)} convolutions needs a range, got {len(ranges)}")
    for node, (low, high) in zip(convolutions, ranges, strict=True):
        step = max(high - low, _SMALLEST) / (_LEVELS - 1)
        first = -round(-low / step)  # so that 0, with which convolutions pad, is a level
        ends = (np.float32(first * step), np.float32((first + _LEVELS - 1) * step))
        given, weight = node.input(0), node.input(1)
        given.replace_source_output(ops.fake_quantize(given.get_source_output(), *ends, *ends, _LEVELS).output(0))
        largest = np.abs(weight.get_source_output().get_node().data).max(axis=(1, 2, 3, 4), keepdims=True)
        largest = np.maximum(largest, _SMALLEST).astype(np.float32)
        # One level fewer, so that 0 is one of them.
        signed = (-largest, largest, -largest, largest, _LEVELS - 1)
        weight.replace_source_output(ops.fake_quantize(weight.get_source_output(), *signed).output(0))
    graph.validate_nodes_and_infer_types()


def precision_cost(
    registry: Registry,
    run: RunFolder,
    *,
    threads: int | None = None,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> PrecisionCost:
    """Measure the published decoder of the task of ``run`` on the encoded patches there.

    Patches to learn from calibrate; where an older run did not note them, the first held-out ones do and are not
    asked about.

    Raises:
        SpecError: the run has another encoder or no held-out patch to ask about.
        RunError: a file of the run cannot be read.
        DeviceError: OpenVINO is not installed.
        Cancelled: ``cancelled`` returned true.
    """
    encoder_card = registry.encoder_card()
    identity = run.read(RECORD)["identity"]
    if identity["encoder_sha256"] != encoder_card.weights_sha256:
        raise SpecError(
            f"the run must be on the encoder {encoder_card.weights_sha256[:12]}..., got one on "
            f"{identity['encoder_sha256'][:12]}...; name a run of a task of this registry"
        )
    card = registry.card(parse_task_id(identity["task"]))
    calibrating, judging = _pools(run, identity["task"])
    decoder = load_decoder(registry, card)
    seen = (calibrating.patch(number) for number in range(min(_CALIBRATING, calibrating.count)))
    ranges = input_ranges(decoder, seen)
    i, j, k = judging.patch(0).labels.shape
    kinds: dict[str, Decoder] = {
        FLOAT32: decoder,
        HALF: GraphDecoder(decoder, encoder_card.spec, (i, j, k), threads=threads),
        INT8: GraphDecoder(decoder, encoder_card.spec, (i, j, k), ranges=ranges, threads=threads),
    }
    dice: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for number, (name, kind) in enumerate(kinds.items()):
        check_cancelled(cancelled)
        progress(number / len(kinds), f"{card.title} in {name}")
        seconds[name] = _seconds(kind, judging)
        dice[name] = mean_dice(kind, judging)
    progress(1.0, f"{card.title} in {', '.join(kinds)}")
    return PrecisionCost(title=card.title, patch=(i, j, k), patches=judging.count, dice=dice, seconds=seconds)


def _pools(run: RunFolder, task: str) -> tuple[FeaturePool, FeaturePool]:
    """Patches to calibrate with, and others to ask about."""
    trained = run.read(TRAINED)

    def pool(side: str) -> FeaturePool | None:
        place = trained.get(side)
        if place is None:
            return None
        folder: Path = run.root / FEATURES / place["folder"]
        return FeaturePool(task=parse_task_id(task), folder=folder, count=place["count"])

    held_out, training = pool("held_out"), pool("training")
    if held_out is None or (training is None and held_out.count < 2):
        raise SpecError(f"Dice needs held-out patches beside those that calibrate, got none in the run {run.root.name}")
    if training is not None:
        return training, held_out
    first = min(_CALIBRATING, held_out.count // 2)
    return held_out.part(0, first), held_out.part(first, held_out.count)


def _seconds(decoder: Decoder, pool: FeaturePool) -> float:
    """Median processor time of the features of a patch; the first call is not counted."""
    taken: list[float] = []
    for number in range(min(pool.count, 1 + _CALIBRATING)):
        skips = [skip[None].float() for skip in pool.patch(number).skips]
        with torch.inference_mode():
            started_s = time.process_time()
            decoder.features(skips)
        taken.append(time.process_time() - started_s)
    return statistics.median(taken[1:] or taken)
