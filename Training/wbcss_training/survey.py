"""What a dataset calls its labels, before anybody has said which of them are learned and as what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wbcss.catalogue import suggest
from wbcss.labels import OrganName

from .layouts import read_case_list
from .mapping import Survey, organ_of

_NEAR = 5


@dataclass(frozen=True, kw_only=True)
class UsedName:
    """A name that a dataset uses.

    Attributes:
        name: As it is written there.
        num_cases: In how many cases.
        organ: What it stands for if that is clear, else None.
        near: Organs of the catalogue with similar names, best first, if it is not clear.
        is_new: Whether the dataset itself declares it as an organ that the catalogue lacks.
    """

    name: str
    num_cases: int
    organ: OrganName | None
    near: tuple[OrganName, ...] = ()
    is_new: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "cases": self.num_cases,
            "organ": self.organ,
            "near": list(self.near),
            "new": self.is_new,
        }


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """What lies at a path.

    Attributes:
        titles: What to call every case on the user's own screen, in order. Not published.
        names: In the order in which the dataset uses them first.
    """

    titles: tuple[str, ...]
    names: tuple[UsedName, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for the user's own screen: file names are in them."""
        return {
            "format": "wbcss-case-names",
            "format_version": 1,
            "cases": list(self.titles),
            "names": [name.to_json() for name in self.names],
        }


def take_inventory(path: Path) -> Inventory:
    """Cases at ``path``, in any layout of ``read_case_list``, and the names of their labels. No image is opened.

    Raises CaseError if nothing can be read there.
    """
    survey = Survey()
    cases = read_case_list(path, organs=survey)
    counts = Counter(organ for case in cases for organ in case.values.values())
    return Inventory(
        titles=tuple(case.title for case in cases),
        names=tuple(_used(names, counts, survey.declared) for names in survey.numbers.items()),
    )


def _used(name_and_number: tuple[str, OrganName], counts: Counter[OrganName], declared: Iterable[str]) -> UsedName:
    name, number = name_and_number
    is_new = name in declared
    organ = OrganName(name) if is_new else organ_of(name)
    near = () if organ else suggest(name, limit=_NEAR)
    return UsedName(name=name, num_cases=counts[number], organ=organ, near=near, is_new=is_new)
