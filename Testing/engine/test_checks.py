"""Please check: every rule with a case that it catches and one that it lets pass, and where it sends the reader."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from wbcss.catalogue import find
from wbcss.checks import RULES, Check, CheckRules, Finding, OrganFacts, compare_organs
from wbcss.labels import OrganName
from wbcss.statistics import organ_statistics
from wbcss.volume import Volume

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])


def finding(name: str = "liver", **changes: Any) -> Finding:
    (organ,) = find([name])
    plain = Finding(
        organ=organ,
        volume_ml=100.0,
        mean_confidence=0.9,
        center_ras_mm=(1.0, 2.0, 3.0),
        top_mm=10.0,
        border_ras_mm=None,
        unsure_ras_mm=None,
        pieces_ras_mm=((1.0, 2.0, 3.0),),
    )
    return dataclasses.replace(plain, **changes)


def checks(found: Finding) -> list[Check]:
    return [check for check in (rule(found) for rule in RULES) if check is not None]


def test_an_ordinary_organ_needs_no_check() -> None:
    facts = OrganFacts(anomaly=-0.2, agreement=0.9, volume_range_ml=(50.0, 150.0))
    assert checks(finding(facts=facts)) == []
    assert checks(finding()) == []


@pytest.mark.parametrize(
    ("changes", "flag", "place", "reason"),
    [
        ({"border_ras_mm": (9.0, 0.0, 0.0)}, "touches_border", (9.0, 0.0, 0.0), "reaches the edge of the image"),
        (
            {"mean_confidence": 0.5, "unsure_ras_mm": (4.0, 0.0, 0.0)},
            "low_confidence",
            (4.0, 0.0, 0.0),
            "mean confidence 0.50, below 0.6",
        ),
        (
            {"pieces_ras_mm": ((1.0, 0.0, 0.0), (7.0, 0.0, 0.0))},
            "several_pieces",
            (7.0, 0.0, 0.0),
            "lies in 2 large pieces",
        ),
        (
            {"facts": OrganFacts(anomaly=0.5)},
            "unlike_training",
            (1.0, 2.0, 3.0),
            "1.5 times the usual limit",
        ),
        (
            {"facts": OrganFacts(agreement=0.4, dispute_ras_mm=(5.0, 5.0, 5.0))},
            "decoders_disagree",
            (5.0, 5.0, 5.0),
            "mean Dice 0.40 between them",
        ),
        (
            {"facts": OrganFacts(volume_range_ml=(120.0, 150.0))},
            "volume_unusual",
            (1.0, 2.0, 3.0),
            "has 100.0 ml, where 120.0 to 150.0 ml are usual",
        ),
        (
            {"facts": OrganFacts(renumbered=(OrganName("rib_left_3"),))},
            "renumbered",
            (1.0, 2.0, 3.0),
            "the network said rib_left_3",
        ),
    ],
)
def test_each_rule_gives_its_reason_and_place(
    changes: dict[str, Any], flag: str, place: tuple[float, ...], reason: str
) -> None:
    (check,) = checks(finding(**changes))
    assert (check.flag, check.place_ras_mm) == (flag, place)
    assert reason in check.reason


def test_a_cut_organ_is_not_too_small() -> None:
    facts = OrganFacts(volume_range_ml=(120.0, 150.0))
    assert [c.flag for c in checks(finding(facts=facts, border_ras_mm=(0.0, 0.0, 0.0)))] == ["touches_border"]


def test_what_is_usual_for_an_organ_counts_instead_of_the_rule() -> None:
    known = OrganFacts(least_confidence=0.4)
    assert checks(finding(mean_confidence=0.45, facts=known)) == []
    (check,) = checks(finding(mean_confidence=0.35, facts=known))
    assert check.flag == "low_confidence"
    assert "mean confidence 0.35, usually above 0.4" in check.reason


def test_thresholds_are_those_of_the_rules() -> None:
    strict = CheckRules(low_confidence=0.95)
    assert [c.flag for c in checks(finding(rules=strict))] == ["low_confidence"]


def at(name: str, r: float, s: float = 0.0) -> Finding:
    return finding(name, center_ras_mm=(r, 0.0, s), top_mm=s)


def flags(*findings: Finding) -> dict[str, list[str]]:
    return {str(name): [check.flag for check in found] for name, found in compare_organs(findings).items()}


def test_swapped_sides_are_flagged_on_both() -> None:
    assert flags(at("kidney_right", 50), at("kidney_left", -50)) == {}
    assert flags(at("kidney_right", -50), at("kidney_left", 50)) == {
        "kidney_right": ["wrong_side"],
        "kidney_left": ["wrong_side"],
    }


def test_a_single_kidney_is_compared_with_the_midline() -> None:
    spine = at("vertebrae_L1", 5)
    assert flags(spine, at("kidney_left", -40)) == {}
    assert flags(spine, at("kidney_left", 20)) == {}  # within the tolerance
    assert flags(spine, at("kidney_left", 40)) == {"kidney_left": ["wrong_side"]}
    assert flags(at("kidney_left", 40)) == {}


def test_a_broken_order_of_vertebrae_names_the_culprit_only() -> None:
    order = ["vertebrae_T11", "vertebrae_T12", "vertebrae_L1", "vertebrae_L2"]
    fine = [at(name, 0, 100 - 30 * number) for number, name in enumerate(order)]
    assert flags(*fine) == {}
    lost = [*fine[:3], at("vertebrae_L2", 0, 115)]
    assert flags(*lost) == {"vertebrae_L2": ["order_broken"]}
    (check,) = compare_organs(lost)[OrganName("vertebrae_L2")]
    assert "Vertebra" in check.reason
    assert check.place_ras_mm == (0.0, 0.0, 115.0)


def test_ribs_are_compared_by_their_tops() -> None:
    ribs = [at(f"rib_left_{number}", -80, 300 - 25 * number) for number in (3, 4, 5, 6)]
    assert flags(*ribs) == {}
    swapped = [ribs[0], at("rib_left_5", -80, 200), at("rib_left_4", -80, 175), ribs[3]]
    assert list(flags(*swapped).values()) == [["order_broken"]]


def test_a_lesion_is_measured_with_its_organ_and_stays_its_own() -> None:
    liver, tumor, spleen = find(["liver", "liver_tumor", "spleen"])
    labels = np.zeros((20, 20, 20), np.uint16)
    labels[4:14, 4:14, 4:14] = liver.label
    labels[6:10, 6:10, 6:10] = tumor.label
    labels[15:19, 4:8, 4:8] = spleen.label
    volume = Volume(np.zeros(labels.shape, np.int16), AFFINE)
    rows = organ_statistics(volume, labels, None, AFFINE, (liver, tumor, spleen))
    assert rows[0].lesion_ml == pytest.approx(64 * 0.008)
    assert rows[0].volume_ml == pytest.approx((1000 - 64) * 0.008)
    assert rows[1].voxels == 64
    assert rows[2].lesion_ml == 0


def test_places_are_found_in_the_image() -> None:
    (liver,) = find(["liver"])
    labels = np.zeros((30, 20, 20), np.uint16)
    labels[0:12, 5:15, 5:15] = liver.label
    confidence = np.full(labels.shape, 0.55, np.float16)
    confidence[2, 6, 7] = 0.0
    labels[20:29, 5:14, 5:14] = liver.label
    volume = Volume(np.zeros(labels.shape, np.int16), AFFINE)
    (row,) = organ_statistics(volume, labels, confidence, AFFINE, (liver,))
    places = {check.flag: check.place_ras_mm for check in row.checks}
    assert places["touches_border"] == pytest.approx((0.0, 19.0, 19.0))
    assert places["several_pieces"] == pytest.approx((48.0, 18.0, 18.0))
    doubt = np.where(labels > 0, (1 - confidence.astype(float)) ** 2, 0)
    middle = [float((doubt * index).sum() / doubt.sum()) * 2 for index in np.indices(labels.shape)]
    assert places["low_confidence"] == pytest.approx(middle)
