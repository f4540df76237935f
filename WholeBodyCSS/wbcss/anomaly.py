"""How unlike the training data an organ looks: its distance to sums that were stored when the task was enrolled.

Each organ is described by the mean and the standard deviation of the frozen decoder's features over its voxels. The
squared Mahalanobis distance uses one mean per organ and one covariance for all organs of a task: Lee et al., A Simple
Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks, NeurIPS 2018, section 2.1. The
correlation is shrunk towards none: Chen et al., Shrinkage Algorithms for MMSE Covariance Estimation, IEEE Transactions
on Signal Processing 58(10), 2010, eq. 23. Only sums are stored: no image can be made of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

PREFIX = "anomaly."
LEAST_SD = 1e-3
"""Features vary by far more; without it one that never varied would divide by zero."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OrganReference:
    """Sums over the training cases of a task with C organs and descriptors of D numbers.

    Attributes:
        count: (C,) cases in which the organ was found.
        total: (C, D) sum of its descriptors.
        scatter: (D, D) sum over organs and cases of the outer product of the difference from the organ's mean.
    """

    count: Floats
    total: Floats
    scatter: Floats

    @classmethod
    def of(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> OrganReference | None:
        """The sums among the tensors of an evidence file, or None."""
        own = {k.removeprefix(PREFIX): np.asarray(v, float) for k, v in tensors.items() if k.startswith(PREFIX)}
        return cls(**own) if own else None

    @classmethod
    def summed(cls, cases: Sequence[Floats]) -> OrganReference:
        """Sums of the descriptors (C, D) of cases, at least one; rows of NaN are organs that were not found."""
        table = np.stack(cases)
        known: npt.NDArray[np.bool_] = np.logical_not(np.isnan(table).any(axis=2))
        filled = np.where(known[:, :, None], table, 0.0)
        count, total = known.sum(axis=0).astype(float), filled.sum(axis=0)
        rest = np.where(known[:, :, None], filled - total / np.maximum(count, 1)[:, None], 0.0)
        return cls(count, total, np.einsum("nci,ncj->ij", rest, rest))

    def tensors(self) -> dict[str, npt.NDArray[np.float32]]:
        """What ``of`` reads."""
        return {f"{PREFIX}{name}": getattr(self, name).astype(np.float32) for name in ("count", "total", "scatter")}

    def distances(self, descriptors: Floats) -> Floats:
        """Distance of each organ's descriptor (C, D) to its training cases, (C,); about 1 for more of the same.

        It is the root of the mean squared deviation in standard deviations. NaN for an organ that is not there (a row
        of NaN) or had fewer than two cases.
        """
        if self._degrees < 1:
            return np.full(len(self.count), np.nan)
        count = np.where(self.count >= 2, self.count, np.nan)
        away = (descriptors - self.total / count[:, None]) / self._sd
        squared = np.einsum("ci,ij,cj->c", away, self._precision, away)
        # The mean is uncertain too, all the more the fewer cases there were.
        distance: Floats = np.sqrt(squared / away.shape[1] / (1 + 1 / count))
        return distance

    @property
    def _degrees(self) -> float:
        return float(np.maximum(self.count - 1, 0).sum())

    @cached_property
    def _sd(self) -> Floats:
        variance = np.diag(self.scatter) / self._degrees
        return np.asarray(np.maximum(np.sqrt(variance), LEAST_SD), np.float64)

    @cached_property
    def _precision(self) -> Floats:
        """Inverse of the shrunk correlation."""
        size = len(self.scatter)
        correlation: Floats = np.asarray(self.scatter / self._degrees / np.outer(self._sd, self._sd), np.float64)
        precision: Floats = np.asarray(
            np.linalg.inv(_shrunk(correlation, samples=self._degrees, size=size)), np.float64
        )
        return precision


def _shrunk(correlation: Floats, *, samples: float, size: int) -> Floats:
    """The oracle approximating shrinkage of a covariance of ``samples`` towards a multiple of the identity."""
    trace, square = float(np.trace(correlation)), float((correlation**2).sum())
    below = (samples + 1 - 2 / size) * (square - trace**2 / size)
    share = 1.0 if below <= 0 else min(1.0, ((1 - 2 / size) * square + trace**2) / below)
    shrunk: Floats = (1 - share) * correlation + share * trace / size * np.eye(size)
    return shrunk


def alarm_threshold(distances: Sequence[float], *, false_alarm_rate: float) -> float | None:
    """The distance that a new healthy organ exceeds with at most ``false_alarm_rate``; None if too few are known.

    The order statistic of split conformal prediction (Vovk et al., Algorithmic Learning in a Random World, 2005):
    valid whatever the distribution, if new organs are like those whose ``distances`` are given.
    """
    known = sorted(distance for distance in distances if math.isfinite(distance))
    place = math.ceil((len(known) + 1) * (1 - false_alarm_rate))
    return known[place - 1] if 1 <= place <= len(known) else None


@dataclass(frozen=True, kw_only=True)
class VolumeSums:
    """Volumes of an organ in training cases, as sums of their logarithm.

    Attributes:
        count: Cases in which all of it was seen.
        sum_log, sum_log2: Sums of ln(volume in ml) and of its square.
    """

    count: int = 0
    sum_log: float = 0.0
    sum_log2: float = 0.0

    @classmethod
    def of(cls, volumes_ml: Sequence[float]) -> VolumeSums:
        """Sums of ``volumes_ml``, each above 0."""
        logs = [math.log(volume) for volume in volumes_ml]
        return cls(count=len(logs), sum_log=sum(logs), sum_log2=sum(log * log for log in logs))

    def range_ml(self, *, false_alarm_rate: float, least_cases: int) -> tuple[float, float] | None:
        """What a further volume stays in but for ``false_alarm_rate``, if volumes are log-normal; None for too few.

        The prediction interval of the normal distribution with unknown mean and variance (Student's t).
        """
        if self.count < max(2, least_cases):
            return None
        from scipy.stats import t

        mean = self.sum_log / self.count
        variance = max(0.0, (self.sum_log2 - self.count * mean * mean) / (self.count - 1))
        reach = float(t.ppf(1 - false_alarm_rate / 2, self.count - 1)) * math.sqrt(variance * (1 + 1 / self.count))
        return math.exp(mean - reach), math.exp(mean + reach)


_NEARLY = 1e-3
"""Of a confidence: nearer to 0 or 1 than this, rounding decides its log odds."""


@dataclass(frozen=True, kw_only=True)
class ConfidenceSums:
    """Mean confidences of an organ in scans where it is healthy, as sums of their log odds.

    Attributes:
        count: Scans in which it was found where it is.
        sum_odds, sum_odds2: Sums of the log odds of its mean confidence and of their squares.
    """

    count: int = 0
    sum_odds: float = 0.0
    sum_odds2: float = 0.0

    @classmethod
    def of(cls, confidences: Sequence[float]) -> ConfidenceSums:
        """Sums of ``confidences``; those at the ends count as nearly so."""
        near = [min(max(value, _NEARLY), 1 - _NEARLY) for value in confidences]
        odds = [math.log(value / (1 - value)) for value in near]
        return cls(count=len(odds), sum_odds=sum(odds), sum_odds2=sum(value * value for value in odds))

    def least(self, *, false_alarm_rate: float, least_cases: int) -> float | None:
        """What a further mean is above but for ``false_alarm_rate``, if they are logit-normal; None for too few.

        The one-sided prediction interval with unknown mean and variance (Student's t).
        """
        if self.count < max(2, least_cases):
            return None
        from scipy.stats import t

        mean = self.sum_odds / self.count
        variance = max(0.0, (self.sum_odds2 - self.count * mean * mean) / (self.count - 1))
        reach = float(t.ppf(1 - false_alarm_rate, self.count - 1)) * math.sqrt(variance * (1 + 1 / self.count))
        return 1 / (1 + math.exp(reach - mean))
