"""Which organs to segment: groups of a tree, search, presets and three-state ticks. No Qt and no scene."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wbcss.catalogue import groups
from wbcss.errors import InputError
from wbcss.protocol import OrganItem

WHOLE_BODY = "wholeBody"


class Tick(enum.Enum):
    """State of a box of the tree; a group is PARTLY ticked when some of its organs are."""

    OFF = 0
    PARTLY = 1
    ON = 2


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A choice with one click: whole groups of the catalogue, and single organs of others."""

    groups: frozenset[str]
    organs: frozenset[str] = frozenset()

    def holds(self, organ: OrganItem) -> bool:
        """Whether ``organ`` belongs to the choice."""
        return organ.group in self.groups or organ.name in self.organs


def _preset(groupNames: str, organNames: str = "") -> Preset:
    return Preset(groups=frozenset(groupNames.split()), organs=frozenset(organNames.split()))


PRESETS: Mapping[str, Preset] = {
    "headNeck": _preset(
        "brain head_neck glands skeleton_head muscles_head_neck",
        "esophagus trachea common_carotid_artery_left common_carotid_artery_right internal_carotid_artery_left "
        "internal_carotid_artery_right internal_jugular_vein_left internal_jugular_vein_right "
        + " ".join(f"vertebrae_C{number}" for number in range(1, 8)),
    ),
    "chest": _preset(
        "chest cardiac skeleton_ribs",
        "aorta pulmonary_artery pulmonary_vein superior_vena_cava brachiocephalic_trunk brachiocephalic_vein_left "
        "brachiocephalic_vein_right subclavian_artery_left subclavian_artery_right azygos_vein diaphragm "
        + " ".join(f"vertebrae_T{number}" for number in range(1, 13)),
    ),
    "abdomen": _preset(
        "abdomen",
        "aorta inferior_vena_cava portal_vein_and_splenic_vein celiac_trunk superior_mesenteric_artery "
        "superior_mesenteric_vein renal_artery_left renal_artery_right renal_vein_left renal_vein_right "
        "iliopsoas_left iliopsoas_right " + " ".join(f"vertebrae_L{number}" for number in range(1, 6)),
    ),
    "pelvis": _preset(
        "pelvis",
        "sacrum hip_left hip_right femur_left femur_right iliac_artery_left iliac_artery_right iliac_vena_left "
        "iliac_vena_right gluteus_maximus_left gluteus_maximus_right colon",
    ),
    "skeleton": _preset("skeleton_head skeleton_spine skeleton_ribs skeleton_limbs"),
    "vascular": _preset("vessels cardiac"),
    "muscles": _preset("muscles_head_neck muscles_trunk muscles_limbs"),
    "lesions": _preset("lesion"),
}
"""Every choice but the whole body, by its id in the order to offer them. None holds an organ on request."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A branch of the tree: its id, its title and the organs under it."""

    name: str
    title: str
    organs: tuple[OrganItem, ...]


