"""The simple way to a small decoder, beside which a search has to earn its place: one width for all levels.

With and without convolutions at the finest level, as leaving them out is as simple as making all levels narrower.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wbcss.errors import SpecError
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.specs import DecoderSpec

from .candidate import Candidate, Classroom
from .costmodel import CostModel
from .space import WIDTH_SHARES, SearchSpace, scaled_decoder, without_finest

_SHARES_TRIED = 512


def sweep_widths(
    classroom: Classroom,
    space: SearchSpace,
    run_dir: Path,
    *,
    seed: int,
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> tuple[Candidate, ...]:
    """Train the full decoder and those of 1/2, 1/4 and 1/8 of its width (32, 16, 8, 4), the widest first.

    Then the same with a finest level that is its transposed convolution alone. Raises as ``Classroom.candidate``.
    """
    fulls = dict.fromkeys((space.full, without_finest(space.full)))
    specs = [scaled_decoder(full, share) for full in fulls for share in WIDTH_SHARES]
    found = []
    for number, spec in enumerate(specs):
        bare = " bare" if spec.convs_per_stage[0] == 0 else ""
        name = f"width {spec.stage_channels[0]}{bare}"
        found.append(
            classroom.candidate(
                spec,
                run_dir / f"width-{'-'.join(map(str, spec.stage_channels))}{bare.replace(' ', '-')}",
                name=name,
                seed=seed,
                progress=_part(progress, number, len(specs), f"{name}: "),
                cancelled=cancelled,
            )
        )
    return tuple(found)


def _part(progress: Progress, number: int, count: int, prefix: str) -> Progress:
    return lambda fraction, text: progress((number + fraction) / count, prefix + text)


def pick(candidates: Sequence[Candidate], *, tolerance: float, limit_s: float) -> Candidate:
    """The cheapest candidate within ``tolerance`` of Dice of the most accurate one and within ``limit_s`` per tile.

    Where none within the limit is within the tolerance, the most accurate within the limit: the budget holds, the
    accuracy does not. Raises SpecError if every candidate takes longer.
    """
    best = max(candidate.dice for candidate in candidates)
    affordable = [candidate for candidate in candidates if candidate.cost.seconds <= limit_s]
    if not affordable:
        cheapest = min(candidate.cost.seconds for candidate in candidates)
        raise SpecError(f"the budget must allow the narrowest decoder, {cheapest:.4g} s, got {limit_s:.4g} s; raise it")
    good = [candidate for candidate in affordable if candidate.dice >= best - tolerance]
    if good:
        return min(good, key=lambda candidate: candidate.cost.seconds)
    return max(affordable, key=lambda candidate: candidate.dice)


def widest_within(model: CostModel, full: DecoderSpec, *, limit_s: float) -> DecoderSpec:
    """The decoder of one width share for all levels that takes as much of ``limit_s`` as it can: equal cost.

    One channel a level is the narrowest there is; it is returned where even that takes longer, so that what it is
    compared with has the smaller cost.
    """
    specs = list(dict.fromkeys(scaled_decoder(full, n / _SHARES_TRIED) for n in range(_SHARES_TRIED, 0, -1)))
    return next((spec for spec in specs if model.cost(spec).seconds <= limit_s), specs[-1])
