"""Coded concepts (SNOMED CT and others) and the terminology strings of 3D Slicer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import SpecError

SNOMED_CT = "SCT"
TYPE_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
REGION_CONTEXT = "Anatomic codes - DICOM master list"

_SEPARATORS = re.compile(r"[\^~|\\\n\r\t]")
_SNOMED_ID = re.compile(r"[1-9][0-9]{5,17}")
_NO_CODE = "^^"


@dataclass(frozen=True, kw_only=True)
class Code:
    """A coded concept.

    Attributes:
        scheme: DICOM coding scheme designator, "SCT" for SNOMED CT; at most 16 characters.
        value: The code within the scheme. SNOMED CT ids carry a check digit, so a mistyped one is refused.
        meaning: English meaning, at most 64 characters.
    """

    scheme: str
    value: str
    meaning: str

    def __post_init__(self) -> None:
        parts: dict[str, tuple[Any, int]] = {
            "scheme": (self.scheme, 16),
            "value": (self.value, 64),
            "meaning": (self.meaning, 64),
        }
        for part, (text, longest) in parts.items():
            if not isinstance(text, str) or not text.strip() or len(text) > longest or _SEPARATORS.search(text):
                raise SpecError(
                    f"the {part} of a code must be 1 to {longest} characters without ^ ~ | or \\, got {text!r}"
                )
        if self.scheme == SNOMED_CT and not is_snomed_id(self.value):
            raise SpecError(
                f"{self.value!r} ({self.meaning}) is no SNOMED CT id (6 to 18 digits, the last a check digit); "
                "check for a typing mistake"
            )

    def __str__(self) -> str:
        return f"{self.scheme} {self.value} {self.meaning}"

    def to_json(self) -> dict[str, str]:
        """Plain JSON values."""
        return {"scheme": self.scheme, "value": self.value, "meaning": self.meaning}

    @classmethod
    def from_json(cls, values: Any) -> Code:
        """Rebuild a code. Raises SpecError showing what came."""
        if not isinstance(values, Mapping) or set(values) != {"scheme", "value", "meaning"}:
            raise SpecError(f"a code must be an object with scheme, value and meaning, got {values!r}")
        return cls(scheme=values["scheme"], value=values["value"], meaning=values["meaning"])


def is_snomed_id(text: str) -> bool:
    """Whether ``text`` has the form of a SNOMED CT id: 6 to 18 digits of which the last is the Verhoeff check digit.

    Source: J. Verhoeff, Error Detecting Decimal Codes, 1969: digits are combined in the dihedral group of order 10
    after a permutation that depends on the position, and a valid number gives the identity.
    """
    if not _SNOMED_ID.fullmatch(text):
        return False
    total = 0
    for position, digit in enumerate(reversed(text)):
        total = _dihedral(total, _permuted(int(digit), position))
    return total == 0


def _dihedral(a: int, b: int) -> int:
    """Product in the dihedral group of order 10: 0..4 are rotations, 5..9 reflections."""
    if a < 5:
        return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
    return 5 + (a - b) % 5 if b < 5 else (a - b) % 5


def _permuted(digit: int, position: int) -> int:
    """Verhoeff's permutation (0 1 5 8 9 4 2 7)(3 6), applied ``position`` times."""
    cycle = "01589427"
    text = str(digit)
    if text in cycle:
        return int(cycle[(cycle.index(text) + position) % 8])
    return digit if position % 2 == 0 else 9 - digit


@dataclass(frozen=True, kw_only=True)
class Terminology:
    """Everything 3D Slicer and DICOM SEG say about what a segment is.

    Attributes:
        category: What kind of thing: anatomical structure, tissue, morphologically altered structure.
        type: The thing itself.
        type_modifier: Its side, where it has one.
        region: Where it is, for things that occur in many places (a cyst in the kidney).
        region_modifier: The side of the region.
    """

    category: Code
    type: Code
    type_modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None

    def __str__(self) -> str:
        """The serialized entry, as in a ``.seg.nrrd``: seven parts joined by ``~``, a missing code is ``^^``."""
        kind = (self.category, self.type, self.type_modifier)
        place = (self.region, self.region_modifier)
        return "~".join((TYPE_CONTEXT, *map(_serialized, kind), REGION_CONTEXT, *map(_serialized, place)))

    @classmethod
    def parse(cls, text: str) -> Terminology:
        """Read a serialized entry back, whatever its contexts. Raises SpecError showing what came."""
        parts = text.split("~")
        if len(parts) != 7:
            raise SpecError(
                "a terminology entry must be context~category~type~modifier~region context~region~region modifier, "
                f"got {text!r}"
            )
        category, kind, modifier, region, region_modifier = (_parsed(parts[i], text) for i in (1, 2, 3, 5, 6))
        if category is None or kind is None:
            raise SpecError(f"a terminology entry needs a category and a type, got {text!r}")
        return cls(category=category, type=kind, type_modifier=modifier, region=region, region_modifier=region_modifier)


def _serialized(code: Code | None) -> str:
    return _NO_CODE if code is None else f"{code.scheme}^{code.value}^{code.meaning}"


def _parsed(part: str, text: str) -> Code | None:
    if part in (_NO_CODE, ""):
        return None
    fields = part.split("^")
    if len(fields) != 3:
        raise SpecError(f"a coded part must be scheme^value^meaning, got {part!r} in {text!r}")
    return Code(scheme=fields[0], value=fields[1], meaning=fields[2])
