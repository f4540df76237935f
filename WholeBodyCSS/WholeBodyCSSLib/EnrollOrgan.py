"""What a task that is to be learned is called: its organs with colors and codes, and the words of its card. No Qt."""

from __future__ import annotations

import colorsys
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wbcss.catalogue import Organ, catalogue, search
from wbcss.errors import InputError
from wbcss.labels import OrganName, parse_task_id
from wbcss.terminology import Code

from .Translation import _

STRUCTURE = Code(scheme="SCT", value="123037004", meaning="Anatomical Structure")
LESION = Code(scheme="SCT", value="49755003", meaning="Morphologically Altered Structure")
LICENSES = ("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-SA-4.0", "For use in this institution only")
_LESION_TYPE = Code(scheme="SCT", value="4147007", meaning="Mass")
_LESION_GROUP, _OTHER_GROUP = "lesion", "other"
_PRIVATE = re.compile(r"\b(?:\d{4}-\d{2}-\d{2}|\d{6,})\b")
"""Dates and long numbers, which name a patient more often than a project."""

Color = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class OrganDraft:
    """One organ that is learned.

    Attributes:
        name: Its name in cards and files.
        title: What people read.
        color: 0..255.
        isLesion: Whether it is a lesion; then ``code`` is where it lies.
        code: The organ of the catalogue whose SNOMED code it takes; None for nothing narrower than a structure.
        isKnown: Whether the catalogue knows it: then nothing of it can be changed.
    """

    name: OrganName
    title: str
    color: Color
    isLesion: bool = False
    code: Organ | None = None
    isKnown: bool = False

    @property
    def codeText(self) -> str:
        """The code in words."""
        if self.isLesion and not self.isKnown and not self._isLesionCode:
            where = "" if self.code is None else _(" in {place}").format(place=_coded(self.code.type))
            return _coded(_LESION_TYPE) + where
        return _coded(STRUCTURE if self.code is None else self.code.type)

    def card(self) -> dict[str, Any]:
        """Fields for ``--organ-cards`` of the back end."""
        facts: dict[str, Any] = {"display": self.title, "color_rgb": list(self.color), "exact": False}
        if self.isLesion and not self._isLesionCode:
            facts |= {"group": _LESION_GROUP, "category": LESION.to_json(), "type": _LESION_TYPE.to_json()}
            if self.code is not None:
                facts |= {"region": self.code.type.to_json(), "side": self.code.side}
                if self.code.type_modifier is not None:
                    facts["region_modifier"] = self.code.type_modifier.to_json()
            return facts
        facts["group"] = _OTHER_GROUP
        if self.code is not None:
            facts |= {
                "group": self.code.group,
                "side": self.code.side,
                "category": self.code.category.to_json(),
                "type": self.code.type.to_json(),
            }
            for name in ("type_modifier", "region", "region_modifier"):
                code = getattr(self.code, name)
                if code is not None:
                    facts[name] = code.to_json()
        return facts

    @property
    def _isLesionCode(self) -> bool:
        """Whether the code is one of a lesion itself, which says where it lies."""
        return self.code is not None and self.code.group == _LESION_GROUP


@dataclass(frozen=True, kw_only=True)
class TaskDraft:
    """The task that is learned.

    Attributes:
        task: Its name in the registry.
        organs: What it learns.
        startFrom: ``auto``, ``none`` or a published task.
        license, provenance, limits: Words for its card.
        onRequest: Whether it runs on request only; None, as long as nobody has said, for tasks with a lesion.
    """

    task: str = ""
    organs: tuple[OrganDraft, ...] = ()
    startFrom: str = "auto"
    license: str = ""
    provenance: str = ""
    limits: str = ""
    onRequest: bool | None = None

    @property
    def isOnRequest(self) -> bool:
        """Whether it runs on request only: a lesion that is drawn into a healthy scan misleads."""
        return any(organ.isLesion for organ in self.organs) if self.onRequest is None else self.onRequest

    def problem(self) -> str:
        """Why the task cannot be learned as it is, in one sentence; "" if it can."""
        try:
            parse_task_id(self.task)
        except InputError as error:
            return str(error)
        for organ in self.organs:
            if not organ.title.strip():
                return _("the organ {name} needs a name").format(name=organ.name)
        if not self.license.strip():
            return _("say in the license what others may do with the task")
        if len(self.provenance.strip()) < 3:
            return _("say in a few words what the task is learned from")
        private = _PRIVATE.search(f"{self.provenance} {self.limits}")
        if private:
            return _("the card must not name a patient, take {text} out of it").format(text=private.group())
        return ""

    def withOrgans(self, titles: Mapping[str, str]) -> TaskDraft:
        """This draft for the organs of ``titles``, which says what the cases call them; what was said of them stays."""
        known = {organ.name: organ for organ in self.organs}
        organs = tuple(known.get(OrganName(name)) or draftOf(name, title) for name, title in titles.items())
        first = next((organ for organ in (*(o for o in organs if not o.isKnown), *organs)), None)
        return replace(self, organs=organs, task=self.task or (taskName(first.name) if first else ""))

    def withOrgan(self, organ: OrganDraft) -> TaskDraft:
        """This draft with a changed organ. What the catalogue knows stays as it is."""
        return replace(self, organs=tuple(organ if o.name == organ.name and not o.isKnown else o for o in self.organs))

    def organCards(self) -> dict[str, dict[str, Any]]:
        """Cards of the organs that the catalogue lacks."""
        return {organ.name: organ.card() for organ in self.organs if not organ.isKnown}

    def arguments(self) -> tuple[str, ...]:
        """Options of ``wbcss-train enroll``. Raises InputError if something is missing."""
        problem = self.problem()
        if problem:
            raise InputError(problem)
        words = ["--task", self.task, "--start-from", self.startFrom]
        words += ["--license", self.license.strip(), "--provenance", self.provenance.strip()]
        if self.isOnRequest:
            words += ["--on-request"]
        return (*words, "--limits", self.limits.strip()) if self.limits.strip() else tuple(words)


