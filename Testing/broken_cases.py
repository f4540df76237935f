"""Case folders that cannot be learned from: over thirty ways, each with its kind and what the report must say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
import tiny_cases
from tiny_cases import AFFINE, SHAPE, hu, labels, write_list

from wbcss.io.writing import write_volume

Arguments = Sequence["str | Path"]
FIRST = "smith_0.nii.gz"
FIRST_LABELS = "smith_0_seg.nii.gz"


@dataclass(frozen=True)
class BrokenCases:
    """One way in which cases are broken.

    Attributes:
        what: The mistake in words.
        make: Makes it in an empty folder and returns what follows ``wbcss-train check --cases``.
        kind: Kind of the error that the report must hold; "" where the list cannot be read at all.
        says: A regular expression that the finding, or the one line, must match; it quotes the offending value.
    """

    what: str
    make: Callable[[Path], Arguments]
    kind: str
    says: str


def _with_image(fill: Callable[[Path], object], name: str = FIRST) -> Callable[[Path], Arguments]:
    """Three good cases, but ``fill`` writes the first image anew."""

    def make(folder: Path) -> Arguments:
        entries = tiny_cases.write_pairs(folder)
        (folder / FIRST).unlink()
        fill(folder / name)
        entries[0]["image"] = name
        return [write_list(folder, entries)]

    return make


def _with_labels(fill: Callable[[Path], object], **changes: Any) -> Callable[[Path], Arguments]:
    """Three good cases, but ``fill`` writes the first label map anew."""

    def make(folder: Path) -> Arguments:
        entries = tiny_cases.write_pairs(folder)
        (folder / FIRST_LABELS).unlink()
        fill(folder / FIRST_LABELS)
        return [write_list(folder, entries, **changes)]

    return make


def _with_list(*options: str, **changes: Any) -> Callable[[Path], Arguments]:
    """Three good cases in a list with other facts."""
    return lambda folder: [write_list(folder, **changes), *options]


def _with_dataset(
    write: Callable[..., Path], change: Callable[[Path], object] = lambda folder: None, **changes: Any
) -> Callable[[Path], Arguments]:
    """A folder in another layout, changed once it is there."""

    def make(folder: Path) -> Arguments:
        dataset = write(folder / "data", **changes)
        change(dataset)
        return [dataset]

    return make


def _text(path: Path) -> None:
    path.write_text("Dear colleague, please find enclosed the CT.\n")


def _cut(path: Path) -> None:
    write_volume(path, hu(), AFFINE)
    path.write_bytes(path.read_bytes()[:3000])


def _voxels(array: Callable[[], Any], affine: Any = AFFINE) -> Callable[[Path], None]:
    return lambda path: write_volume(path, array(), affine)


def _nifti(array: Callable[[], Any], affine: Any = AFFINE) -> Callable[[Path], None]:
    """For what the product's own writer refuses to write."""
    return lambda path: nibabel.save(nibabel.Nifti1Image(array(), affine), path)


def _color(path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((4, 4, 4, 3), np.uint8), isVector=True), str(path))


def _nan() -> Any:
    voxels = hu().astype(np.float32)
    voxels[3, 4, 5] = np.nan
    return voxels


def _sheared() -> Any:
    affine = AFFINE.copy()
    affine[0, 1] = 2.0
    return affine


def _shifted() -> Any:
    affine = AFFINE.copy()
    affine[1, 3] += 7.0
    return affine


def _scaled(low: float, high: float) -> Callable[[], Any]:
    def make() -> Any:
        voxels = hu().astype(np.float32)
        voxels = (voxels - voxels.min()) / (voxels.max() - voxels.min())
        return low + (high - low) * voxels

    return make


def _changed_labels(value: float, where: Any = (slice(5, 7), 5, 5)) -> Callable[[], Any]:
    def make() -> Any:
        values = labels().astype(np.float32)
        values[where] = value
        return values if value % 1 else values.astype(np.uint8)

    return make


def _swapped() -> Any:
    return np.array([0, 2, 1, 3], np.uint8)[labels()]


def _beside_the_body() -> Any:
    values = labels()
    values[values == 3] = 0
    values[0] = 3
    return values


def _contradiction(folder: Path) -> Arguments:
    entries = tiny_cases.write_pairs(folder)
    shutil.copy(folder / FIRST, folder / "smith_1.nii.gz")
    write_volume(folder / "smith_1_seg.nii.gz", np.roll(labels(), 1, axis=2), AFFINE)
    return [write_list(folder, entries)]


def _empty_everywhere(folder: Path) -> Arguments:
    entries = tiny_cases.write_pairs(folder)
    for entry in entries:
        write_volume(folder / entry["labels"], np.where(labels() == 3, 0, labels()).astype(np.uint8), AFFINE)
    return [write_list(folder, entries)]


