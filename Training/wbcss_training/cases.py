"""Annotated scans as training patches: read, checked, resampled once to the model grid, then cropped and augmented."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import (
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from monai.transforms.spatial.dictionary import RandAffined

from wbcss.errors import CaseError
from wbcss.io.reading import read_labels, read_volume
from wbcss.labels import OrganName, TaskId, parse_organ_name
from wbcss.preprocess import AIR_HU, ModelGrid, PlaneReader
from wbcss.specs import EncoderSpec
from wbcss.volume import LabelMap, Volume

from .patches import Patch, patch_rng, windowed

_IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")
_MARGIN = 1.3
"""A crop this much larger than the tile is cut before rotating, so that corners come from the scan."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One annotated scan.

    Attributes:
        image_path, labels_path: CT and label map on the same grid.
        values: Label value in the file to organ.
        absent: What an organ without a voxel means: ``unknown`` (not contoured) or ``background`` (not there).
    """

    image_path: Path
    labels_path: Path
    values: Mapping[int, OrganName]
    absent: Literal["unknown", "background"] = "background"


def read_case_list(path: Path) -> tuple[Case, ...]:
    """Cases of a JSON list or of an nnU-Net raw folder.

    A list is ``{"organs": {"1": "liver", ...}, "absent": "unknown" | "background", "cases": [{"image": ...,
    "labels": ...}]}`` with paths relative to it. A folder holds ``imagesTr``, ``labelsTr`` and ``dataset.json``.
    """
    file = path / "dataset.json" if path.is_dir() else path
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CaseError(f"expected a JSON list of cases or a folder with dataset.json, got {file}: {error}") from error
    if path.is_dir():
        return _nnunet_cases(path, facts)
    absent = facts.get("absent", "background")
    if absent not in ("unknown", "background"):
        raise CaseError(f"'absent' in {file.name} must be 'unknown' or 'background', got {absent!r}")
    try:
        values = _values(facts["organs"].items(), file)
        pairs = [(file.parent / case["image"], file.parent / case["labels"]) for case in facts["cases"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise CaseError(f"{file.name} must hold 'organs' and 'cases' with 'image' and 'labels', got {error}") from error
    return _checked([Case(image_path=i, labels_path=m, values=values, absent=absent) for i, m in pairs], file)


def _nnunet_cases(folder: Path, facts: Mapping[str, Any]) -> tuple[Case, ...]:
    labels = facts.get("labels")
    if not isinstance(labels, dict):
        raise CaseError(f"dataset.json must map the names of its labels to values, got {labels!r}")
    values = _values(((value, name) for name, value in labels.items() if name != "background"), folder / "dataset.json")
    if not (folder / "labelsTr").is_dir():
        raise CaseError(f"an nnU-Net folder must hold imagesTr and labelsTr, got no labelsTr in {folder}")
    cases = []
    for labels_path in sorted((folder / "labelsTr").iterdir()):
        suffix = next((s for s in _IMAGE_SUFFIXES if labels_path.name.endswith(s)), None)
        if suffix is not None:
            image = folder / "imagesTr" / (labels_path.name.removesuffix(suffix) + "_0000" + suffix)
            cases.append(Case(image_path=image, labels_path=labels_path, values=values))
    return _checked(cases, folder)


def _values(pairs: Iterable[tuple[Any, Any]], file: Path) -> dict[int, OrganName]:
    """Label value to organ; every value a whole number above 0, every organ once."""
    values: dict[int, OrganName] = {}
    for value, name in pairs:
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = 0
        if number < 1:
            raise CaseError(f"{file.name} must give {name!r} a whole number above 0, got {value!r}")
        if number in values or name in values.values():
            raise CaseError(f"{file.name} may give a value or an organ once, got {value!r} for {name!r} again")
        values[number] = parse_organ_name(name)
    if not values:
        raise CaseError(f"{file.name} must name at least one organ, got none")
    return values


def _checked(cases: Sequence[Case], source: Path) -> tuple[Case, ...]:
    if not cases:
        raise CaseError(f"{source.name} must list at least one case, got none")
    for case in cases:
        for path in (case.image_path, case.labels_path):
            if not path.exists():
                raise CaseError(f"{source.name} names {path.name}, which is not there; check the paths in the list")
    return tuple(cases)


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case on the model grid, axes along R, A, S.

    Attributes:
        hu: (I, J, K) int16.
        channels: (I, J, K) uint8 decoder channels.
        annotated: (1 + num_organs,) bool.
    """

    hu: npt.NDArray[np.int16]
    channels: npt.NDArray[np.uint8]
    annotated: npt.NDArray[np.bool_]


