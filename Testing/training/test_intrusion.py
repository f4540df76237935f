"""What an added task changes in organs that it does not know, against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from wbcss.labels import TaskId
from wbcss.merge import TaskPrediction, merge_predictions
from wbcss.specs import MergeRules
from wbcss_training.intrusion import Intrusion, intrusion

NEW = TaskId("new")


def test_each_changed_voxel_is_counted_by_what_the_added_task_says() -> None:
    """One voxel each: background stays, own organ changes, taken when surer, when as sure, when less, unclaimed."""
    before = np.array([0, 7, 1, 1, 1, 1, 0, 1], np.uint16).reshape(2, 2, 2)
    stood = np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9, 0.5], np.float16).reshape(2, 2, 2)
    after = np.array([0, 8, 8, 8, 8, 0, 1, 1], np.uint16).reshape(2, 2, 2)
    claims = np.array([0, 8, 8, 8, 8, 0, 0, 8], np.uint16).reshape(2, 2, 2)
    sure = np.array([0.9, 0.9, 0.75, 0.5, 0.25, 0.9, 0.9, 0.4], np.float16).reshape(2, 2, 2)
    found = intrusion((before, stood), after, TaskPrediction(NEW, 1, claims, sure), known=[7, 8])
    assert found == Intrusion(changed=5, surer=1, as_sure=1, unclaimed=3)
    assert found.outside == 4
    assert found + found == Intrusion(changed=10, surer=2, as_sure=2, unclaimed=6)


@pytest.mark.parametrize("strategy", ["evidence", "most_confident", "last_writer"])
def test_the_counts_equal_a_plain_loop_and_the_product_takes_no_more_than_its_right(
    strategy: str, rng: np.random.Generator
) -> None:
    shape = (6, 5, 4)

    def told(task: str, rank: int, labels: tuple[int, ...]) -> TaskPrediction:
        return TaskPrediction(
            TaskId(task),
            rank,
            rng.choice(np.array([0, *labels], np.uint16), shape),
            rng.integers(4, 9, shape).astype(np.float16) / 8,
        )

    old = [told("a", 0, (1, 2)), told("b", 1, (2, 3))]
    new = told("new", 2, (3, 4))
    rules = MergeRules(strategy=strategy)  # type: ignore[arg-type]
    before, after = merge_predictions(old, rules=rules), merge_predictions([*old, new], rules=rules)[0]
    found = intrusion(before, after, new, known=[3, 4])
    counts = [0, 0, 0, 0]
    for at in np.ndindex(shape):
        if before[0][at] != after[at] and {int(before[0][at]), int(after[at])} & {1, 2}:
            counts[0] += 1
            is_claim = new.labels[at] != 0
            place = 1 if is_claim and new.confidence[at] > before[1][at] else 3
            counts[2 if is_claim and new.confidence[at] == before[1][at] else place] += 1
    assert [found.changed, found.surer, found.as_sure, found.unclaimed] == counts
    assert found.surer > 0
    assert (found.unclaimed == 0) == (strategy != "last_writer")
