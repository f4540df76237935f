"""What is no CT in Hounsfield units is told, in the warnings of a run and on every organ found in it."""

from __future__ import annotations

import numpy as np
import pytest
from analytic_model import threshold_model

from wbcss.hounsfield import FAT_HU, HIGHEST_AIR_HU, MIN_FAT, doubt_values
from wbcss.labels import OrganName
from wbcss.segment import Segmentation, SegmentOptions, segment
from wbcss.statistics import organ_statistics
from wbcss.volume import Volume, Voxels

SHAPE = (20, 20, 30)
LIVER = OrganName("liver")


def body(low: float, high: float) -> Voxels:
    """Evenly from ``low`` to ``high``."""
    return np.linspace(low, high, int(np.prod(SHAPE))).reshape(SHAPE).astype(np.float32)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (40, 40, "got 40 in every voxel"),
        (0, 1, "undo the scaling"),
        (-1, 1, "undo the scaling"),
        (0, 255, "8-bit picture"),
        (0, 256, "MR, or the intercept"),
        (-15, 800, "0.00% below -20"),
    ],
)
def test_what_is_no_ct_is_said_to_be_none(low: float, high: float, words: str) -> None:
    doubt = doubt_values(body(low, high))
    assert doubt is not None
    assert doubt.is_certain
    assert not doubt.is_air
    assert words in doubt.sentence


def test_a_ct_is_not_doubted_and_one_without_air_only_a_little() -> None:
    assert doubt_values(body(-1024, 1500)) is None
    assert doubt_values(body(HIGHEST_AIR_HU, 1500)) is None
    doubt = doubt_values(body(HIGHEST_AIR_HU + 1, 300))
    assert doubt is not None
    assert not doubt.is_certain
    air = doubt_values(body(-1024, -600))
    assert air is not None
    assert air.is_air


@pytest.mark.parametrize(("share", "is_certain"), [(0.9 * MIN_FAT, True), (1.2 * MIN_FAT, False)])
def test_too_little_fat_is_no_body(share: float, is_certain: bool) -> None:
    voxels = np.full(SHAPE, 40, np.int16)
    voxels.reshape(-1)[: round(share * voxels.size)] = FAT_HU - 80
    doubt = doubt_values(voxels)
    assert doubt is not None
    assert doubt.is_certain is is_certain


def run(voxels: Voxels) -> tuple[Segmentation, tuple[str, ...]]:
    model = threshold_model({"first": {"liver": 50.0}})
    volume = Volume(voxels=voxels, affine=np.diag([3.0, 3.0, 3.0, 1.0]))
    result = segment(volume, model, options=SegmentOptions(backend="torch"))
    (row,) = organ_statistics(
        volume, result.labels, result.confidence, result.affine, result.organs, facts=result.facts
    )
    return result, row.flags


def test_every_organ_of_a_scan_that_is_no_ct_asks_to_be_checked() -> None:
    result, flags = run(body(0, 800))
    assert any("this is an MR" in warning for warning in result.report.warnings)
    assert "values_doubtful" in flags
    assert "MR" not in result.facts[LIVER].values  # the guess is in the warning, the organ says what was found
    assert "from 0 to 800" in result.facts[LIVER].values


def test_a_ct_gets_neither_warning_nor_flag() -> None:
    result, flags = run(body(-1000, 800))
    assert not any("Hounsfield" in warning for warning in result.report.warnings)
    assert "values_doubtful" not in flags


def test_a_crop_without_air_is_warned_of_and_its_organs_are_not_flagged() -> None:
    result, flags = run(body(-150, 800))
    assert any("air lies near -1000" in warning for warning in result.report.warnings)
    assert "values_doubtful" not in flags
