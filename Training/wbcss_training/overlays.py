"""Pictures of the held-out cases that went worst: what was drawn by a person, what was found, and where they differ.

They show a patient's anatomy and so stay in the run folder; no card and no package holds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from wbcss.io.atomic import atomic_path
from wbcss.legend import BACKDROP, FAINT, INK, font
from wbcss.preprocess import canonical_orientation
from wbcss.preview import WINDOW_HU
from wbcss.volume import LabelMap, Volume

from .evaluate import CaseScore

NUM_KEPT = 3
AGREED, MISSED, EXTRA = 1, 2, 3
COLORS = {AGREED: (0, 158, 115), MISSED: (230, 120, 0), EXTRA: (86, 140, 255)}
"""Green, orange and blue, which people who confuse red and green can tell apart."""

_NAMES = {AGREED: "drawn and found", MISSED: "drawn, not found", EXTRA: "found, not drawn"}
_FILL = 0.5
_AROUND_MM = 25.0
_SIDE, _MARGIN, _FRAME, _HEAD, _FOOT = 200, 8, 15, 24, 22
"""Pixels; small enough that the texts can be read in a panel at the side of a window."""

_MAX_TOLD = 4

Pixels = npt.NDArray[np.uint8]
Outcome = npt.NDArray[np.uint8]
"""(I, J, K): 0 where both say background, else AGREED, MISSED or EXTRA."""


@dataclass(frozen=True)
class _View:
    """A slice direction by canonical axes: what it is cut across, what runs right (reversed?) and what runs up."""

    name: str
    across: int
    right: int
    is_right_reversed: bool
    up: int
    letters: tuple[str, str]


_VIEWS = (
    _View("coronal", 1, 0, True, 2, ("R", "S")),
    _View("sagittal", 0, 1, True, 2, ("A", "S")),
    _View("axial", 2, 0, True, 1, ("R", "A")),
)
"""As radiologists read: the patient's right on the left of the picture, head or front up."""


def compare(reference: LabelMap, found: LabelMap) -> Outcome:
    """Voxel by voxel, for label maps of equal meaning and shape; an organ found as another one counts as missed."""
    outcome = np.zeros(reference.shape, np.uint8)
    outcome[(reference == 0) & (found != 0)] = EXTRA
    outcome[(reference != 0) & (found != reference)] = MISSED
    outcome[(reference != 0) & (found == reference)] = AGREED
    return outcome


def draw_overlay(volume: Volume, outcome: Outcome, *, title: str) -> Image.Image:
    """Three slices where the two differ most, cropped to the organs, with a legend.

    Args:
        volume: The CT.
        outcome: As of ``compare``, on its grid.
        title: One line above the slices.
    """
    orientation = canonical_orientation(volume.affine)
    hu, classes = orientation.view(volume.voxels), orientation.view(outcome)
    spacing = volume.spacing_mm
    r_mm, a_mm, s_mm = (spacing[axis] for axis in orientation.permutation)
    box = _box(classes, (r_mm, a_mm, s_mm))
    center = _worst_slices(classes)
    panels = [_panel(hu, classes, view, center[view.across], box=box, spacing_mm=(r_mm, a_mm, s_mm)) for view in _VIEWS]
    cell = _SIDE + 2 * _FRAME
    width = 3 * cell + 4 * _MARGIN
    canvas = Image.new("RGB", (width, _HEAD + cell + _FOOT + 2 * _MARGIN), BACKDROP)
    draw = ImageDraw.Draw(canvas)
    draw.text((_MARGIN, _MARGIN), title, fill=INK, font=font(15))
    for number, (view, panel) in enumerate(zip(_VIEWS, panels, strict=True)):
        left = _MARGIN + number * (cell + _MARGIN) + (cell - panel.width) // 2
        top = _HEAD + _MARGIN + (cell - panel.height) // 2
        canvas.paste(panel, (left, top))
        draw.text((left - 4, top + panel.height / 2), view.letters[0], fill=FAINT, font=font(13), anchor="rm")
        draw.text((left + panel.width / 2, top - 2), view.letters[1], fill=FAINT, font=font(13), anchor="mb")
    _legend(draw, top=_HEAD + cell + _MARGIN + 6)
    return canvas


