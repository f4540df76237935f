"""Asking a network: how well it finds the organs of a validation, through the product's own segmentation and merge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from wbcss.backend_choice import BackendName
from wbcss.errors import RunError
from wbcss.heads import TaskHead, channel_labels
from wbcss.io.atomic import write_text
from wbcss.labels import OrganName, TaskId
from wbcss.loading import LoadedModel
from wbcss.merge import TaskPrediction, merge_predictions
from wbcss.progress import IsCancelled, never
from wbcss.segment import SegmentOptions

from ..evaluate import evaluate
from ..patches import PatchSource
from ..plan import chosen_cases
from .sequence import Sequence
from .state import Learned, ready_to_run

Scores = Mapping[OrganName, Mapping[str, float | None]]
"""Organ to the means of its metrics: ``dice``, ``hd95_mm``, ``surface_dice`` (null where unknown), and ``count``."""


@dataclass(frozen=True, kw_only=True)
class Examiner:
    """Scores networks of a sequence and keeps every answer in ``folder``, so that no question is asked twice.

    An answer is filed under the SHA-256 of the networks asked and of the question: decoders that did not change since
    an earlier task, on an encoder that did not change, have the same answer, and are shown not to have forgotten.
    """

    sequence: Sequence
    folder: Path
    cache_dir: Path
    device: torch.device
    threads: int | None = None
    cancelled: IsCancelled = never

    def scores(self, learned: Learned, tasks: Iterable[TaskId], index: int) -> Scores:
        """How the decoders ``tasks`` of ``learned`` together do on the validation of the sequence's task ``index``."""
        names = tuple(tasks)
        path = self.folder / f"{self._key(learned, names, index)}.json"
        if path.is_file():
            facts = json.loads(path.read_text(encoding="utf-8"))
            return {OrganName(name): row for name, row in facts.items()}
        found = self._ask(ready_to_run(learned, names), index)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({str(name): dict(row) for name, row in found.items()}, indent=1))
        return found

    def _key(self, learned: Learned, tasks: tuple[TaskId, ...], index: int) -> str:
        """Tasks may share a validation: what is asked for is the same then, and so is the answer."""
        task = self.sequence.tasks[index]
        question: dict[str, Any] = {"validation": dict(task.validation)}
        if task.validation.get("kind") == "patches":
            question |= {"source": dict(task.source), "organs": list(task.organs), "seed": task.train.seed}
        question |= {"overlap": self.sequence.overlap, "backend": self.sequence.backend, "order": tasks}
        text = json.dumps(question, sort_keys=True) + learned.digest(tasks)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _ask(self, model: LoadedModel, index: int) -> Scores:
        validation = self.sequence.tasks[index].validation
        if validation.get("kind") == "cases":
            options = SegmentOptions(
                device=str(self.device),
                backend=cast(BackendName, self.sequence.backend),
                overlap=self.sequence.overlap,
                threads=self.threads,
            )
            result = evaluate(model, chosen_cases(validation), options=options, cancelled=self.cancelled)
            return result.summary()
        if validation.get("kind") == "patches":
            source = self.sequence.validation_patches(index, self.cache_dir)
            return patch_scores(model, source, num_patches=int(validation["count"]), device=self.device)
        raise RunError(f"a validation must be of kind cases or patches, got {validation.get('kind')!r}")


def patch_scores(model: LoadedModel, source: PatchSource, *, num_patches: int, device: torch.device) -> Scores:
    """Dice of every organ over patches 0 .. ``num_patches`` - 1, merged as the product merges, intersections summed.

    Synthetic patches are judged by overlap only: their edges are the atlas's stairs, so surface distances would
    measure those.
    """
    numbers = {organ.name: organ.label for card in model.cards.values() for organ in card.organs}
    lookup = np.array([0, *(numbers.get(organ, 0) for organ in source.organs)], np.uint16)
    size = max(numbers.values(), default=0) + 1
    both, found, true = (np.zeros(size, np.int64) for _ in range(3))
    model.network.to(device)
    for index in range(num_patches):
        patch = source.patch(index)
        labels = lookup[patch.labels.numpy().astype(np.int64)]
        predicted = _merged(model, patch.image, device)
        both += np.bincount(labels[labels == predicted], minlength=size)
        found += np.bincount(predicted.ravel(), minlength=size)
        true += np.bincount(labels.ravel(), minlength=size)
    model.network.cpu()
    return {
        organ: {
            "dice": float(2 * both[label] / (found[label] + true[label])),
            "hd95_mm": None,
            "surface_dice": None,
            "count": num_patches,
        }
        for organ, label in ((organ, numbers.get(organ, 0)) for organ in source.organs)
        if label and true[label]
    }


def _merged(model: LoadedModel, image: torch.Tensor, device: torch.device) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Global labels (I, J, K) of one patch (C, I, J, K): every task's answer, merged."""
    predictions = []
    with torch.inference_mode():
        features = model.network.features(image[None].to(device), list(model.cards))
        for rank, (task, card) in enumerate(model.cards.items()):
            values = channel_labels([organ.label for organ in card.organs])
            head = TaskHead.of(model.network.decoder(task), values, temperature=1.0, device=device)
            rows = features[task][0].permute(1, 2, 3, 0).reshape(-1, features[task].shape[1]).contiguous()
            channel, confidence = head.classify(rows)
            shape = image.shape[1:]
            predictions.append(
                TaskPrediction(
                    task=task,
                    rank=rank,
                    labels=values[channel.cpu().numpy()].reshape(shape),
                    confidence=confidence.cpu().numpy().astype(np.float16).reshape(shape),
                )
            )
    labels, _ = merge_predictions(predictions)
    return labels
