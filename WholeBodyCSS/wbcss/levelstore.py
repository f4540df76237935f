"""The level head of a registry on disk: published once beside the encoder, optional, never changed. No torch.

It lies in ``encoder/body_part`` and appears there by one rename, so that no file of the encoder or of a task is
touched: their hashes, and every decoder's logits, are what they were (law 1). From then on ``Registry.fingerprint``,
snapshots and ``tasks verify`` cover its files like the encoder's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from . import storage, weights
from .errors import RegistryError
from .layout import BODY_PART, BODY_PART_DIR, CARD
from .levelcard import LevelCard, level_card_from_bytes, level_card_to_bytes, level_head_shapes
from .registry import Registry


@dataclass(frozen=True, kw_only=True)
class StagedLevelHead:
    """A trained head that no registry holds yet. ``weights_sha256`` of the card may be empty."""

    card: LevelCard
    weights: Path


def level_card(registry: Registry) -> LevelCard | None:
    """Card of the level head, or None if the registry has none. Raises RegistryError if it cannot be read."""
    source = f"{BODY_PART_DIR}/{CARD}"
    if not (registry.root / BODY_PART_DIR).is_dir():
        return None
    try:
        data = (registry.root / source).read_bytes()
    except OSError as error:
        raise RegistryError(f"{source} cannot be read: {error.strerror or error}") from error
    card = level_card_from_bytes(data, source=source)
    check_fits(card, registry)
    return card


def level_weights(registry: Registry) -> Path:
    """Path of the head's weights."""
    return registry.root / BODY_PART_DIR / BODY_PART


def check_fits(card: LevelCard, registry: Registry) -> None:
    """Raise RegistryError unless ``card`` was made for the encoder of ``registry``."""
    encoder = registry.encoder_card()
    if card.encoder_sha256 != encoder.weights_sha256:
        raise RegistryError(
            f"the level head was made for the encoder {card.encoder_sha256[:12]}..., but the registry "
            f"{registry.root} has {encoder.weights_sha256[:12]}... ({encoder.name}); train one for this encoder"
        )


def publish_level_head(registry: Registry, staged: StagedLevelHead) -> LevelCard:
    """Give the registry its level head, all of it or nothing.

    Raises:
        RegistryError: there is a head already, or it does not fit the encoder or its card.
        OutputError: the registry cannot be written.
    """
    check_fits(staged.card, registry)
    root, target = registry.root, registry.root / BODY_PART_DIR
    with storage.writing_reported(root), storage.locked(root):
        storage.clean_staging(root)
        if target.exists():
            raise RegistryError(
                f"the registry {root} already has a level head, which ranges of its tasks were learned with; make a "
                "new registry for another one"
            )
        folder = storage.staging_path(root)
        try:
            storage.make_folder(folder)
            with staged.weights.open("rb") as stream:
                sha256 = storage.write_stream(folder / BODY_PART, stream, max_bytes=weights.MAX_WEIGHTS_BYTES)
            if staged.card.weights_sha256 not in ("", sha256):
                raise RegistryError(
                    f"{BODY_PART} must have the SHA-256 of its card, {staged.card.weights_sha256}, got {sha256}"
                )
            card = dataclasses.replace(staged.card, weights_sha256=sha256)
            weights.check_shapes(
                weights.read_header(folder / BODY_PART),
                level_head_shapes(card, registry.encoder_card().spec),
                source=BODY_PART,
            )
            storage.write_bytes(folder / CARD, level_card_to_bytes(card))
            storage.sync_folder(folder)
            _check_read_back(folder, card)
            storage.rename_folder(folder, target)
        finally:
            if folder.exists():
                storage.remove_tree(folder)
    return card


def _check_read_back(folder: Path, card: LevelCard) -> None:
    expected = {CARD: storage.sha256_bytes(level_card_to_bytes(card)), BODY_PART: card.weights_sha256}
    for name, sha256 in expected.items():
        found = storage.sha256_file(folder / name)
        if found != sha256:
            raise RegistryError(f"{name} must read back with SHA-256 {sha256}, got {found}; check the disk")