class WorstCases:
    """Told every evaluated case, it keeps the pictures of the few with the lowest Dice in a folder.

    Raises OutputError if the disk refuses.
    """

    def __init__(self, folder: Path, *, count: int = NUM_KEPT) -> None:
        self._folder = folder
        self._count = count
        self._dice: dict[str, float] = {}

    def __call__(self, score: CaseScore, volume: Volume, reference: LabelMap, found: LabelMap) -> None:
        """Look at one case; both label maps hold the model's label values."""
        dice = {name: agreement.dice for name, agreement in score.organs.items()}
        name = f"case_{score.number}.png"
        self._dice[name] = sum(dice.values()) / len(dice)
        if name not in self.names:
            return
        told = [f"{organ} {value:.2f}" for organ, value in sorted(dice.items(), key=lambda item: item[1])]
        more = f" and {len(told) - _MAX_TOLD} more" if len(told) > _MAX_TOLD else ""
        title = f"Held-out case {score.number}, Dice: {', '.join(told[:_MAX_TOLD])}{more}"
        picture = draw_overlay(volume, compare(reference, found), title=title)
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._folder / name) as temporary:
            picture.save(temporary, format="PNG", optimize=False)
        for other in set(self._dice) - set(self.names):
            (self._folder / other).unlink(missing_ok=True)

    @property
    def names(self) -> tuple[str, ...]:
        """File names of the pictures that are kept, worst case first."""
        return tuple(sorted(self._dice, key=lambda name: (self._dice[name], name))[: self._count])


def _box(classes: Outcome, spacing_mm: tuple[float, float, float]) -> tuple[slice, ...]:
    """Where the organs are, with some of their neighborhood; everything if there is no organ."""
    sides = []
    for axis, step_mm in enumerate(spacing_mm):
        others = tuple(other for other in range(3) if other != axis)
        inside = np.flatnonzero((classes > 0).any(axis=others))
        around = int(np.ceil(_AROUND_MM / step_mm))
        sides.append(
            slice(max(0, int(inside[0]) - around), int(inside[-1]) + 1 + around)
            if len(inside)
            else slice(0, classes.shape[axis])
        )
    return tuple(sides)


def _worst_slices(classes: Outcome) -> tuple[int, int, int]:
    """Per axis the slice with the most differing voxels, then the most organ, then nearest to the middle."""
    places = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        wrong, organ = (classes > AGREED).sum(axis=others), (classes > 0).sum(axis=others)
        off_middle = np.abs(np.arange(len(wrong)) - (len(wrong) - 1) / 2)
        places.append(int(np.lexsort((off_middle, -organ, -wrong))[0]))
    return places[0], places[1], places[2]


def _panel(
    hu: npt.NDArray[Any],
    classes: Outcome,
    view: _View,
    index: int,
    *,
    box: tuple[slice, ...],
    spacing_mm: tuple[float, float, float],
) -> Image.Image:
    gray, marks = (_cut(array, view, index, box) for array in (hu, classes))
    width_mm, height_mm = gray.shape[1] * spacing_mm[view.right], gray.shape[0] * spacing_mm[view.up]
    zoom = _SIDE / max(width_mm, height_mm)
    size = (max(2, round(width_mm * zoom)), max(2, round(height_mm * zoom)))
    low, high = WINDOW_HU
    shade = np.clip((gray.astype(np.float32) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    picture = np.asarray(Image.fromarray(shade).resize(size, Image.Resampling.BILINEAR))
    overlay = np.asarray(Image.fromarray(np.ascontiguousarray(marks)).resize(size, Image.Resampling.NEAREST))
    return Image.fromarray(_tinted(picture, overlay))


def _cut(array: npt.NDArray[Any], view: _View, index: int, box: tuple[slice, ...]) -> npt.NDArray[Any]:
    """The cropped slice as rows from top to bottom and columns from left to right of the picture."""
    place = tuple(index if axis == view.across else side for axis, side in enumerate(box))
    slab = array[place]
    if view.right < view.up:
        slab = slab.T
    return slab[::-1, :: -1 if view.is_right_reversed else 1]


def _tinted(gray: Pixels, marks: Outcome) -> Pixels:
    result = np.repeat(gray[:, :, None], 3, axis=2).astype(np.float32)
    for value, color in COLORS.items():
        inside = marks == value
        result[inside] += _FILL * (np.array(color, np.float32) - result[inside])
    return np.rint(result).astype(np.uint8)


def _legend(draw: ImageDraw.ImageDraw, *, top: int) -> None:
    left = float(_MARGIN)
    for value, name in _NAMES.items():
        draw.rectangle((left, top + 2, left + 12, top + 14), fill=COLORS[value])
        draw.text((left + 18, top), name, fill=INK, font=font(13))
        left += 18 + font(13).getlength(name) + 28