def read_case(case: Case) -> tuple[Volume, LabelMap]:
    """Image and label map (I, J, K) of a case. Raises CaseError unless they lie on the same grid."""
    volume = read_volume(case.image_path).volume
    labels, affine, _ = read_labels(case.labels_path)
    if labels.shape != volume.shape:
        raise CaseError(
            f"image and labels of a case must share a grid, got {volume.shape} and {labels.shape} voxels "
            f"({case.labels_path.name}); resample the labels to the image"
        )
    apart_mm = float(np.abs(affine - volume.affine).max())
    if apart_mm > 1e-2:
        raise CaseError(
            f"image and labels of a case must share a grid, got affines that differ by {apart_mm:.3g} mm "
            f"({case.labels_path.name}); resample the labels to the image"
        )
    return volume, labels


def prepare_case(case: Case, *, organs: Sequence[OrganName], encoder: EncoderSpec) -> PreparedCase:
    """Read, check and resample one case. Raises CaseError naming what does not fit."""
    volume, labels = read_case(case)
    if len(organs) > 255:
        raise CaseError(f"a task may have at most 255 organs, got {len(organs)}; split it into several tasks")
    numbers = {organ: channel for channel, organ in enumerate(organs, start=1)}
    lookup = np.zeros(max(int(labels.max()), *case.values) + 1, np.uint8)
    annotated = np.zeros(1 + len(organs), bool)
    annotated[0] = True
    found = set(np.unique(labels).tolist())
    for value, organ in case.values.items():
        channel = numbers.get(organ, 0)
        lookup[value] = channel
        if channel and (value in found or case.absent == "background"):
            annotated[channel] = True
    grid = ModelGrid.of(volume, encoder.spacing_mm)
    hu = _resample(volume, grid)
    return PreparedCase(hu, lookup[_nearest(labels, grid)], annotated)


def _resample(volume: Volume, grid: ModelGrid) -> npt.NDArray[np.int16]:
    i, j, k = grid.shape
    reader = PlaneReader(grid.orientation.view(volume.voxels), grid.axes, ((0, i), (0, j)), torch.device("cpu"))
    planes = reader.read(0, k).permute(1, 2, 0).round().clamp(-32768, 32767)
    hu: npt.NDArray[np.int16] = planes.to(torch.int16).numpy()
    return hu


def _nearest(labels: LabelMap, grid: ModelGrid) -> LabelMap:
    canonical = grid.orientation.view(labels)
    index = [
        np.clip(np.rint(axis.native_of(np.arange(axis.model_size))).astype(int), 0, axis.native_size - 1)
        for axis in grid.axes
    ]
    taken: LabelMap = canonical[np.ix_(*index)]
    return taken


