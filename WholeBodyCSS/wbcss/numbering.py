"""Vertebrae and ribs follow each other: find those out of order, and, if asked to, number them anew. No torch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .catalogue import Organ
from .labels import OrganName
from .progress import IsCancelled, check_cancelled, never
from .volume import Affine, LabelMap

VERTEBRAE = tuple(
    OrganName(f"vertebrae_{region}{number}")
    for region, count in (("C", 7), ("T", 12), ("L", 5), ("S", 1))
    for number in range(1, count + 1)
)
CHAINS: tuple[tuple[OrganName, ...], ...] = (
    VERTEBRAE,
    tuple(OrganName(f"rib_left_{number}") for number in range(1, 13)),
    tuple(OrganName(f"rib_right_{number}") for number in range(1, 13)),
)
"""From head to foot."""

ORDER_MM = 2.0
"""An organ out of order by less than this is in order: ends of thin slices."""

SMALLEST_PIECE_ML = 0.5
SAME_LEVEL = 0.4
"""Pieces closer than this part of the chain's median step are one vertebra under two numbers."""

GAP_COST = 0.3
"""A number left out costs as much as this share of an organ renumbered."""


def is_chained(name: OrganName) -> bool:
    """Whether an organ is a vertebra or a rib."""
    return any(name in chain for chain in CHAINS)


def out_of_order(levels_mm: Mapping[OrganName, float]) -> dict[OrganName, OrganName]:
    """The fewest organs whose removal leaves every chain in order, each with the neighbor that it contradicts.

    Args:
        levels_mm: How high (along S) every vertebra lies in its middle, every rib at its top; others are ignored.
    """
    found = {}
    for chain in CHAINS:
        names = [name for name in chain if name in levels_mm]
        kept = _longest_descending([levels_mm[name] for name in names])
        for number, name in enumerate(names):
            if number not in kept:
                found[name] = names[min(kept, key=lambda other: (abs(other - number), other))]
    return found


def _longest_descending(levels: Sequence[float]) -> set[int]:
    """Positions of a longest subsequence that goes down, but for ``ORDER_MM``; by patience sorting."""
    tails: list[float] = []
    ends: list[int] = []
    before: list[int] = []
    for number, level in enumerate(levels):
        # Leaning down by the tolerance with every place keeps what is level in order.
        value = -level + ORDER_MM * number
        at = bisect_left(tails, value)
        before.append(ends[at - 1] if at else -1)
        tails[at : at + 1] = [value]
        ends[at : at + 1] = [number]
    kept = set()
    number = ends[-1] if ends else -1
    while number >= 0:
        kept.add(number)
        number = before[number]
    return kept


@dataclass(frozen=True, kw_only=True)
class Renumbering:
    """A piece that got another number.

    Attributes:
        before, after: Its organ.
        voxels: Its size.
        place_ras_mm: Its middle.
    """

    before: OrganName
    after: OrganName
    voxels: int
    place_ras_mm: tuple[float, float, float]

    @property
    def sentence(self) -> str:
        """For the person who asked for it."""
        return (
            f"a piece of {self.voxels} voxels was renumbered from {self.before} to {self.after} by the order of bones"
        )


@dataclass(frozen=True, eq=False)
class _Piece:
    """A connected part of a chained organ: its own voxels in a box, its organ's place in the chain, and its level."""

    box: tuple[slice, slice, slice]
    mask: npt.NDArray[np.bool_]
    member: int
    voxels: int
    level_mm: float
    place_ras_mm: tuple[float, float, float]


def repair_numbering(
    labels: LabelMap, affine: Affine, organs: Iterable[Organ], *, cancelled: IsCancelled = never
) -> tuple[Renumbering, ...]:
    """Number vertebrae and ribs anew, in place, where their order says so, and tell every change.

    The pieces of a chain are sorted from head to foot; those on one level count as one bone. Each bone then gets the
    number that most of its voxels have, as far as numbers can rise from bone to bone: the assignment with the largest
    agreement, less ``GAP_COST`` for every number left out in between (dynamic programming). A chain that is in order
    and whole is not touched.

    Args:
        labels: (I, J, K) label values, written to.
        affine: (4, 4) ijk to RAS mm.
        organs: Those that may occur; only their numbers are given away.
        cancelled: Asked between bones.
    """
    by_name = {organ.name: organ for organ in organs}
    changes: list[Renumbering] = []
    for chain in CHAINS:
        members = [by_name[name] for name in chain if name in by_name]
        pieces = _pieces(labels, affine, members, cancelled)
        bones = _bones(pieces)
        numbers = _assigned([_votes(bone, len(members)) for bone in bones], len(members))
        for bone, number in zip(bones, numbers, strict=True):
            check_cancelled(cancelled)
            for piece in bone:
                if piece.member != number:
                    labels[piece.box][piece.mask] = members[number].label
                    changes.append(
                        Renumbering(
                            before=members[piece.member].name,
                            after=members[number].name,
                            voxels=piece.voxels,
                            place_ras_mm=piece.place_ras_mm,
                        )
                    )
    return tuple(changes)


