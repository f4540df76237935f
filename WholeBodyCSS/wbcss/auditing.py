"""Is a registry still what was published? Every finding is one sentence that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from . import ledger, storage, weights
from .cards import EncoderCard, TaskCard, encoder_card_from_bytes, task_card_from_bytes
from .errors import InputError, RegistryError
from .evidencefile import check_evidence
from .labels import OrganName
from .layout import (
    BODY_PART,
    BODY_PART_DIR,
    CARD,
    DECODER,
    ENCODER,
    ENCODER_DIR,
    EVIDENCE,
    RETIRED,
    TASKS_DIR,
    version_folders,
)
from .levelcard import level_card_from_bytes, level_head_shapes
from .schemas import read_document

_ROOT_NAMES = {ENCODER_DIR, TASKS_DIR, ledger.LEDGER_NAME, storage.LOCK_NAME, "README.md", "LICENSE"}
_DESKTOP_NAMES = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""What file browsers leave in any folder that somebody looked into."""


def check_place(card: TaskCard, task: str, version: int) -> None:
    """Raise RegistryError if a card lies in the folder of another task or version."""
    if (card.task, card.version) != (task, version):
        raise RegistryError(
            f"{TASKS_DIR}/{task}/{version}/{CARD} must be the card of {task}@{version}, got {card.title}"
        )


def check_decoder(path: Path, card: TaskCard, encoder: EncoderCard) -> None:
    """Raise RegistryError if a weight file does not have the tensors of its card's spec.

    Only own decoders are built from a ``DecoderSpec`` alone; of the other kinds the file's own structure is checked.
    """
    found = weights.read_header(path)
    foreign = sorted(name for name in found if name.startswith("encoder."))
    if card.kind == "own" or foreign:
        weights.check_shapes(found, weights.decoder_shapes(card.spec, encoder.spec), source=DECODER)


def find_problems(root: Path) -> list[str]:
    """One sentence per broken file of the registry; empty when it is sound."""
    if not root.is_dir():
        return [f"there is no registry at {root}"]
    problems: list[str] = []
    encoder = _check_encoder(root, problems)
    _check_body_part(root, encoder, problems)
    owners = _check_ledger(root, problems)
    for task, versions in version_folders(root).items():
        for version in versions:
            card = _check_version(root, task, version, encoder, problems)
            _check_owners(card, owners, problems)
        _check_marker(root, task, problems)
    problems += [f"{path.relative_to(root).as_posix()} does not belong here" for path in _strays(root)]
    return problems


def find_notes(root: Path) -> list[str]:
    """One sentence per leftover that harms nothing."""
    notes = []
    for path in storage.staging_leftovers(root):
        pid = int(path.name.split("-")[1])
        state = "is still being written" if storage.is_process_alive(pid) else "the next publication removes it"
        notes.append(f"{path.name} was prepared by process {pid} and never published; {state}")
    if root.is_dir():
        known = {path.name for path in storage.staging_leftovers(root)} | _ROOT_NAMES | _DESKTOP_NAMES
        others = sorted(path.name for path in root.iterdir() if path.name not in known)
        notes += [f"{name} is no part of a registry and is ignored" for name in others if not name.startswith(".git")]
    return notes


def fingerprint(root: Path) -> dict[str, str]:
    """SHA-256 of every file of the encoder and of every version, by relative path with forward slashes."""
    folders = [root / ENCODER_DIR]
    for task, versions in version_folders(root).items():
        folders += [root / TASKS_DIR / task / str(version) for version in versions]
    files = sorted(path for folder in folders for path in _files(folder))
    return {path.relative_to(root).as_posix(): storage.sha256_file(path) for path in files}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path.name not in _DESKTOP_NAMES)


def _check_encoder(root: Path, problems: list[str]) -> EncoderCard | None:
    place = ENCODER_DIR
    folder = root / ENCODER_DIR
    if not folder.is_dir():
        if version_folders(root):
            problems.append(f"{place}/{CARD} is missing: no task works without its encoder")
        return None
    try:
        card = encoder_card_from_bytes(_bytes(folder / CARD, f"{place}/{CARD}"), source=f"{place}/{CARD}")
    except RegistryError as error:
        problems.append(str(error))
        _check_presence(folder / ENCODER, f"{place}/{ENCODER}", problems)
        return None
    try:
        if _check_hash(folder / ENCODER, card.weights_sha256, place, problems):
            found = weights.read_header(folder / ENCODER)
            weights.check_shapes(found, weights.encoder_shapes(card.spec), source=ENCODER)
    except RegistryError as error:
        problems.append(f"{place}/{error}")
    return card


