"""Who owns which label value: the catalogue, the published cards, and ``labels.json``, which forgets nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from .catalogue import FIRST_CUSTOM_LABEL, Organ, catalogue
from .errors import LabelSpaceError, RegistryError
from .labels import MAX_LABEL, OrganName, parse_organ_name
from .schemas import dump_document, read_document
from .storage import replace_file

LEDGER_NAME = "labels.json"
Owners = dict[int, OrganName]


def read_ledger(root: Path) -> Owners:
    """Label value to organ as recorded; empty if the registry has no ledger yet.

    Raises RegistryError if the file is damaged.
    """
    path = root / LEDGER_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    values = read_document(data, schema="labels", source=LEDGER_NAME)
    return {int(label): OrganName(name) for label, name in values["labels"].items()}


def write_ledger(root: Path, owners: Mapping[int, OrganName]) -> None:
    """Record ``owners`` in one step."""
    labels = {str(label): owners[label] for label in sorted(owners)}
    data = dump_document({"format": "wbcss-labels", "format_version": 1, "labels": labels}, name=LEDGER_NAME)
    replace_file(root / LEDGER_NAME, data, staging_root=root)


def catalogue_owners() -> Owners:
    """Label values of the catalogue."""
    return {organ.label: name for name, organ in catalogue().items()}


def check_claims(organs: Iterable[Organ], owners: Mapping[int, OrganName], *, task: str) -> None:
    """Raise RegistryError if an organ claims a value of another organ, or has another value already."""
    values = {name: label for label, name in owners.items()}
    for organ in organs:
        owner = owners.get(organ.label)
        if owner is not None and owner != organ.name:
            raise RegistryError(
                f"task {task!r} gives the label value {organ.label} to {organ.name!r}, but here it belongs to "
                f"{owner!r}; label values are never reused, so the task needs another value for this organ"
            )
        known = values.get(organ.name, organ.label)
        if known != organ.label:
            raise RegistryError(
                f"task {task!r} gives {organ.name!r} the label value {organ.label}, but here this organ has the value "
                f"{known}; an organ has one value in all tasks"
            )


def allocate(names: Iterable[OrganName], owners: Mapping[int, OrganName]) -> dict[OrganName, int]:
    """A label value for every name: the one it has, or the next free one from ``FIRST_CUSTOM_LABEL`` on.

    Raises LabelSpaceError when all values are used up.
    """
    values = {name: label for label, name in owners.items()}
    free = 1 + max((label for label in owners if label >= FIRST_CUSTOM_LABEL), default=FIRST_CUSTOM_LABEL - 1)
    allocated: dict[OrganName, int] = {}
    for name in names:
        parse_organ_name(name)
        if name not in values:
            if free > MAX_LABEL:
                raise LabelSpaceError(f"no label value up to {MAX_LABEL} is free for organ {name!r}")
            values[name] = free
            free += 1
        allocated[name] = values[name]
    return allocated
