from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from wbcss.errors import Cancelled, LabelSpaceError, SpecError
from wbcss.labels import TaskId
from wbcss.lesions import LesionRules
from wbcss.merge import Merger, TaskPrediction, Witness, merge_predictions
from wbcss.specs import MergeRules, MergeStrategy

SHAPE = (3, 4, 5)
unhurried = settings(deadline=None, max_examples=60)
"""A busy machine must not fail a property."""


def prediction(task: str, rank: int, labels: object, confidence: object) -> TaskPrediction:
    return TaskPrediction(TaskId(task), rank, np.asarray(labels, np.uint16), np.asarray(confidence, np.float16))


def row(task: str, rank: int, labels: list[int], confidence: list[float]) -> TaskPrediction:
    """Voxels along i."""
    return prediction(task, rank, np.reshape(labels, (-1, 1, 1)), np.reshape(confidence, (-1, 1, 1)))


def merged(*predictions: TaskPrediction, rules: MergeRules = MergeRules()) -> tuple[list[int], list[float]]:
    labels, confidence = merge_predictions(predictions, rules=rules)
    return labels.ravel().tolist(), confidence.ravel().tolist()


@st.composite
def some_predictions(draw: st.DrawFn) -> list[TaskPrediction]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = draw(st.sampled_from([2, 5, 1000]))
    found = []
    for rank in range(draw(st.integers(1, 4))):
        organs = [0, *rng.choice(np.arange(1, 7), size=3, replace=False).tolist()]
        labels = rng.choice(organs, size=SHAPE)
        found.append(prediction(f"t{rank}", rank, labels, np.round(rng.random(SHAPE) * steps) / steps))
    return found


some_rules = st.builds(
    MergeRules,
    strategy=st.sampled_from(["evidence", "most_confident", "registry_order"]),
    min_confidence=st.sampled_from([0.0, 0.4, 0.55]),
)


