"""What organs normally look like: sums, thresholds, volumes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wbcss.anomaly import OrganReference
from wbcss.catalogue import find
from wbcss.labels import OrganName, TaskId
from wbcss_training.normality import NormalCase, leave_one_out, normal_case, normality

ORGANS = find(["liver", "spleen"])
TASK = TaskId("belly")


def result(labels: np.ndarray) -> Any:
    return SimpleNamespace(labels=labels, affine=np.diag([10.0, 10.0, 10.0, 1.0]), descriptors={TASK: np.ones((2, 4))})


def test_only_organs_that_were_found_well_are_described_and_only_whole_ones_measured() -> None:
    reference = np.zeros((10, 10, 10), np.uint16)
    reference[2:6, 2:6, 2:6] = 5  # liver, whole
    reference[8:10, 2:6, 2:6] = 1  # spleen, cut by the face
    labels = np.where(reference == 5, 5, 0)
    found = normal_case(result(labels), reference, ORGANS, TASK)
    assert found.descriptors[0].tolist() == [1.0] * 4
    assert np.isnan(found.descriptors[1]).all()
    assert found.volumes_ml == {OrganName("liver"): pytest.approx(64.0)}
    poor = np.zeros_like(labels)
    poor[2:3, 2:6, 2:6] = 5
    assert np.isnan(normal_case(result(poor), reference, ORGANS, TASK).descriptors).all()


def some_cases(rng: np.random.Generator, count: int, shift: float = 0.0) -> list[NormalCase]:
    return [
        NormalCase(rng.normal(shift, 1, (2, 4)), {OrganName("liver"): float(rng.uniform(900, 1500))})
        for _ in range(count)
    ]


def test_the_threshold_is_measured_on_held_out_organs_if_there_are_enough(rng: np.random.Generator) -> None:
    training, held_out = some_cases(rng, 12), some_cases(rng, 15)
    reference, facts = normality(training, held_out, ORGANS)
    assert reference is not None
    distances = sorted(d for case in held_out for d in reference.distances(case.descriptors))
    assert facts["threshold"] == pytest.approx(distances[29], abs=1e-4)  # ceil(31 * 0.95) = 30
    assert (facts["measured_on"], facts["num_organs"], facts["false_alarm_rate"]) == ("held-out cases", 30, 0.05)
    assert facts["volume_ml"]["liver"]["count"] == 27
    assert "spleen" not in facts["volume_ml"]


def test_with_few_held_out_organs_each_training_case_is_compared_with_the_others(rng: np.random.Generator) -> None:
    training = some_cases(rng, 12)
    reference, facts = normality(training, some_cases(rng, 2), ORGANS)
    assert reference is not None
    assert facts["measured_on"] == "each training case against the others"
    plain = [
        OrganReference.summed([c.descriptors for c in training if c is not case]).distances(case.descriptors)
        for case in training
    ]
    assert leave_one_out([case.descriptors for case in training]) == pytest.approx(np.concatenate(plain).tolist())


def test_with_hardly_a_case_nothing_is_called_strange(rng: np.random.Generator) -> None:
    reference, facts = normality(some_cases(rng, 3), [], ORGANS)
    assert reference is None
    assert facts["note"] == "6 organs are too few for a threshold; nothing is called strange"
    assert normality([], some_cases(rng, 2), ORGANS)[0] is None


def test_false_alarms_are_as_rare_as_promised_and_strange_organs_are_found() -> None:
    """Mean over many draws: a single threshold of 30 organs varies."""
    alarms, found = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        reference, facts = normality(some_cases(rng, 12), some_cases(rng, 15), ORGANS)
        assert reference is not None
        healthy = [reference.distances(case.descriptors) > facts["threshold"] for case in some_cases(rng, 10)]
        strange = [reference.distances(c.descriptors) > facts["threshold"] for c in some_cases(rng, 10, shift=3.0)]
        alarms.append(np.mean(healthy))
        found.append(np.mean(strange))
    assert np.mean(alarms) < 0.07
    assert np.mean(found) > 0.8
