"""How well a decoder on encoded patches does: Dice over all held-out patches together."""

from __future__ import annotations

import torch

from wbcss.errors import SpecError
from wbcss.nn.decoder import Decoder

from ..features import FeaturePool
from ..patches import FeaturePatch

_VOXELS = 2**18
"""Voxels whose logits exist at once."""


def pool_dice(decoder: Decoder, pool: FeaturePool) -> list[float | None]:
    """Dice of every organ over all voxels of ``pool`` together; None where no patch shows the organ.

    Where a patch does not annotate an organ, its voxels say nothing about it and are not counted. This compares
    decoders quickly on equal terms; what a published one can do is measured on whole scans by ``evaluate``.

    Raises SpecError if no organ is in any patch.
    """
    num_organs = decoder.spec.num_organs
    both, sizes = torch.zeros(num_organs, dtype=torch.int64), torch.zeros(num_organs, dtype=torch.int64)
    shown = torch.zeros(num_organs, dtype=torch.bool)
    for number in range(pool.count):
        patch = pool.patch(number)
        labels, found = patch.labels.long().flatten(), _answer(decoder, patch)
        for organ in range(1, num_organs + 1):
            if bool(patch.annotated[organ]):
                reference, segmented = labels == organ, found == organ
                both[organ - 1] += int((reference & segmented).sum())
                sizes[organ - 1] += int(reference.sum()) + int(segmented.sum())
                shown[organ - 1] |= bool(reference.any())
    if not bool(shown.any()):
        raise SpecError(f"the {pool.count} held-out patches must show an organ, got none; hold out other cases")
    return [float(2 * b / s) if there else None for b, s, there in zip(both, sizes, shown, strict=True)]


def mean_dice(decoder: Decoder, pool: FeaturePool) -> float:
    """Mean of ``pool_dice`` over the organs that are shown."""
    known = [dice for dice in pool_dice(decoder, pool) if dice is not None]
    return sum(known) / len(known)


def _answer(decoder: Decoder, patch: FeaturePatch) -> torch.Tensor:
    """(I * J * K,) channel of every voxel, on the CPU."""
    device = decoder.head.weight.device
    with torch.inference_mode():
        skips = [skip[None].to(device=device, dtype=torch.float32) for skip in patch.skips]
        chunks = torch.split(decoder.features(skips).flatten(2), _VOXELS, dim=2)
        parts = [decoder.head(chunk[..., None, None]).argmax(dim=1).flatten() for chunk in chunks]
    return torch.cat(parts).cpu()
