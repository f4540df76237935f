"""Draws the pictures of the sample scans for Slicer's module Sample Data, from the scans themselves.

``python Testing/draw_thumbnails.py [FOLDER]`` writes one PNG per sample; default is Resources/Icons of the module.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from wbcss.phantom import Phantom, make_phantom
from WholeBodyCSSLib.SampleData import SAMPLES, SPACING_MM, Sample

SIZE_PX = (260, 280)
"""What Slicer asks of a thumbnail."""
GAP_PX = 10
WINDOW_HU = (-160.0, 240.0)
AIR_HU = -500.0
ORGAN_OPACITY = 0.55

Picture = npt.NDArray[np.uint8]


def draw(sample: Sample) -> Image.Image:
    """A cut through the first scan of ``sample`` from the front, of a whole body also from the side.

    Organs have their colors if the sample comes with its annotation.
    """
    phantom = make_phantom(sample.region, seed=sample.seeds[0], spacing_mm=(SPACING_MM,) * 3)
    colors = {organ.label: organ.color_rgb for organ in phantom.organs} if sample.hasLabels else {}
    body = _body(phantom)
    axes = (1, 0) if sample.region == "whole" else (1,)
    return _side_by_side([_cut(phantom, body, colors, axis) for axis in axes])


def _body(phantom: Phantom) -> npt.NDArray[np.bool_]:
    """The largest thick thing that is not air: without the couch, which may touch it."""
    thick = ndimage.binary_opening(phantom.volume.voxels > AIR_HU, iterations=2)
    pieces, count = ndimage.label(thick)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray(pieces == sizes.argmax())


def _cut(
    phantom: Phantom, body: npt.NDArray[np.bool_], colors: Mapping[int, tuple[int, int, int]], axis: int
) -> Picture:
    """The middle of the body, head up, the patient's right or front on the left, as radiologists look at it."""
    points = np.argwhere(body)
    low, high = points.min(axis=0), points.max(axis=0) + 1
    inside = [slice(*bounds) for bounds in zip(low.tolist(), high.tolist(), strict=True)]
    inside[axis] = slice(None)
    middle = int(points[:, axis].mean())
    filled = ndimage.binary_fill_holes(body.take(middle, axis=axis))
    voxels = np.where(np.expand_dims(filled, axis), phantom.volume.voxels, -1000.0)
    labels = phantom.labels if colors else np.zeros_like(phantom.labels)
    gray, found = (array[tuple(inside)].take(middle, axis=axis).T[::-1, ::-1] for array in (voxels, labels))
    dark, bright = WINDOW_HU
    shade = np.clip((gray.astype(float) - dark) / (bright - dark), 0, 1)[..., None] * np.full(3, 255.0)
    table = np.zeros((max(colors, default=0) + 1, 3))
    for label, color in colors.items():
        table[label] = color
    organ = (found > 0)[..., None]
    return np.where(organ, (1 - ORGAN_OPACITY) * shade + ORGAN_OPACITY * table[found], shade).astype(np.uint8)


def _side_by_side(cuts: list[Picture]) -> Image.Image:
    """All cuts at one scale, centered on black."""
    width = sum(cut.shape[1] for cut in cuts)
    height = max(cut.shape[0] for cut in cuts)
    room = (SIZE_PX[0] - GAP_PX * (len(cuts) + 1), SIZE_PX[1] - 2 * GAP_PX)
    scale = min(room[0] / width, room[1] / height)
    sheet = Image.new("RGB", SIZE_PX)
    left = (SIZE_PX[0] - round(scale * width) - GAP_PX * (len(cuts) - 1)) // 2
    for cut in cuts:
        size = (round(scale * cut.shape[1]), round(scale * cut.shape[0]))
        sheet.paste(Image.fromarray(cut).resize(size, Image.Resampling.LANCZOS), (left, (SIZE_PX[1] - size[1]) // 2))
        left += size[0] + GAP_PX
    return sheet


def main() -> None:
    """Write the picture of every sample."""
    default = Path(__file__).resolve().parents[1] / "WholeBodyCSS/Resources/Icons"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    for sample in SAMPLES:
        draw(sample).quantize(128).save(folder / f"{sample.name}.png", optimize=True)
        sys.stdout.write(f"{folder / sample.name}.png\n")


if __name__ == "__main__":
    main()