@unhurried
@given(some_predictions(), some_rules, st.randoms())
def test_the_order_of_the_predictions_does_not_matter(predictions, rules, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(predictions)
    random.shuffle(shuffled)
    for one, other in zip(
        merge_predictions(predictions, rules=rules), merge_predictions(shuffled, rules=rules), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@unhurried
@given(some_predictions())
def test_one_task_is_the_identity(predictions: list[TaskPrediction]) -> None:
    labels, confidence = merge_predictions(predictions[:1])
    np.testing.assert_array_equal(labels, predictions[0].labels)
    np.testing.assert_array_equal(confidence, predictions[0].confidence)


@unhurried
@given(some_predictions(), some_rules)
def test_a_voxel_nobody_claims_is_background_and_every_label_was_claimed(
    predictions: list[TaskPrediction], rules: MergeRules
) -> None:
    labels, confidence = merge_predictions(predictions, rules=rules)
    claims = np.stack([p.labels for p in predictions])
    assert (labels[(claims == 0).all(axis=0)] == 0).all()
    assert ((labels == 0) | (claims == labels).any(axis=0)).all()
    assert ((confidence >= 0) & (confidence <= 1)).all()


@unhurried
@given(some_predictions(), some_rules)
def test_an_organ_comes_from_one_task_everywhere(predictions: list[TaskPrediction], rules: MergeRules) -> None:
    labels, confidence = merge_predictions(predictions, rules=rules)
    for organ in np.unique(labels[labels > 0]):
        where = labels == organ
        sources = [
            p
            for p in predictions
            if (p.labels[where] == organ).all() and (p.confidence[where] == confidence[where]).all()
        ]
        assert sources, f"organ {organ} is a patchwork of tasks"


def organs_spoken_for(task: TaskPrediction, predictions: list[TaskPrediction], rules: MergeRules) -> list[int]:
    """Labels that ``task`` decides about, slowly: best summed confidence, or first published, among the confident."""
    owned = []
    for label in np.unique(task.labels[task.labels > 0]):
        scores = {}
        for other in sorted(predictions, key=lambda p: p.rank):
            claimed = other.confidence[other.labels == label].astype(np.float64)
            if len(claimed) and claimed.mean() >= rules.min_confidence:
                scores[other.task] = 1.0 if rules.strategy == "registry_order" else claimed.sum()
        if scores and max(scores, key=lambda name: scores[name]) == task.task:
            owned.append(int(label))
    return owned


@unhurried
@given(some_predictions(), some_rules, st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_raising_a_tasks_confidence_never_loses_it_voxels(
    predictions: list[TaskPrediction], rules: MergeRules, number: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    number %= len(predictions)
    old = predictions[number]
    raised = np.where((old.labels > 0) & (rng.random(SHAPE) < 0.5), rng.random(SHAPE), 0)
    better = prediction(old.task, old.rank, old.labels, np.maximum(old.confidence, raised))
    before, _ = merge_predictions(predictions, rules=rules)
    after, _ = merge_predictions([*predictions[:number], better, *predictions[number + 1 :]], rules=rules)
    # A voxel is the task's own where its claim was written, not where another task's equal claim was.
    own = np.isin(old.labels, organs_spoken_for(old, predictions, rules)) & (before == old.labels)
    assert (after[own] == old.labels[own]).all()


@unhurried
@given(some_predictions(), some_rules)
def test_merging_plane_by_plane_equals_merging_the_whole(predictions: list[TaskPrediction], rules: MergeRules) -> None:
    labels, confidence = np.zeros(SHAPE, np.uint16), np.ones(SHAPE, np.float16)
    merger = Merger(
        labels.transpose(2, 0, 1)[::-1],
        confidence.transpose(2, 0, 1)[::-1],
        organs={p.task: range(1, 7) for p in predictions},
        ranks={p.task: p.rank for p in predictions},
        rules=rules,
    )
    for k in range(SHAPE[2]):
        parts = [
            prediction(p.task, p.rank, p.labels[:, :, k][None], p.confidence[:, :, k][None])
            for p in reversed(predictions)
        ]
        merger.write((slice(SHAPE[2] - 1 - k, SHAPE[2] - k), slice(0, SHAPE[0]), slice(0, SHAPE[1])), parts)
    merger.finish()
    expected = merge_predictions(predictions, rules=rules)
    np.testing.assert_array_equal(labels, expected[0])
    np.testing.assert_array_equal(confidence, expected[1])


@unhurried
@given(some_predictions(), some_rules)
def test_a_new_task_changes_other_organs_only_where_it_claims_more_confidently(
    predictions: list[TaskPrediction], rules: MergeRules
) -> None:
    new = predictions[-1]
    known = {int(label) for label in np.unique(new.labels)}
    if len(predictions) == 1:
        return
    before, sure = merge_predictions(predictions[:-1], rules=rules)
    after, _ = merge_predictions(predictions, rules=rules)
    for organ in set(np.unique(np.stack([before, after])).tolist()) - known - {0}:
        changed = (before == organ) != (after == organ)
        assert (before[changed] == organ).all(), "an organ that the new task does not know has grown"
        assert (new.labels[changed] > 0).all()
        assert (new.confidence[changed] >= sure[changed]).all()


def test_an_organ_does_not_spread_where_a_former_owner_of_its_neighbor_held_it_off() -> None:
    """The old task held the liver 5 off voxel 1 with its spleen 7; the new spleen is elsewhere, the liver stays."""
    old = row("old", 0, [7, 7, 0, 0], [0.75, 0.75, 1.0, 1.0])
    liver = row("liver", 1, [0, 5, 5, 0], [1.0, 0.5, 0.5, 1.0])
    new = row("new", 2, [7, 0, 0, 7], [1.0, 1.0, 1.0, 1.0])
    assert merged(old, liver)[0] == [7, 7, 5, 0]
    assert merged(old, liver, new)[0] == [7, 0, 5, 7]
    late = row("late", 3, [0, 6, 0, 0], [1.0, 0.5, 1.0, 1.0])  # came after the old spleen was gone
    assert merged(old, liver, new, late)[0] == [7, 6, 5, 7]


@unhurried
@given(some_predictions())
def test_no_shared_organ_has_more_pieces_than_its_owners_claim_cut_by_surer_organs(
    predictions: list[TaskPrediction],
) -> None:
    """With one organ only nothing cuts, so the pieces are exactly those of one task; voxelwise merges break this."""
    alone = [prediction(p.task, p.rank, np.where(p.labels > 0, 7, 0), p.confidence) for p in predictions]
    labels, _ = merge_predictions(alone)
    pieces = [ndimage.label(p.labels == 7)[1] for p in alone]
    assert ndimage.label(labels == 7)[1] in pieces


def test_voxelwise_maximum_chequers_where_the_organwise_decision_does_not() -> None:
    claims = [7] * 6
    one = row("one", 0, [7, 7, 0, 0, 7, 0], [0.75, 0.75, 0.25, 0.25, 0.75, 0.25])
    other = row("other", 1, claims, [0.5] * 6)
    assert merged(one, other)[0] == claims
    two = row("two", 1, [0, 0, 8, 8, 8, 8], [0.5] * 6)
    assert merged(one, two, rules=MergeRules(strategy="max_confidence"))[0] == [7, 7, 8, 8, 7, 8]


@pytest.mark.parametrize(
    ("strategy", "labels", "confidence"),
    [
        ("last_writer", [2, 2, 1, 0], [0.25, 0.5, 0.5, 0.5]),
        ("fixed_priority", [1, 2, 1, 0], [0.75, 0.5, 0.5, 0.5]),
        ("max_confidence", [1, 2, 1, 0], [0.75, 0.5, 0.5, 0.5]),
    ],
)
def test_the_baselines_settle_every_voxel_by_itself(
    strategy: MergeStrategy, labels: list[int], confidence: list[float]
) -> None:
    first = row("first", 0, [1, 0, 1, 0], [0.75, 0.25, 0.5, 0.5])
    second = row("second", 1, [2, 2, 0, 0], [0.25, 0.5, 1.0, 0.75])
    for pair in permutations([first, second]):
        assert merged(*pair, rules=MergeRules(strategy=strategy)) == (labels, confidence)


def with_witnesses(
    *predictions: TaskPrediction, witnesses: dict[tuple[str, int], Witness], rules: MergeRules = MergeRules()
) -> tuple[list[int], Merger]:
    labels, confidence = np.zeros((len(predictions[0].labels), 1, 1), np.uint16), np.ones((4, 1, 1), np.float16)
    merger = Merger(
        labels,
        confidence[: len(labels)],
        organs={p.task: [1, 7, 9] for p in predictions},
        ranks={p.task: p.rank for p in predictions},
        rules=rules,
        lesions=LesionRules(hosts={9: frozenset({7})}, pathological={TaskId("b"): frozenset({7})}, smallest_voxels=2),
    )
    merger.write((slice(None), slice(None), slice(None)), predictions)
    merger.finish(witnesses={(TaskId(task), label): witness for (task, label), witness in witnesses.items()})
    return labels.ravel().tolist(), merger


def test_an_organ_unlike_the_training_data_goes_to_the_other_task() -> None:
    a, b = row("a", 0, [7, 7, 7], [1.0] * 3), row("b", 1, [7, 7, 0], [0.75] * 3)
    assert with_witnesses(a, b, witnesses={})[0] == [7, 7, 7]
    assert with_witnesses(a, b, witnesses={("a", 7): Witness(anomaly=-0.5)})[0] == [7, 7, 7]
    assert with_witnesses(a, b, witnesses={("a", 7): Witness(anomaly=3.0)})[0] == [7, 7, 0]
    assert with_witnesses(a, b, witnesses={("a", 7): Witness(gate=0.0)})[0] == [7, 7, 7]
    assert with_witnesses(a, b, witnesses={("a", 7): Witness(gate=0.0, anomaly=1.0)})[0] == [7, 7, 0]


def test_a_touching_lesion_gives_the_organ_to_the_task_that_has_seen_such() -> None:
    """The lesion keeps its voxels; the organ is that of the decoder trained with lesions."""
    healthy = row("a", 0, [7, 7, 7, 0], [1.0, 1.0, 0.75, 1.0])
    with_lesion = row("b", 1, [7, 7, 9, 9], [0.75, 0.75, 1.0, 0.75])
    assert with_witnesses(healthy, with_lesion, witnesses={})[0] == [7, 7, 9, 9]
    _, merger = with_witnesses(healthy, with_lesion, witnesses={})
    found = {c.task: c for c in merger.candidates() if c.label == 7}
    assert (found[TaskId("a")].inputs[4], found[TaskId("b")].inputs[4]) == (0.0, 1.0)
    assert not found[TaskId("a")].speaks
    assert found[TaskId("b")].speaks
    assert found[TaskId("a")].inputs[3] == pytest.approx(2 * 2 / (3 + 2))


def test_a_lesion_too_small_or_too_far_away_decides_nothing() -> None:
    healthy = row("a", 0, [7, 7, 7, 0], [1.0] * 4)
    small = row("b", 1, [7, 7, 9, 0], [0.75, 0.75, 0.5, 1.0])
    _, merger = with_witnesses(healthy, small, witnesses={})
    assert [c.speaks for c in merger.candidates() if c.label == 7] == [True, False]
    far = row("b", 1, [7, 0, 9, 9], [0.75] * 4)
    _, merger = with_witnesses(row("a", 0, [7, 0, 0, 0], [1.0] * 4), far, witnesses={})
    assert [c.speaks for c in merger.candidates() if c.label == 7] == [True, False]


def test_where_tasks_disagree_is_told() -> None:
    a, b = row("a", 0, [7, 7, 7, 7], [1.0] * 4), row("b", 1, [7, 0, 0, 0], [1.0] * 4)
    _, merger = with_witnesses(a, b, witnesses={})
    dispute = merger.disputes()[7]
    assert dispute.voxels == 3
    assert dispute.ijk == (2, 0, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategy": "vote"}, "strategy must be one of evidence, .*, got 'vote'"),
        ({"min_confidence": 2.0}, r"min_confidence must be in \[0, 1\], got 2\.0"),
        ({"confidence_weight": -1.0}, r"confidence_weight must be a number of at least 0, got -1\.0"),
        ({"lesion_mm3": float("nan")}, "lesion_mm3 must be a number of at least 0, got nan"),
        ({"bias": float("inf")}, "bias must be a number, got inf"),
    ],
)
def test_rules_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        MergeRules(**values)


def test_a_shared_organ_goes_as_a_whole_to_the_task_surer_over_the_union() -> None:
    """Voxel by voxel the second task would win the third voxel and the organ would chequer."""
    first = row("first", 0, [7, 7, 7, 0], [0.75, 0.75, 0.5, 0.5])
    second = row("second", 1, [0, 7, 7, 0], [0.25, 0.5, 1.0, 0.75])
    assert merged(first, second) == ([7, 7, 7, 0], [0.75, 0.75, 0.5, 0.5])


def test_a_task_that_sees_a_sure_part_does_not_take_the_organ() -> None:
    whole = row("whole", 0, [7, 7, 7, 7], [0.75] * 4)
    part = row("part", 1, [7, 0, 0, 0], [1.0, 1.0, 1.0, 1.0])
    assert merged(whole, part)[0] == [7, 7, 7, 7]


def test_voxels_that_only_the_losing_task_claimed_are_background_as_the_winner_says() -> None:
    winner = row("winner", 0, [7, 7, 0], [1.0, 1.0, 0.75])
    loser = row("loser", 1, [0, 7, 7], [1.0, 0.5, 0.5])
    assert merged(winner, loser) == ([7, 7, 0], [1.0, 1.0, 0.75])


def test_registry_order_gives_a_shared_organ_to_the_task_published_first() -> None:
    late = row("late", 5, [7, 7], [1.0, 1.0])
    early = row("early", 2, [7, 0], [0.25, 0.5])
    assert merged(late, early, rules=MergeRules(strategy="registry_order")) == ([7, 0], [0.25, 0.5])


def test_two_organs_on_a_voxel_the_surer_claim_wins() -> None:
    assert merged(row("a", 0, [1, 1], [0.75, 0.25]), row("b", 1, [2, 2], [0.5, 0.5])) == ([1, 2], [0.75, 0.5])


def test_equally_sure_claims_go_to_the_smaller_organ_then_to_the_smaller_label() -> None:
    large = row("a", 0, [1, 1, 1], [0.5, 0.5, 0.5])
    small = row("b", 1, [2, 0, 0], [0.5, 0.5, 0.5])
    assert merged(large, small)[0] == [2, 1, 1]
    assert merged(row("a", 0, [3, 0], [0.5, 0.5]), row("b", 1, [2, 0], [0.5, 0.5]))[0] == [2, 0]


def test_a_task_too_unsure_of_an_organ_does_not_compete_for_it() -> None:
    rules = MergeRules(min_confidence=0.5)
    unsure = row("a", 0, [7, 7, 8], [0.25, 0.5, 1.0])
    sure = row("b", 1, [7, 0, 0], [0.75, 0.25, 0.25])
    assert merged(unsure, sure, rules=rules) == ([7, 0, 8], [0.75, 0.25, 1.0])
    assert merged(unsure, rules=rules) == ([0, 0, 8], [0.0, 0.0, 1.0])


def test_an_unclaimed_voxel_is_as_sure_as_the_least_sure_task() -> None:
    assert merged(row("a", 0, [0], [0.75]), row("b", 1, [0], [0.5])) == ([0], [0.5])


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_three_tasks_with_chained_claims_settle_the_same_in_every_order(order: tuple[int, ...]) -> None:
    tasks = [
        row("a", 0, [1, 2, 3], [0.5, 0.5, 0.5]),
        row("b", 1, [2, 3, 1], [0.5, 0.5, 0.5]),
        row("c", 2, [3, 1, 2], [0.5, 0.5, 0.5]),
    ]
    assert merged(*(tasks[n] for n in order))[0] == [1, 2, 3]


def test_wrong_predictions_are_refused_with_what_came() -> None:
    with pytest.raises(LabelSpaceError, match="at least one prediction must be given, got none"):
        merge_predictions([])
    with pytest.raises(LabelSpaceError, match=r"must say something once, got a, a"):
        merged(row("a", 0, [1], [0.5]), row("a", 0, [1], [0.5]))
    with pytest.raises(LabelSpaceError, match=r"task 'a' must have one shape, got \(1, 1, 1\) and \(2, 1, 1\)"):
        prediction("a", 0, np.zeros((1, 1, 1)), np.zeros((2, 1, 1)))


def test_a_label_that_was_not_announced_is_refused() -> None:
    labels, confidence = np.zeros(SHAPE, np.uint16), np.ones(SHAPE, np.float16)
    organs = {TaskId("a"): [1], TaskId("b"): [1]}
    merger = Merger(labels, confidence, organs=organs, ranks={TaskId("a"): 0, TaskId("b"): 1}, rules=MergeRules())
    full = [prediction(task, 0, np.full(SHAPE, 9), np.ones(SHAPE)) for task in ("a", "b")]
    with pytest.raises(LabelSpaceError, match="task 'a' must claim labels that it announced, got 9"):
        merger.write((slice(None), slice(None), slice(None)), full)


def test_finishing_stops_when_cancelled() -> None:
    labels, confidence = np.zeros((2, 1, 1), np.uint16), np.ones((2, 1, 1), np.float16)
    tasks = {TaskId("a"): [7], TaskId("b"): [7]}
    merger = Merger(labels, confidence, organs=tasks, ranks={TaskId("a"): 0, TaskId("b"): 1}, rules=MergeRules())
    both = [row("a", 0, [7, 7], [0.5, 0.5]), row("b", 1, [7, 7], [0.5, 0.5])]
    merger.write((slice(0, 2), slice(0, 1), slice(0, 1)), both)
    with pytest.raises(Cancelled):
        merger.finish(lambda: True)
