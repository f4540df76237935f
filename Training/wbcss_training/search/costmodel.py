"""What a decoder costs before it is built: time per tile from the measured parts, parameters and MACs exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wbcss.errors import SpecError
from wbcss.specs import DecoderSpec, EncoderSpec, Kernel3

from .latency import LatencyTable
from .parts import Part, PartKind, parts_of

Family = tuple[PartKind, int, Kernel3]
"""Parts that differ in their width alone: kind, level, kernel."""


@dataclass(frozen=True, kw_only=True)
class DecoderCost:
    """Predicted cost of a decoder with its head, for one tile.

    Attributes:
        seconds: Sum of its parts' times.
        parameters: Numbers that are stored, exactly.
        macs: Multiply-accumulates of the convolutions, exactly.
    """

    seconds: float
    parameters: int
    macs: int


class CostModel:
    """Costs of decoders on one encoder and one machine.

    A width that was not measured is interpolated between those that were, as a power of the width: the time of a
    convolution grows between its first power (memory) and its second (arithmetic). That is FBNet's table of operators
    (Wu et al., CVPR 2019, section 3.2) with widths in between.
    """

    def __init__(self, table: LatencyTable, encoder: EncoderSpec) -> None:
        if (table.strides, table.stage_channels) != (encoder.strides, encoder.stage_channels):
            raise SpecError(
                f"the measured times must be of an encoder of {encoder.stage_channels} channels, got "
                f"{table.stage_channels}; measure again on this one"
            )
        self.encoder = encoder
        self.table = table
        self._known = dict(table.seconds)
        self._families: dict[Family, dict[tuple[int, ...], float]] = {}
        for part, seconds in self._known.items():
            self._families.setdefault(_family(part), {})[_widths(part)] = seconds

    def part_seconds(self, part: Part) -> float:
        """Time of one part. Raises SpecError if no part of its kind was measured."""
        known = self._known.get(part)
        if known is not None:
            return known
        points = self._families.get(_family(part))
        if points is None:
            raise SpecError(
                f"the time of {part.kind} at level {part.level} with kernel {part.kernel} and {part.out_channels} "
                "channels is not known; measure it first"
            )
        return math.exp(_interpolated({_logs(at): math.log(s) for at, s in points.items()}, _logs(_widths(part))))

    def cost(self, spec: DecoderSpec) -> DecoderCost:
        """Cost of a whole decoder. Raises SpecError if it has a part of which nothing was measured."""
        parts = parts_of(spec, self.encoder)
        return DecoderCost(
            seconds=sum(self.part_seconds(part) for part in parts),
            parameters=sum(part.parameters for part in parts),
            macs=sum(part.macs(self.encoder, self.table.tile) for part in parts),
        )


def _family(part: Part) -> Family:
    return part.kind, part.level, part.kernel


def _widths(part: Part) -> tuple[int, ...]:
    """The widths in which the parts of a family differ."""
    return (part.in_channels, part.out_channels) if part.kind in ("up", "head", "raised_head") else (part.out_channels,)


def _logs(widths: Sequence[int]) -> tuple[float, ...]:
    return tuple(math.log(width) for width in widths)


def _interpolated(points: Mapping[tuple[float, ...], float], at: tuple[float, ...]) -> float:
    """Value at ``at`` of the points of a grid: linear along every axis, the ends prolonged, one point by slope 1."""
    if not at:
        return points[()]
    lines: dict[float, dict[tuple[float, ...], float]] = {}
    for (first, *rest), value in points.items():
        lines.setdefault(first, {})[tuple(rest)] = value
    x = sorted(lines)
    y = [_interpolated(lines[first], at[1:]) for first in x]
    if len(x) == 1:
        return y[0] + at[0] - x[0]
    if x[0] <= at[0] <= x[-1]:
        return float(np.interp(at[0], x, y))
    one, other = (0, 1) if at[0] < x[0] else (-2, -1)
    return y[one] + (at[0] - x[one]) * (y[other] - y[one]) / (x[other] - x[one])
