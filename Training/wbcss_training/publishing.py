"""The last steps of an enrolment: prove that nothing old has changed, publish, prove it again."""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from wbcss.cards import TaskCard
from wbcss.catalogue import Organ, catalogue
from wbcss.errors import RunError, SpecError
from wbcss.io.atomic import write_bytes
from wbcss.labels import OrganName
from wbcss.loading import load_encoder
from wbcss.nn.encoder import Encoder
from wbcss.progress import IsCancelled, Progress, never, silent
from wbcss.proof import hash_logits, take_snapshot, this_machine
from wbcss.registry import Registry, StagedTask
from wbcss.snapshot import Snapshot, changed_files, changed_logits, read_snapshot, snapshot_to_bytes
from wbcss.terminology import Code

_STRUCTURE = Code(scheme="SCT", value="123037004", meaning="Anatomical Structure")
_NEW_GROUP = "other"


def snapshot_before(
    registry: Registry, path: Path, *, progress: Progress = silent, cancelled: IsCancelled = never
) -> Snapshot:
    """What the registry was when the run began: taken once and kept at ``path``, so that a resume changes nothing.

    On another machine the logits are computed anew, as they can only be compared with their like; the files are not.
    """
    if not path.is_file():
        snapshot = take_snapshot(registry, progress=progress, cancelled=cancelled)
        write_bytes(path, snapshot_to_bytes(snapshot))
        return snapshot
    known = read_snapshot(path)
    if known.logits is not None and known.logits.machine == this_machine():
        return known
    logits = hash_logits(registry, progress=progress, cancelled=cancelled)
    return Snapshot(files=known.files, logits=logits, created=known.created)


def prove_unchanged(registry: Registry, before: Snapshot, *, encoder: Encoder) -> tuple[str, ...]:
    """Titles of the earlier task versions, all of whose files and logits are bit for bit as in ``before`` (law 1).

    ``encoder`` is the one the run has used: it must still hold the published weights.

    Raises RunError naming the first thing that changed.
    """
    published = load_encoder(registry).state_dict()
    held = encoder.cpu().state_dict()
    changes = [f"the encoder's {name}" for name in published if not torch.equal(held[name], published[name])]
    changes += changed_files(before.files, registry.fingerprint(), since="the run began")
    if before.logits is not None:
        changes += changed_logits(before.logits, hash_logits(registry), since="the run began")
    if changes:
        raise RunError(
            f"enrolling must leave every earlier task bit for bit as it was, got {len(changes)} change(s): "
            f"{changes[0]}; restore the registry, then resume"
        )
    return tuple(before.logits.tasks) if before.logits is not None else ()


def publish_proven(
    registry: Registry, staged: StagedTask, before: Snapshot, *, encoder: Encoder
) -> tuple[TaskCard, tuple[str, ...]]:
    """Publish ``staged`` if nothing old has changed; returns its card and the titles that are proven unchanged.

    A version with the same weights that is there already is that of a run killed after its publication: it is taken.

    Raises:
        RunError: something old has changed; before publishing this keeps the task out of the registry.
        RegistryError, OutputError: as ``Registry.publish``.
    """
    prove_unchanged(registry, before, encoder=encoder)
    sha256 = hashlib.sha256(staged.weights.read_bytes()).hexdigest()
    there = [card for card in registry.all_cards() if (card.task, card.weights_sha256) == (staged.card.task, sha256)]
    card = there[-1] if there else registry.publish(staged)
    return card, prove_unchanged(registry, before, encoder=encoder)


def prove_publishable(
    registry: Registry, staged: StagedTask, before: Snapshot, *, encoder: Encoder
) -> tuple[TaskCard, tuple[str, ...]]:
    """As ``publish_proven`` up to the publication: the card that would be published, and what is proven unchanged.

    Raises:
        RunError: something old has changed.
        RegistryError: the registry would refuse the card.
    """
    unchanged = prove_unchanged(registry, before, encoder=encoder)
    version = max(registry.versions(staged.card.task), default=0) + 1
    sha256 = hashlib.sha256(staged.weights.read_bytes()).hexdigest()
    card = replace(staged.card, version=version, weights_sha256=sha256)
    registry.check_publishable(card)
    return card, unchanged


def organs_for(
    registry: Registry, names: Iterable[OrganName], cards: Mapping[OrganName, Mapping[str, Any]] | None = None
) -> tuple[Organ, ...]:
    """Organs of ``names`` as cards hold them; what the catalogue lacks gets a label value of this registry, for good.

    Args:
        registry: Knows the organs of earlier tasks, which keep their description.
        names: In the order of channels.
        cards: Fields of new organs, as ``new_organ`` takes them.
    """
    names = list(names)
    known = {organ.name: organ for card in registry.all_cards() for organ in card.organs} | dict(catalogue())
    new = [name for name in names if name not in known]
    labels = registry.allocate_labels(new) if new else {}
    facts = cards or {}
    return tuple(known[name] if name in known else new_organ(name, labels[name], facts.get(name, {})) for name in names)


def new_organ(name: OrganName, label: int, facts: Mapping[str, Any]) -> Organ:
    """An organ that the catalogue lacks.

    Args:
        name: Its name.
        label: Its label value.
        facts: Further fields as in the JSON of an ``Organ``. What is not said is a color of its own, and the code of
            "anatomical structure", as nothing narrower is known.

    Raises SpecError naming a field that is unknown or wrong.
    """
    strange = sorted({"name", "label"} & set(facts))
    if strange:
        raise SpecError(f"the card of the new organ {name!r} may not give its {strange[0]}, got {facts[strange[0]]!r}")
    return Organ.from_json({**_plain_organ(name, label).to_json(), **facts})


def _plain_organ(name: OrganName, label: int) -> Organ:
    hue = hashlib.sha256(name.encode()).digest()[0] / 256
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.6, 0.9))
    return Organ(
        name=name,
        label=label,
        side="none",
        group=_NEW_GROUP,
        color_rgb=(red, green, blue),
        category=_STRUCTURE,
        type=_STRUCTURE,
        exact=False,
    )