def _pieces(labels: LabelMap, affine: Affine, members: Sequence[Organ], cancelled: IsCancelled) -> list[_Piece]:
    """Every connected part of the members that is no crumb, from head to foot."""
    from scipy import ndimage

    place_of = np.zeros(int(labels.max(initial=0)) + 1, np.int32)
    for number, organ in enumerate(members, start=1):
        if organ.label < len(place_of):
            place_of[organ.label] = number
    smallest = SMALLEST_PIECE_ML * 1000 / abs(float(np.linalg.det(affine[:3, :3])))
    found = []
    for member, box in _member_boxes(labels, place_of, len(members)):
        check_cancelled(cancelled)
        parts, _ = ndimage.label(labels[box] == members[member].label, structure=np.ones((3, 3, 3), int))
        for number, inner in enumerate(ndimage.find_objects(parts), start=1):
            mask = parts[inner] == number
            if int(mask.sum()) >= smallest:
                found.append(_piece(affine, members[member], member, box, inner, mask))
    return sorted(found, key=lambda piece: -piece.level_mm)


def _member_boxes(
    labels: LabelMap, place_of: npt.NDArray[np.int32], count: int
) -> list[tuple[int, tuple[slice, slice, slice]]]:
    """Bounding box of every member, found slab by slab."""
    from scipy import ndimage

    boxes: dict[int, list[tuple[int, int]]] = {}
    for k in range(0, labels.shape[2], 32):
        for member, found in enumerate(ndimage.find_objects(place_of[labels[:, :, k : k + 32]], count)):
            if found is not None:
                own = [(s.start + shift, s.stop + shift) for s, shift in zip(found, (0, 0, k), strict=True)]
                old = boxes.get(member, own)
                boxes[member] = [(min(a, c), max(b, d)) for (a, b), (c, d) in zip(old, own, strict=True)]
    return [(member, (slice(*i), slice(*j), slice(*k))) for member, (i, j, k) in sorted(boxes.items())]


def _piece(
    affine: Affine,
    organ: Organ,
    member: int,
    box: tuple[slice, slice, slice],
    inner: tuple[slice, ...],
    mask: npt.NDArray[np.bool_],
) -> _Piece:
    low = [b.start + s.start for b, s in zip(box, inner, strict=True)]
    i, j, k = (slice(start, start + size) for start, size in zip(low, mask.shape, strict=True))
    points = (np.argwhere(mask) + low) @ affine[:3, :3].T + affine[:3, 3]
    r, a, s = (float(mm) for mm in points.mean(axis=0))
    level_mm = s if organ.name in VERTEBRAE else float(points[:, 2].max())
    return _Piece((i, j, k), mask, member, len(points), level_mm, (r, a, s))


def _bones(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Pieces from head to foot, those of one level together."""
    steps = -np.diff([piece.level_mm for piece in pieces]) if len(pieces) > 1 else np.zeros(0)
    apart = SAME_LEVEL * float(np.median(steps[steps > ORDER_MM])) if (steps > ORDER_MM).any() else ORDER_MM
    bones: list[list[_Piece]] = []
    for number, piece in enumerate(pieces):
        if number and steps[number - 1] < apart:
            bones[-1].append(piece)
        else:
            bones.append([piece])
    return bones


def _votes(bone: Sequence[_Piece], count: int) -> npt.NDArray[np.float64]:
    """Share of the bone's voxels that have each number, (count,)."""
    votes = np.zeros(count)
    for piece in bone:
        votes[piece.member] += piece.voxels
    shares: npt.NDArray[np.float64] = votes / max(1.0, votes.sum())
    return shares


def _assigned(votes: Sequence[npt.NDArray[np.float64]], count: int) -> list[int]:
    """A number for every bone, rising from bone to bone, with the largest agreement; as they are if there are more."""
    if not votes or len(votes) > count:
        return [int(np.argmax(shares)) for shares in votes]
    best = votes[0].copy()
    choices: list[npt.NDArray[np.intp]] = []
    for shares in votes[1:]:
        # reached[a, b]: the bone before has number a, this one b.
        gap = np.arange(count)[None, :] - np.arange(count)[:, None]
        reached = np.where(gap >= 1, best[:, None] - GAP_COST * (gap - 1), -np.inf)
        choices.append(np.argmax(reached, axis=0))
        best = shares + reached.max(axis=0)
    numbers = [int(np.argmax(best))]
    for choice in reversed(choices):
        numbers.append(int(choice[numbers[-1]]))
    return numbers[::-1]
