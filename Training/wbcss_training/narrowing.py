"""Taking channels out of a decoder for good: which ones matter least, and the narrower network without them.

The channels of a level come in groups: those of the transposed convolution, then those of every convolution block. A
channel that goes takes its filter, its norm and every weight that reads it along; the skips of the encoder stay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from wbcss.errors import SpecError
from wbcss.labels import TaskId
from wbcss.nn.blocks import ConvBlock
from wbcss.nn.decoder import Decoder
from wbcss.specs import DecoderSpec, EncoderSpec

from .config import TrainConfig
from .learner import DecoderLearner
from .patches import FeaturePatch

Kept = tuple[tuple[tuple[int, ...], ...], ...]
"""By level (finest first) and group, the channels that stay, ascending."""

Scores = tuple[tuple[torch.Tensor, ...], ...]
"""By level and group, the importance (width,) of every channel."""


def groups_of(decoder: Decoder) -> list[list[nn.Module]]:
    """By level, the modules whose outputs are the channels of a group."""
    return [[up, *blocks(decoder, level)] for level, up in enumerate(decoder.ups)]


def blocks(decoder: Decoder, level: int) -> list[ConvBlock]:
    """Convolution blocks of ``level`` in the order in which they run."""
    stage = decoder.stages[level]
    return [block for block in stage if isinstance(block, ConvBlock)]  # type: ignore[attr-defined]


def filter_scores(decoder: Decoder) -> Scores:
    """Importance without data: how strongly a channel answers, times how much of the weights after it read it.

    The norm of a filter alone says nothing before an instance norm, which undoes it: what counts is the scale and
    shift of that norm, and for those who read the channel its share of their own filter.
    """
    levels = len(decoder.ups)
    width_of = decoder.spec.stage_channels
    scores: list[tuple[torch.Tensor, ...]] = []
    for level in range(levels):
        up, stack, width = decoder.ups[level], blocks(decoder, level), width_of[level]
        answers = [up.weight.flatten(2).norm(dim=(0, 2))]  # type: ignore[operator]
        answers += [torch.hypot(block.norm.weight, block.norm.bias) for block in stack]
        after = decoder.head if level == 0 else decoder.ups[level - 1]
        readers = [_shares(block.conv.weight)[:, :width] for block in stack]
        last = after.weight if level == 0 else after.weight.transpose(0, 1)  # type: ignore[operator]
        readers.append(_shares(last))  # type: ignore[arg-type]
        scores.append(
            tuple(
                (answer * reader.square().sum(dim=0).sqrt()).detach()
                for answer, reader in zip(answers, readers, strict=True)
            )
        )
    return tuple(scores)


def _shares(weight: torch.Tensor) -> torch.Tensor:
    """(O, C, ...) to the length (O, C) of what each output reads of each input, over that of its whole filter."""
    each = weight.flatten(2).norm(dim=2)
    shares: torch.Tensor = each / each.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return shares


def taylor_scores(decoder: Decoder, task: TaskId, patches: Iterable[FeaturePatch], *, config: TrainConfig) -> Scores:
    """Importance by first-order Taylor expansion: the squared change of the loss if a channel were zero.

    Every channel is multiplied by a gate of 1; the derivative of the loss by the gate is that change (Molchanov et
    al., Importance Estimation for Neural Network Pruning, CVPR 2019, equations 8 and 9). Mean over ``patches``, each
    on its own; voxels are drawn as ``config`` says. Raises SpecError if there is no patch.
    """
    learner = DecoderLearner(decoder, dataclasses.replace(config, deep_supervision=1, finest_level=0))
    modules = groups_of(decoder)
    flat = [module for group in modules for module in group]
    widths = [width for width, group in zip(decoder.spec.stage_channels, modules, strict=True) for _ in group]
    device = next(decoder.parameters()).device
    gates = [torch.ones(width, device=device, requires_grad=True) for width in widths]
    sums, count = [torch.zeros_like(gate) for gate in gates], 0
    handles = [module.register_forward_hook(_gated(gate)) for module, gate in zip(flat, gates, strict=True)]
    try:
        for count, patch in enumerate(patches, start=1):
            loss = learner(task, [patch], step=0, generator=torch.Generator().manual_seed(count))
            for total, change in zip(sums, torch.autograd.grad(loss, gates), strict=True):
                total += change.square()
    finally:
        for handle in handles:
            handle.remove()
    if not count:
        raise SpecError("channels can be compared on at least 1 patch, got none")
    means = iter([total / count for total in sums])
    return tuple(tuple(next(means) for _ in group) for group in modules)


def _gated(gate: torch.Tensor) -> Callable[[nn.Module, object, torch.Tensor], torch.Tensor]:
    """Forward hook that multiplies the channels of an output by ``gate``."""
    return lambda module, given, out: out * gate.view(-1, 1, 1, 1)


def best_channels(scores: Scores, widths: Sequence[int]) -> Kept:
    """The ``widths[level]`` most important channels of every group of a level; among equals those that come first.

    Raises SpecError if a level has fewer channels than it is to keep.
    """
    for level, (groups, width) in enumerate(zip(scores, widths, strict=True)):
        if not 1 <= width <= len(groups[0]):
            raise SpecError(f"level {level} must keep 1..{len(groups[0])} channels, got {width}")
    return tuple(
        tuple(tuple(sorted(torch.argsort(score, descending=True, stable=True)[:width].tolist())) for score in groups)
        for groups, width in zip(scores, widths, strict=True)
    )


def groups_for(kept: Kept, spec: DecoderSpec) -> Kept:
    """The groups of ``kept`` that a decoder of ``spec`` has: of a level without blocks those that were read before."""
    return tuple(groups if spec.block_kernels(level) else groups[-1:] for level, groups in enumerate(kept))


def fits_into(spec: DecoderSpec, full: DecoderSpec) -> bool:
    """Whether a decoder of ``spec`` can be cut out of one of ``full``: nothing larger, as many organs.

    Every level has as many blocks, or none.
    """
    if len(spec.stage_channels) != len(full.stage_channels) or spec.num_organs != full.num_organs:
        return False
    for level, (width, whole) in enumerate(zip(spec.stage_channels, full.stage_channels, strict=True)):
        ours, theirs = spec.block_kernels(level), full.block_kernels(level)
        if width > whole or len(ours) not in (0, len(theirs)):
            return False
        if any(n > m for one, other in zip(ours, theirs, strict=False) for n, m in zip(one, other, strict=True)):
            return False
    return True


def narrow_decoder(decoder: Decoder, encoder: EncoderSpec, spec: DecoderSpec, kept: Kept) -> Decoder:
    """A decoder of ``spec`` with the ``kept`` channels of ``decoder`` and their weights, on the CPU.

    It answers as ``decoder`` does whenever all other channels are zero, up to the rounding of sums. Of a kernel that
    ``spec`` makes smaller the middle stays. Where ``spec`` leaves the blocks of a level out, that level's transposed
    convolution and what reads it begin at random (seed torch), as they have another thing to say now.

    Args:
        decoder: The wider one; it is not changed.
        encoder: Whose skips both read.
        spec: As many channels at every level as ``kept`` names.
        kept: Channels that stay.

    Raises:
        SpecError: ``spec`` cannot be cut out of the decoder, or ``kept`` does not name its channels.
    """
    if not fits_into(spec, decoder.spec):
        raise SpecError(f"a narrower decoder must fit into {decoder.spec}, got {spec}")
    found = [sorted({len(set(group)) for group in groups}) for groups in kept]
    if found != [[width] for width in spec.stage_channels]:
        raise SpecError(f"kept channels must be {spec.stage_channels} by level, got {found}")
    narrow = Decoder(spec, encoder)
    with torch.no_grad():
        left_out = [
            len(ours) < len(theirs)
            for ours, theirs in ((blocks(narrow, level), blocks(decoder, level)) for level in range(len(kept)))
        ]
        for level, (first, *others) in enumerate(kept):
            width = decoder.spec.stage_channels[level]
            below = kept[level + 1][-1] if level + 1 < len(kept) else None
            if not any(left_out[level : level + 2]):
                _take(narrow.ups[level].weight, decoder.ups[level].weight, below, first)
                _take(narrow.ups[level].bias, decoder.ups[level].bias, first)
            if left_out[level]:
                continue
            read = (*first, *range(width, width + encoder.stage_channels[level]))
            for ours, theirs, group in zip(blocks(narrow, level), blocks(decoder, level), others, strict=True):
                _take(ours.conv.weight, theirs.conv.weight, group, read)
                _take(ours.conv.bias, theirs.conv.bias, group)
                _take(ours.norm.weight, theirs.norm.weight, group)
                _take(ours.norm.bias, theirs.norm.bias, group)
                read = group
        if not left_out[0]:
            _take(narrow.head.weight, decoder.head.weight, None, kept[0][-1])
            _take(narrow.head.bias, decoder.head.bias)
    return narrow


def _take(
    ours: object, theirs: object, first: Sequence[int] | None = None, second: Sequence[int] | None = None
) -> None:
    """Copy what is picked along two axes of ``theirs`` into ``ours``; of a larger kernel the middle."""
    if not (isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor)):
        raise SpecError(f"weights to copy must be tensors, got {type(ours).__name__} and {type(theirs).__name__}")
    if first is not None:
        theirs = theirs[list(first)]
    if second is not None:
        theirs = theirs[:, list(second)]
    for axis in range(2, ours.ndim):
        theirs = theirs.narrow(axis, (theirs.shape[axis] - ours.shape[axis]) // 2, ours.shape[axis])
    ours.copy_(theirs)
