"""Encoder and decoders in OpenVINO: bfloat16 convolutions with fused norm and activation on the CPU. Optional.

The graph is built from the modules layer by layer. Tracing the network through the converter gives the same graph
but takes longer than segmenting a chest.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .errors import DeviceError
from .labels import TaskId
from .nn.blocks import ConvBlock
from .nn.decoder import Decoder
from .nn.model import ChooseTasks, WholeBodyModel
from .progress import IsCancelled, check_cancelled, never
from .specs import EncoderSpec
from .volume import Shape3

POLL_MS = 100
"""How often a running tile is asked whether it should stop."""


def is_installed() -> bool:
    """Whether OpenVINO can be imported; it is not imported to find out."""
    return importlib.util.find_spec("openvino") is not None


def load_openvino() -> Any:
    """The package ``openvino`` without its telemetry: merely importing it would report the use to its vendor."""
    # The entry makes the import of the reporting package fail, and OpenVINO takes its own stand-in that does nothing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class OpenVinoBackend:
    """Compiled graphs for one tile shape: one of everything, or one of the encoder and one of each decoder.

    The latter costs no more time (0.89 to 1.09 against 0.92 to 0.97 CPU s for a tile of 96 x 96 x 112), but the memory
    of every decoder; so it is for runs in which decoders are left out of tiles, which one graph cannot do.

    Args:
        network: Source of the weights; not kept.
        tasks: Tasks to decode; the others' decoders are not in the graph.
        tile: Tile shape.
        threads: CPU threads, or None for the library's default.
        is_gated: Whether ``features`` will be told to leave tasks out.
        cancelled: Asked while the graph is built and compiled, which takes seconds on a slow machine. Raises Cancelled.
    """

    def __init__(
        self,
        network: WholeBodyModel,
        tasks: Sequence[TaskId],
        *,
        tile: Shape3,
        threads: int | None,
        is_gated: bool = False,
        cancelled: IsCancelled = never,
    ) -> None:
        if not is_installed():
            raise DeviceError("backend openvino needs the package openvino; pip install openvino, or use backend torch")
        self._tasks = tuple(tasks)
        self._num_calls = 0
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads

        def compiled(graph: Callable[[], Any]) -> Any:
            return _polled(lambda: load_openvino().Core().compile_model(graph(), "CPU", options), cancelled)

        self._decoders: dict[TaskId, Any] = {}
        self._depth: dict[TaskId, int] = {}
        if is_gated:
            first = compiled(lambda: _graph(network, (), tile))
            for task in self._tasks:
                decoder = network.decoder(task)
                graph = compiled(functools.partial(decoder_graph, decoder, network.encoder.spec, tile))
                self._decoders[task] = graph.create_infer_request()
                self._depth[task] = 1 + len(decoder.ups)
        else:
            first = compiled(lambda: _graph(network, self._tasks, tile))
        self._precision = first.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self._request = first.create_infer_request()

    @property
    def name(self) -> str:
        """Library and the precision that the processor really offers."""
        return f"openvino-{self._precision}"

    @property
    def num_calls(self) -> int:
        """Encoder calls so far."""
        return self._num_calls

    def features(
        self, tiles: torch.Tensor, cancelled: IsCancelled, choose: ChooseTasks | None = None
    ) -> Mapping[TaskId, torch.Tensor]:
        """As ``TileEncoderDecoder.features`` for one tile; the result is valid until the next call."""
        self._num_calls += 1
        outputs = _run(self._request, [np.ascontiguousarray(tiles.numpy())], cancelled)
        if not self._decoders:
            return {task: torch.from_numpy(output) for task, output in zip(self._tasks, outputs, strict=True)}
        tasks = self._tasks if choose is None else choose(torch.from_numpy(outputs[-1]))
        return {task: self._decoded(task, outputs, cancelled) for task in tasks}

    def _decoded(self, task: TaskId, skips: list[npt.NDArray[Any]], cancelled: IsCancelled) -> torch.Tensor:
        return torch.from_numpy(_run(self._decoders[task], skips[: self._depth[task]], cancelled)[0])


def _run(request: Any, inputs: list[npt.NDArray[Any]], cancelled: IsCancelled) -> list[npt.NDArray[Any]]:
    """Outputs of a graph, valid until it runs again. Raises Cancelled."""
    request.start_async(inputs, share_inputs=True)
    while not request.wait_for(POLL_MS):
        if cancelled():
            request.cancel()
            with contextlib.suppress(RuntimeError):  # OpenVINO's way to say that the request was canceled
                request.wait()
            check_cancelled(cancelled)
    return [request.get_output_tensor(number).data for number in range(len(request.model_outputs))]


def _polled(work: Callable[[], Any], cancelled: IsCancelled) -> Any:
    """What ``work`` returns. It runs in a thread, and is left to end there unheard if ``cancelled`` answers true."""
    executor = ThreadPoolExecutor(max_workers=1)
    try:
        future = executor.submit(work)
        while not wait([future], timeout=POLL_MS / 1000).done:
            check_cancelled(cancelled)
        return future.result()
    finally:
        executor.shutdown(wait=False)


def _graph(network: WholeBodyModel, tasks: Sequence[TaskId], tile: Shape3) -> Any:
    """From an input tile to the features of ``tasks``, or to all skips if there are none."""
    from openvino import Model
    from openvino import opset13 as ops

    x = ops.parameter([1, network.encoder.spec.in_channels, *tile], np.float32)
    skips: list[Any] = []
    node = x
    for stage in network.encoder.stages:
        node = _stack(ops, node, stage)
        skips.append(node)
    outputs = [_decoder(ops, network.decoder(task), skips) for task in tasks]
    return Model([ops.result(output) for output in outputs or skips], [x], "encoder and decoders")


def decoder_graph(decoder: Decoder, encoder: EncoderSpec, tile: Shape3) -> Any:
    """A graph from all skips to the features of one task."""
    from openvino import Model
    from openvino import opset13 as ops

    size, skips = np.array(tile), []
    for stride, channels in zip(encoder.strides, encoder.stage_channels, strict=True):
        size = size // np.array(stride)
        skips.append(ops.parameter([1, channels, *size.tolist()], np.float32))
    used = skips[: 1 + len(decoder.ups)]
    return Model([ops.result(_decoder(ops, decoder, skips))], used, "decoder")


def _decoder(ops: Any, decoder: Decoder, skips: Sequence[Any]) -> Any:
    node = skips[len(decoder.ups)]
    for level in reversed(range(len(decoder.ups))):
        up = decoder.ups[level]
        if not isinstance(up, nn.ConvTranspose3d):
            raise TypeError(f"a decoder goes up by ConvTranspose3d, got {type(up).__name__}")
        zeros = [0, 0, 0]
        node = ops.convolution_backprop_data(
            node, _numpy(up.weight), list(up.stride), pads_begin=zeros, pads_end=zeros, dilations=[1, 1, 1]
        )
        node = _plus(ops, node, up.bias)
        if decoder.spec.convs_per_stage[level]:
            node = _stack(ops, ops.concat([node, skips[level]], 1), decoder.stages[level])
    return node


def _stack(ops: Any, node: Any, blocks: nn.Module) -> Any:
    for block in blocks.children():
        if not isinstance(block, ConvBlock):
            raise TypeError(f"a stage is made of ConvBlock, got {type(block).__name__}")
        node = _block(ops, node, block)
    return node


def _block(ops: Any, node: Any, block: ConvBlock) -> Any:
    """Convolution, instance norm, leaky ReLU. The norm takes the convolution's bias away again, so it is left out."""
    conv, norm = block.conv, block.norm
    pads = [int(p) for p in conv.padding]
    node = ops.convolution(node, _numpy(conv.weight), list(conv.stride), pads, pads, list(conv.dilation))
    node = ops.mvn(node, np.array([2, 3, 4], np.int64), True, norm.eps, "inside_sqrt")
    node = ops.multiply(node, _numpy(norm.weight).reshape(1, -1, 1, 1, 1))
    node = ops.add(node, _numpy(norm.bias).reshape(1, -1, 1, 1, 1))
    return ops.prelu(node, np.full(1, block.act.negative_slope, np.float32))


def _plus(ops: Any, node: Any, bias: torch.Tensor | None) -> Any:
    return node if bias is None else ops.add(node, _numpy(bias).reshape(1, -1, 1, 1, 1))


def _numpy(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy())
