"""Tiny annotated scans of a body with two kidneys and a liver, in every layout that `read_case_list` knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK
from volume_files import LPS

from wbcss.io.writing import write_volume
from wbcss.volume import Affine

SHAPE = (24, 18, 14)
AFFINE: Affine = np.diag([6.0, 6.0, 6.0, 1.0])
AFFINE[:3, 3] = (-72.0, -54.0, 500.0)
ORGANS = {"kidney_left": 1, "kidney_right": 2, "liver": 3}
Array = npt.NDArray[Any]


def hu(seed: int = 0) -> npt.NDArray[np.int16]:
    """A block of soft tissue in a rim of fat, in air; another seed is another patient."""
    voxels = np.full(SHAPE, -1000.0)
    voxels[2:22, 2:16] = -100
    voxels[3:21, 3:15] = 40
    return (voxels + np.random.default_rng(seed).normal(0, 5, SHAPE)).round().astype(np.int16)


def labels() -> npt.NDArray[np.uint8]:
    """Left is where R is small. 1 left kidney, 2 right kidney, 3 liver."""
    values = np.zeros(SHAPE, np.uint8)
    values[5:9, 5:9, 4:9] = 1
    values[15:19, 5:9, 4:9] = 2
    values[13:19, 10:14, 8:13] = 3
    return values


def write_pairs(folder: Path, *, count: int = 3) -> list[dict[str, str]]:
    """Images and label maps of ``count`` patients; returns the entries of their list."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        write_volume(folder / f"smith_{number}.nii.gz", hu(number), AFFINE)
        write_volume(folder / f"smith_{number}_seg.nii.gz", labels(), AFFINE)
    return [{"image": f"smith_{n}.nii.gz", "labels": f"smith_{n}_seg.nii.gz"} for n in range(count)]


def write_list(folder: Path, entries: Sequence[Mapping[str, str]] | None = None, **changes: Any) -> Path:
    """A JSON list of three good cases, or of ``entries``."""
    cases = write_pairs(folder) if entries is None else list(entries)
    organs = {str(value): organ for organ, value in ORGANS.items()}
    path = folder / "list.json"
    path.write_text(json.dumps({"organs": organs, "cases": cases, **changes}))
    return path


def write_nnunet(folder: Path, *, count: int = 3, **changes: Any) -> Path:
    """An nnU-Net raw folder."""
    for number in range(count):
        for name, array in ((f"imagesTr/c_{number}_0000", hu(number)), (f"labelsTr/c_{number}", labels())):
            path = folder / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_volume(path, array, AFFINE)
    facts = {"channel_names": {"0": "CT"}, "labels": {"background": 0, **ORGANS}, "file_ending": ".nii.gz", **changes}
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


def write_decathlon(folder: Path, *, count: int = 3, **changes: Any) -> Path:
    """A folder of the Medical Segmentation Decathlon."""
    write_nnunet(folder, count=count)
    entries = []
    for number in range(count):
        (folder / f"imagesTr/c_{number}_0000.nii.gz").rename(folder / f"imagesTr/c_{number}.nii.gz")
        entries.append({"image": f"./imagesTr/c_{number}.nii.gz", "label": f"./labelsTr/c_{number}.nii.gz"})
    names = {"0": "background", **{str(value): organ for organ, value in ORGANS.items()}}
    facts = {"modality": {"0": "CT"}, "labels": names, "training": entries, **changes}
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


def write_totalsegmentator(folder: Path, *, count: int = 3) -> Path:
    """Folders with one mask for each organ."""
    for number in range(count):
        case = folder / f"s{number:04d}"
        (case / "segmentations").mkdir(parents=True)
        write_volume(case / "ct.nii.gz", hu(number), AFFINE)
        for organ, value in ORGANS.items():
            write_volume(case / f"segmentations/{organ}.nii.gz", (labels() == value).astype(np.uint8), AFFINE)
    return folder


def masks() -> dict[str, Array]:
    """Name of a segment to its mask, under names a person might type."""
    return {"Left kidney": labels() == 1, "Kidney_R": labels() == 2, "Liver": labels() == 3}


def write_segmentations(folder: Path, *, count: int = 3) -> Path:
    """Images with a ``.seg.nrrd`` beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        write_volume(folder / f"c_{number}.nii.gz", hu(number), AFFINE)
        save_segmentation(folder / f"c_{number}.seg.nrrd", masks())
    return folder


def save_segmentation(
    path: Path, segments: Mapping[str, Array], *, affine: Affine = AFFINE, in_layers: bool = False
) -> Path:
    """A segmentation as 3D Slicer saves it: in one layer, or in a layer for each segment, which may overlap then."""
    stack = [mask.astype(np.uint8) * (1 if in_layers else n) for n, mask in enumerate(segments.values(), start=1)]
    array = np.stack(stack, axis=3).transpose(2, 1, 0, 3) if in_layers else np.max(stack, axis=0).T
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array), isVector=in_layers)
    lps = LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    for number, name in enumerate(segments):
        image.SetMetaData(f"Segment{number}_ID", f"Segment_{number + 1}")
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(1 if in_layers else number + 1))
        image.SetMetaData(f"Segment{number}_Layer", str(number if in_layers else 0))
    SimpleITK.WriteImage(image, str(path), True)
    return path