@dataclass(frozen=True, kw_only=True)
class SearchHit:
    """An organ of the catalogue that fits what somebody typed."""

    organ: Organ
    text: str = field(default="")


def searchCodes(text: str, limit: int = 40) -> tuple[SearchHit, ...]:
    """Organs by name, synonym, group or SNOMED code, best first."""
    wanted = text.strip()
    byCode = [organ for organ in catalogue().values() if wanted and wanted in (organ.type.value, organ.name)]
    found = list(dict.fromkeys([*byCode, *search(wanted)])) if wanted else list(catalogue().values())
    return tuple(
        SearchHit(organ=organ, text=f"{organ.display_name}  ({_coded(organ.type)})") for organ in found[:limit]
    )


def draftOf(name: str, title: str = "") -> OrganDraft:
    """What is known of an organ before anybody has said anything but what the cases call it."""
    known: Mapping[OrganName, Organ] = catalogue()
    organ = known.get(OrganName(name))
    if organ is not None:
        return OrganDraft(
            name=organ.name,
            title=organ.display_name,
            color=organ.color_rgb,
            isLesion=organ.group == _LESION_GROUP,
            code=organ,
            isKnown=True,
        )
    hue = hashlib.sha256(name.encode()).digest()[0] / 256
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.6, 0.9))
    words = (title or name).replace("_", " ").strip()
    return OrganDraft(name=OrganName(name), title=words[:1].upper() + words[1:], color=(red, green, blue))


def taskName(organ: str) -> str:
    """A name for the task of an organ."""
    word = re.sub(r"[^a-z0-9_]", "_", organ.lower())
    return word if re.match(r"[a-z]", word) else f"task_{word}"


def asJson(draft: TaskDraft) -> dict[str, Any]:
    """The draft as plain JSON values; ``fromJson`` gives an equal one back."""
    return {
        "task": draft.task,
        "startFrom": draft.startFrom,
        "license": draft.license,
        "provenance": draft.provenance,
        "limits": draft.limits,
        "onRequest": draft.onRequest,
        "organs": [
            {
                "name": organ.name,
                "title": organ.title,
                "color": list(organ.color),
                "isLesion": organ.isLesion,
                "code": None if organ.code is None else organ.code.name,
            }
            for organ in draft.organs
        ],
    }


def fromJson(values: Mapping[str, Any]) -> TaskDraft:
    """Read a draft back; what is not understood is left out."""
    organs = []
    for row in values.get("organs", ()):
        draft = draftOf(str(row["name"]))
        if not draft.isKnown:
            red, green, blue = (int(channel) for channel in row["color"])
            draft = replace(
                draft,
                title=str(row["title"]),
                color=(red, green, blue),
                isLesion=bool(row["isLesion"]),
                code=catalogue().get(OrganName(str(row["code"]))),
            )
        organs.append(draft)
    words = {key: str(values.get(key, "")) for key in ("task", "license", "provenance", "limits")}
    said = values.get("onRequest")
    onRequest = said if isinstance(said, bool) else None
    return TaskDraft(organs=tuple(organs), startFrom=str(values.get("startFrom", "auto")), onRequest=onRequest, **words)


def _coded(code: Code) -> str:
    scheme = "SNOMED CT" if code.scheme == "SCT" else code.scheme
    return f"{code.meaning}, {scheme} {code.value}"
