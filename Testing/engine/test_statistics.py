"""The organ table: sums, borders, flags and the file."""

from __future__ import annotations

import csv
import errno
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wbcss import statistics
from wbcss.catalogue import Organ, catalogue, find
from wbcss.checks import MANY_BY_NATURE, RULES, Check, Finding
from wbcss.errors import Cancelled, GeometryError, LabelSpaceError, OutputError
from wbcss.labels import OrganName
from wbcss.statistics import COLUMNS, OrganStatistics, organ_statistics, write_statistics_csv
from wbcss.volume import Confidence, LabelMap, Volume

AFFINE = np.array([[0, 2.0, 0, 10], [-1.5, 0, 0, 20], [0, 0, 4.0, -5], [0, 0, 0, 1]])  # voxels of 12 mm3
ORGANS = find(["liver", "spleen", "kidney_left", "teeth_upper"])


def _case(rng: np.random.Generator, order: str = "C") -> tuple[Volume, LabelMap, Confidence]:
    shape = (17, 14, 11)
    labels = np.zeros(shape, np.uint16, order=order)  # type: ignore[call-overload]
    labels[2:9, 3:12, 1:10] = rng.choice([0, 1, 5, 3, 250], (7, 9, 9))
    labels[16, 5, 5] = 3
    voxels = np.asarray(rng.integers(-1000, 3000, shape), np.int16, order=order)  # type: ignore[call-overload]
    confidence = rng.random(shape).astype(np.float16)
    return Volume(voxels, AFFINE), labels, confidence


def _block(organ: Organ, *, confidence: float = 0.9, start: int = 4) -> tuple[Volume, LabelMap, Confidence]:
    """One block of 1000 voxels of 12 mm3 (12 ml)."""
    labels = np.zeros((40, 20, 20), np.uint16)
    labels[start : start + 10, 5:15, 5:15] = organ.label
    volume = Volume(np.full(labels.shape, 40, np.int16), AFFINE)
    return volume, labels, np.full(labels.shape, confidence, np.float16)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("slab_voxels", [1, 500, 1 << 20])
def test_sums_agree_with_one_mask_per_organ(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, order: str, slab_voxels: int
) -> None:
    monkeypatch.setattr(statistics, "_SLAB_VOXELS", slab_voxels)
    volume, labels, confidence = _case(rng, order)
    rows = organ_statistics(volume, labels, confidence, AFFINE, ORGANS[:3])
    assert [row.organ for row in rows] == ["liver", "spleen", "kidney_left"]
    for row, organ in zip(rows, ORGANS, strict=False):
        mask = labels == organ.label
        values = volume.voxels[mask].astype(np.float64)
        border = mask.copy()
        border[1:-1, 1:-1, 1:-1] = False
        assert row.voxels == mask.sum() > 0
        assert row.volume_ml == pytest.approx(mask.sum() * 0.012)
        assert row.mean_hu == pytest.approx(values.mean())
        assert row.sd_hu == pytest.approx(values.std())
        assert row.mean_confidence == pytest.approx(confidence[mask].astype(np.float64).mean())
        assert row.touches_border == bool(border.any())
        assert row.center_ras_mm == pytest.approx(
            tuple(AFFINE[:3, :3] @ np.argwhere(mask).mean(axis=0) + AFFINE[:3, 3])
        )
    assert [row.touches_border for row in rows] == [False, False, True]


def test_the_sd_of_a_constant_organ_is_zero_even_far_from_zero_hu() -> None:
    volume, labels, confidence = _block(ORGANS[0])
    bright = replace(volume, voxels=np.full(labels.shape, 3071.1, np.float32))
    (row,) = organ_statistics(bright, labels, confidence, AFFINE, ORGANS[:1])
    assert row.mean_hu == pytest.approx(3071.1)
    assert row.sd_hu == pytest.approx(0, abs=1e-3)


def test_an_absent_organ_has_a_line_without_values_or_flags() -> None:
    volume, labels, confidence = _block(ORGANS[0])
    rows = organ_statistics(volume, labels, confidence, AFFINE, ORGANS)
    assert rows[1] == OrganStatistics(
        organ=OrganName("spleen"), voxels=0, volume_ml=0.0, mean_hu=None, sd_hu=None, mean_confidence=None,
        touches_border=False,
    )  # fmt: skip


def test_no_organs_give_no_lines() -> None:
    volume, labels, confidence = _block(ORGANS[0])
    assert organ_statistics(volume, labels, confidence, AFFINE, ()) == ()


def test_densities_are_only_given_for_ct_and_confidence_only_if_there_is_one() -> None:
    volume, labels, _ = _block(ORGANS[0])
    (row,) = organ_statistics(replace(volume, modality="MR"), labels, None, AFFINE, ORGANS[:1])
    assert (row.mean_hu, row.sd_hu, row.mean_confidence) == (None, None, None)
    assert row.volume_ml == pytest.approx(12.0)
    assert row.flags == ()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", [0, -1])
def test_every_face_of_the_image_is_a_border(axis: int, end: int) -> None:
    volume, labels, confidence = _block(ORGANS[0])
    np.moveaxis(labels, axis, 0)[end] = ORGANS[0].label
    (row,) = organ_statistics(volume, labels, confidence, AFFINE, ORGANS[:1])
    assert row.touches_border
    assert row.flags[0] == "touches_border"


@pytest.mark.parametrize(("confidence", "flags"), [(0.9, ()), (0.61, ()), (0.59, ("low_confidence",))])
def test_low_confidence_is_flagged(confidence: float, flags: tuple[str, ...]) -> None:
    volume, labels, sure = _block(ORGANS[0], confidence=confidence)
    (row,) = organ_statistics(volume, labels, sure, AFFINE, ORGANS[:1])
    assert row.flags == flags