def _outside_path(folder: Path) -> None:
    facts = json.loads((folder / "dataset.json").read_text())
    facts["training"][0]["image"] = "../../etc/passwd.nii.gz"
    (folder / "dataset.json").write_text(json.dumps(facts))


def _segmentation(segments: Callable[[], Mapping[str, Any]], *, in_layers: bool = False) -> Callable[[Path], None]:
    return lambda folder: tiny_cases.save_segmentation(folder / "c_0.seg.nrrd", segments(), in_layers=in_layers)


def _overlapping() -> dict[str, Any]:
    segments = tiny_cases.masks()
    return {**segments, "Liver": segments["Liver"] | segments["Kidney_R"]}


def _two_livers() -> dict[str, Any]:
    segments = tiny_cases.masks()
    return {"Liver": segments["Left kidney"], "liver": segments["Liver"]}


def _plain_nrrd(folder: Path) -> None:
    write_volume(folder / "c_0.nrrd", labels(), AFFINE)
    (folder / "c_0.nrrd").rename(folder / "c_0.seg.nrrd")


def _two_values(folder: Path) -> None:
    write_volume(folder / "s0000/segmentations/liver.nii.gz", labels(), AFFINE)


def _list_of(text: str) -> Callable[[Path], Arguments]:
    def make(folder: Path) -> Arguments:
        (folder / "list.json").write_text(text)
        return [folder / "list.json"]

    return make


_NNUNET, _DECATHLON = tiny_cases.write_nnunet, tiny_cases.write_decathlon
_TOTAL, _SLICER = tiny_cases.write_totalsegmentator, tiny_cases.write_segmentations

