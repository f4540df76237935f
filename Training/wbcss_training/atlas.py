"""A labeled whole-body atlas, padded and measured once so that synthetic patches are cheap to draw from it."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wbcss.errors import CaseError
from wbcss.io.reading import read_labels
from wbcss.volume import spacing_of

MAP_FILE = "wholebody_atlas_2mm.nii.gz"
TABLE_FILE = "atlas_labels.csv"
PAD_VOXELS = 20
"""Air added on every side, so that a fatter body than the atlas's still fits."""

FIELD_UNIT_MM = 0.5
"""Distances are stored as uint8 in this unit, capped at 127.5 mm."""

FIRST_TISSUE, LAST_TISSUE = 200, 249
_BONE = re.compile(
    r"^(vertebrae|sacrum|rib_|sternum|clavicula|scapula|hip_|femur|humerus|tibia|fibula|patella|tarsal|metatarsal"
    r"|phalanges|ulna|radius|carpal|metacarpal|skull|mandible|temporomand|hyoid|other_bone)"
)
_ARM = re.compile(
    r"^(humerus|ulna|radius|carpal|metacarpal|phalanges_hand|biceps_brachii|triceps_brachii|brachialis|forearm"
    r"|coracobrachialis)"
)
_LONG_BONE = re.compile(r"^(femur|humerus|tibia|fibula|ulna|radius|metatarsal|metacarpal|phalanges)")
_MUSCLE = re.compile(
    r"^(gluteus|autochthon|iliopsoas|other_muscle|rectus_abdominis|external_oblique|quadriceps|thigh_|sartorius|calf_"
    r"|obturator_muscles|piriformis|tensor_fasciae|biceps|triceps|brachialis|forearm_muscles|coracobrachialis"
    r"|pectoralis|serratus|trapezius|rhomboid|levator_scapulae|supraspinatus|infraspinatus|subscapularis|teres|deltoid)"
)


@dataclass(frozen=True, kw_only=True)
class AtlasLabel:
    """One row of the atlas table. HU are of a non-contrast scan; enhancements are added by contrast phase."""

    label: int
    name: str
    kind: str
    tasks: tuple[str, ...]
    wholebody_class: str
    hu_mean: float
    hu_sd: float
    enhancement_arterial_hu: float
    enhancement_portal_hu: float

    @property
    def is_bone(self) -> bool:
        return bool(_BONE.match(self.name))

    @property
    def is_arm(self) -> bool:
        return bool(_ARM.match(self.name))

    @property
    def is_long_bone(self) -> bool:
        return bool(_LONG_BONE.match(self.name))

    @property
    def is_muscle(self) -> bool:
        return bool(_MUSCLE.match(self.name))


@dataclass(frozen=True, eq=False)
class PreparedAtlas:
    """Atlas maps on one padded grid of ``spacing_mm``, axes (R, A, S). All memory-mapped, shape (I, J, K).

    Attributes:
        labels: uint16 atlas labels; 0 is air.
        outside: uint8, distance to the body in FIELD_UNIT_MM; 0 inside.
        bone_depth: uint8, depth below the bone surface in FIELD_UNIT_MM; 0 outside bone.
        spongy_end: uint8, 1 in the ends of long bones, which hold spongy bone and not the fatty marrow of the shaft.
        edge: uint8, distance to the nearest voxel of another label in FIELD_UNIT_MM.
        muscle: uint16, label of the nearest muscle.
        muscle_distance: uint8, distance to it in FIELD_UNIT_MM; 0 inside.
        arm: uint8, 1 where the nearest organ belongs to a free arm, air around it included.
        sites: (N, 4) int32 rows (label, i, j, k): voxels of every label, at most SITES_PER_LABEL each.
        table: The atlas table by label.
        spacing_mm: Voxel size, isotropic.
        origin_mm: Atlas RAS position of voxel (0, 0, 0).
    """

    labels: npt.NDArray[np.uint16]
    outside: npt.NDArray[np.uint8]
    bone_depth: npt.NDArray[np.uint8]
    spongy_end: npt.NDArray[np.uint8]
    edge: npt.NDArray[np.uint8]
    muscle: npt.NDArray[np.uint16]
    muscle_distance: npt.NDArray[np.uint8]
    arm: npt.NDArray[np.uint8]
    sites: npt.NDArray[np.int32]
    table: Mapping[int, AtlasLabel]
    spacing_mm: float
    origin_mm: Sequence[float]


SITES_PER_LABEL = 400
END_SHARE = 0.2
"""Share of a long bone's length that either spongy end takes."""

S1_HALF_WIDTH_MM, S1_DEPTH_MM = 27.0, 36.0
"""Half the width of the first sacral body, and how far it reaches behind the promontory."""

