"""Writes the terminology files that 3D Slicer's selector reads, from the catalogue of organs.

    .venv/bin/python Testing/terminology_resource.py

Run it after the catalogue changed; a test compares. The format is that of dcmqi's segment context files, as Slicer
reads it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "WholeBodyCSS"))

from wbcss.catalogue import Organ, catalogue  # noqa: E402 -- after the path
from wbcss.terminology import Code  # noqa: E402

FOLDER = ROOT / "WholeBodyCSS" / "Resources"
TYPES = FOLDER / "SegmentationCategoryTypeModifier-WholeBodyCSS.term.json"
REGIONS = FOLDER / "AnatomicRegionAndModifier-WholeBodyCSS.term.json"
_SCHEMAS = "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc"


def types_json() -> str:
    """Categories with their types, types with their sides, each in the order of the catalogue."""
    organs = list(catalogue().values())
    categories = []
    for category in _unique(organ.category for organ in organs):
        mine = [organ for organ in organs if organ.category == category]
        kinds = [_type(kind, [organ for organ in mine if organ.type == kind]) for kind in _unique(o.type for o in mine)]
        shows_region = any(organ.region is not None for organ in mine)
        categories.append({**_code(category), "showAnatomy": shows_region, "Type": kinds})
    return _text(
        {
            "SegmentationCategoryTypeContextName": "Segmentation category and type - WholeBodyCSS",
            "@schema": f"{_SCHEMAS}/segment-context-schema.json#",
            "SegmentationCodes": {"Category": categories},
        }
    )


def regions_json() -> str:
    """Where lesions of the catalogue can be, with their sides."""
    organs = [organ for organ in catalogue().values() if organ.region is not None]
    regions = []
    for region in _unique(organ.region for organ in organs if organ.region is not None):
        sides = _unique(o.region_modifier for o in organs if o.region == region and o.region_modifier is not None)
        regions.append({**_code(region), **({"Modifier": [_code(side) for side in sides]} if sides else {})})
    return _text(
        {
            "AnatomicContextName": "Anatomic codes - WholeBodyCSS",
            "@schema": f"{_SCHEMAS}/anatomic-context-schema.json#",
            "AnatomicCodes": {"AnatomicRegion": regions},
        }
    )


def _type(kind: Code, organs: list[Organ]) -> dict[str, Any]:
    """A type with its color; several organs may share it (left and right, or the nearest wider concept)."""
    sides = {organ.type_modifier: organ for organ in reversed(organs) if organ.type_modifier is not None}
    entry: dict[str, Any] = {**_code(kind), "recommendedDisplayRGBValue": list(organs[0].color_rgb)}
    if len(organs) == 1 and not sides:
        entry["3dSlicerLabel"] = organs[0].name
    if sides:
        entry["Modifier"] = [
            {**_code(side), "3dSlicerLabel": organ.name, "recommendedDisplayRGBValue": list(organ.color_rgb)}
            for side, organ in sorted(sides.items(), key=lambda item: item[1].label)
        ]
    return entry


def _code(code: Code) -> dict[str, str]:
    return {"CodeMeaning": code.meaning, "CodingSchemeDesignator": code.scheme, "CodeValue": code.value}


def _unique(codes: Iterable[Code]) -> list[Code]:
    return list(dict.fromkeys(codes))


def _text(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=1) + "\n"


if __name__ == "__main__":
    for path, text in ((TYPES, types_json()), (REGIONS, regions_json())):
        path.write_text(text, encoding="utf-8", newline="\n")
