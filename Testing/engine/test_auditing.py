"""Every way in which a registry can be damaged is found, and the sentence names the file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_registry import ENCODER_SPEC, encoder_card, new_registry, publish, safetensors_bytes, task_card

from wbcss.cards import encoder_card_to_bytes, task_card_to_bytes
from wbcss.registry import Registry
from wbcss.storage import sha256_bytes
from wbcss.weights import decoder_shapes

LIVER = "tasks/liver/1"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = new_registry(tmp_path / "registry")
    publish(registry, "liver")
    publish(registry, "bones", {"x_bone": 10001})
    return registry


def flip(path: Path, *, at: float = 0.7) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 0x10
    path.write_bytes(bytes(data))


def foreign_encoder(root: Path) -> None:
    """Another encoder in the place of the right one, with a card that fits it."""
    other = new_registry(root.parent / "other", seed=9)
    shutil.rmtree(root / "encoder")
    shutil.copytree(other.root / "encoder", root / "encoder")


def resealed_weights(root: Path) -> None:
    """Weights of another shape under a card that promises their hash."""
    encoder_sha256 = Registry(root).encoder_card().weights_sha256
    data = safetensors_bytes(decoder_shapes(task_card(organs={"liver": 5}).spec, ENCODER_SPEC))
    card = task_card(encoder_sha256=encoder_sha256, weights_sha256=sha256_bytes(data), version=1, sequence=1)
    (root / LIVER / "decoder.safetensors").write_bytes(data)
    (root / LIVER / "card.json").write_bytes(task_card_to_bytes(card))


def resealed_encoder(root: Path) -> None:
    data = safetensors_bytes({"stages.0.0.conv.weight": (2,)})
    (root / "encoder" / "encoder.safetensors").write_bytes(data)
    (root / "encoder" / "card.json").write_bytes(encoder_card_to_bytes(encoder_card(weights_sha256=sha256_bytes(data))))


def stolen_label(root: Path) -> None:
    """A hand-made card that uses another organ's value."""
    registry = Registry(root)
    data = (root / LIVER / "decoder.safetensors").read_bytes()
    card = task_card(
        organs={"x_thief": 10001, "x_cyst": 10000},
        encoder_sha256=registry.encoder_card().weights_sha256,
        weights_sha256=sha256_bytes(data),
        version=1,
        sequence=1,
    )
    (root / LIVER / "card.json").write_bytes(task_card_to_bytes(card))