class OrganChoice:
    """The organs of a registry and which of them are ticked; at first all are but those on request."""

    def __init__(self, organs: Sequence[OrganItem] = ()) -> None:
        self._organs: dict[str, OrganItem] = {}
        self._ticked: set[str] = set()
        self.setOrgans(organs)

    @property
    def organs(self) -> tuple[OrganItem, ...]:
        """All organs, in registry order."""
        return tuple(self._organs.values())

    @property
    def usual(self) -> tuple[str, ...]:
        """Names of the organs that the whole body holds: all but those that run on request, in registry order."""
        return tuple(name for name, organ in self._organs.items() if not organ.is_on_request)

    @property
    def ticked(self) -> tuple[str, ...]:
        """Names of the ticked organs, in registry order."""
        return tuple(name for name in self._organs if name in self._ticked)

    @property
    def wanted(self) -> tuple[str, ...] | None:
        """As ``ticked``, but None if that is the usual: what is published later is then wanted too."""
        return None if self._ticked == set(self.usual) else self.ticked

    def setOrgans(self, organs: Sequence[OrganItem]) -> None:
        """Take over what the registry knows now. Ticks stay; new usual organs are ticked if all others were."""
        isUsual = self._ticked == set(self.usual)
        self._organs = {organ.name: organ for organ in organs}
        self._ticked = set(self.usual) if isUsual else self._ticked & set(self._organs)

    def groups(self) -> tuple[Group, ...]:
        """The tree: groups in the order of the catalogue, then those of enrolled organs; none is empty."""
        titles = groups()
        found: dict[str, list[OrganItem]] = {name: [] for name in titles}
        for organ in self._organs.values():
            found.setdefault(organ.group, []).append(organ)
        return tuple(
            Group(name=name, title=titles.get(name, _title(name)), organs=tuple(organs))
            for name, organs in found.items()
            if organs
        )

    def isTicked(self, name: str) -> bool:
        """Whether the organ is to be segmented."""
        return name in self._ticked

    def tick(self, names: Iterable[str], on: bool = True) -> None:
        """Tick or untick organs. Raises InputError for one that the registry does not know."""
        names = set(names)
        unknown = sorted(names - set(self._organs))
        if unknown:
            raise InputError(f"organs to tick must be known to the registry, got {', '.join(unknown)}")
        self._ticked = self._ticked | names if on else self._ticked - names

    def choose(self, names: Iterable[str] | None) -> None:
        """Tick exactly ``names``, or the usual for None; names that the registry no longer knows are passed over."""
        self._ticked = set(self.usual) if names is None else set(names) & set(self._organs)

    def boxed(self, organs: Sequence[OrganItem]) -> tuple[OrganItem, ...]:
        """What a tick in the box over ``organs`` stands for: those on request are ticked by name, unless all are."""
        return tuple(organ for organ in organs if not organ.is_on_request) or tuple(organs)

    def state(self, organs: Sequence[OrganItem]) -> Tick:
        """The box over ``organs``."""
        if not any(organ.name in self._ticked for organ in organs):
            return Tick.OFF
        return Tick.ON if all(organ.name in self._ticked for organ in self.boxed(organs)) else Tick.PARTLY

    def presets(self) -> tuple[str, ...]:
        """Ids of the presets that hold an organ here, the whole body first."""
        return (WHOLE_BODY, *(name for name in PRESETS if self._of(name)))

    def applyPreset(self, name: str) -> None:
        """Tick exactly the organs of a preset. Raises InputError for an unknown one."""
        if name != WHOLE_BODY and name not in PRESETS:
            raise InputError(f"a preset must be one of {', '.join((WHOLE_BODY, *PRESETS))}, got {name!r}")
        self._ticked = set(self._of(name))

    def preset(self) -> str:
        """Id of the preset that is ticked now; "" if it is none of them."""
        return next((name for name in self.presets() if self._ticked == set(self._of(name))), "")

    def matches(self, text: str) -> frozenset[str]:
        """Organs that every word of ``text`` fits: the beginning of a word of a name, synonym, group or task."""
        wanted = _words(text)
        titles = groups()
        found = set()
        for organ in self._organs.values():
            about = (
                organ.name,
                organ.display_name,
                *organ.synonyms,
                titles.get(organ.group, organ.group),
                *organ.tasks,
            )
            words = {word for phrase in about for word in _words(phrase)}
            if all(any(word.startswith(part) for word in words) for part in wanted):
                found.add(organ.name)
        return frozenset(found)

    def tasks(self, names: Iterable[str] | None = None) -> tuple[str, ...]:
        """The tasks whose decoders run for ``names`` (default: the ticked organs), in the order of the registry."""
        wanted = self._ticked if names is None else set(names)
        needed = {task: None for organ in self._organs.values() if organ.name in wanted for task in organ.needed}
        return tuple(needed)

    def _of(self, preset: str) -> list[str]:
        if preset == WHOLE_BODY:
            return list(self.usual)
        return [name for name in self.usual if PRESETS[preset].holds(self._organs[name])]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower().replace("_", " "))


def _title(name: str) -> str:
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]
