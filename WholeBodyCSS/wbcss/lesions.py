"""Lesions: which organs they may lie in, and which organ a connected lesion touches. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .catalogue import Organ
from .labels import TaskId

LESION_GROUP = "lesion"

Indices = npt.NDArray[np.int64]


def is_lesion(organ: Organ) -> bool:
    """Whether an organ is a lesion, by its group."""
    return organ.group == LESION_GROUP


def may_lie_in(lesion: Organ, organ: Organ) -> bool:
    """Whether a lesion may belong to an organ: its coded region and side are that organ's, or it has no region."""
    if is_lesion(organ):
        return False
    if lesion.region is None:
        return lesion.side in ("none", organ.side)
    same_side = lesion.region_modifier == organ.type_modifier or lesion.side in ("none", organ.side)
    return lesion.region.value == organ.type.value and same_side


@dataclass(frozen=True, kw_only=True)
class LesionRules:
    """What the merge knows about lesions, by label values.

    Attributes:
        hosts: Lesion to the organs that it may belong to.
        pathological: Task to the organs that it has seen with lesions: the hosts of its own lesions, and what its
            card lists as ``anomaly.pathological``.
        smallest_voxels: Size of the smallest connected lesion that counts.
    """

    hosts: Mapping[int, frozenset[int]] = field(default_factory=dict)
    pathological: Mapping[TaskId, frozenset[int]] = field(default_factory=dict)
    smallest_voxels: float = 1.0

    @classmethod
    def of(
        cls,
        organs: Mapping[TaskId, Sequence[Organ]],
        declared: Mapping[TaskId, Iterable[str]],
        *,
        smallest_voxels: float,
    ) -> LesionRules:
        """Read what tasks that write ``organs`` say; ``declared`` are names of organs learned with their lesions."""
        union = {organ.label: organ for known in organs.values() for organ in known}
        hosts = {
            label: frozenset(other.label for other in union.values() if may_lie_in(lesion, other))
            for label, lesion in union.items()
            if is_lesion(lesion)
        }
        pathological = {}
        for task, known in organs.items():
            named = set(declared.get(task, ()))
            own = {organ.label for organ in known if organ.name in named}
            own |= {label for organ in known for label in hosts.get(organ.label, frozenset())}
            pathological[task] = frozenset(own & {organ.label for organ in known})
        return cls(hosts=hosts, pathological=pathological, smallest_voxels=smallest_voxels)


def large_lesions(places: Indices, *, smallest_voxels: float) -> tuple[Indices, npt.NDArray[np.bool_]]:
    """The connected lesions that count, with the voxels around them.

    Args:
        places: (N, 3) voxels of a lesion, N at least 1.
        smallest_voxels: Smaller connected pieces (over faces, edges and corners) are left out.

    Returns:
        First voxel (3,) of a box, and (I, J, K) bool: the pieces and all voxels that touch them.
    """
    from scipy import ndimage

    low = places.min(axis=0) - 1
    mask = np.zeros(places.max(axis=0) - low + 2, bool)
    mask[tuple((places - low).T)] = True
    around = np.ones((3, 3, 3), bool)
    pieces, num_pieces = ndimage.label(mask, structure=around)
    sizes = np.bincount(pieces.ravel(), minlength=num_pieces + 1)
    large = sizes >= smallest_voxels
    large[0] = False
    return low, np.asarray(ndimage.binary_dilation(large[pieces], structure=around), bool)


def count_inside(places: Indices, low: Indices, mask: npt.NDArray[np.bool_]) -> int:
    """How many of ``places`` (N, 3) lie in a mask whose first voxel is ``low``."""
    at = places - low
    inside = ((at >= 0) & (at < mask.shape)).all(axis=1)
    return int(np.count_nonzero(mask[tuple(at[inside].T)]))


def lesion_of(labels: npt.NDArray[Any], lesion: int, hosts: Iterable[int], *, smallest_voxels: float) -> dict[int, int]:
    """Voxels of a lesion by the organ it belongs to, the one that its connected pieces touch most.

    Args:
        labels: (I, J, K) label values of a box around the lesion and a rim.
        lesion: Its label.
        hosts: Labels of organs that it may belong to; of two that are touched alike the smaller label.
        smallest_voxels: Smaller pieces belong to nothing.
    """
    from scipy import ndimage

    around = np.ones((3, 3, 3), bool)
    pieces, _ = ndimage.label(labels == lesion, structure=around)
    allowed = np.array(sorted(hosts), np.int64)
    found: dict[int, int] = {}
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        wider = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
        piece = pieces[wider] == number
        size = int(np.count_nonzero(piece))
        rim = ndimage.binary_dilation(piece, structure=around) & ~piece
        touched = labels[wider][rim]
        touched = touched[np.isin(touched, allowed)]
        if size >= smallest_voxels and len(touched):
            host = int(np.argmax(np.bincount(touched)))
            found[host] = found.get(host, 0) + size
    return found