DAMAGES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "decoder missing": (
        lambda root: (root / LIVER / "decoder.safetensors").unlink(),
        (r"tasks/liver/1/decoder\.safetensors is missing",),
    ),
    "decoder flipped": (
        lambda root: flip(root / LIVER / "decoder.safetensors"),
        (r"tasks/liver/1/decoder\.safetensors was changed after it was published: its card says SHA-256 \w{12}",),
    ),
    "decoder cut": (
        lambda root: (root / LIVER / "decoder.safetensors").write_bytes(b"short"),
        (r"tasks/liver/1/decoder\.safetensors was changed after it was published",),
    ),
    "decoder is a folder": (
        lambda root: ((root / LIVER / "decoder.safetensors").unlink(), (root / LIVER / "decoder.safetensors").mkdir()),
        (r"tasks/liver/1/decoder\.safetensors cannot be read: Is a directory",),
    ),
    "card missing": (
        lambda root: (root / LIVER / "card.json").unlink(),
        (r"tasks/liver/1/card\.json is missing",),
    ),
    "card flipped": (
        lambda root: flip(root / LIVER / "card.json", at=0.5),
        (r"tasks/liver/1/card\.json",),
    ),
    "card unreadable": (
        lambda root: (root / LIVER / "card.json").write_text("]"),
        (r"tasks/liver/1/card\.json is not readable JSON",),
    ),
    "card of another task": (
        lambda root: shutil.copy(root / "tasks" / "bones" / "1" / "card.json", root / LIVER / "card.json"),
        (r"tasks/liver/1/card\.json must be the card of liver@1, got bones@1",),
    ),
    "card and decoder missing": (
        lambda root: [path.unlink() for path in (root / LIVER).iterdir()],
        (r"tasks/liver/1/card\.json is missing", r"tasks/liver/1/decoder\.safetensors is missing"),
    ),
    "weights of another spec": (
        resealed_weights,
        (r"tasks/liver/1/decoder\.safetensors: the weight 'head\.\w+' must have shape",),
    ),
    "encoder missing": (
        lambda root: shutil.rmtree(root / "encoder"),
        (r"encoder/card\.json is missing: no task works without its encoder",),
    ),
    "encoder weights missing": (
        lambda root: (root / "encoder" / "encoder.safetensors").unlink(),
        (r"encoder/encoder\.safetensors is missing",),
    ),
    "encoder weights flipped": (
        lambda root: flip(root / "encoder" / "encoder.safetensors"),
        (r"encoder/encoder\.safetensors was changed after it was published",),
    ),
    "encoder card flipped": (
        lambda root: flip(root / "encoder" / "card.json", at=0.2),
        (r"encoder/card\.json",),
    ),
    "encoder of another registry": (
        foreign_encoder,
        (
            r"tasks/bones/1/decoder\.safetensors was made for the encoder \w{12}\.\.\., but the encoder here is \w{12}",
            r"tasks/liver/1/decoder\.safetensors was made for the encoder",
        ),
    ),
    "encoder of another spec": (
        resealed_encoder,
        (
            r"encoder/encoder\.safetensors lacks the weight",
            r"tasks/bones/1/decoder\.safetensors was made for the encoder",
            r"tasks/liver/1/decoder\.safetensors was made for the encoder",
        ),
    ),
    "stray file in a version": (
        lambda root: (root / LIVER / "notes.txt").write_text("x"),
        (r"tasks/liver/1/notes\.txt does not belong here",),
    ),
    "stray file among the tasks": (
        lambda root: (root / "tasks" / "backup.zip").write_text("x"),
        (r"tasks/backup\.zip does not belong here",),
    ),
    "folder that is no version": (
        lambda root: shutil.copytree(root / LIVER, root / "tasks" / "liver" / "01"),
        (r"tasks/liver/01/card\.json does not belong here", r"tasks/liver/01/decoder\.safetensors does not belong"),
    ),
    "ledger unreadable": (
        lambda root: (root / "labels.json").write_text("{}"),
        (r"labels\.json: the document lacks .*; restore it, or delete it",),
    ),
    "label value of another organ": (
        stolen_label,
        (r"tasks/liver/1/card\.json: task 'liver' gives the label value 10001 to 'x_thief', but .* 'x_bone'",),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_one_sentence_that_names_the_file(registry: Registry, damage: str) -> None:
    assert registry.verify() == []
    act, sentences = DAMAGES[damage]
    act(registry.root)
    found = registry.verify()
    assert len(found) == len(sentences), found
    for sentence, pattern in zip(found, sentences, strict=True):
        assert re.match(pattern, sentence), sentence


def test_a_ledger_that_contradicts_the_catalogue_is_named(registry: Registry) -> None:
    path = registry.root / "labels.json"
    path.write_text(path.read_text().replace('"5": "liver"', '"5": "x_other"'))
    assert registry.verify()[0] == "labels.json gives the label value 5 of 'liver' to 'x_other'"


def test_what_file_browsers_leave_is_no_damage(registry: Registry) -> None:
    for folder in ("", "encoder", "tasks", "tasks/liver", LIVER):
        (registry.root / folder / ".DS_Store").write_bytes(b"\0")
    before = registry.fingerprint()
    assert len(before) == 6
    assert (registry.verify(), registry.notes()) == ([], [])


def test_other_files_beside_the_registry_are_noted_only(registry: Registry) -> None:
    (registry.root / "README.md").write_text("# Tasks of our hospital")
    (registry.root / "thesis.docx").write_text("x")
    assert registry.verify() == []
    assert registry.notes() == ["thesis.docx is no part of a registry and is ignored"]


def test_an_empty_folder_is_a_sound_registry_without_tasks(tmp_path: Path) -> None:
    assert Registry(tmp_path).verify() == []
    assert Registry(tmp_path).fingerprint() == {}
