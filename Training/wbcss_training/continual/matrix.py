"""The matrix R of continual learning and the numbers the field reads off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wbcss.errors import SpecError

Rows = Sequence[Sequence[float | None]]


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """``rows[i][j]`` is the Dice on task j after learning task i; None where it was not asked (METHOD 1.6).

    Every row has one entry per task.
    """

    rows: Rows

    def __post_init__(self) -> None:
        if any(len(row) != len(self.rows) for row in self.rows) or not self.rows:
            raise SpecError(
                f"the matrix must have as many columns as rows, got {[len(row) for row in self.rows]} "
                f"for {len(self.rows)} tasks"
            )

    @property
    def values(self) -> npt.NDArray[np.float64]:
        """(T, T), NaN where it was not asked."""
        return np.array([[np.nan if value is None else value for value in row] for row in self.rows])

    @property
    def average(self) -> float | None:
        """Mean Dice of all tasks after the last: ``1/T sum_j R[T][j]``."""
        return _mean(self.values[-1])

    @property
    def learned(self) -> float | None:
        """Mean Dice of every task right after it was learned: ``1/T sum_j R[j][j]``."""
        return _mean(np.diag(self.values))

    @property
    def backward_transfer(self) -> float | None:
        """``1/(T-1) sum_{j<T} (R[T][j] - R[j][j])`` (Lopez-Paz and Ranzato, NeurIPS 2017, equation 3); below 0 is
        forgetting."""
        return _mean(self.values[-1, :-1] - np.diag(self.values)[:-1])

    @property
    def relative_backward_transfer(self) -> float | None:
        """The same as a share of what had been learned: ``(R[T][j] - R[j][j]) / R[j][j]``."""
        learned = np.diag(self.values)[:-1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return _mean(np.where(learned > 0, (self.values[-1, :-1] - learned) / learned, np.nan))

    def below(self, bound: Forgetting) -> float | None:
        """Mean over the tasks of the final Dice of ``bound`` less ours, in Dice points (0 to 100)."""
        if len(bound.rows) != len(self.rows):
            raise SpecError(f"matrices to compare must have as many tasks, got {len(self.rows)} and {len(bound.rows)}")
        gap = _mean(bound.values[-1] - self.values[-1])
        return None if gap is None else 100 * gap


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    """Mean of ``values``; None if there are none or one is unknown."""
    return float(values.mean()) if len(values) and not bool(np.isnan(values).any()) else None