_FIELDS = ("labels", "outside", "bone_depth", "spongy_end", "edge", "muscle", "muscle_distance", "arm", "sites")


def read_table(path: Path) -> dict[int, AtlasLabel]:
    """Read the atlas table. Raises CaseError naming a missing file or column."""
    if not path.is_file():
        raise CaseError(f"an atlas folder must hold {TABLE_FILE}, got none at {path}")
    table: dict[int, AtlasLabel] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            try:
                label = AtlasLabel(
                    label=int(row["label"]),
                    name=row["name"],
                    kind=row["kind"],
                    tasks=tuple(task for task in row["task"].split(";") if task),
                    wholebody_class=row["wholebody_class"],
                    hu_mean=float(row["hu_mean"]),
                    hu_sd=float(row["hu_std"]),
                    enhancement_arterial_hu=float(row["enh_arterial"]),
                    enhancement_portal_hu=float(row["enh_portal"]),
                )
            except (KeyError, ValueError) as error:
                raise CaseError(f"a row of {TABLE_FILE} cannot be read: {error} in {dict(row)}") from error
            table[label.label] = label
    return table


def prepare_atlas(atlas_dir: Path, cache_dir: Path) -> PreparedAtlas:
    """Measure the atlas in ``atlas_dir`` once into ``cache_dir`` (about two minutes) and open it memory-mapped."""
    table = read_table(atlas_dir / TABLE_FILE)
    done = cache_dir / "atlas.json"
    if not (done.is_file() and all((cache_dir / f"{name}.npy").is_file() for name in _FIELDS)):
        cache_dir.mkdir(parents=True, exist_ok=True)
        facts = _measure(atlas_dir / MAP_FILE, table, cache_dir)
        temporary = done.with_suffix(".tmp")
        temporary.write_text(json.dumps(facts))
        temporary.replace(done)  # last, so that an interrupted measurement is done again
    return open_atlas(atlas_dir, cache_dir)