def _check_body_part(root: Path, encoder: EncoderCard | None, problems: list[str]) -> None:
    """The level head, which a registry need not have."""
    place, folder = BODY_PART_DIR, root / BODY_PART_DIR
    if not folder.is_dir():
        return
    try:
        card = level_card_from_bytes(_bytes(folder / CARD, f"{place}/{CARD}"), source=f"{place}/{CARD}")
    except RegistryError as error:
        problems.append(str(error))
        _check_presence(folder / BODY_PART, f"{place}/{BODY_PART}", problems)
        return
    is_sound = _check_hash(folder / BODY_PART, card.weights_sha256, place, problems)
    if encoder is None:
        return
    if card.encoder_sha256 != encoder.weights_sha256:
        problems.append(
            f"{place}/{BODY_PART} was made for the encoder {card.encoder_sha256[:12]}..., but the encoder here is "
            f"{encoder.weights_sha256[:12]}..."
        )
    elif is_sound:
        try:
            weights.check_shapes(
                weights.read_header(folder / BODY_PART), level_head_shapes(card, encoder.spec), source=BODY_PART
            )
        except RegistryError as error:
            problems.append(f"{place}/{error}")


def _check_version(
    root: Path, task: str, version: int, encoder: EncoderCard | None, problems: list[str]
) -> TaskCard | None:
    place = f"{TASKS_DIR}/{task}/{version}"
    folder = root / place
    try:
        card = task_card_from_bytes(_bytes(folder / CARD, f"{place}/{CARD}"), source=f"{place}/{CARD}")
        check_place(card, task, version)
    except RegistryError as error:
        problems.append(str(error))
        _check_presence(folder / DECODER, f"{place}/{DECODER}", problems)
        return None
    is_sound = _check_hash(folder / DECODER, card.weights_sha256, place, problems)
    if card.evidence_sha256 and _check_hash(folder / EVIDENCE, card.evidence_sha256, place, problems):
        try:
            check_evidence(folder / EVIDENCE, card)
        except RegistryError as error:
            problems.append(f"{place}/{error}")
    elif not card.evidence_sha256 and (folder / EVIDENCE).exists():
        problems.append(f"{place}/{EVIDENCE} is not named by the card of {card.title}")
    if encoder is None:
        return card
    if card.encoder_sha256 != encoder.weights_sha256:
        problems.append(
            f"{place}/{DECODER} was made for the encoder {card.encoder_sha256[:12]}..., but the encoder here is "
            f"{encoder.weights_sha256[:12]}..."
        )
    elif is_sound:
        try:
            check_decoder(folder / DECODER, card, encoder)
        except RegistryError as error:
            problems.append(f"{place}/{error}")
    return card


def _bytes(path: Path, source: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise RegistryError(f"{source} is missing") from None
    except OSError as error:
        raise RegistryError(f"{source} cannot be read: {error.strerror or error}") from error


def _check_presence(path: Path, source: str, problems: list[str]) -> None:
    if not path.is_file():
        problems.append(f"{source} is missing")


def _check_hash(path: Path, expected: str, place: str, problems: list[str]) -> bool:
    """Whether the weight file has the hash of its card; if not, say so."""
    source = f"{place}/{path.name}"
    try:
        found = storage.sha256_file(path)
    except FileNotFoundError:
        problems.append(f"{source} is missing")
        return False
    except OSError as error:
        problems.append(f"{source} cannot be read: {error.strerror or error}")
        return False
    if found != expected:
        problems.append(
            f"{source} was changed after it was published: its card says SHA-256 {expected[:12]}..., the file has "
            f"{found[:12]}..."
        )
    return found == expected


def _check_ledger(root: Path, problems: list[str]) -> dict[int, OrganName]:
    owners = ledger.catalogue_owners()
    try:
        recorded = ledger.read_ledger(root)
    except InputError as error:
        problems.append(f"{error}; restore it, or delete it to have it written anew from the cards")
        return owners
    for label, name in recorded.items():
        if owners.setdefault(label, name) != name:
            problems.append(f"{ledger.LEDGER_NAME} gives the label value {label} of {owners[label]!r} to {name!r}")
    return owners


def _check_owners(card: TaskCard | None, owners: dict[int, OrganName], problems: list[str]) -> None:
    if card is None:
        return
    try:
        ledger.check_claims(card.organs, owners, task=card.task)
    except RegistryError as error:
        problems.append(f"{TASKS_DIR}/{card.task}/{card.version}/{CARD}: {error}")
        return
    owners |= {organ.label: organ.name for organ in card.organs}


def _check_marker(root: Path, task: str, problems: list[str]) -> None:
    path = root / TASKS_DIR / task / RETIRED
    if path.exists():
        source = path.relative_to(root).as_posix()
        try:
            read_document(_bytes(path, source), schema="retirement", source=source)
        except RegistryError as error:
            problems.append(str(error))


def _strays(root: Path) -> list[Path]:
    """Files and folders in places where only published files may be."""
    allowed = {root / ENCODER_DIR / CARD, root / ENCODER_DIR / ENCODER}
    allowed |= {root / BODY_PART_DIR / name for name in (CARD, BODY_PART)}
    for task, versions in version_folders(root).items():
        allowed.add(root / TASKS_DIR / task / RETIRED)
        for version in versions:
            allowed |= {root / TASKS_DIR / task / str(version) / name for name in (CARD, DECODER, EVIDENCE)}
    files = [*_files(root / ENCODER_DIR), *_files(root / TASKS_DIR)]
    return sorted(path for path in files if path not in allowed)
