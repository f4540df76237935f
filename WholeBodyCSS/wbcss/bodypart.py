"""The body-part check of a pass: tell levels from the features at hand, skip and drop what cannot be there.

Nothing is encoded for it. Every tile's deepest features, which the decoders need anyway, are read by the level head
before anything is decoded; the levels of all tiles so far give the curve of the scan (``levels.fit_curve``). A decoder
none of whose organs can lie within a tile is not run there, and a plane of an organ that lies out of its range is
taken away before tasks are merged. METHOD 1.4.

A task's decisions depend on the scan, the head, its own ranges and the votes of tasks published before it, never on a
later one (law 1). Where the curve cannot be trusted (levels that contradict each other, a scan upside down) nothing is
skipped or dropped. Nor is anything of a task if one published before it, or the task itself, finds organs that
contradict the curve (``bodyvote``), or if the curve is in doubt and none of them confirms it: then the pass is run
again with such tasks left alone.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from .bodyvote import OrganVote
from .labels import MAX_LABEL, OrganName, TaskId
from .levelcard import LevelCard
from .levels import (
    LevelCurve,
    LevelRange,
    covered_shares,
    fit_curve,
    meet,
    region_names,
    widened,
)
from .nn.levelhead import EMPTY_SCALE_CM, LevelHead
from .nn.model import ChooseTasks
from .preprocess import ModelGrid
from .tiling import Extent, Range
from .volume import Confidence, LabelMap, Shape3

SURE_DOUBT_CM, MAX_DOUBT_CM = 2.5, 4.0
"""A curve in more doubt decides only what a task's organs confirm; in still more, nothing: the scan shows no body, too
little of it, or one unknown to the head.

Measured: at most 1.4 in scans of a whole neck, chest or abdomen, 1.4 to 9.4 in thirds of such (the third of a pelvis
with 4.6 is 15 cm off), 1.9 to 5.7 in crops of one limb or half a pelvis, whose levels are up to 60 cm off.
"""

DOUBTS = 2.0
"""The margin of every comparison: that of the head's card and this many times the doubt about the scan at hand."""

LEAST_SCALE_SHARE = 0.5
"""A level this share as unsure as that of an empty plane is no observation: there is hardly any body there."""

SHORT_CM = 10.0
"""A scan that shows less of the body gets a warning: organs are cut off."""


@dataclass(frozen=True, kw_only=True)
class OrganLevels:
    """An organ that a task knows: its name, and where it may be; None if nobody knows."""

    name: OrganName
    range_cm: LevelRange | None


