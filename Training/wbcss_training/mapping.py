"""From the names that a dataset gives its labels to the organs of the catalogue."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from wbcss.catalogue import catalogue, suggest
from wbcss.errors import CaseError
from wbcss.labels import OrganName, parse_organ_name

EVERYTHING = "all"
"""The word that takes every name of a dataset beside the renamed ones."""

_NEW = "new:"
_TOLD = 5
_SIDES = {"left": "left", "l": "left", "lt": "left", "right": "right", "r": "right", "rt": "right"}
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+\d*|[A-Z]+\d*|\d+")
_FILLERS = frozenset({"of", "the"})


@dataclass(frozen=True, kw_only=True)
class OrganChoice:
    """Which names of a dataset are taken, and as what.

    Attributes:
        wanted: Organs to take; None takes all that the dataset holds.
        renames: Name in the dataset to organ, where the name itself does not tell.
        new_organs: Organs that the catalogue lacks and that are meant so.
    """

    wanted: frozenset[OrganName] | None = None
    renames: Mapping[str, OrganName] = field(default_factory=dict)
    new_organs: frozenset[OrganName] = frozenset()

    def also_new(self, names: Iterable[str]) -> OrganChoice:
        """This choice with ``names`` declared as new organs too."""
        new = self.new_organs | {parse_organ_name(name) for name in names}
        return OrganChoice(wanted=self.wanted, renames=self.renames, new_organs=new)


ALL_ORGANS = OrganChoice()


@dataclass(frozen=True, kw_only=True)
class Survey(OrganChoice):
    """Takes every name there is as an organ of its own, to find out what a dataset calls its labels.

    Attributes:
        numbers: What each name was taken as, in the order of first use.
        declared: Names that the dataset itself declares as new organs.
    """

    numbers: dict[str, OrganName] = field(default_factory=dict)
    declared: set[str] = field(default_factory=set)

    def also_new(self, names: Iterable[str]) -> Survey:
        """This survey, which remembers ``names``."""
        self.declared.update(parse_organ_name(name) for name in names)
        return self

    def numbered(self, names: Iterable[str]) -> dict[str, OrganName]:
        """Every name with its own organ, the same in every case."""
        return {name: self.numbers.setdefault(name, OrganName(f"name_{len(self.numbers) + 1}")) for name in names}


def parse_choice(text: str) -> OrganChoice:
    """The ``--organs`` option: what to take, separated by commas.

    ``liver`` takes an organ, ``Gland=parotid_gland_left`` takes the label called ``Gland`` as that organ,
    ``GTV=new:my_tumor`` (or ``new:my_tumor``) declares an organ that the catalogue lacks, and ``all`` takes everything
    else that the dataset holds. Several names may stand for one organ, as long as no case uses two of them. Raises
    CaseError that quotes what cannot be read.
    """
    wanted: dict[OrganName, None] = {}
    renames: dict[str, OrganName] = {}
    new: set[OrganName] = set()
    plain: set[OrganName] = set()
    takes_all = False
    for item in (part.strip() for part in text.split(",")):
        if item == EVERYTHING:
            takes_all = True
            continue
        name, is_rename, target = item.rpartition("=")
        name, target = name.strip(), target.strip()
        if not target or (is_rename and not name):
            raise CaseError(f"organs must be names separated by commas, each ORGAN or NAME=ORGAN, got {text!r}")
        organ, is_new = _target(target)
        if (not is_rename and organ in plain) or name in renames:
            raise CaseError(f"each organ may be chosen once, got {item!r} again")
        wanted[organ] = None
        if is_new:
            new.add(organ)
        if is_rename:
            renames[name] = organ
        else:
            plain.add(organ)
    return OrganChoice(wanted=None if takes_all else frozenset(wanted), renames=renames, new_organs=frozenset(new))


def map_names(names: Iterable[str], choice: OrganChoice, *, source: str) -> dict[str, OrganName]:
    """Name in a dataset to organ, for the names that ``choice`` takes.

    A name is taken as renamed, else as the organ of that name, else as the only organ that is called so but for case,
    spaces, hyphens, the place of the side (``Kidney_L``, ``left kidney``, ``RightParotid``) and British spelling.

    Args:
        names: As the dataset writes them.
        choice: What to take.
        source: The file that errors speak of.

    Raises:
        CaseError: A name is taken and fits no organ (with the nearest ones), or two names fit one organ.
    """
    if isinstance(choice, Survey):
        return choice.numbered(names)
    mapped: dict[str, OrganName] = {}
    unknown = []
    for name in names:
        organ = organ_of(name, choice)
        if organ is None:
            unknown.append(name)
            continue
        if choice.wanted is not None and organ not in choice.wanted:
            continue
        twin = next((other for other, own in mapped.items() if own == organ), None)
        if twin is not None:
            raise CaseError(
                f"{source} may name an organ once, got {twin!r} and {name!r} for {organ}; rename or leave out one"
            )
        mapped[name] = organ
    if unknown and choice.wanted is None:
        raise CaseError(f"{source} names {unknown_message(unknown)}")
    lacking = sorted((choice.wanted or frozenset()) - set(mapped.values()))
    for name in unknown:  # what nobody asked for may be called anything, but a chosen organ may hide behind it
        for near in suggest(name, among=lacking, limit=1):
            raise CaseError(f"{source} has no label called {near}, but {name!r}; if they are one, choose {name}={near}")
    return mapped


def organ_of(name: str, choice: OrganChoice = ALL_ORGANS) -> OrganName | None:
    """The organ that ``name`` stands for, or None if that is not clear."""
    if name in choice.renames:
        return choice.renames[name]
    organ = OrganName(name)
    if organ in catalogue() or organ in choice.new_organs:
        return organ
    return _spellings().get(_spelling(name))


def unknown_message(names: Iterable[str]) -> str:
    """What to say of names that fit no organ."""
    names = list(names)
    told = []
    for name in names[:_TOLD]:
        near = suggest(name, limit=3)
        told.append(f"{name!r} (near: {', '.join(near)})" if near else f"{name!r}")
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return (
        f"{len(names)} organ(s) that the catalogue lacks: {', '.join(told)}{more}; choose with --organs NAME=ORGAN, or "
        "NAME=new:ORGAN for a new organ"
    )


def _target(text: str) -> tuple[OrganName, bool]:
    """The organ of an option, and whether it is declared as new."""
    if text.startswith(_NEW):
        organ = parse_organ_name(text.removeprefix(_NEW))
        if organ in catalogue():
            raise CaseError(f"a new organ must not be in the catalogue, got {text!r}; leave out {_NEW!r}")
        return organ, True
    known = organ_of(text)
    if known is None:
        raise CaseError(f"the option organs names {unknown_message([text])}")
    return known, False


class _Spelling(NamedTuple):
    """What is left of a name when its side is taken out and its words are put in order."""

    side: str
    words: tuple[str, ...]


@functools.cache
def _spellings() -> Mapping[_Spelling, OrganName]:
    """Every spelling that one organ of the catalogue has alone. No synonyms: many name a neighbor or a part."""
    owners: dict[_Spelling, set[OrganName]] = {}
    for organ in catalogue().values():
        for title in (organ.name, organ.display_name):
            spelling = _spelling(title)
            short = _Spelling(spelling.side, tuple(word for word in spelling.words if word != "gland"))
            for key in (spelling, short):
                owners.setdefault(key, set()).add(organ.name)
    return {key: next(iter(names)) for key, names in owners.items() if len(names) == 1}


def _spelling(name: str) -> _Spelling:
    words = [word.lower() for part in re.findall(r"[A-Za-z0-9]+", name) for word in _WORD.findall(part)]
    words = [word for word in words if word not in _FILLERS]
    side = ""
    for place, word in enumerate(words):
        # A lone letter inside a name is no side: "vertebrae L 1".
        if word in ("left", "right") or (word in _SIDES and place in (0, len(words) - 1)):
            side = _SIDES[words.pop(place)]
            break
    return _Spelling(side, tuple(sorted(_folded(word) for word in words)))


def _folded(word: str) -> str:
    """American spelling in the singular, and numbers without leading zeros. Not English, but the same for both."""
    if word.isdigit():
        return str(int(word))
    word = {"vertebra": "vertebrae", "tumour": "tumor", "tumours": "tumor"}.get(word, word)
    word = word.replace("oe", "e").replace("ae", "e")
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
