"""The one table of organs: names, fixed label values, colors and the SNOMED CT codes 3D Slicer and DICOM SEG show."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from .errors import InputError, LabelSpaceError, SpecError
from .labels import MAX_LABEL, LabelSpace, OrganName, parse_organ_name
from .resources import resource_path
from .terminology import Code, Terminology

Side = Literal["left", "right", "none"]

FIRST_CUSTOM_LABEL = 10000
"""Label values below this belong to the catalogue for good; organs made in the wizard get this one and higher."""

LEFT = Code(scheme="SCT", value="7771000", meaning="Left")
RIGHT = Code(scheme="SCT", value="24028007", meaning="Right")

_GROUP = re.compile(r"[a-z][a-z0-9_]*")
_SIDES = {"left": LEFT.value, "right": RIGHT.value}


@dataclass(frozen=True, kw_only=True)
class Organ:
    """One anatomical structure as every part of the product knows it.

    Attributes:
        name: snake_case name; TotalSegmentator's where it has the organ.
        label: Fixed label value in every output, 1..65535; TotalSegmentator's 1..117, never reused.
        side: Side of the body, "none" for midline organs.
        group: Region or system that lists show it under, such as "abdomen" or "skeleton_ribs".
        color_rgb: Display color, each channel 0..255.
        category: What kind of thing it is (anatomical structure, tissue, morphologically altered structure).
        type: The structure itself, without its side.
        type_modifier: The side, or None.
        region: Where it lies, for lesions and for parts that several regions have; or None.
        region_modifier: The side of the region, or None.
        display: Human-readable name; when empty it is made from ``name``.
        synonyms: Other names people search for.
        exact: False if ``type`` is the nearest wider concept because SNOMED CT has none, or none is known, for
            exactly this structure.
    """

    name: OrganName
    label: int
    side: Side
    group: str
    color_rgb: tuple[int, int, int]
    category: Code
    type: Code
    type_modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None
    display: str = ""
    synonyms: tuple[str, ...] = ()
    exact: bool = True

    def __post_init__(self) -> None:
        parse_organ_name(self.name)
        if type(self.label) is not int or not 1 <= self.label <= MAX_LABEL:
            raise LabelSpaceError(f"label value of {self.name!r} must be in 1..{MAX_LABEL}, got {self.label!r}")
        if self.side not in get_args(Side):
            raise SpecError(f"side of {self.name!r} must be left, right or none, got {self.side!r}")
        if not _GROUP.fullmatch(self.group):
            raise SpecError(f"group of {self.name!r} must hold only a-z, 0-9 and _, got {self.group!r}")
        color: tuple[Any, ...] = self.color_rgb
        if len(color) != 3 or any(type(c) is not int or not 0 <= c <= 255 for c in color):
            raise SpecError(f"color of {self.name!r} must be three whole numbers 0..255, got {color}")
        self._check_side()

    def _check_side(self) -> None:
        """A left organ must not be coded right, nor the other way round: it would be exported to the wrong side."""
        wrong = {LEFT.value, RIGHT.value} - {_SIDES.get(self.side)}
        for modifier in (self.type_modifier, self.region_modifier):
            if modifier is not None and modifier.value in wrong:
                raise SpecError(f"organ {self.name!r} has side {self.side!r} but its modifier says {modifier}")

    @property
    def display_name(self) -> str:
        """Name to show to people, as in "Left kidney"."""
        return self.display or _readable(self.name, self.side)

    @property
    def terminology(self) -> str:
        """The segment's terminology tag as 3D Slicer writes it into a ``.seg.nrrd``."""
        return str(
            Terminology(
                category=self.category,
                type=self.type,
                type_modifier=self.type_modifier,
                region=self.region,
                region_modifier=self.region_modifier,
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; ``from_json`` gives an equal organ back. Empty optional fields are left out."""
        values: dict[str, Any] = {
            "name": self.name,
            "label": self.label,
            "side": self.side,
            "group": self.group,
            "color_rgb": list(self.color_rgb),
            "category": self.category.to_json(),
            "type": self.type.to_json(),
            "type_modifier": None if self.type_modifier is None else self.type_modifier.to_json(),
        }
        optional: dict[str, Any] = {
            "region": None if self.region is None else self.region.to_json(),
            "region_modifier": None if self.region_modifier is None else self.region_modifier.to_json(),
            "display": self.display,
            "synonyms": list(self.synonyms),
        }
        values.update({field: value for field, value in optional.items() if value})
        if not self.exact:
            values["exact"] = False
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Organ:
        """Rebuild an organ. Raises SpecError naming what is missing, unknown or of the wrong type."""
        unknown = sorted(set(values) - set(_FIELDS))
        if unknown:
            raise SpecError(f"an organ has no field {', '.join(unknown)}; its fields are {', '.join(_FIELDS)}")
        missing = [field for field in _REQUIRED if field not in values]
        if missing:
            raise SpecError(f"organ {values.get('name')!r} lacks {', '.join(missing)}")
        fields = dict(values)
        try:
            for field in _CODES:
                if fields.get(field) is not None:
                    fields[field] = Code.from_json(fields[field])
            for field in ("color_rgb", "synonyms"):
                fields[field] = tuple(fields.get(field, ()))
            return cls(**fields)
        except TypeError as error:
            raise SpecError(f"organ {values.get('name')!r} cannot be read: {error}") from error


_FIELDS = tuple(Organ.__dataclass_fields__)
_CODES = ("category", "type", "type_modifier", "region", "region_modifier")
_REQUIRED = ("name", "label", "side", "group", "color_rgb", "category", "type")


def _readable(name: str, side: Side) -> str:
    words = [word for word in name.split("_") if word != side]
    text = " ".join(words)
    return f"{side.capitalize()} {text}" if side != "none" else text[:1].upper() + text[1:]


@functools.cache
def _table() -> Mapping[str, Any]:
    table: dict[str, Any] = json.loads(resource_path("LabelSpaces", "organs.json").read_text(encoding="utf-8"))
    return table


@functools.cache
def catalogue() -> Mapping[OrganName, Organ]:
    """All organs the product knows, by name, in label order. Read once from ``Resources/LabelSpaces/organs.json``."""
    organs = sorted((Organ.from_json(row) for row in _table()["organs"]), key=lambda organ: organ.label)
    LabelSpace({organ.name: organ.label for organ in organs})  # refuses two organs with one label
    by_name = {organ.name: organ for organ in organs}
    if len(by_name) != len(organs):
        raise LabelSpaceError("the organ table names an organ twice")
    return MappingProxyType(by_name)


@functools.cache
def groups() -> Mapping[str, str]:
    """The groups of the catalogue, in the order to show them, with a title for each."""
    titles: dict[str, str] = _table()["groups"]
    return MappingProxyType(titles)


def suggest(name: str, *, among: Iterable[OrganName] | None = None, limit: int = 5) -> tuple[OrganName, ...]:
    """The known organ names nearest to a misspelt one, best first; empty if none is near.

    Args:
        name: What the user typed; case, spaces and hyphens do not matter ("Left Kidny" finds ``kidney_left``).
        among: The names to choose from; the whole catalogue by default.
        limit: At most this many.
    """
    known = list(catalogue() if among is None else among)
    wanted = _sorted_words(name)
    spellings = {organ: _sorted_words(organ) for organ in known}
    scores = {
        organ: max(
            difflib.SequenceMatcher(None, wanted, spelling).ratio(),
            difflib.SequenceMatcher(None, _key(name), _key(organ)).ratio(),
        )
        for organ, spelling in spellings.items()
    }
    near = sorted((organ for organ in known if scores[organ] >= 0.6), key=lambda organ: (-scores[organ], organ))
    return tuple(near[:limit])


def find(names: Iterable[str]) -> tuple[Organ, ...]:
    """The organs of ``names``, in the order given. Raises InputError that lists near names for every unknown one."""
    known = catalogue()
    names = list(names)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError("; ".join(_unknown_message(name) for name in unknown))
    return tuple(known[OrganName(name)] for name in names)


def _unknown_message(name: str) -> str:
    near = suggest(name)
    hint = f"did you mean {', '.join(near)}?" if near else "`wbcss organs` lists the known ones"
    return f"unknown organ {name!r}: {hint}"


def search(text: str) -> tuple[Organ, ...]:
    """Organs whose name, synonyms, group or coded meaning hold every word of ``text``; best matches first.

    Words match from their beginning, so "lum vert" finds the lumbar vertebrae. Empty text finds every organ.
    """
    wanted = _key(text).split()
    hits: list[tuple[int, int, Organ]] = []
    for organ in catalogue().values():
        title = set(_key(f"{organ.display_name} {organ.name}").split())
        others = set(_key(" ".join((*organ.synonyms, organ.group, organ.type.meaning))).split())
        if all(any(word.startswith(part) for word in title | others) for part in wanted):
            missed = sum(not any(word.startswith(part) for word in title) for part in wanted)
            hits.append((missed, organ.label, organ))
    return tuple(organ for *_, organ in sorted(hits, key=lambda hit: hit[:2]))


def _key(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def _sorted_words(text: str) -> str:
    return " ".join(sorted(_key(text).split()))