@dataclass(frozen=True, kw_only=True)
class CasePatches:
    """PatchSource over annotated scans. Picklable; prepared cases are kept as arrays in ``cache_dir``.

    Attributes:
        foreground_share: Share of patches centered on a voxel of an organ drawn evenly (METHOD 1.2: 0.33).
    """

    task: TaskId
    organs: tuple[OrganName, ...]
    cases: tuple[Case, ...]
    cache_dir: Path
    encoder: EncoderSpec
    seed: int = 0
    foreground_share: float = 0.33
    _open: dict[int, PreparedCase] = field(default_factory=dict, repr=False, compare=False)

    def patch(self, index: int) -> Patch:
        """Draw patch ``index``."""
        rng = patch_rng(self.seed, index)
        case = self._case(int(rng.integers(len(self.cases))))
        size = tuple(int(np.ceil(n * _MARGIN)) for n in self.encoder.tile)
        low = self._center(case, rng) - np.asarray(size) // 2
        crop = {
            "hu": torch.from_numpy(_crop(case.hu, low, size, fill=int(AIR_HU)).astype(np.float32) - AIR_HU)[None],
            "labels": torch.from_numpy(_crop(case.channels, low, size, fill=0))[None],
        }
        augment = self._augment
        augment.set_random_state(seed=int(rng.integers(2**31)))
        out: Any = augment(crop)
        return Patch(
            image=windowed(torch.as_tensor(out["hu"])[0] + AIR_HU, self.encoder.windows_hu),
            labels=torch.as_tensor(out["labels"])[0].to(torch.uint8),
            annotated=torch.from_numpy(case.annotated),
        )

    @cached_property
    def _augment(self) -> Compose:
        """No mirroring: left and right are different organs. HU keep their meaning: shifts stay small."""
        return Compose(
            [
                RandAffined(
                    ["hu", "labels"],
                    spatial_size=self.encoder.tile,
                    prob=0.7,
                    rotate_range=(0.2, 0.2, 0.2),
                    scale_range=(0.2, 0.2, 0.2),
                    mode=("bilinear", "nearest"),
                    padding_mode="zeros",
                ),
                RandGaussianSmoothd(["hu"], prob=0.2, sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0), sigma_z=(0.3, 1.0)),
                RandGaussianNoised(["hu"], prob=0.3, std=20.0, sample_std=True),
                RandScaleIntensityd(["hu"], prob=0.3, factors=0.05),
                RandShiftIntensityd(["hu"], prob=0.3, offsets=15.0),
            ]
        )

    def _case(self, number: int) -> PreparedCase:
        if number not in self._open:
            self._open[number] = self._cached(self.cases[number])
        return self._open[number]

    def _cached(self, case: Case) -> PreparedCase:
        """The prepared case, made once; the file name is a hash, so no identifier reaches the cache."""
        key = hashlib.sha256(
            repr((case, self.organs, self.encoder.spacing_mm, case.image_path.stat().st_mtime_ns)).encode()
        ).hexdigest()[:24]
        path = self.cache_dir / f"{key}.npz"
        if not path.is_file():
            prepared = prepare_case(case, organs=self.organs, encoder=self.encoder)
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.npz")  # several workers may make the same case at once
            np.savez(temporary, hu=prepared.hu, channels=prepared.channels, annotated=prepared.annotated)
            temporary.replace(path)
        with np.load(path, allow_pickle=False) as arrays:
            return PreparedCase(arrays["hu"], arrays["channels"], arrays["annotated"])

    def _center(self, case: PreparedCase, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        present = np.unique(case.channels)
        present = present[present > 0]
        if len(present) and rng.random() < self.foreground_share:
            voxels = np.argwhere(case.channels == rng.choice(present))
            center: npt.NDArray[np.int64] = voxels[int(rng.integers(len(voxels)))]
            return center
        return np.array([int(rng.integers(n)) for n in case.hu.shape], np.int64)


def _crop(array: npt.NDArray[Any], low: npt.NDArray[np.int64], size: tuple[int, ...], *, fill: int) -> npt.NDArray[Any]:
    """The box of ``size`` at ``low``, filled where it leaves the array."""
    out = np.full(size, fill, array.dtype)
    source, target = [], []
    for axis, (start, n) in enumerate(zip(low, size, strict=True)):
        first, last = max(0, int(start)), min(array.shape[axis], int(start) + n)
        source.append(slice(first, max(first, last)))
        target.append(slice(first - int(start), max(first, last) - int(start)))
    out[tuple(target)] = array[tuple(source)]
    return out
