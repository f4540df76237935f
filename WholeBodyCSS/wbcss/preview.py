"""A picture of a segmentation: a coronal, a sagittal and an axial slice with the organs' colors, and a legend.

Drawn as radiologists read: the patient's right on the left of the picture, head up, in physical proportions. Nothing
on it names the patient or the file. The same input gives the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .axes import AWAY, TOWARD, axes_of, direction_letters
from .catalogue import Organ
from .errors import GeometryError
from .io.atomic import atomic_path
from .labels import MAX_LABEL
from .legend import BACKDROP, FAINT, INK, draw_legend, font, legend_size
from .volume import Affine, LabelMap, Volume

WINDOW_HU = (-160.0, 240.0)
"""Soft tissue: center 40, width 400."""

_FILL = 0.38
"""Opacity of an organ's color; its outline is opaque."""

_SAMPLES = 4_000_000
_MAX_HEIGHT, _MAX_WIDTH, _MAX_ZOOM = 900.0, 620.0, 4.0
_MARGIN, _FRAME = 14, 24
_BARS_MM = (1, 2, 5, 10, 20, 50, 100, 200, 500)

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]


def write_preview(path: Path, volume: Volume, labels: LabelMap, organs: Sequence[Organ]) -> None:
    """Write ``render_preview`` as PNG, whole or not at all. Raises OutputError, GeometryError."""
    picture = render_preview(volume, labels, organs)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", optimize=False)


def render_preview(volume: Volume, labels: LabelMap, organs: Sequence[Organ]) -> Image.Image:
    """Three slices through the most organs, their colors and names.

    Args:
        volume: What was segmented; CT is shown in a soft-tissue window, anything else between its 1st and 99th
            percentile.
        labels: (I, J, K) uint16 on the grid of ``volume``.
        organs: The organs of ``labels``; other values are not drawn.

    Oblique grids are cut along their own axes, with compound letters. Works on views and single slices: the memory
    does not grow with the volume. Raises GeometryError if the shapes differ.
    """
    if labels.shape != volume.shape:
        raise GeometryError(f"labels must have the shape of their volume, {volume.shape}, got {labels.shape}")
    body = _Oriented.of(volume, labels)
    colors = np.zeros((MAX_LABEL + 1, 3), np.uint8)
    rows = np.zeros(MAX_LABEL + 1, np.uint16)
    for row, organ in enumerate(organs, start=1):
        colors[organ.label] = organ.color_rgb
        rows[organ.label] = row
    found, center = _choose_slices(body.labels, rows, len(organs))
    window = WINDOW_HU if volume.modality == "CT" else _percentiles(body.voxels)
    panels = [_panel(body, plane, center, window, colors, rows > 0) for plane in _PLANES]
    visible = set().union(*(panel.visible for panel in panels))
    return _compose(panels, [organs[row - 1] for row in sorted(found)], visible)


@dataclass(frozen=True, eq=False)
class _Oriented:
    """Views of the arrays with axes nearest to R, A, S; ``directions`` are the unit vectors (columns) they follow."""

    voxels: Array
    labels: LabelMap
    spacing_mm: tuple[float, float, float]
    directions: npt.NDArray[np.float64]

    @classmethod
    def of(cls, volume: Volume, labels: LabelMap) -> _Oriented:
        names = axes_of(volume.affine)
        order = [
            next(axis for axis, name in enumerate(names) if name in pair) for pair in zip(TOWARD, AWAY, strict=True)
        ]
        steps = tuple(slice(None, None, -1 if names[axis] in AWAY else 1) for axis in order)
        signs = np.array([-1.0 if names[axis] in AWAY else 1.0 for axis in order])
        r, a, s = (volume.spacing_mm[axis] for axis in order)
        directions = _unit(volume.affine)[:, order] * signs
        return cls(volume.voxels.transpose(order)[steps], labels.transpose(order)[steps], (r, a, s), directions)


def _unit(affine: Affine) -> npt.NDArray[np.float64]:
    columns: npt.NDArray[np.float64] = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return columns


@dataclass(frozen=True)
class _Plane:
    """A slice direction: the axis it is cut across, and the axes that run right and up on the picture, with signs."""

    name: str
    across: int
    right: tuple[int, int]
    up: tuple[int, int]


_PLANES = (
    _Plane("coronal", 1, (0, -1), (2, 1)),
    _Plane("sagittal", 0, (1, -1), (2, 1)),
    _Plane("axial", 2, (0, -1), (1, 1)),
)


