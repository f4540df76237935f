"""Organs, and the label spaces that number them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NewType

from .errors import LabelSpaceError

TaskId = NewType("TaskId", str)
OrganName = NewType("OrganName", str)

BACKGROUND = 0
MAX_LABEL = 65535
_TASK_ID = re.compile(r"[a-z][a-z0-9_]*")
_ORGAN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def parse_task_id(text: str) -> TaskId:
    """Check that ``text`` can name a task; it becomes a folder and a module key, so a-z, 0-9 and _ only."""
    if not _TASK_ID.fullmatch(text):
        raise LabelSpaceError(
            f"a task name must start with a lower-case letter and hold only a-z, 0-9 and _, got {text!r}"
        )
    return TaskId(text)


def parse_organ_name(text: str) -> OrganName:
    """Check that ``text`` can name an organ (snake_case; vertebrae keep their capital, as in ``vertebrae_L1``)."""
    if not _ORGAN_NAME.fullmatch(text):
        raise LabelSpaceError(
            f"an organ name must start with a letter and hold only letters, digits and _, got {text!r}"
        )
    return OrganName(text)


@dataclass(frozen=True)
class LabelSpace:
    """A fixed numbering of organs. Value 0 is background and is never listed.

    Attributes:
        values: Organ name to label value. Values are unique, in 1..65535, and never reused:
            a retired organ keeps its value, so old segmentations stay readable.
    """

    values: Mapping[OrganName, int]

    def __post_init__(self) -> None:
        seen: dict[int, OrganName] = {}
        for organ, value in self.values.items():
            parse_organ_name(organ)
            if not 1 <= value <= MAX_LABEL:
                raise LabelSpaceError(f"label value of {organ!r} must be in 1..{MAX_LABEL}, got {value}")
            if value in seen:
                raise LabelSpaceError(f"organs {seen[value]!r} and {organ!r} share the label value {value}")
            seen[value] = organ

    @classmethod
    def numbered(cls, organs: Iterable[OrganName]) -> LabelSpace:
        """Number ``organs`` 1, 2, 3 ... in the order given; this is how a decoder numbers its output channels."""
        names = list(organs)
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise LabelSpaceError(f"each organ may be listed once, got {', '.join(twice)} more than once")
        return cls({organ: value for value, organ in enumerate(names, start=1)})

    def organ(self, value: int) -> OrganName:
        """The organ of ``value``. Raises LabelSpaceError naming the value if nobody owns it."""
        for organ, own in self.values.items():
            if own == value:
                return organ
        raise LabelSpaceError(f"no organ has the label value {value}; known values are {sorted(self.values.values())}")

    def __getitem__(self, organ: OrganName) -> int:
        try:
            return self.values[organ]
        except KeyError:
            raise LabelSpaceError(
                f"unknown organ {organ!r}; known organs are {', '.join(sorted(self.values))}"
            ) from None

    def __contains__(self, organ: object) -> bool:
        return organ in self.values

    def __iter__(self) -> Iterator[OrganName]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)
