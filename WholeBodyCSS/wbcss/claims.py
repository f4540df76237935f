"""Claims of several tasks on the same voxels, and who gets each voxel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .labels import BACKGROUND
from .specs import MergeStrategy

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Claims:
    """What T tasks, in the order of their publication, say about N voxels of a region.

    Attributes:
        region: Of the output.
        index: (N,) flat indices in the region.
        labels: (T, N) uint16 label values, 0 for background.
        confidence: (T, N) float16 in [0, 1].
    """

    region: tuple[slice, slice, slice]
    index: npt.NDArray[np.int32]
    labels: npt.NDArray[np.uint16]
    confidence: npt.NDArray[np.float16]

    def places(self, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """(N, 3) indices of the voxels in an output of ``shape``."""
        ranges = [part.indices(size) for part, size in zip(self.region, shape, strict=True)]
        size = tuple(len(range(*axis)) for axis in ranges)
        low = np.array([axis[0] for axis in ranges])
        places: npt.NDArray[np.int64] = np.stack(np.unravel_index(self.index, size), axis=1) + low
        return places


def decide(
    claims: Claims, owns: npt.NDArray[np.bool_], until: npt.NDArray[np.intp], voxels: npt.NDArray[np.int64]
) -> tuple[Array, Array]:
    """Label and confidence of every voxel.

    Args:
        claims: Of T tasks on N voxels.
        owns: (T, labels): which task speaks for which label.
        until: (T, labels): rows below it must respect the claims of a former owner, see ``ownership``.
        voxels: (T, labels) int64 size of every task's organs, for ties.
    """
    num_tasks = len(claims.labels)
    label = np.zeros(len(claims.index), np.uint16)
    size = np.zeros(len(claims.index), np.int64)
    background = claims.labels == BACKGROUND
    empty = np.where(background, claims.confidence, np.float16(2)).min(axis=0)
    empty = np.where(empty > 1, np.float16(0), empty)
    confidence = empty
    for row in range(num_tasks):
        claim, sure, mine = claims.labels[row], claims.confidence[row], voxels[row][claims.labels[row]]
        better = (label == BACKGROUND) | _beats(sure, mine, claim, confidence, size, label)
        wins = owns[row][claim] & better
        for other in range(num_tasks) if until.any() else ():
            their = claims.labels[other]
            respects = (until[other][their] > row) & (their != claim) & wins
            wins &= ~respects | _beats(sure, mine, claim, claims.confidence[other], voxels[other][their], their)
        label = np.where(wins, claim, label)
        confidence = np.where(wins, sure, confidence)
        size = np.where(wins, mine, size)
    return label, np.where(label == BACKGROUND, empty, confidence)


def _beats(sure: Array, size: Array, label: Array, other: Array, other_size: Array, other_label: Array) -> Array:
    """Whether a claim wins over another: by confidence, then the smaller organ, then the smaller label."""
    smaller = (size < other_size) | ((size == other_size) & (label < other_label))
    wins: Array = (sure > other) | ((sure == other) & smaller)
    return wins


def overwrite(labels: Array, confidence: Array, strategy: MergeStrategy) -> tuple[Array, Array]:
    """Settle voxels one by one, as systems without organ-wise decisions do.

    Args:
        labels: (T, I, J, K) label values in the order of publication.
        confidence: (T, I, J, K).
        strategy: ``last_writer``, ``fixed_priority`` (the first published) or ``max_confidence``.
    """
    claimed = labels != BACKGROUND
    settled = np.zeros(labels.shape[1:], np.uint16)
    sure = np.where(claimed, np.float16(1), confidence).min(axis=0)
    rows = range(len(labels)) if strategy == "last_writer" else range(len(labels) - 1, -1, -1)
    for row in rows:
        wins = claimed[row]
        if strategy == "max_confidence":
            wins = wins & ((settled == BACKGROUND) | (confidence[row] >= sure))
        settled = np.where(wins, labels[row], settled)
        sure = np.where(wins, confidence[row], sure)
    return settled, sure
