from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from level_model import SPACING_MM, body, level_card, level_model
from tiny_enrollment import registry_with_earlier_task
from tiny_training import write_list

from wbcss.errors import SpecError
from wbcss.io.writing import write_volume
from wbcss.labels import OrganName
from wbcss.loading import LoadedModel
from wbcss.segment import SegmentOptions
from wbcss.volume import Volume
from wbcss_training.cli.main import main
from wbcss_training.layouts import read_case_list
from wbcss_training.levelmeasure import crop, measure_levels

L1, LIVER = OrganName("vertebrae_L1"), OrganName("liver")
PLANES, FIRST_CM = 96, 60.0
OPTIONS = SegmentOptions(device="cpu", backend="torch", threads=1)


def a_model() -> LoadedModel:
    """Finds liver everywhere, and knows that it lies from 75 to 92 cm."""
    model = level_model({"trunk": {"liver": -900.0}}, {"liver": (75.0, 92.0)})
    assert model.levels is not None
    card = level_card({"liver": (75.0, 92.0)}, anchors_cm={L1: 80.0})
    return dataclasses.replace(model, levels=dataclasses.replace(model.levels, card=card))


def a_case(folder: Path) -> Path:
    """A body from 60 to 89 cm; its L1 lies at 78 cm, 2 off, and its liver below 79 cm."""
    volume = body(FIRST_CM, PLANES)
    labels = np.zeros(volume.shape, np.uint8)
    middle = round(PLANES - 1 - (78.0 - FIRST_CM) / 0.3)
    labels[3:5, 3:5, middle - 3 : middle + 4] = 1
    labels[6:9, 6:8, 2:30] = 2
    write_volume(folder / "a.nii.gz", volume.voxels, volume.affine)
    write_volume(folder / "a_seg.nii.gz", labels, volume.affine)
    return write_list(folder, [{"image": "a.nii.gz", "labels": "a_seg.nii.gz"}], organs={"1": str(L1), "2": str(LIVER)})


def test_levels_and_crops_are_measured_against_the_reference(tmp_path: Path) -> None:
    measured = measure_levels(a_model(), read_case_list(a_case(tmp_path)), parts=3, options=OPTIONS)
    (row,) = measured.levels
    assert row.organ == L1
    assert row.told_cm == pytest.approx(78.0, abs=0.5)
    assert row.error_cm == pytest.approx(2.0, abs=0.5)
    lowest, middle, top = measured.crops
    assert [crop.part for crop in measured.crops] == [1, 2, 3]
    assert lowest.absent == (L1,)
    assert middle.absent == (LIVER,)
    assert top.absent == (LIVER, L1)
    # The upper third shows 60 to 69.6 cm: liver everywhere before, nowhere after.
    assert top.false_before == 10 * 8 * PLANES // 3
    assert top.false_after == 0
    # By the reference, whose L1 has a level of 80 cm, it shows 62 to 72 cm; the liver begins at 75.
    assert (top.foreign_before, top.foreign_after) == (10 * 8 * PLANES // 3, 0)
    assert lowest.foreign_before == lowest.foreign_after == 0
    assert top.skipped > 0
    assert lowest.true_before == lowest.true_after == 3 * 2 * 28
    assert lowest.false_before == 0
    summary = measured.summary()
    assert summary["mean_absolute_error_cm"] == round(row.error_cm, 2)
    assert summary["false_voxels_after"] < summary["false_voxels_before"]  # type: ignore[operator]
    text = json.dumps(measured.to_json())
    assert str(tmp_path) not in text


def test_a_reference_that_tells_no_level_calls_nothing_foreign(tmp_path: Path) -> None:
    model = a_model()
    assert model.levels is not None
    card = dataclasses.replace(model.levels.card, anchors_cm={OrganName("brain"): 6.7})
    blind = dataclasses.replace(model, levels=dataclasses.replace(model.levels, card=card))
    measured = measure_levels(blind, read_case_list(a_case(tmp_path)), parts=3, options=OPTIONS)
    assert measured.levels == ()
    assert [crop.foreign_before for crop in measured.crops] == [0, 0, 0]


def test_without_parts_only_levels_are_measured(tmp_path: Path) -> None:
    measured = measure_levels(a_model(), read_case_list(a_case(tmp_path)), parts=0, options=OPTIONS)
    assert len(measured.levels) == 1
    assert measured.summary()["crops"] == 0
    assert measured.summary()["skipped_share"] is None


def test_there_must_be_a_head_to_measure(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="must have a level head to measure; train one with `wbcss-train bodypart`"):
        measure_levels(dataclasses.replace(a_model(), levels=None), [], options=OPTIONS)
    with pytest.raises(SpecError, match="the number of parts must not be negative, got -1"):
        measure_levels(a_model(), [], parts=-1, options=OPTIONS)


@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_stays_in_its_place_in_the_patient(flip: bool, rng: np.random.Generator) -> None:
    voxels = rng.integers(-100, 100, (4, 5, 9)).astype(np.int16)
    affine = np.diag([SPACING_MM, SPACING_MM, -SPACING_MM if flip else SPACING_MM, 1.0])
    affine[:3, 3] = (10.0, 20.0, 300.0)
    labels = np.arange(voxels.size, dtype=np.uint16).reshape(voxels.shape)
    pieces = [crop(Volume(voxels, affine), labels, part, 3) for part in range(3)]
    heights = []
    for volume, part in pieces:
        at = np.argwhere(part == part[1, 2, 1])[0]
        there = volume.affine @ [*at, 1]
        original = affine @ [*np.argwhere(labels == part[1, 2, 1])[0], 1]
        np.testing.assert_allclose(there, original)
        assert volume.voxels[1, 2, 1] == voxels[tuple(np.argwhere(labels == part[1, 2, 1])[0])]
        heights.append(there[2])
    assert heights == sorted(heights)


def test_the_command_asks_for_a_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = registry_with_earlier_task(tmp_path / "registry")
    words = ["levels", "--registry", str(registry.root), "--cases", str(a_case(tmp_path))]
    assert main([*words, "--out", str(tmp_path / "report.json"), "--device", "cpu"]) == 2
    assert "must have a level head to measure" in capsys.readouterr().err
