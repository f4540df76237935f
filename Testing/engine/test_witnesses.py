"""From cards and pooled features to the merge and the checks, through the whole engine."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from analytic_model import ras_affine, threshold_model

from wbcss.anomaly import ConfidenceSums, OrganReference, VolumeSums
from wbcss.catalogue import catalogue, find
from wbcss.confidence import ConfidenceHead
from wbcss.labels import OrganName, TaskId
from wbcss.loading import LoadedModel, TaskEvidence
from wbcss.segment import SegmentOptions, segment
from wbcss.specs import MergeRules
from wbcss.statistics import organ_statistics
from wbcss.volume import Volume

TORCH = SegmentOptions(backend="torch", describe=True)
ONE, TWO = TaskId("one"), TaskId("two")


def scan(hu: int = 300) -> Volume:
    voxels = np.full((24, 20, 28), -200, np.int16)
    voxels[6:14, 5:15, 8:20] = hu
    return Volume(voxels, ras_affine((3.0, 3.0, 3.0), (10.0, 20.0, 30.0)))


def with_evidence(model: LoadedModel, task: TaskId, evidence: TaskEvidence, **anomaly: Any) -> LoadedModel:
    card = dataclasses.replace(model.cards[task], anomaly=anomaly)
    return dataclasses.replace(model, cards={**model.cards, task: card}, evidence={**model.evidence, task: evidence})


def test_organs_are_described_by_what_the_head_reads() -> None:
    """The one feature of the model is (HU + 1000) / 1000."""
    model = threshold_model({"one": {"liver": 50.0, "spleen": 400.0}})
    found = segment(scan(), model, options=TORCH).descriptors[ONE]
    np.testing.assert_allclose(found[0], [1.3, 0.0], atol=2e-3)
    assert np.isnan(found[1]).all()
    assert segment(scan(), model, options=SegmentOptions(backend="torch")).descriptors == {}


def reference(mean: float) -> OrganReference:
    rng = np.random.default_rng(0)
    return OrganReference.summed([np.array([[mean, 0.01]]) + rng.normal(0, 0.02, (1, 2)) for _ in range(20)])


@pytest.mark.parametrize(("hu", "flagged"), [(300, False), (900, True)])
def test_an_organ_unlike_the_training_data_is_flagged(hu: int, flagged: bool) -> None:
    plain = threshold_model({"one": {"liver": 50.0}})
    model = with_evidence(plain, ONE, TaskEvidence(reference=reference(1.3)), threshold=3.0)
    volume = scan(hu)
    result = segment(volume, model, options=SegmentOptions(backend="torch"))
    rows = organ_statistics(volume, result.labels, result.confidence, result.affine, result.organs, facts=result.facts)
    assert ("unlike_training" in rows[0].flags) == flagged


def test_a_task_whose_organ_is_strange_loses_it_to_one_that_knows_such() -> None:
    plain = threshold_model({"one": {"liver": 50.0}, "two": {"liver": 200.0}})
    volume = scan()
    volume.voxels[14:18, 5:15, 8:20] = 120  # only the first task calls this liver
    label = catalogue()[OrganName("liver")].label

    def size(model: LoadedModel, **rules: Any) -> int:
        options = SegmentOptions(backend="torch", merge=MergeRules(**rules))
        return int((segment(volume, model, options=options).labels == label).sum())

    both = size(plain)
    strange = with_evidence(plain, ONE, TaskEvidence(reference=reference(0.2)), threshold=3.0)
    assert size(strange) < both
    assert size(strange, anomaly_weight=0.0) == both
    result = segment(volume, strange, options=SegmentOptions(backend="torch"))
    assert [c.task for c in result.candidates if c.speaks] == [TWO]
    assert [c.inputs[2] for c in result.candidates] == [3.0, 0.0]
    facts = result.facts[OrganName("liver")]
    assert facts.agreement == pytest.approx(2 * 8 / (8 + 12), abs=0.05)
    assert facts.dispute_ras_mm is not None
    assert 10 + 3 * 14 <= facts.dispute_ras_mm[0] <= 10 + 3 * 18


def test_a_place_of_dispute_is_where_it_is_on_the_callers_grid() -> None:
    plain = threshold_model({"one": {"liver": 50.0}, "two": {"liver": 200.0}})
    volume = scan()
    volume.voxels[14:18, 5:15, 8:20] = 120
    flipped = volume.affine @ np.diag([-1.0, 1, 1, 1])
    flipped[:3, 3] = volume.affine[:3, 3] + volume.affine[:3, 0] * 23
    turned = Volume(volume.voxels[::-1], flipped)
    places = [
        segment(v, plain, options=SegmentOptions(backend="torch")).facts[OrganName("liver")].dispute_ras_mm
        for v in (volume, turned)
    ]
    assert places[0] == pytest.approx(places[1])


def test_a_learned_confidence_replaces_the_softmax_of_organs() -> None:
    plain = threshold_model({"one": {"liver": 50.0}})
    flat = ConfidenceHead(
        torch.zeros(16, 2), torch.zeros(16), torch.zeros(16), torch.zeros(1), torch.tensor([0.0, np.log(3.0)])
    )
    result = segment(scan(), with_evidence(plain, ONE, TaskEvidence(certainty=flat)), options=TORCH)
    before = segment(scan(), plain, options=TORCH)
    np.testing.assert_array_equal(result.labels, before.labels)
    np.testing.assert_allclose(result.confidence[result.labels > 0], 0.75, atol=1e-3)
    np.testing.assert_array_equal(result.confidence[result.labels == 0], before.confidence[result.labels == 0])


def test_the_volume_range_of_the_card_reaches_the_checks() -> None:
    sums = dataclasses.asdict(VolumeSums.of([10.0, 11.0, 12.0, 10.5, 11.5]))
    plain = threshold_model({"one": {"liver": 50.0}})
    model = with_evidence(plain, ONE, TaskEvidence(), volume_ml={"liver": sums})
    volume = scan()
    result = segment(volume, model, options=SegmentOptions(backend="torch"))
    low, high = result.facts[OrganName("liver")].volume_range_ml or (0.0, 0.0)
    assert 5 < low < 10 < 12 < high < 20
    rows = organ_statistics(volume, result.labels, None, result.affine, result.organs, facts=result.facts)
    assert rows[0].volume_ml > 20
    assert "volume_unusual" in rows[0].flags


def test_the_usual_confidence_of_the_card_reaches_the_checks() -> None:
    sums = dataclasses.asdict(ConfidenceSums.of([0.9, 0.91, 0.92, 0.9, 0.91]))
    plain = threshold_model({"one": {"liver": 50.0}})
    card = dataclasses.replace(plain.cards[ONE], confidence={"usual": {"liver": sums}})
    volume = scan()
    result = segment(volume, dataclasses.replace(plain, cards={ONE: card}), options=TORCH)
    least = result.facts[OrganName("liver")].least_confidence
    assert least is not None
    assert 0.85 < least < 0.9
    unsure = np.full(volume.shape, 0.8, np.float16)
    rows = organ_statistics(volume, result.labels, unsure, result.affine, result.organs, facts=result.facts)
    assert "low_confidence" in rows[0].flags
    silent = dataclasses.replace(plain, cards={ONE: dataclasses.replace(card, confidence={"usual": {"liver": {}}})})
    assert segment(volume, silent, options=TORCH).facts[OrganName("liver")].least_confidence is None


def test_numbering_is_repaired_only_when_asked_and_told() -> None:
    names = ("vertebrae_T11", "vertebrae_T12")
    model = threshold_model({"one": {names[0]: 50.0, names[1]: 400.0}})
    voxels = np.full((24, 24, 40), -200, np.int16)
    voxels[8:16, 8:16, 4:12], voxels[8:16, 8:16, 20:28] = 200, 700  # T12 lies above T11
    volume = Volume(voxels, ras_affine((3.0, 3.0, 3.0)))
    plain = segment(volume, model, options=SegmentOptions(backend="torch"))
    rows = organ_statistics(volume, plain.labels, None, plain.affine, plain.organs, facts=plain.facts)
    assert "order_broken" in {flag for row in rows for flag in row.flags}
    mended = segment(volume, model, options=SegmentOptions(backend="torch", repair_numbering=True))
    t11, t12 = (organ.label for organ in find(names))
    assert mended.labels[12, 12, 24] == t11
    assert mended.labels[12, 12, 8] == t12
    assert any("renumbered from vertebrae_T12 to vertebrae_T11" in text for text in mended.report.warnings)
    rows = organ_statistics(volume, mended.labels, None, mended.affine, mended.organs, facts=mended.facts)
    assert [row.flags for row in rows] == [("renumbered",), ("renumbered",)]
