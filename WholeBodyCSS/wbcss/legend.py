"""The legend of a preview: every organ's color and name, in columns."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from PIL import ImageDraw, ImageFont

from .catalogue import Organ

BACKDROP = (0, 0, 0)
INK = (235, 235, 235)
FAINT = (140, 140, 140)

_ROW, _SWATCH, _GAP, _SIZE = 19, 12, 22, 13
_HEAD = 26

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@functools.cache
def font(size: int) -> Font:
    """Pillow's own font, so that a picture looks the same on every machine."""
    return ImageFont.load_default(size)


def _ordered(organs: Sequence[Organ]) -> list[Organ]:
    """By group, groups in the order of their first label; within a group by label."""
    first: dict[str, int] = {}
    for organ in organs:
        first[organ.group] = min(organ.label, first.get(organ.group, organ.label))
    return sorted(organs, key=lambda organ: (first[organ.group], organ.group, organ.label))


def _columns(organs: Sequence[Organ], width: int) -> tuple[int, int, int]:
    """How many columns fit, how wide each is, and the rows they need."""
    if not organs:
        return 1, width, 0
    widest = max(font(_SIZE).getlength(organ.display_name) for organ in organs)
    column = int(widest) + _SWATCH + 6 + _GAP
    number = max(1, min(width // column, len(organs)))
    return number, column, -(-len(organs) // number)


def legend_size(organs: Sequence[Organ], width: int) -> tuple[int, int]:
    """Pixels that the legend of ``organs`` takes if it may be ``width`` wide."""
    _, _, rows = _columns(organs, width)
    return width, _HEAD + rows * _ROW


def draw_legend(
    draw: ImageDraw.ImageDraw, organs: Sequence[Organ], visible: set[int], corner: tuple[int, int], width: int
) -> None:
    """Draw the legend with its upper left ``corner``; organs that none of the slices shows are gray."""
    left, top = corner
    hidden = sum(organ.label not in visible for organ in organs)
    title = f"{len(organs)} organ{'' if len(organs) == 1 else 's'} found" if organs else "no organ found"
    note = f", {hidden} of them (gray) outside of these slices" if hidden else ""
    draw.text((left, top), f"{title}{note}", fill=INK, font=font(14))
    _, column, rows = _columns(organs, width)
    for n, organ in enumerate(_ordered(organs)):
        x = left + (n // rows) * column
        y = top + _HEAD + (n % rows) * _ROW
        draw.rectangle((x, y + 2, x + _SWATCH, y + 2 + _SWATCH), fill=organ.color_rgb, outline=(90, 90, 90))
        ink = INK if organ.label in visible else FAINT
        draw.text((x + _SWATCH + 6, y + 2 + _SWATCH // 2), organ.display_name, fill=ink, font=font(_SIZE), anchor="lm")
