"""All decoders in one: certain choices are the chosen decoder, bit for bit up to rounding."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import tiny_search
import torch

from wbcss.nn.decoder import Decoder
from wbcss_training.search.expected import LevelProbabilities
from wbcss_training.search.space import KERNELS, LevelChoice
from wbcss_training.search.supernet import SearchDecoder

SPACE, ENCODER = tiny_search.SPACE, tiny_search.ENCODER


def certain(levels: list[LevelChoice]) -> list[LevelProbabilities]:
    """Probability 1 for every choice."""

    def one_hot(names: tuple[object, ...], name: object) -> torch.Tensor:
        return torch.tensor([float(other == name) for other in names])

    return [
        LevelProbabilities(
            one_hot(SPACE.widths(n), level.width),
            one_hot(SPACE.kernels, level.kernel),
            one_hot(SPACE.counts(n), level.count),
        )
        for n, level in enumerate(levels)
    ]


def cut_out(search: SearchDecoder, levels: list[LevelChoice]) -> Decoder:
    """The chosen decoder with the leading channels of the shared weights, written out."""
    decoder = Decoder(SPACE.spec(levels), ENCODER)
    below = [*(level.width for level in levels[1:]), ENCODER.stage_channels[-1]]
    with torch.no_grad():
        for n, level in enumerate(levels):
            width, full = level.width, SPACE.full.stage_channels[n]
            up = search.ups[n] if level.count else search.bare_ups[str(n)]
            decoder.ups[n].weight.copy_(up.weight[: below[n], :width])  # type: ignore[operator,union-attr,index]
            decoder.ups[n].bias.copy_(up.bias[:width])  # type: ignore[operator,union-attr,index]
            then = KERNELS[level.kernel][1]
            blocks = list(decoder.stages[n])  # type: ignore[arg-type]
            for number in range(level.count):
                source, target = search.stages[n][number], blocks[number * (2 if then else 1)]  # type: ignore[index]
                weight = source.conv.weight[:width]
                # A first block reads the level, then the skip.
                weight = torch.cat([weight[:, :width], weight[:, full:]], dim=1) if number == 0 else weight[:, :width]
                target.conv.weight.copy_(weight if level.kernel == "3x3x3" else weight[..., 1:2])
                pairs = [(source, target)]
                if then:
                    second = search.thens[n][number], blocks[2 * number + 1]  # type: ignore[index]
                    second[1].conv.weight.copy_(second[0].conv.weight[:width, :width])
                    pairs.append(second)
                for one, other in pairs:
                    other.conv.bias.copy_(one.conv.bias[:width])
                    other.norm.weight.copy_(one.norm.weight[:width])
                    other.norm.bias.copy_(one.norm.bias[:width])
        decoder.head.weight.copy_(search.head.weight[:, : levels[0].width])
        decoder.head.bias.copy_(search.head.bias)  # type: ignore[union-attr,arg-type]
    return decoder


@pytest.fixture
def search(rng: np.random.Generator) -> SearchDecoder:
    """Shared weights without zeros, so that nothing is left out unseen."""
    search = SearchDecoder(SPACE)
    with torch.no_grad():
        for parameter in search.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(0, 0.5, tuple(parameter.shape))))
    return search


@pytest.mark.parametrize("kernel", list(KERNELS))
def test_certain_choices_are_the_chosen_decoder_on_the_shared_weights(
    search: SearchDecoder, rng: np.random.Generator, kernel: str
) -> None:
    shapes = [(4, 16, 16, 16), (6, 8, 8, 8), (8, 8, 4, 4)]
    skips = [torch.from_numpy(rng.normal(size=(2, *shape)).astype(np.float32)) for shape in shapes]
    for finest, coarser in product(SPACE.widths(0), SPACE.widths(1)):
        for count in SPACE.counts(0):
            levels = [
                LevelChoice(width=finest, kernel=kernel, count=count),  # type: ignore[arg-type]
                LevelChoice(width=coarser, kernel="1x3x3+3x1x1", count=1),
            ]
            decoder = cut_out(search, levels)
            with torch.no_grad():
                features = search.levels(skips, certain(levels))
                assert not bool(features[0][:, finest:].any())
                torch.testing.assert_close(search.head(features[0]), decoder(skips), atol=2e-4, rtol=1e-3)


def test_the_finest_levels_can_rest(search: SearchDecoder, rng: np.random.Generator) -> None:
    skips = [torch.empty(0), torch.ones(1, 6, 8, 8, 8), torch.ones(1, 8, 8, 4, 4)]
    levels = search.levels(skips, tiny_search.probabilities(rng), finest=1)
    assert [tuple(level.shape) for level in levels] == [(1, 6, 8, 8, 8)]


def test_every_choice_gets_a_gradient(search: SearchDecoder, rng: np.random.Generator) -> None:
    skips = [torch.randn(1, 4, 16, 16, 16), torch.randn(1, 6, 8, 8, 8), torch.randn(1, 8, 8, 4, 4)]
    mixture = tiny_search.probabilities(rng)
    groups = [group.requires_grad_(True) for level in mixture for group in (level.widths, level.kernels, level.counts)]
    search.head(search.levels(skips, mixture)[0]).square().sum().backward()
    sizes = [len(group) for group in groups]
    # A depth that cannot be chosen differently changes nothing; of the kernels, the middle one is what is left over.
    assert all(
        group.grad is not None and bool(group.grad.any()) for group, size in zip(groups, sizes, strict=True) if size > 1
    )
