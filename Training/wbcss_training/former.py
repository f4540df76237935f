"""Keeping features near what they were: the loss that lets an encoder go on learning without losing its decoders."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from wbcss.errors import SpecError
from wbcss.labels import TaskId
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import Encoder, Skips, freeze


def feature_distance(now: Sequence[torch.Tensor], former: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean over the levels of ``|now - former|^2 / |former|^2`` (METHOD 1.1, our proposal).

    Divided by the energy of each level, every level counts the same whatever its width and scale, and the value does
    not depend on the size of a patch. Unlike a distance of directions it does not let the scale drift, which the
    former decoders would notice.

    Args:
        now: Feature maps (B, F_l, I_l, J_l, K_l) of the network in training, finest first.
        former: The same of its former self; no gradient goes there.

    Raises:
        SpecError: the two do not have the same levels.
    """
    if [level.shape for level in now] != [level.shape for level in former] or not now:
        raise SpecError(
            "features to compare must have the same levels, at least one, "
            f"got {[tuple(level.shape) for level in now]} and {[tuple(level.shape) for level in former]}"
        )
    parts = []
    for ours, theirs in zip(now, former, strict=True):
        target = theirs.detach().float()
        energy = target.square().mean().clamp_min(torch.finfo(torch.float32).tiny)
        parts.append((ours.float() - target).square().mean() / energy)
    return torch.stack(parts).mean()


class FormerSelf:
    """Frozen copies of an encoder and of decoders that read it, as they were before a training.

    It is no module, so neither the optimizer nor a checkpoint nor a moving average takes it for part of the network
    in training; a copy of the learner shares it.
    """

    def __init__(self, encoder: Encoder, decoders: Mapping[TaskId, Decoder]) -> None:
        self.encoder = copy.deepcopy(encoder)
        self.decoders = {task: copy.deepcopy(decoder) for task, decoder in decoders.items()}
        for module in self.modules():
            freeze(module)

    def __deepcopy__(self, memo: object) -> FormerSelf:
        return self

    def modules(self) -> list[nn.Module]:
        """Encoder and decoders."""
        return [self.encoder, *self.decoders.values()]

    def to(self, device: torch.device) -> None:
        """Move everything to ``device``."""
        for module in self.modules():
            module.to(device)

    def skips(self, image: torch.Tensor) -> Skips:
        """What the former encoder made of ``image`` (B, C, I, J, K), without a gradient."""
        with torch.no_grad():
            skips: Skips = self.encoder(image)
        return skips

    def drift(self, now: Skips, former: Skips, *, weight: float, decoder_weight: float) -> torch.Tensor:
        """``weight`` times the distance of the skips plus ``decoder_weight`` times that of what the heads would read.

        The second term pushes the new skips through the frozen decoders, so that a change which a former decoder
        does not notice is free.
        """
        total = now[0].new_zeros((), dtype=torch.float32)
        if weight > 0:
            total = total + weight * feature_distance(now, former)
        if decoder_weight > 0 and self.decoders:
            parts = []
            for decoder in self.decoders.values():
                with torch.no_grad():
                    target = decoder.features(former)
                parts.append(feature_distance([decoder.features(now)], [target]))
            total = total + decoder_weight * torch.stack(parts).mean()
        return total