@dataclass(frozen=True, kw_only=True)
class BodyPartReport:
    """What the body-part check saw and did. Holds nothing about the patient.

    Attributes:
        is_trusted: Whether anything was skipped or dropped by it.
        is_reversed: Whether the scan seems to be upside down.
        levels_cm: First and last level of the scan; None if there was nothing to tell them from.
        spread_cm: How widely levels lie about their curve.
        doubt_cm: How far the curve may be off, by that and by what the head says of itself.
        curve: Height above the lowest plane in mm and level in cm there, upwards.
        regions: Which part of every region the scan shows, 0 to 1.
        skipped_tiles: Per task, tiles that its decoder was not run on.
        dropped_voxels: Per organ, voxels taken away, over all tasks; organs without are left out.
        outside: Organs asked for that cannot lie within the scan.
        overruled_by: The first task whose organs contradict the levels; empty if there is none.
        left_alone: Tasks of which nothing was skipped or dropped: that one and those published after it, and those
            that are without a confirmation that a curve in doubt needs.
    """

    is_trusted: bool
    is_reversed: bool = False
    levels_cm: LevelRange | None = None
    spread_cm: float = 0.0
    doubt_cm: float = 0.0
    curve: tuple[tuple[float, float], ...] = ()
    regions: Mapping[str, float] = field(default_factory=dict)
    skipped_tiles: Mapping[TaskId, int] = field(default_factory=dict)
    dropped_voxels: Mapping[OrganName, int] = field(default_factory=dict)
    outside: tuple[OrganName, ...] = ()
    overruled_by: TaskId | Literal[""] = ""
    left_alone: tuple[TaskId, ...] = ()

    @property
    def region_names(self) -> tuple[str, ...]:
        """What the scan shows, from the head down."""
        return region_names(self.regions)

    def warnings(self) -> list[str]:
        """What a user should know, one sentence each."""
        if self.levels_cm is None:
            return []
        if self.is_reversed:
            return [
                "the scan seems to be upside down: its levels run from the feet to the head where they should run to "
                "the feet; check its orientation before using the organs (the body-part check left them as they are)"
            ]
        if not self.is_trusted and not self.overruled_by:
            return [
                f"the scan does not look like a part of the body that the model knows (its levels are in doubt by "
                f"{self.doubt_cm:.0f} cm); the body-part check left the organs as they are"
            ]
        if self.overruled_by:
            return [
                f"the organs that {self.overruled_by} finds do not fit the part of the body that the scan seems to "
                f"show; the body-part check left those of {', '.join(self.left_alone)} as they are"
            ]
        length_cm = self.levels_cm[1] - self.levels_cm[0]
        if length_cm < SHORT_CM:
            shown = " and ".join(self.region_names) or "no region"
            return [f"the scan shows {length_cm:.0f} cm of the body only ({shown}); organs are cut off at its ends"]
        return []

    def to_json(self) -> dict[str, object]:
        """Plain JSON values."""
        return {
            "is_trusted": self.is_trusted,
            "is_reversed": self.is_reversed,
            "levels_cm": None if self.levels_cm is None else [round(level, 1) for level in self.levels_cm],
            "spread_cm": round(self.spread_cm, 2),
            "doubt_cm": round(self.doubt_cm, 2),
            "curve": [[round(height, 1), round(level, 2)] for height, level in self.curve],
            "shows": list(self.region_names),
            "regions": {name: round(share, 3) for name, share in self.regions.items()},
            "skipped_tiles": dict(self.skipped_tiles),
            "dropped_voxels": dict(self.dropped_voxels),
            "outside": list(self.outside),
            "overruled_by": self.overruled_by,
            "left_alone": list(self.left_alone),
        }


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the organs found say of the levels: ``BodyPartReport`` has the same."""

    overruled_by: TaskId | Literal[""] = ""
    left_alone: tuple[TaskId, ...] = ()


class BodyPartGate:
    """Observes the tiles of one pass and says what can be where.

    Args:
        head: The level head; it is copied to ``device``.
        card: Its card.
        organs: Per task, in registry order, what it knows by label, in the order of its channels, whether it was asked
            for or not: an organ's voxels do not depend on what else was asked for.
        asked: Organs asked for.
        grid: The model grid of the scan.
        extent: Where the body is on it.
        tile: Tile shape.
        device: Where features are.
        verdict: What the tasks said in an earlier pass.

    Attributes:
        votes: Per task, what takes its finished planes.
    """

    def __init__(
        self,
        head: LevelHead,
        card: LevelCard,
        organs: Mapping[TaskId, Mapping[int, OrganLevels]],
        *,
        asked: Collection[OrganName],
        grid: ModelGrid,
        extent: Extent,
        tile: Shape3,
        device: torch.device,
        verdict: Verdict | None = None,
    ) -> None:
        self._head = copy.deepcopy(head).to(device)
        self._card = card
        self._organs = organs
        self._asked = asked
        self._grid = grid
        self._extent = extent
        self._tile = tile
        self._heights: list[float] = []
        self._levels: list[float] = []
        self._weights: list[float] = []
        self._curve: LevelCurve | None = None
        self._is_stale = False
        self._skipped = dict.fromkeys(organs, 0)
        self._dropped: dict[TaskId, dict[int, int]] = {task: {} for task in organs}
        self._verdict = verdict or Verdict()
        self.votes = {
            task: OrganVote([organ.range_cm for organ in known.values()], grid.spacing_mm[2])
            for task, known in organs.items()
        }

    @property
    def curve(self) -> LevelCurve | None:
        """The curve through everything observed so far."""
        if self._is_stale:
            self._curve = fit_curve(self._heights, self._levels, self._weights)
            self._is_stale = False
        return self._curve

    @property
    def is_trusted(self) -> bool:
        """Whether the curve is good enough to decide by."""
        return may_decide(self.curve)

    def chooser(self, starts_ij: Sequence[tuple[int, int]], k_start: int) -> ChooseTasks:
        """For ``TileEncoderDecoder.features`` of the tiles at ``starts_ij`` of the layer at ``k_start``."""

        def choose(deep: torch.Tensor) -> tuple[TaskId, ...]:
            self._observe(deep, starts_ij, k_start)
            planes = max(0, k_start), min(k_start + self._tile[2], self._grid.shape[2])
            there = self.possible(planes)
            for task in self._organs:
                self._skipped[task] += 0 if task in there else len(starts_ij)
            return there

        return choose

    def possible(self, planes: Range) -> tuple[TaskId, ...]:
        """Tasks that may find an organ in the model ``planes`` (half-open), in registry order."""
        if not self.is_trusted:
            return tuple(self._organs)
        here = self._levels_of((planes[0] - 0.5, planes[1] - 0.5))
        return tuple(
            task
            for task, organs in self._organs.items()
            if task in self._verdict.left_alone
            or any(organ.range_cm is None or meet(organ.range_cm, here) for organ in organs.values())
        )

    def keep(self, task: TaskId, k: int, labels: LabelMap, confidence: Confidence) -> tuple[LabelMap, Confidence]:
        """Labels and confidence of the caller's plane ``k`` (any shape) without organs that cannot be there.

        They become background of confidence 1, as everywhere where a decoder was not run.
        """
        if task in self._verdict.left_alone or not self.is_trusted or not labels.any():
            return labels, confidence
        at = float(self._grid.axes[2].model_of(k))
        here = self._levels_of((at, at))
        absent = [
            label
            for label, organ in self._organs[task].items()
            if organ.range_cm is not None and not meet(organ.range_cm, here)
        ]
        banned = np.zeros(MAX_LABEL + 1, bool)
        banned[absent] = True
        gone = banned[labels]
        if not gone.any():
            return labels, confidence
        for label, count in zip(*np.unique(labels[gone], return_counts=True), strict=True):
            self._dropped[task][int(label)] = self._dropped[task].get(int(label), 0) + int(count)
        one = np.ones((), confidence.dtype)
        return np.where(gone, np.zeros((), labels.dtype), labels), np.where(gone, one, confidence)

    def verdict(self) -> Verdict:
        """Which tasks to leave alone in another pass, once ``votes`` took every plane; none if it would change nothing.

        A task believes the curve if it is in little doubt or one published before it, or itself, firmly confirms it,
        until one contradicts. Nobody believes one that was trusted for a while and is not in the end.
        """
        curve = self.curve
        if curve is None:
            return Verdict()
        is_believed, overruled_by = curve.doubt_cm <= SURE_DOUBT_CM and self.is_trusted, None
        left_alone = []
        for task, vote in self.votes.items():
            said = vote.say(curve, self._margin_cm(curve)) if self.is_trusted else "nothing"
            is_believed = is_believed or said == "firmly for"
            if said == "against" and overruled_by is None:
                overruled_by = task
            if overruled_by is not None or not is_believed:
                left_alone.append(task)
        if not any(self._skipped[task] or self._dropped[task] for task in left_alone):
            return Verdict()
        return Verdict(overruled_by=overruled_by or "", left_alone=tuple(left_alone))

    def report(self) -> BodyPartReport:
        """What was seen and done so far."""
        curve = self.curve
        if curve is None:
            return BodyPartReport(is_trusted=False, skipped_tiles=dict(self._skipped))
        ends = (-0.5, self._grid.shape[2] - 0.5)
        shown = curve.range_of(np.array(ends) * self._grid.spacing_mm[2])
        lowest = ends[0] * self._grid.spacing_mm[2]
        names = {label: organ.name for organs in self._organs.values() for label, organ in organs.items()}
        ranges = {organ.name: organ.range_cm for organs in self._organs.values() for organ in organs.values()}
        here = self._levels_of(ends)
        verdict = self._verdict
        dropped: dict[int, int] = {}
        for found in self._dropped.values():
            dropped = {label: dropped.get(label, 0) + found.get(label, 0) for label in dropped.keys() | found.keys()}
        return BodyPartReport(
            is_trusted=self.is_trusted and len(verdict.left_alone) < len(self._organs),
            is_reversed=curve.is_reversed,
            levels_cm=shown,
            spread_cm=curve.spread_cm,
            doubt_cm=curve.doubt_cm,
            curve=tuple(
                (float(height - lowest), float(level))
                for height, level in zip(curve.heights_mm, curve.levels_cm, strict=True)
            ),
            regions=covered_shares(shown, self._card.regions_cm),
            skipped_tiles=dict(self._skipped),
            dropped_voxels={names[label]: count for label, count in sorted(dropped.items())},
            outside=tuple(
                name
                for name, usual in (ranges.items() if self.is_trusted and not verdict.left_alone else ())
                if name in self._asked and usual is not None and not meet(usual, here)
            ),
            overruled_by=verdict.overruled_by,
            left_alone=verdict.left_alone,
        )

    def _margin_cm(self, curve: LevelCurve) -> float:
        return self._card.margin_cm + DOUBTS * curve.doubt_cm

    def _levels_of(self, planes: tuple[float, float]) -> LevelRange:
        """Levels of the model planes from ``planes[0]`` to ``planes[1]``, with the margin of doubt."""
        curve = self.curve
        assert curve is not None  # noqa: S101 -- the caller asked whether it is trusted, or there
        return widened(curve.range_of(np.array(planes) * self._grid.spacing_mm[2]), self._margin_cm(curve))

    def _observe(self, deep: torch.Tensor, starts_ij: Sequence[tuple[int, int]], k_start: int) -> None:
        """Read the levels of the planes of a batch of tiles; planes without body, or outside the scan, say nothing."""
        with torch.autocast(deep.device.type, enabled=False):
            levels, scales = (values.cpu().numpy().astype(np.float64) for values in self._head(deep))
        step = self._tile[2] // levels.shape[1]
        for row in range(levels.shape[1]):
            first, last = k_start + row * step, k_start + (row + 1) * step
            inside = min(last, self._grid.shape[2]) - max(first, 0)
            if inside <= 0:
                continue
            height = ((first + last - 1) / 2) * self._grid.spacing_mm[2]
            for tile, start in enumerate(starts_ij):
                ranges = [(start[axis], start[axis] + self._tile[axis]) for axis in range(2)]
                weight = (
                    observation_weight(levels[tile, row], scales[tile, row], self._card.scale_factor) * inside / step
                )
                if weight > 0 and self._extent.touches(ranges[0], ranges[1], (max(first, 0), last)):
                    self._heights.append(height)
                    self._levels.append(float(levels[tile, row]))
                    self._weights.append(weight)
                    self._is_stale = True


def may_decide(curve: LevelCurve | None) -> bool:
    """Whether there is a curve to decide by, head up and in little doubt."""
    return curve is not None and not curve.is_reversed and curve.doubt_cm <= MAX_DOUBT_CM


def observation_weight(level_cm: float, scale_cm: float, scale_factor: float) -> float:
    """How much an answer of the head counts in a curve, 1 / cm; 0 if it is none.

    A head that has learned its patches by heart is too sure of itself, by the factor of its card.
    """
    is_sure = np.isfinite(level_cm) and scale_cm < LEAST_SCALE_SHARE * EMPTY_SCALE_CM
    return 1 / (scale_factor * scale_cm) if is_sure else 0.0


def organ_levels(organs: Mapping[int, OrganName], ranges: Mapping[OrganName, LevelRange]) -> dict[int, OrganLevels]:
    """``organs`` by label with their ranges, where known."""
    return {label: OrganLevels(name=name, range_cm=ranges.get(name)) for label, name in organs.items()}


def levels_of_planes(head: LevelHead, deep: torch.Tensor) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Levels and scales in cm of the planes of one patch's deepest features (C, I, J, K), both (K,)."""
    with torch.inference_mode():
        levels, scales = head(deep[None])
    return levels[0].double().numpy(), scales[0].double().numpy()