BROKEN_CASES = (
    BrokenCases("image is a text", _with_image(_text), "image_unreadable", "case 1.*the image: .*NIfTI"),
    BrokenCases("image cut short", _with_image(_cut), "image_unreadable", "the image: .*(truncated|damaged)"),
    BrokenCases(
        "image with a fourth dimension",
        _with_image(_nifti(lambda: np.stack([hu()] * 5, axis=3))),
        "image_not_3d",
        "3 dimensions.* 24x18x14x5",
    ),
    BrokenCases("image in color", _with_image(_color, "smith_0.nrrd"), "image_not_3d", "got 3 .color or vector"),
    BrokenCases("image with a NaN", _with_image(_nifti(_nan)), "image_not_finite", "got 1 of 6048 that are NaN"),
    BrokenCases(
        "image on a sheared grid",
        _with_image(_nifti(hu, _sheared())),
        "image_geometry",
        "sheared by 18",
    ),
    BrokenCases(
        "spacing in meters",
        _with_image(_nifti(hu, np.diag([0.006, 0.006, 0.006, 1]))),
        "image_geometry",
        "spacing must be 0.01 to 100 mm, got 0.006x0.006x0.006",
    ),
    BrokenCases(
        "scan of five meters",
        _with_image(_nifti(lambda: np.repeat(hu(), 4, axis=2), np.diag([6, 6, 90.0, 1]))),
        "image_geometry",
        "at most 4000 mm .*got 5040 mm",
    ),
    BrokenCases(
        "an 8-bit picture", _with_image(_voxels(_scaled(0, 255))), "image_not_hu", "from 0 to 255, .*; this is an 8"
    ),
    BrokenCases(
        "stored values without the intercept",
        _with_image(_voxels(lambda: hu() + np.int16(1024))),
        "image_not_hu",
        r"got values from \d+ to 10\d\d, .*; this is an MR, or the intercept",
    ),
    BrokenCases("image scaled to 0..1", _with_image(_voxels(_scaled(0, 1))), "image_not_hu", "from 0 to 1; undo"),
    BrokenCases(
        "an MR with a little ringing",
        _with_image(_voxels(_scaled(-15, 800))),
        "image_not_hu",
        "0.00% below -20, .*; this is no CT",
    ),
    BrokenCases(
        "image with one value",
        _with_image(_voxels(lambda: np.full(SHAPE, 40, np.int16))),
        "image_not_hu",
        "got 40 in every voxel; the image shows nothing",
    ),
    BrokenCases(
        "image of air",
        _with_image(_voxels(lambda: hu() - np.int16(1000))),
        "image_without_body",
        "to -9[0-9][0-9], which is air",
    ),
    BrokenCases(
        "dataset of MR", _with_dataset(_NNUNET, channel_names={"0": "MRI"}), "image_not_ct", "a channel called 'MRI'"
    ),
    BrokenCases("labels are a text", _with_labels(_text), "labels_unreadable", "the labels: .*NIfTI"),
    BrokenCases(
        "labels with fractions",
        _with_labels(_voxels(_changed_labels(1.5))),
        "labels_not_whole",
        "whole numbers.*got 1.5",
    ),
    BrokenCases(
        "labels of another shape",
        _with_labels(_voxels(lambda: labels()[:, :, 1:])),
        "labels_geometry",
        r"got \(24, 18, 14\) and \(24, 18, 13\) voxels \(the labels\)",
    ),
    BrokenCases(
        "labels in another place", _with_labels(_voxels(labels, _shifted())), "labels_geometry", "differ by 7 mm"
    ),
    BrokenCases(
        "a value nobody declared",
        _with_labels(_voxels(_changed_labels(9))),
        "labels_undeclared",
        r"declared values 1, 2, 3 only, got 9 \(2 voxels\)",
    ),
    BrokenCases(
        "labels without a voxel",
        _with_labels(_voxels(lambda: np.zeros(SHAPE, np.uint8)), absent="unknown"),
        "nothing_annotated",
        "case 1.*a voxel of an organ that is learned, got none",
    ),
    BrokenCases(
        "an organ that is drawn nowhere", _empty_everywhere, "organ_nowhere", "liver must have a voxel .*got none in 3"
    ),
    BrokenCases(
        "left and right swapped",
        _with_labels(_voxels(_swapped)),
        "sides_swapped",
        "kidney_left must lie to the left of kidney_right, got it 60.0 mm to the right",
    ),
    BrokenCases(
        "labels in the air",
        _with_labels(_voxels(_beside_the_body)),
        "organ_outside_body",
        "liver must lie in the body, got 100% of its voxels in the air",
    ),
    BrokenCases(
        "one image with two opinions",
        _contradiction,
        "duplicate_image",
        "case 2.*image of case 1 again with other labels",
    ),
    BrokenCases(
        "a mask with two organs",
        _with_dataset(_TOTAL, _two_values),
        "labels_undeclared",
        "0 and one other value, got 0, 1, 2, 3 in the mask of liver",
    ),
    BrokenCases(
        "segments that overlap",
        _with_dataset(_SLICER, _segmentation(_overlapping, in_layers=True)),
        "labels_overlap",
        "'Segment_3' shares 80 voxels with other segments.*save it without overlap",
    ),
    BrokenCases(
        "a segment twice", _with_dataset(_SLICER, _segmentation(_two_livers)), "", "'Liver' and 'liver' for liver"
    ),
    BrokenCases(
        "segments without names", _with_dataset(_SLICER, _plain_nrrd), "", "c_0.seg.nrrd must name its segments"
    ),
    BrokenCases("no such path", lambda folder: [folder / "gone"], "", "gone: it does not exist"),
    BrokenCases("a folder of nothing", lambda folder: [folder], "", "a folder of cases must hold .*; got nothing in"),
    BrokenCases("a list that is no JSON", _list_of("liver, spleen"), "", "expected a JSON list of cases"),
    BrokenCases("a list of numbers", _list_of("[1, 2]"), "", "in a JSON object, got a list"),
    BrokenCases(
        "image that is not there",
        _with_list(cases=[{"image": "gone.nii.gz", "labels": FIRST_LABELS}]),
        "",
        "list.json names gone.nii.gz, which is not there",
    ),
    BrokenCases("a misspelt organ", _with_list(organs={"1": "livr"}), "", r"lacks: 'livr' \(near: liver.*NAME=ORGAN"),
    BrokenCases(
        "one organ under two names",
        _with_list(organs={"1": "liver", "2": "Liver"}),
        "",
        "'liver' and 'Liver' for liver",
    ),
    BrokenCases(
        "an organ without a side", _with_list(organs={"1": "kidney"}), "", "'kidney' .near: kidney_left, kidney_r"
    ),
    BrokenCases("a value of nothing", _with_list(organs={"0": "liver"}), "", "a whole number above 0, got '0'"),
    BrokenCases(
        "an organ that the cases lack", _with_list("--organs", "liver,spleen"), "", "got none for spleen; it has liver"
    ),
    BrokenCases(
        "a path out of the dataset",
        _with_dataset(_DECATHLON, _outside_path),
        "",
        "inside its folder, got '../../etc/passwd",
    ),
    BrokenCases(
        "two channels",
        _with_dataset(_NNUNET, channel_names={"0": "CT", "1": "PET"}),
        "",
        "one CT channel, got 2: CT, PET",
    ),
    BrokenCases(
        "voxels to ignore",
        _with_dataset(_NNUNET, labels={"background": 0, "liver": 3, "ignore": 4}),
        "",
        "label 'ignore'",
    ),
    BrokenCases(
        "no image beside the masks",
        _with_dataset(_TOTAL, lambda folder: (folder / "s0001/ct.nii.gz").unlink()),
        "",
        "ct.nii.gz beside segmentations, got none in .*s0001",
    ),
)