@dataclass(frozen=True, eq=False)
class _Panel:
    """One picture with what is written around it."""

    image: Image.Image
    letters: tuple[str, str, str, str]
    mm_per_pixel: float
    visible: frozenset[int]
    name: str


def _choose_slices(labels: LabelMap, rows: LabelMap, num_organs: int) -> tuple[set[int], tuple[int, int, int]]:
    """The organs (rows, from 1) that occur, and per axis the slice that shows the most organs, then the most of them.

    Looks at every ``step``-th voxel of large volumes, and at all of them if that finds nothing.
    """
    step = max(1, int(np.ceil((labels.size / _SAMPLES) ** (1 / 3))))
    found = _occurring(labels, rows)
    counts = _presence(labels, rows, num_organs, step)
    if step > 1 and found and not counts[2].any():
        step = 1
        counts = _presence(labels, rows, num_organs, step)
    center = []
    for axis, count in enumerate(counts):
        organs, area = (count > 0).sum(axis=1), count.sum(axis=1)
        off_middle = np.abs(np.arange(len(area)) - (len(area) - 1) / 2)
        best = int(np.lexsort((off_middle, -area, -organs))[0])
        center.append(min(best * step, labels.shape[axis] - 1))
    return found, (center[0], center[1], center[2])


def _presence(labels: LabelMap, rows: LabelMap, num_organs: int, step: int) -> list[npt.NDArray[np.int64]]:
    """Voxels of every organ in every slice of every axis, each (slices, num_organs)."""
    sampled = labels[::step, ::step, ::step]
    size = num_organs + 1
    counts = [np.zeros((n, size), np.int64) for n in sampled.shape]
    for k in range(sampled.shape[2]):
        plane = rows[sampled[:, :, k]]
        i, j = np.nonzero(plane)
        organ = plane[i, j].astype(np.intp)
        for axis, along in ((0, i), (1, j)):
            flat = np.bincount(along * size + organ, minlength=counts[axis].size)
            counts[axis] += flat.reshape(counts[axis].shape)
        counts[2][k] = np.bincount(organ, minlength=size)
    return [count[:, 1:] for count in counts]


def _occurring(labels: LabelMap, rows: LabelMap) -> set[int]:
    """Rows of the organs that have a voxel, a slice at a time: an organ of few voxels is listed too."""
    seen = np.zeros(MAX_LABEL + 1, bool)
    axis = int(np.argmax(np.abs(labels.strides)))
    for n in range(labels.shape[axis]):
        seen[labels[(slice(None),) * axis + (n,)]] = True
    return {int(row) for row in rows[seen] if row}


def _percentiles(voxels: Array) -> tuple[float, float]:
    step = max(1, int(np.ceil((voxels.size / _SAMPLES) ** (1 / 3))))
    low, high = (float(v) for v in np.percentile(voxels[::step, ::step, ::step], (1, 99)))
    return low, max(high, low + 1e-6)


def _panel(
    body: _Oriented,
    plane: _Plane,
    center: tuple[int, int, int],
    window: tuple[float, float],
    colors: Pixels,
    known: npt.NDArray[np.bool_],
) -> _Panel:
    voxels = _cut(body.voxels, plane, center[plane.across])
    labels = _cut(body.labels, plane, center[plane.across])
    labels = np.where(known[labels], labels, 0)
    width_mm = voxels.shape[1] * body.spacing_mm[plane.right[0]]
    height_mm = voxels.shape[0] * body.spacing_mm[plane.up[0]]
    zoom = _zoom(body, plane)
    size = (max(2, round(width_mm * zoom)), max(2, round(height_mm * zoom)))
    low, high = window
    gray = np.clip((voxels.astype(np.float32) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    picture = np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BILINEAR))
    overlay = _resize_labels(labels, size)
    right = direction_letters(body.directions[:, plane.right[0]] * plane.right[1])
    left = direction_letters(-body.directions[:, plane.right[0]] * plane.right[1])
    top = direction_letters(body.directions[:, plane.up[0]] * plane.up[1])
    bottom = direction_letters(-body.directions[:, plane.up[0]] * plane.up[1])
    visible = frozenset(int(value) for value in np.unique(labels) if value)
    image = Image.fromarray(_overlaid(picture, overlay, colors))
    return _Panel(image, (left, right, top, bottom), 1 / zoom, visible, plane.name)


