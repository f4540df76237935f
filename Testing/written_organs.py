"""Two organs for tests of what writes them."""

from __future__ import annotations

from typing import Any

from wbcss.catalogue import Organ
from wbcss.labels import OrganName
from wbcss.terminology import Code


def organ(name: str, label: int, **changes: Any) -> Organ:
    values: dict[str, Any] = {
        "name": OrganName(name),
        "label": label,
        "side": "none",
        "group": "abdomen",
        "color_rgb": (221, 130, 101),
        "category": Code(scheme="SCT", value="123037004", meaning="Anatomical Structure"),
        "type": Code(scheme="SCT", value="10200004", meaning="Liver"),
    }
    return Organ(**{**values, **changes})


LIVER = organ("liver", 5)
KIDNEY = organ(
    "kidney_left",
    300,
    side="left",
    color_rgb=(0, 255, 51),
    type=Code(scheme="SCT", value="64033007", meaning="Kidney"),
    type_modifier=Code(scheme="SCT", value="7771000", meaning="Left"),
)