@pytest.mark.parametrize(
    ("second_piece", "flags"),
    [((10, 10, 3), ("several_pieces",)), ((3, 5, 5), ()), ((2, 5, 5), ())],  # 300, 75 and 50 voxels; 1 ml is 84
)
def test_a_second_large_piece_is_flagged_and_a_crumb_is_not(
    second_piece: tuple[int, int, int], flags: tuple[str, ...]
) -> None:
    volume, labels, confidence = _block(ORGANS[0])
    i, j, k = second_piece
    labels[25 : 25 + i, 5 : 5 + j, 5 : 5 + k] = ORGANS[0].label
    (row,) = organ_statistics(volume, labels, confidence, AFFINE, ORGANS[:1])
    assert row.flags == flags


@pytest.mark.parametrize(
    "name", ["teeth_upper", "carpal_left", "phalanges_hand_right", "soft_tissue_sarcoma", "pulmonary_vein"]
)
def test_what_is_several_by_nature_is_not_flagged(name: str) -> None:
    (organ,) = find([name])
    volume, labels, confidence = _block(organ)
    labels[25:35, 5:15, 5:15] = organ.label
    (row,) = organ_statistics(volume, labels, confidence, AFFINE, [organ])
    assert row.flags == ()


def test_every_organ_named_many_by_nature_is_in_the_catalogue() -> None:
    bare = {"_".join(p for p in organ.name.split("_") if p != organ.side) for organ in catalogue().values()}
    assert bare >= MANY_BY_NATURE


def test_a_rule_can_be_added() -> None:
    def huge(finding: Finding) -> Check | None:
        return Check(flag="huge", reason="is huge") if finding.volume_ml > 11 else None

    volume, labels, confidence = _block(ORGANS[0], confidence=0.1)
    (row,) = organ_statistics(volume, labels, confidence, AFFINE, ORGANS[:1], rules=(*RULES, huge))
    assert row.flags == ("low_confidence", "huge")


def test_memory_does_not_grow_with_the_number_of_organs(rng: np.random.Generator) -> None:
    shape = (96, 96, 96)
    volume = Volume(np.zeros(shape, np.int16), AFFINE)
    confidence = np.ones(shape, np.float16)
    organs = tuple(catalogue().values())

    def peak_bytes(num_organs: int) -> int:
        values = np.array([organ.label for organ in organs[:num_organs]], np.uint16)
        labels = np.zeros(shape, np.uint16)
        labels[...] = values[np.arange(96) % num_organs][:, None, None]
        tracemalloc.start()
        try:
            organ_statistics(volume, labels, confidence, AFFINE, organs[:num_organs])
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few = peak_bytes(2)
    assert peak_bytes(90) < few + 500_000


@pytest.mark.parametrize("which", ["labels", "confidence"])
def test_arrays_of_different_shapes_are_refused(which: str) -> None:
    volume, labels, confidence = _block(ORGANS[0])
    labels, confidence = (labels[1:], confidence) if which == "labels" else (labels, confidence[1:])
    with pytest.raises(GeometryError, match=rf"{which} must have the shape of the image, \(40, 20, 20\), got \(39"):
        organ_statistics(volume, labels, confidence, AFFINE, ORGANS)


def test_two_organs_with_one_label_are_refused() -> None:
    volume, labels, confidence = _block(ORGANS[0])
    twin = replace(ORGANS[0], name=OrganName("liver_again"))
    with pytest.raises(LabelSpaceError, match="'liver' and 'liver_again' share the label value 5"):
        organ_statistics(volume, labels, confidence, AFFINE, [ORGANS[0], twin])


def test_it_stops_when_cancelled() -> None:
    volume, labels, confidence = _block(ORGANS[0])
    with pytest.raises(Cancelled, match="cancelled"):
        organ_statistics(volume, labels, confidence, AFFINE, ORGANS, cancelled=lambda: True)


def test_the_table_reads_back(tmp_path: Path) -> None:
    volume, labels, confidence = _block(ORGANS[0], confidence=0.5)
    labels[30:] = ORGANS[0].label
    path = tmp_path / "case.statistics.csv"
    write_statistics_csv(path, organ_statistics(volume, labels, confidence, AFFINE, ORGANS[:2]))
    with path.open(newline="", encoding="utf-8") as file:
        liver, spleen = csv.DictReader(file)
    assert tuple(liver) == COLUMNS
    assert liver == {
        "organ": "liver", "voxels": "5000", "volume_ml": "60.000", "mean_hu": "40.000", "sd_hu": "0.000",
        "mean_confidence": "0.500", "touches_border": "true", "flags": "touches_border;low_confidence;several_pieces",
        "lesion_ml": "0.000", "reasons": liver["reasons"], "places_ras_mm": liver["places_ras_mm"],
    }  # fmt: skip
    assert len(liver["reasons"].split("; ")) == 3
    assert liver["places_ras_mm"].split(";")[0] == "29.0 -38.5 33.0"  # the middle of the face i = 39
    assert spleen == {
        "organ": "spleen", "voxels": "0", "volume_ml": "0.000", "mean_hu": "", "sd_hu": "", "mean_confidence": "",
        "touches_border": "false", "flags": "", "lesion_ml": "0.000", "reasons": "", "places_ras_mm": "",
    }  # fmt: skip


def test_a_table_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "case.statistics.csv"
    path.write_text("old", encoding="utf-8")

    def full(*args: object, **kwargs: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"case\.statistics\.csv: the disk is full"):
        write_statistics_csv(path, ())
    monkeypatch.undo()
    assert [file.read_text(encoding="utf-8") for file in tmp_path.iterdir()] == ["old"]