def _zoom(body: _Oriented, plane: _Plane) -> float:
    """Pixels per millimeter: coronal and sagittal share one, so that organs lie at the same height on both."""
    right, front, up = (float(n * s) for n, s in zip(body.labels.shape, body.spacing_mm, strict=True))
    if plane.name == "axial":
        return min(_MAX_HEIGHT / front, _MAX_WIDTH / right, _MAX_ZOOM)
    return min(_MAX_HEIGHT / up, _MAX_WIDTH / right, _MAX_WIDTH / front, _MAX_ZOOM)


def _cut(array: Array, plane: _Plane, index: int) -> Array:
    """The slice as rows from top to bottom, columns from left to right of the picture."""
    slab = array[(slice(None),) * plane.across + (index,)]
    # The axes left over keep their order; rows must run along ``up``.
    if plane.right[0] < plane.up[0]:
        slab = slab.T
    return slab[:: -plane.up[1], :: plane.right[1]]


def _resize_labels(labels: Array, size: tuple[int, int]) -> Array:
    """Nearest neighbor, by index: label values are larger than a byte."""
    rows = np.minimum(((np.arange(size[1]) + 0.5) * labels.shape[0] / size[1]).astype(np.intp), labels.shape[0] - 1)
    columns = np.minimum(((np.arange(size[0]) + 0.5) * labels.shape[1] / size[0]).astype(np.intp), labels.shape[1] - 1)
    return labels[np.ix_(rows, columns)]


def _overlaid(gray: Pixels, labels: Array, colors: Pixels) -> Pixels:
    """Gray values (rows, columns) with filled and outlined organs as (rows, columns, 3)."""
    result = np.repeat(gray[:, :, None], 3, axis=2).astype(np.float32)
    tint = colors[labels].astype(np.float32)
    inside = labels > 0
    edge = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    result[inside] += _FILL * (tint[inside] - result[inside])
    outline = inside & edge
    result[outline] = tint[outline]
    return np.rint(result).astype(np.uint8)


def _compose(panels: Sequence[_Panel], present: Sequence[Organ], visible: set[int]) -> Image.Image:
    row_height = max(panel.image.height for panel in panels) + 2 * _FRAME
    widths = [panel.image.width + 2 * _FRAME for panel in panels]
    width = max(sum(widths) + _MARGIN * (len(panels) + 1), 760)
    legend_width, legend_height = legend_size(present, width - 2 * _MARGIN)
    canvas = Image.new("RGB", (width, row_height + legend_height + 3 * _MARGIN), BACKDROP)
    draw = ImageDraw.Draw(canvas)
    left = (width - sum(widths) - _MARGIN * (len(panels) - 1)) // 2
    for panel, panel_width in zip(panels, widths, strict=True):
        top = _MARGIN + (row_height - panel.image.height) // 2
        canvas.paste(panel.image, (left + _FRAME, top))
        _annotate(draw, panel, left + _FRAME, top)
        left += panel_width + _MARGIN
    draw_legend(draw, present, visible, (_MARGIN, row_height + 2 * _MARGIN), legend_width)
    return canvas


def _annotate(draw: ImageDraw.ImageDraw, panel: _Panel, left: int, top: int) -> None:
    """Direction letters at the four sides and a scale bar below the lower left corner."""
    width, height = panel.image.size
    letters = font(15)
    places: tuple[tuple[float, float, str], ...] = (
        (left - 5, top + height / 2, "rm"),
        (left + width + 5, top + height / 2, "lm"),
        (left + width / 2, top - 3, "mb"),
        (left + width / 2, top + height + 3, "mt"),
    )
    for text, (x, y, anchor) in zip(panel.letters, places, strict=True):
        draw.text((x, y), text, fill=INK, font=letters, anchor=anchor)
    fitting = [bar for bar in _BARS_MM if bar / panel.mm_per_pixel <= 0.36 * width]
    bar_mm = fitting[-1] if fitting else _BARS_MM[0]
    length = round(bar_mm / panel.mm_per_pixel)
    y = top + height + 8
    draw.line([(left, y), (left + length, y)], fill=INK, width=2)
    for x in (left, left + length):
        draw.line([(x, y - 3), (x, y + 3)], fill=INK, width=1)
    text = f"{bar_mm // 10} cm" if bar_mm >= 10 else f"{bar_mm} mm"
    draw.text((left + length + 5, y), text, fill=FAINT, font=font(11), anchor="lm")
