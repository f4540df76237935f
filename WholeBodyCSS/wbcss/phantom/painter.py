"""Paints the parts of a body on a grid, a few slices at a time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from ..progress import IsCancelled, Progress, check_cancelled, never, silent
from ..volume import LabelMap, Spacing_mm
from .grid import Field, Points
from .looks import Look, intensities, waves
from .outline import SKIN_MM, Outline
from .parts import Part
from .plan import BodyPlan

_CHUNK_VOXELS = 1_500_000
"""Bounds the working memory: about ten float32 fields of this many voxels."""

_BLUR_MM = 1.1
"""Standard deviation of the scanner's in-plane point spread."""

AIR_HU = -1000.0
MIN_HU, MAX_HU = -1024, 3071


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that is painted."""

    plan: BodyPlan
    body: Outline
    parts: Sequence[Part]
    looks: Mapping[str, Look]
    labels: Mapping[str, int]
    couch: Sequence[Part]


def paint(
    scene: Scene, points: Points, spacing_mm: Spacing_mm, *, progress: Progress = silent, cancelled: IsCancelled = never
) -> tuple[npt.NDArray[np.int16], LabelMap]:
    """HU (int16) and labels (uint16) at ``points``, shape (I, J, K).

    Args:
        points: In the standard body's millimeters.
        spacing_mm: Of the caller's grid; decides how much the scanner blurs.

    Raises Cancelled. Beyond the result, memory is bounded by a few slices.
    """
    shape = points.shape
    hu = np.empty(shape, dtype=np.int16)
    labels = np.zeros(shape, dtype=np.uint16)
    for k in _chunks(shape):
        progress(k.start / shape[2], "draw")
        chunk = Points(points.xs, points.ys, points.zs[k], points.shift_x[k], points.shift_y[k])
        values, labels[:, :, k] = _paint_chunk(scene, chunk, cancelled)
        hu[:, :, k] = _scanned(values, scene.plan, points.zs[k], spacing_mm)
    progress(1.0, "draw")
    return hu, labels


def _chunks(shape: tuple[int, int, int]) -> Iterator[slice]:
    step = max(1, _CHUNK_VOXELS // (shape[0] * shape[1]))
    return (slice(start, min(start + step, shape[2])) for start in range(0, shape[2], step))


def _paint_chunk(scene: Scene, points: Points, cancelled: IsCancelled) -> tuple[Field, LabelMap]:
    values = np.full(points.shape, AIR_HU, dtype=np.float32)
    labels = np.zeros(points.shape, dtype=np.uint16)
    for part in scene.couch:
        _paint_part(scene, part, points, values, labels, None)
    inside = _paint_body(scene, points, values)
    for part in scene.parts:
        check_cancelled(cancelled)
        _paint_part(scene, part, points, values, labels, inside)
    return values, labels


def _paint_body(scene: Scene, points: Points, values: Field) -> npt.NDArray[np.bool_]:
    """Skin, fat and muscle; returns where deeper parts may be painted."""
    skin, flesh = scene.body.distances(points)
    inside: npt.NDArray[np.bool_] = skin < 0
    where = np.nonzero(inside)
    xyz = _coordinates(points, where)
    depth, deep = -skin[where], -flesh[where]
    kinds = np.where(deep > 0, 2, 1)
    kinds[depth < SKIN_MM] = 0
    result = np.empty(len(depth), dtype=np.float32)
    for kind, name in enumerate(("skin", "fat", "muscle")):
        mine = kinds == kind
        part_xyz = (xyz[0][mine], xyz[1][mine], xyz[2][mine])
        result[mine] = intensities(scene.looks[name], depth[mine], part_xyz, depth[mine], _phases(scene.plan, name))
    # Thin sheets of fat part the muscles into bundles that run along the body.
    sheets = waves(xyz[0], xyz[1], xyz[2] * np.float32(0.22), 46.0, _phases(scene.plan, "sheets"))
    result[kinds == 2] -= (95 * np.clip(1 - np.abs(sheets) / np.float32(0.11), 0, 1))[kinds == 2]
    values[where] = result
    return inside


def _paint_part(
    scene: Scene, part: Part, points: Points, values: Field, labels: LabelMap, inside: npt.NDArray[np.bool_] | None
) -> None:
    box = part.shape.box
    seen = points
    scale = 1.0
    if part.moves:
        scale, offset = scene.plan.jitter(part.organ)
        seen = points.moved(box.center, scale, offset)
    where, sub = seen.within(box)
    if not min(sub.shape):
        return
    distance = part.shape.distance(sub)
    mask = distance < 0
    if inside is not None:
        mask &= inside[where]
    if part.over:
        mask &= np.isin(labels[where], [scene.labels[name] for name in part.over])
    index = np.nonzero(mask)
    if not len(index[0]):
        return
    look = scene.looks[part.look]
    front = _front(part, sub, distance)[index] if look.gas else distance[index]
    phases = _phases(scene.plan, part.organ or part.look)
    values[where][index] = intensities(look, -scale * distance[index], _coordinates(sub, index), front, phases)
    if not part.keeps_label:
        labels[where][index] = scene.labels[part.organ] if part.organ else 0


def _front(part: Part, points: Points, distance: Field) -> Field:
    """How far toward the front wall of a hollow part a point lies, -1 to 1: the slope of the distance along y."""
    step = np.float32(6.0)
    behind = part.shape.distance(Points(points.xs, points.ys - step, points.zs, points.shift_x, points.shift_y))
    result: Field = np.clip((distance - behind) / step, -1, 1)
    return result


def _coordinates(points: Points, index: tuple[npt.NDArray[np.intp], ...]) -> tuple[Field, Field, Field]:
    i, j, k = index
    return points.xs[i] - points.shift_x[k], points.ys[j] - points.shift_y[k], points.zs[k]


def _phases(plan: BodyPlan, topic: str) -> Field:
    """Three angles that make a texture this body's own, quickly: a hash of the seed and the topic."""
    codes = [zlib.crc32(f"{plan.seed} {topic} {n}".encode()) for n in range(3)]
    return np.array([code / 2**32 * 2 * np.pi for code in codes], dtype=np.float32)


def _scanned(values: Field, plan: BodyPlan, zs: Field, spacing_mm: Spacing_mm) -> npt.NDArray[np.int16]:
    """What a scanner makes of the true values: blur in the plane, correlated noise that grows with the body's girth."""
    for axis in (0, 1):
        values = gaussian_filter1d(values, max(0.35, _BLUR_MM / spacing_mm[axis]), axis=axis, mode="nearest")
    sigma = min(1.2, max(0.45, 0.9 / spacing_mm[0]))
    thick = (2.0 / max(spacing_mm[2], 0.5)) ** 0.5
    for k in range(values.shape[2]):
        rng = np.random.default_rng([plan.seed, 7, round(float(zs[k]) * 16) + 2**20])
        noise = rng.standard_normal(values.shape[:2], dtype=np.float32)
        for axis in (0, 1):
            noise = gaussian_filter1d(noise, sigma, axis=axis, mode="wrap")
        girth = float((values[:, :, k] > -500).mean()) ** 0.5 + 0.5
        noise *= np.float32(plan.noise_hu * girth * thick / max(float(noise.std()), 1e-6))
        values[:, :, k] += noise
    return np.clip(np.rint(values), MIN_HU, MAX_HU).astype(np.int16)