def open_atlas(atlas_dir: Path, cache_dir: Path) -> PreparedAtlas:
    """Open what ``prepare_atlas`` measured."""
    facts = json.loads((cache_dir / "atlas.json").read_text())
    fields = {name: np.load(cache_dir / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _FIELDS}
    return PreparedAtlas(**fields, table=read_table(atlas_dir / TABLE_FILE), **facts)


def _measure(map_path: Path, table: Mapping[int, AtlasLabel], cache_dir: Path) -> dict[str, Any]:
    if not map_path.is_file():
        raise CaseError(f"an atlas folder must hold {MAP_FILE}, got none at {map_path}")
    atlas, affine, _ = read_labels(map_path)
    spacing_mm = spacing_of(affine)[0]
    if not np.allclose(affine[:3, :3], spacing_mm * np.eye(3), atol=1e-4):
        raise CaseError(f"the atlas must lie on an isotropic RAS grid, got affine {affine[:3, :3].tolist()}")
    labels = np.pad(np.ascontiguousarray(atlas), PAD_VOXELS)
    _give_wings_to_sacrum(labels, table, spacing_mm)
    np.save(cache_dir / "labels.npy", labels)
    np.save(cache_dir / "sites.npy", _sites(labels))
    np.save(cache_dir / "outside.npy", _distance(labels == 0, spacing_mm))
    np.save(cache_dir / "bone_depth.npy", _distance(_mask(labels, table, "is_bone"), spacing_mm))
    np.save(cache_dir / "spongy_end.npy", _spongy_ends(labels, table))
    np.save(cache_dir / "edge.npy", _distance(~_boundary(labels), spacing_mm))
    muscle, distance = _nearest_muscle(labels, table, spacing_mm)
    np.save(cache_dir / "muscle.npy", muscle)
    np.save(cache_dir / "muscle_distance.npy", distance)
    np.save(cache_dir / "arm.npy", _arm(labels, table))
    origin_mm = [float(v) - PAD_VOXELS * spacing_mm for v in affine[:3, 3]]
    return {"spacing_mm": spacing_mm, "origin_mm": origin_mm}


def _distance(mask: npt.NDArray[np.bool_], spacing_mm: float) -> npt.NDArray[np.uint8]:
    return _capped(ndimage.distance_transform_edt(mask), spacing_mm)


def _give_wings_to_sacrum(labels: npt.NDArray[np.uint16], table: Mapping[int, AtlasLabel], spacing_mm: float) -> None:
    """Keep, in place, the body of the first sacral vertebra only: the organ catalogue's sacrum holds its wings."""
    named = {row.name: label for label, row in table.items()}
    where = np.argwhere(labels == named.get("vertebrae_S1", -1))
    if len(where) == 0 or "sacrum" not in named:
        return
    aside_mm = np.abs(where[:, 0] - np.median(where[:, 0])) * spacing_mm
    front = where[aside_mm < S1_HALF_WIDTH_MM / 2, 1].max()
    behind_mm = (front - where[:, 1]) * spacing_mm
    wing = where[(aside_mm > S1_HALF_WIDTH_MM) | (behind_mm > S1_DEPTH_MM)]
    labels[tuple(wing.T)] = named["sacrum"]


def _spongy_ends(labels: npt.NDArray[np.uint16], table: Mapping[int, AtlasLabel]) -> npt.NDArray[np.uint8]:
    """1 in the first and last END_SHARE of every piece of a long bone, along its longest axis."""
    ends = np.zeros(labels.shape, np.uint8)
    for label, row in table.items():
        if not row.is_long_bone:
            continue
        where = np.argwhere(labels == label)
        if len(where) < 2:
            continue
        low, high = where.min(axis=0), where.max(axis=0) + 1
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        pieces, count = ndimage.label(labels[box] == label, np.ones((3, 3, 3)))
        for number in range(1, count + 1):
            piece = np.argwhere(pieces == number)
            if len(piece) < 2:
                continue
            offset = piece - piece.mean(axis=0)
            along = offset @ np.linalg.eigh(offset.T @ offset)[1][:, -1]
            share = (along - along.min()) / max(float(np.ptp(along)), 1e-6)
            at = (piece + low)[(share < END_SHARE) | (share > 1 - END_SHARE)]
            ends[tuple(at.T)] = 1
    return ends


def _capped(distance: npt.NDArray[np.float64], spacing_mm: float) -> npt.NDArray[np.uint8]:
    """Distance in voxels to FIELD_UNIT_MM, changed in place."""
    np.multiply(distance, spacing_mm / FIELD_UNIT_MM, out=distance)
    return np.minimum(distance, 255).astype(np.uint8)


def _mask(
    labels: npt.NDArray[np.uint16],
    table: Mapping[int, AtlasLabel],
    kind: Literal["is_bone", "is_arm", "is_muscle"],
) -> npt.NDArray[np.bool_]:
    lookup = np.zeros(int(labels.max()) + 1, bool)
    for label, row in table.items():
        if label < len(lookup):
            lookup[label] = getattr(row, kind)
    return lookup[labels]


def _nearest_muscle(
    labels: npt.NDArray[np.uint16], table: Mapping[int, AtlasLabel], spacing_mm: float
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """Label of the nearest muscle and the distance to it; an atlas without muscles has none within reach."""
    muscle = _mask(labels, table, "is_muscle")
    if not muscle.any():
        return np.zeros_like(labels), np.full(labels.shape, 255, np.uint8)
    distance, nearest = ndimage.distance_transform_edt(~muscle, return_indices=True)
    return labels[tuple(nearest)], _capped(distance, spacing_mm)


def _boundary(labels: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    """Voxels with a face neighbor of another label."""
    boundary = np.zeros(labels.shape, bool)
    for axis in range(3):
        differs = np.diff(labels, axis=axis) != 0
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        boundary[tuple(low)] |= differs
        boundary[tuple(high)] |= differs
    return boundary


def _arm(labels: npt.NDArray[np.uint16], table: Mapping[int, AtlasLabel]) -> npt.NDArray[np.uint8]:
    """1 where the nearest organ is an arm's, so that skin and fat go with the limb they cover (on a coarse grid)."""
    coarse = labels[::2, ::2, ::2]
    organ = (coarse > 0) & ((coarse < FIRST_TISSUE) | (coarse > LAST_TISSUE))
    nearest = ndimage.distance_transform_edt(~organ, return_distances=False, return_indices=True)
    arm = _mask(coarse, table, "is_arm")[tuple(nearest)]
    full = np.repeat(np.repeat(np.repeat(arm, 2, 0), 2, 1), 2, 2)
    return full[tuple(slice(0, n) for n in labels.shape)].astype(np.uint8)


def _sites(labels: npt.NDArray[np.uint16]) -> npt.NDArray[np.int32]:
    """Up to SITES_PER_LABEL voxels of every label, spread evenly through it."""
    flat = labels.reshape(-1)
    body = np.flatnonzero(flat)
    order = body[np.argsort(flat[body], kind="stable")]
    values, starts, counts = np.unique(flat[order], return_index=True, return_counts=True)
    rows = []
    for value, start, count in zip(values, starts, counts, strict=True):
        picked = order[start + np.linspace(0, count - 1, min(count, SITES_PER_LABEL)).astype(int)]
        rows.append(np.column_stack([np.full(len(picked), value), *np.unravel_index(picked, labels.shape)]))
    return np.concatenate(rows).astype(np.int32)
