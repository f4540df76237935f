"""Pictures of the worst cases: what is agreed, missed and too much, and who is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tiny_cases
from PIL import Image

from wbcss.labels import OrganName
from wbcss.volume import Volume
from wbcss_training.evaluate import CaseScore
from wbcss_training.metrics import agreement
from wbcss_training.overlays import AGREED, COLORS, EXTRA, MISSED, WorstCases, compare, draw_overlay

LIVER = OrganName("liver")


def volume(affine: npt.NDArray[np.float64] = tiny_cases.AFFINE) -> Volume:
    return Volume(voxels=np.zeros(tiny_cases.SHAPE, np.int16), affine=affine)


def block(i: slice, value: int = 5) -> npt.NDArray[np.uint16]:
    labels = np.zeros(tiny_cases.SHAPE, np.uint16)
    labels[i, 4:12, 4:10] = value
    return labels


def counts(picture: Image.Image) -> dict[int, int]:
    """Pixels of each color as it lies over the gray of 0 HU, legend not counted."""
    gray = round((0 + 160) * 255 / 400 - 0.5)
    pixels = np.asarray(picture).reshape(-1, 3)
    tinted = {kind: np.rint(gray + 0.5 * (np.array(color) - gray)) for kind, color in COLORS.items()}
    return {kind: int((np.abs(pixels - color).max(axis=1) <= 1).sum()) for kind, color in tinted.items()}


def test_every_voxel_is_agreed_missed_or_too_much() -> None:
    reference, found = np.array([[[0, 0, 5, 5, 5]]], np.uint16), np.array([[[0, 5, 5, 0, 6]]], np.uint16)
    assert compare(reference, found).tolist() == [[[0, EXTRA, AGREED, MISSED, MISSED]]]


def test_the_areas_on_the_picture_are_those_of_the_slices() -> None:
    """Of twelve columns of voxels four are missed, four agreed and four too much, in coronal and axial slices."""
    picture = draw_overlay(volume(), compare(block(slice(6, 14)), block(slice(10, 18))), title="t")
    third = picture.width // 3
    for left in (0, 2 * third):  # the sagittal slice between them lies in one of the three
        shown = counts(picture.crop((left, 0, left + third, picture.height)))
        assert shown[AGREED] > 1000
        assert shown[MISSED] == pytest.approx(shown[AGREED], rel=0.08)
        assert shown[EXTRA] == pytest.approx(shown[AGREED], rel=0.08)


def test_equal_labels_have_nothing_missed() -> None:
    shown = counts(draw_overlay(volume(), compare(block(slice(6, 14)), block(slice(6, 14))), title="t"))
    assert shown[AGREED] > 1000
    assert (shown[MISSED], shown[EXTRA]) == (0, 0)


def test_the_patients_right_is_on_the_left_of_the_picture_however_the_grid_lies() -> None:
    missed = compare(block(slice(16, 20)), np.zeros(tiny_cases.SHAPE, np.uint16)) | compare(
        block(slice(4, 16)), block(slice(4, 16))
    )
    flipped_affine = tiny_cases.AFFINE @ np.diag([-1.0, 1, 1, 1])
    flipped_affine[:3, 3] = (tiny_cases.AFFINE @ [tiny_cases.SHAPE[0] - 1, 0, 0, 1])[:3]
    upright = np.asarray(draw_overlay(volume(), missed, title="t"))
    flipped = np.asarray(draw_overlay(volume(flipped_affine), missed[::-1], title="t"))
    np.testing.assert_array_equal(upright, flipped)
    coronal = upright[:, : upright.shape[1] // 3]
    orange = np.flatnonzero((np.abs(coronal - np.array([166, 110, 51])).max(axis=2) <= 2).any(axis=0))
    green = np.flatnonzero((np.abs(coronal - np.array([50, 130, 108])).max(axis=2) <= 2).any(axis=0))
    assert orange.max() <= green.min() + 1  # large i is the patient's right


def test_without_any_organ_the_whole_scan_is_shown() -> None:
    empty = np.zeros(tiny_cases.SHAPE, np.uint8)
    assert counts(draw_overlay(volume(), empty, title="t")) == {AGREED: 0, MISSED: 0, EXTRA: 0}


def test_only_the_worst_cases_keep_a_picture(tmp_path: Path) -> None:
    worst = WorstCases(tmp_path / "overlays", count=2)
    reference = block(slice(6, 14))
    for number, start in enumerate((6, 12, 8, 10), start=1):  # shifts of 0, 6, 2 and 4 voxels
        found = block(slice(start, start + 8))
        score = agreement(found == 5, reference == 5, spacing_mm=(6.0, 6.0, 6.0))
        worst(CaseScore(number=number, organs={LIVER: score}, seconds=0.0), volume(), reference, found)
    assert worst.names == ("case_2.png", "case_4.png")
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == ["case_2.png", "case_4.png"]
    with Image.open(tmp_path / "overlays" / "case_2.png") as picture:
        assert picture.info == {}
