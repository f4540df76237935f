"""Labeled synthetic CT patches drawn from a whole-body atlas: anatomy varied, then scanned (issue of one atlas).

One thin man is all the atlas has, so variation is made: pose and size, organ shrinkage that leaves fat between
organs, muscles that fill the gaps between them, a full bladder, subcutaneous fat, arms taken away, contents, contrast
phases, noise, blur, thick slices, metal, couch, and the field of view cut anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from wbcss.errors import CaseError
from wbcss.labels import OrganName, TaskId
from wbcss.specs import EncoderSpec

from .appearance import AIR_HU, TissueTable, add_metal, paint_hu, scan
from .atlas import FIELD_UNIT_MM, PAD_VOXELS, AtlasLabel, PreparedAtlas, open_atlas
from .deformation import DeformationSpec, Swelling, patch_coordinates, smooth_field
from .patches import Patch, patch_rng, windowed

_SHRINKS = re.compile(
    r"^(small_bowel|colon|stomach|duodenum|pancreas|adrenal|gallbladder|urinary_bladder|kidney|spleen|prostate|gluteus"
    r"|autochthon|iliopsoas|other_muscle|rectus|external_oblique|quadriceps|thigh|sartorius|calf|obturator|piriformis"
    r"|bowel_|aorta|inferior_vena|iliac_|thyroid|esophagus|portal|psoas|tensor|biceps|triceps|forearm)"
)
_Value = TypeVar("_Value", bound=np.generic)

_AXILLA_MM = 1330.0
"""Atlas height below which a raised arm leaves nothing beside the trunk."""

_REACH_MM = 150.0
"""How far above and below its organs a task is shown what is not one of them."""

_GROIN_MM = 720.0
"""Atlas height below which there are only legs (and hands)."""


def atlas_classes(table: Mapping[int, AtlasLabel], membership: str = "wholebody") -> dict[int, str]:
    """Atlas label to organ name for the organs of one task of the atlas, sub-labels merged into their organ.

    ``wholebody`` merges chambers into the heart and brain parts into the brain; the other tasks (``chest``,
    ``headneck``) keep every organ that names them, and merge only contents such as the vessels of a lung lobe.
    """
    members = {row.name for row in table.values() if row.kind == "organ" and membership in row.tasks}
    classes: dict[int, str] = {}
    for label, row in table.items():
        if membership != "wholebody":
            name = row.name if row.name in members else row.wholebody_class
            if name in members:
                classes[label] = name
        elif row.wholebody_class:
            classes[label] = row.wholebody_class
        elif row.name in members:
            classes[label] = row.name
    if not classes:
        tasks = sorted({task for row in table.values() for task in row.tasks})
        raise CaseError(f"the atlas has no organ of task {membership!r}; its tasks are {', '.join(tasks)}")
    return classes


@dataclass(frozen=True, kw_only=True)
class SyntheticPatches:
    """PatchSource over the atlas for the organs of one task. Picklable: it opens the atlas where it is used.

    Attributes:
        atlas_dir, cache_dir: Folders of ``prepare_atlas``.
        limb_share: Share of patches centered anywhere in the body; the others center on the trunk and head.
        membership: Task of the atlas table whose organs are labeled, ``wholebody``, ``chest`` or ``headneck``.
    """

    task: TaskId
    organs: tuple[OrganName, ...]
    atlas_dir: Path
    cache_dir: Path
    encoder: EncoderSpec
    seed: int = 0
    deformation: DeformationSpec = field(default_factory=DeformationSpec)
    limb_share: float = 0.15
    membership: str = "wholebody"

    @cached_property
    def _atlas(self) -> PreparedAtlas:
        return open_atlas(self.atlas_dir, self.cache_dir)

    @cached_property
    def _tissues(self) -> TissueTable:
        return TissueTable.from_atlas(self._atlas.table)

    @cached_property
    def _channels(self) -> torch.Tensor:
        """Atlas label to decoder channel."""
        numbers = {organ: channel for channel, organ in enumerate(self.organs, start=1)}
        lookup = torch.zeros(max(self._atlas.table) + 1, dtype=torch.uint8 if len(numbers) < 256 else torch.int16)
        for label, organ in atlas_classes(self._atlas.table, self.membership).items():
            lookup[label] = numbers.get(OrganName(organ), 0)
        missing = set(numbers) - set(atlas_classes(self._atlas.table, self.membership).values())
        if missing:
            raise CaseError(f"the atlas has no organ {', '.join(sorted(missing))}")
        return lookup

    @cached_property
    def _sites(self) -> npt.NDArray[np.int32]:
        """Sites of the atlas as high as the organs of the task, and a little above and below."""
        sites = self._atlas.sites
        heights = sites[self._channels.numpy()[sites[:, 0]] > 0, 3]
        margin = _REACH_MM / self._atlas.spacing_mm
        near: npt.NDArray[np.int32] = sites[
            (sites[:, 3] >= heights.min() - margin) & (sites[:, 3] <= heights.max() + margin)
        ]
        return near

    @cached_property
    def _shrinks(self) -> torch.Tensor:
        """Whether an atlas label may lose its rim to fat, and to which fat."""
        named = {row.name: label for label, row in self._atlas.table.items()}
        rim = torch.zeros(max(self._atlas.table) + 1, dtype=torch.int64)
        for label, row in self._atlas.table.items():
            if _SHRINKS.match(row.name):
                muscle = re.match(
                    r"gluteus|autochthon|other_muscle|quadriceps|thigh|sartorius|calf|biceps|tri", row.name
                )
                rim[label] = named["intermuscular_fat" if muscle else "visceral_fat"]
        return rim

    @cached_property
    def _kidneys(self) -> torch.Tensor:
        """Whether an atlas label is a kidney."""
        kidney = torch.zeros(max(self._atlas.table) + 1, dtype=torch.bool)
        for label, row in self._atlas.table.items():
            kidney[label] = row.name.startswith("kidney_")
        return kidney

    def patch(self, index: int) -> Patch:
        """Draw patch ``index``."""
        hu, channels = self.scan(patch_rng(self.seed, index))
        return Patch(
            image=windowed(hu, self.encoder.windows_hu),
            labels=channels,
            annotated=torch.ones(1 + len(self.organs), dtype=torch.bool),
        )

    def scan(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """One synthetic scan: (I, J, K) float32 HU and (I, J, K) decoder channels."""
        hu, labels = self.draw(rng)
        return hu, self._channels[labels]

    def draw(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """One synthetic scan: (I, J, K) float32 HU and (I, J, K) int64 atlas labels of the same patch."""
        hu, labels, _ = self.draw_placed(rng)
        return hu, labels

    def draw_placed(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``draw``, and where every voxel comes from: (3, I, J, K) float32 voxel coordinates in the padded atlas."""
        atlas, spacing_mm = self._atlas, self.encoder.spacing_mm[0]
        coordinates = patch_coordinates(
            self.encoder.tile,
            spacing_mm=spacing_mm,
            center_voxel=self._center(rng),
            atlas_spacing_mm=atlas.spacing_mm,
            spec=self.deformation,
            rng=rng,
            swelling=self._bladder(rng),
        )
        at = _flat_index(coordinates, atlas.labels.shape)
        labels = torch.from_numpy(_gather(atlas.labels, at).astype(np.int64))
        bone_depth = torch.from_numpy(_gather(atlas.bone_depth, at))
        spongy_end = torch.from_numpy(_gather(atlas.spongy_end, at)).bool()
        outside_mm = torch.from_numpy(_gather(atlas.outside, at).astype(np.float32)) * FIELD_UNIT_MM
        if rng.random() < 0.6:
            arm = torch.from_numpy(_gather(atlas.arm, at)).bool()
            arm &= coordinates[2] < (_AXILLA_MM - atlas.origin_mm[2]) / atlas.spacing_mm
            labels[arm] = 0
            outside_mm[arm] = torch.inf  # nothing there for fat to lie on
        self._shrink(labels, _gather(atlas.edge, at), rng)
        fat_mm = self._add_fat(labels, outside_mm, rng)
        self._grow_muscles(labels, _gather(atlas.muscle, at), _gather(atlas.muscle_distance, at), rng)
        hu = paint_hu(labels, bone_depth, spongy_end, tissues=self._tissues, spacing_mm=spacing_mm, rng=rng)
        if rng.random() < 0.7:
            self._add_couch(hu, labels, coordinates, fat_mm=fat_mm, rng=rng)
        if rng.random() < 0.08:
            hu = add_metal(hu, labels > 0, rng=rng)
        hu = scan(hu, spacing_mm=spacing_mm, rng=rng)
        _cut_field_of_view(hu, labels, rng)
        return hu, labels, coordinates

    def _center(self, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """A voxel to center on: an organ of the task drawn evenly, or anywhere about as high, jittered."""
        atlas = self._atlas
        sites = self._sites
        while True:
            if rng.random() < 0.5:
                channel = int(rng.integers(1, len(self.organs) + 1))
                pool = sites[self._channels.numpy()[sites[:, 0]] == channel]
            else:
                pool = sites
            site = pool[int(rng.integers(len(pool)))]
            leg_top = (_GROIN_MM - atlas.origin_mm[2]) / atlas.spacing_mm
            if site[3] > leg_top and not atlas.table[int(site[0])].is_arm:
                break
            if rng.random() < self.limb_share:
                break
        jitter = rng.uniform(-1, 1, 3) * np.array([60.0, 50.0, 60.0]) / atlas.spacing_mm
        center: npt.NDArray[np.float64] = site[1:].astype(np.float64) + jitter
        return center

    def _shrink(self, labels: torch.Tensor, edge: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
        """Replace a rim of soft organs by fat, up to a few millimeters, more here than there."""
        shape = (labels.shape[0], labels.shape[1], labels.shape[2])
        depth_mm = torch.from_numpy(edge).float() * FIELD_UNIT_MM
        uneven = smooth_field(shape, knots_every=14, rng=rng)[0].abs()
        rim = self._shrinks[labels]
        if rng.random() < 0.7:  # the fatty middle of the kidneys, which the atlas fills
            kidney = self._kidneys[labels] & (depth_mm > float(rng.uniform(9, 14)) + 3 * uneven)
            labels[kidney] = rim[kidney]
        if rng.random() < 0.5:
            gone = (rim > 0) & (depth_mm < float(rng.uniform(0, 3.5)) * uneven)
            labels[gone] = rim[gone]

    def _bladder(self, rng: np.random.Generator) -> Swelling | None:
        """The atlas man's bladder is nearly empty; most scanned ones are fuller."""
        label = self._tissues.bladder_label
        sites = self._atlas.sites[self._atlas.sites[:, 0] == label, 1:]
        if rng.random() < 0.3 or len(sites) == 0:
            return None
        return Swelling(
            center_voxel=sites.mean(axis=0),
            sigma_mm=float(rng.uniform(28, 50)),
            log_size=float(rng.uniform(0, 0.75)),
        )

    def _grow_muscles(
        self,
        labels: torch.Tensor,
        muscle: npt.NDArray[np.uint16],
        distance: npt.NDArray[np.uint8],
        rng: np.random.Generator,
    ) -> None:
        """Let muscles fill the fat about them, here more than there: the atlas's are apart, most people's touch."""
        if rng.random() < 0.15:
            return
        named = {row.name: label for label, row in self._atlas.table.items()}
        away_mm = torch.from_numpy(distance.astype(np.float32)) * FIELD_UNIT_MM
        shape = (labels.shape[0], labels.shape[1], labels.shape[2])
        uneven = (1 + 0.4 * smooth_field(shape, knots_every=12, rng=rng)[0]).clamp_(0, 2)
        between, about = float(rng.uniform(2, 12)), float(rng.uniform(0, 6))
        for fat, reach_mm in (("intermuscular_fat", between), ("subcutaneous_fat", about), ("visceral_fat", about / 2)):
            grown = (labels == named[fat]) & (away_mm < reach_mm * uneven)
            labels[grown] = torch.from_numpy(muscle.astype(np.int64))[grown]

    def _add_fat(self, labels: torch.Tensor, outside_mm: torch.Tensor, rng: np.random.Generator) -> float:
        """Wrap the body in more subcutaneous fat; returns its thickness in mm."""
        fat_mm = float(rng.gamma(1.5, 9.0)) if rng.random() < 0.75 else 0.0
        fat_mm = min(fat_mm, 0.9 * PAD_VOXELS * self._atlas.spacing_mm)
        if fat_mm < 2:
            return 0.0
        named = {row.name: label for label, row in self._atlas.table.items()}
        uneven = 1 + 0.25 * smooth_field(tuple(labels.shape), knots_every=30, rng=rng)[0]  # type: ignore[arg-type]
        labels[labels == named["skin"]] = named["subcutaneous_fat"]
        ring = (labels == 0) & (outside_mm > 0) & (outside_mm <= fat_mm * uneven)
        labels[ring] = named["subcutaneous_fat"]
        labels[ring & (outside_mm > fat_mm * uneven - 2.5)] = named["skin"]
        return fat_mm

    def _add_couch(
        self,
        hu: torch.Tensor,
        labels: torch.Tensor,
        coordinates: torch.Tensor,
        *,
        fat_mm: float,
        rng: np.random.Generator,
    ) -> None:
        """A table top behind the back: dense shell, light core, sometimes a mattress."""
        spacing_mm = self._atlas.spacing_mm
        sag = float(rng.uniform(0, 30)) * ((coordinates[0] - self._atlas.labels.shape[0] / 2) * spacing_mm / 200) ** 2
        depth_mm = PAD_VOXELS * spacing_mm - coordinates[1] * spacing_mm + sag - fat_mm - float(rng.uniform(-4, 15))
        thickness_mm = float(rng.uniform(15, 45))
        air = labels == 0
        core = air & (depth_mm > 0) & (depth_mm < thickness_mm)
        shell = core & ((depth_mm < 4) | (depth_mm > thickness_mm - 4))
        hu[core] = float(rng.uniform(-960, -820))
        hu[shell] = float(rng.uniform(-400, 300))


def _flat_index(coordinates: torch.Tensor, shape: Sequence[int]) -> npt.NDArray[np.int64]:
    """Flat atlas index of the nearest voxel of (3, I, J, K) coordinates; outside the atlas clamps to its air rim."""
    nearest = [coordinates[axis].round().clamp_(0, shape[axis] - 1).long() for axis in range(3)]
    flat: npt.NDArray[np.int64] = ((nearest[0] * shape[1] + nearest[1]) * shape[2] + nearest[2]).numpy()
    return flat


def _gather(values: npt.NDArray[_Value], at: npt.NDArray[np.int64]) -> npt.NDArray[_Value]:
    taken: npt.NDArray[_Value] = np.take(values.reshape(-1), at)
    return taken


def _cut_field_of_view(hu: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator) -> None:
    """The scan ends inside the patch: planes beyond the first or last slice, or a circle, hold air and no organ."""
    if rng.random() < 0.3:
        for axis in (2,) if rng.random() < 0.7 else (0, 1):
            cut = int(rng.integers(1, hu.shape[axis] // 2))
            side = slice(None, cut) if rng.random() < 0.5 else slice(hu.shape[axis] - cut, None)
            at = [slice(None)] * 3
            at[axis] = side
            hu[tuple(at)], labels[tuple(at)] = AIR_HU - 24, 0
    if rng.random() < 0.1:
        radius = float(rng.uniform(0.40, 0.6)) * max(hu.shape[:2])
        axes = [torch.arange(n) - n / 2 for n in hu.shape[:2]]
        beyond = (axes[0][:, None] ** 2 + axes[1][None, :] ** 2) > radius**2
        hu[beyond], labels[beyond] = AIR_HU - 24, 0
