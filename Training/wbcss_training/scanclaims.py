"""What tasks claim in annotated scans, as the product runs them: how sure they are, and whether they are right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from wbcss.cards import TaskCard
from wbcss.catalogue import catalogue
from wbcss.lesions import is_lesion
from wbcss.loading import LoadedModel
from wbcss.progress import IsCancelled, never
from wbcss.segment import SegmentOptions, segment
from wbcss.volume import LabelMap, Volume

from .annotation import Case, in_model_values, read_case


@dataclass(frozen=True, eq=False)
class ScanClaims:
    """Voxels of a scan that a task gives to an organ, where the case knows whether that is right.

    Attributes:
        confidence: (N,) float64 in [0, 1].
        right: (N,) bool.
        organs: (N,) int64, label values that they are given to.
        present: Label values of annotated organs of which the reference holds a voxel.
        judged: Label values whose every claim can be judged. The others' claims are known where they are wrong, for
            the case draws another organ there, but never where they are right.
    """

    confidence: torch.Tensor
    right: torch.Tensor
    organs: torch.Tensor
    present: frozenset[int]
    judged: frozenset[int]

    @property
    def is_known(self) -> torch.Tensor:
        """(N,) bool: claims of organs that are ``judged``."""
        return torch.isin(self.organs, torch.tensor(sorted(self.judged), dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.right)


@dataclass(frozen=True, eq=False)
class ScanJudge:
    """A case by which a task can be judged.

    Attributes:
        card: Of the task.
        volume: The scan.
        truth: The reference in the label values of the model.
        drawn: Voxels that the reference gives to any organ, lesions aside: a task that calls one something else is
            wrong, even if the case does not annotate that, or the task does not know the organ.
        judged: Label values that the case annotates; one without a voxel only where that means that it is not there.
    """

    card: TaskCard
    volume: Volume
    truth: LabelMap
    drawn: npt.NDArray[np.bool_]
    judged: tuple[int, ...]

    def claims(
        self, model: LoadedModel, *, options: SegmentOptions = SegmentOptions(), cancelled: IsCancelled = never
    ) -> ScanClaims:
        """Run the task alone. Where an organ that the case does not annotate may be, nothing is known: left out."""
        result = segment(self.volume, model, tasks=[self.card.task], options=options, cancelled=cancelled)
        claimed = np.isin(result.labels, self.judged) | (self.drawn & (result.labels > 0))
        labels = result.labels[claimed]
        return ScanClaims(
            confidence=torch.from_numpy(result.confidence[claimed].astype(np.float64)),
            right=torch.from_numpy(labels == self.truth[claimed]),
            organs=torch.from_numpy(labels.astype(np.int64)),
            present=frozenset(np.unique(self.truth).tolist()) & frozenset(self.judged),
            judged=frozenset(self.judged),
        )


def judge(case: Case, card: TaskCard) -> ScanJudge | None:
    """``case`` as a judge of the task; None if it annotates no organ of it. Raises CaseError if it cannot be read."""
    labels = {organ.name: organ.label for organ in card.organs}
    wanted = {value: name for value, name in case.values.items() if name in labels}
    if not wanted:
        return None
    volume, reference = read_case(case)
    truth = in_model_values(reference, wanted, labels)
    present = set(np.unique(truth).tolist())
    own = [labels[name] for name in wanted.values()]
    judged = tuple(label for label in own if case.absent == "background" or label in present)
    organs = catalogue()
    # A lesion lies in an organ, and so may what the catalogue does not know: they contradict nobody.
    apart = [value for value, name in case.values.items() if name in organs and not is_lesion(organs[name])]
    drawn = np.isin(reference, sorted(apart))
    return ScanJudge(card, volume, truth, drawn, judged) if judged else None
