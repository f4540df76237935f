"""What the task that was added last changes in organs that it does not know, voxel by voxel."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wbcss.labels import BACKGROUND, MAX_LABEL
from wbcss.merge import TaskPrediction
from wbcss.volume import Confidence, LabelMap


@dataclass(frozen=True, kw_only=True)
class Intrusion:
    """Counts of voxels in which an organ that the added task does not know came or went.

    Attributes:
        changed: All of them.
        surer: Where the added task claims an organ with a higher confidence than what stood there: its good right.
        as_sure: Where it claims one with the same confidence, as a smaller organ may.
        unclaimed: Where it claims nothing, or is less sure than what stood there.
    """

    changed: int = 0
    surer: int = 0
    as_sure: int = 0
    unclaimed: int = 0

    @property
    def outside(self) -> int:
        """Voxels changed outside those claimed with higher confidence; the goal is none."""
        return self.changed - self.surer

    def __add__(self, other: Intrusion) -> Intrusion:
        return Intrusion(
            changed=self.changed + other.changed,
            surer=self.surer + other.surer,
            as_sure=self.as_sure + other.as_sure,
            unclaimed=self.unclaimed + other.unclaimed,
        )


def intrusion(
    before: tuple[LabelMap, Confidence], after: LabelMap, added: TaskPrediction, *, known: Collection[int]
) -> Intrusion:
    """Compare the merges without and with a task.

    Args:
        before: Labels and confidence (I, J, K) of all tasks but the added one.
        after: Labels (I, J, K) of all tasks.
        added: What the added task claims, on the same grid.
        known: Labels of the organs that it knows.
    """
    is_foreign: npt.NDArray[np.bool_] = np.ones(MAX_LABEL + 1, bool)
    is_foreign[[BACKGROUND, *known]] = False
    total = Intrusion()
    for k in range(after.shape[2]):  # plane by plane: nothing as large as the scan is made
        old, new = before[0][:, :, k], after[:, :, k]
        changed = (old != new) & (is_foreign[old] | is_foreign[new])
        if changed.any():
            claimed = added.labels[:, :, k][changed] != BACKGROUND
            sure, stood = added.confidence[:, :, k][changed], before[1][:, :, k][changed]
            surer, as_sure = claimed & (sure > stood), claimed & (sure == stood)
            total += Intrusion(
                changed=int(changed.sum()),
                surer=int(surer.sum()),
                as_sure=int(as_sure.sum()),
                unclaimed=int((~surer & ~as_sure).sum()),
            )
    return total
