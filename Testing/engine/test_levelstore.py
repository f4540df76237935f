from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from level_model import SCALE_CM, level_card, reading_head
from tiny_registry import ENCODER_SPEC, new_registry, publish, safetensors_bytes

from wbcss.errors import RegistryError
from wbcss.labels import OrganName, TaskId
from wbcss.layout import BODY_PART, BODY_PART_DIR, CARD
from wbcss.levelcard import (
    LevelCard,
    level_card_from_bytes,
    level_card_to_bytes,
    level_head_shapes,
    ranges_of,
)
from wbcss.levelstore import StagedLevelHead, publish_level_head
from wbcss.levelstore import level_card as card_of
from wbcss.loading import load_level_head, load_model
from wbcss.nn.levelhead import LOG_SPAN, MIDDLE_SCALE_CM, LevelHead
from wbcss.proof import take_snapshot
from wbcss.registry import Registry
from wbcss.resume import model_hashes
from wbcss.snapshot import changed_files, changed_logits
from wbcss.warm import WarmModel

LIVER = OrganName("liver")


def stage(registry: Registry, **changes: object) -> StagedLevelHead:
    """A head of random weights for the encoder of ``registry``."""
    facts = {"encoder_sha256": registry.encoder_card().weights_sha256, "hidden": 3, **changes}
    card = level_card({"liver": (40.0, 70.0)}, **facts)
    path = registry.root.parent / "head.safetensors"
    path.write_bytes(safetensors_bytes(level_head_shapes(card, ENCODER_SPEC), seed=3))
    return StagedLevelHead(card=card, weights=path)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = new_registry(tmp_path / "registry")
    publish(made)
    return made


def test_a_published_head_is_read_back_with_its_card_and_weights(registry: Registry) -> None:
    assert load_level_head(registry) is None
    card = publish_level_head(registry, stage(registry))
    loaded = load_level_head(registry)
    assert loaded is not None
    assert loaded.card == card == card_of(registry)
    assert loaded.card.ranges_cm == {LIVER: (40.0, 70.0)}
    assert not any(parameter.requires_grad for parameter in loaded.head.parameters())
    assert load_model(registry).levels is not None
    assert registry.verify() == []


def test_publishing_a_head_changes_no_file_and_no_logit_of_what_was_there(registry: Registry) -> None:
    """Law 1: the encoder's hash, every task's files and every task's logits are what they were."""
    before = take_snapshot(registry)
    publish_level_head(registry, stage(registry))
    now = take_snapshot(registry)
    assert changed_files(before.files, now.files, since="before") == []
    assert before.logits is not None
    assert now.logits is not None
    assert changed_logits(before.logits, now.logits, since="before") == []
    added = {f"{BODY_PART_DIR}/{name}" for name in (CARD, BODY_PART)}
    assert set(now.files) - set(before.files) == added
    # From now on the head is watched like everything else that is published.
    (registry.root / BODY_PART_DIR / BODY_PART).write_bytes(b"other")
    changes = changed_files(now.files, registry.fingerprint(), since="then")
    assert len(changes) == 1
    assert f"{BODY_PART_DIR}/{BODY_PART} changed since then" in changes[0]


def test_a_second_head_is_refused_and_the_first_one_stays(registry: Registry) -> None:
    card = publish_level_head(registry, stage(registry))
    with pytest.raises(RegistryError, match="already has a level head"):
        publish_level_head(registry, stage(registry))
    assert card_of(registry) == card
    assert registry.notes() == []


def test_a_head_for_another_encoder_is_refused(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="was made for the encoder ffffffffffff"):
        publish_level_head(registry, stage(registry, encoder_sha256="f" * 64))
    assert card_of(registry) is None


def test_weights_that_do_not_fit_the_card_are_refused_and_leave_nothing(registry: Registry) -> None:
    staged = stage(registry)
    with pytest.raises(RegistryError, match=r"'answer.weight' must have shape \(2, 4\) by its spec, got \(2, 3\)"):
        publish_level_head(registry, dataclasses.replace(staged, card=dataclasses.replace(staged.card, hidden=4)))
    promised = dataclasses.replace(staged.card, weights_sha256="e" * 64)
    with pytest.raises(RegistryError, match="must have the SHA-256 of its card, eeee"):
        publish_level_head(registry, dataclasses.replace(staged, card=promised))
    assert not (registry.root / BODY_PART_DIR).exists()
    assert registry.notes() == registry.verify() == []


def test_verify_names_every_broken_file_of_the_head(registry: Registry) -> None:
    publish_level_head(registry, stage(registry))
    folder = registry.root / BODY_PART_DIR
    weights, card = (folder / BODY_PART).read_bytes(), (folder / CARD).read_bytes()
    (folder / BODY_PART).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert "encoder/body_part/body_part.safetensors was changed" in registry.verify()[0]
    with pytest.raises(RegistryError, match=r"body_part.safetensors was changed after it was published"):
        load_level_head(registry)
    (folder / BODY_PART).unlink()
    assert registry.verify() == ["encoder/body_part/body_part.safetensors is missing"]
    (folder / BODY_PART).write_bytes(weights)
    (folder / CARD).write_bytes(card.replace(b'"hidden": 3', b'"hidden": 5'))
    assert "encoder/body_part/card.json was changed" in registry.verify()[0]
    (folder / CARD).write_bytes(card)
    (folder / "notes.txt").write_text("")
    assert registry.verify() == ["encoder/body_part/notes.txt does not belong here"]


def test_a_warm_model_is_loaded_again_when_a_head_appears(registry: Registry) -> None:
    warm = WarmModel()
    assert warm.load(registry, (TaskId("liver"),)).levels is None
    publish_level_head(registry, stage(registry))
    assert warm.load(registry, (TaskId("liver"),)).levels is not None


def test_results_name_the_head_that_decided_them(registry: Registry) -> None:
    tasks = (TaskId("liver"),)
    without = model_hashes(registry, tasks)
    card = publish_level_head(registry, stage(registry))
    assert model_hashes(registry, tasks) == {**without, "body_part": card.weights_sha256}
    assert model_hashes(registry, tasks, body_part=False) == without


def test_a_card_survives_writing_and_reading() -> None:
    card = level_card({"liver": (40.0, 70.5)}, weights_sha256="a" * 64, validation={"slabs": 3})
    assert level_card_from_bytes(level_card_to_bytes(card), source="card.json") == card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_sha256": "abc"}, "encoder_sha256 must be 64 lower-case hexadecimal digits, got 'abc'"),
        ({"hidden": 0}, "must be at least 1 wide, got 0"),
        ({"ranges_cm": {LIVER: (5.0, 4.0)}}, "levels of liver must be two numbers, first < last, got 5.0 and 4.0"),
        ({"margin_cm": -1.0}, "margin_cm must be a number of at least 0, got -1.0"),
        ({"scale_factor": 0.0}, "scale_factor must be a number above 0, got 0.0"),
        ({"margin_cm": math.nan}, "margin_cm must be a number of at least 0, got nan"),
        ({"created": "soon"}, "must be an ISO date such as 2026-11-20, got 'soon'"),
    ],
)
def test_a_card_that_cannot_be_right_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        level_card(**changes)


def test_ranges_that_are_none_are_refused() -> None:
    card: LevelCard = level_card(weights_sha256="a" * 64)
    for wrong in ({"liver": [3.0]}, {"liver": [5.0, 4.0]}, ["liver"], None):
        with pytest.raises(RegistryError, match="must give every organ two numbers, first < last, got"):
            ranges_of({"head_sha256": "a" * 64, "ranges_cm": wrong}, card)
    assert ranges_of({"head_sha256": "b" * 64, "ranges_cm": None}, card) == {}
    assert ranges_of({}, card) == {}


def test_the_shapes_of_a_card_are_those_of_its_network() -> None:
    card = level_card(hidden=5)
    head = LevelHead(ENCODER_SPEC.stage_channels[-1], 5)
    assert {name: tuple(value.shape) for name, value in head.state_dict().items()} == level_head_shapes(
        card, ENCODER_SPEC
    )


def test_the_head_answers_plane_by_plane() -> None:
    torch.manual_seed(3)
    head = LevelHead(4, 8)
    deep = torch.randn(2, 4, 3, 5, 6)
    levels, scales = head(deep)
    assert levels.shape == scales.shape == (2, 6)
    assert (scales / MIDDLE_SCALE_CM).log().abs().max() <= LOG_SPAN
    for plane in range(6):
        alone, scale = head(deep[..., plane : plane + 1])
        torch.testing.assert_close(alone[:, 0], levels[:, plane])
        torch.testing.assert_close(scale[:, 0], scales[:, plane])
    turned, _ = head(deep.flip(2, 3))
    torch.testing.assert_close(turned, levels)


def test_the_head_of_the_tests_reads_the_level_it_should() -> None:
    levels, scales = reading_head()(torch.full((1, 1, 2, 2, 3), 0.8))
    np.testing.assert_allclose(levels.detach().numpy(), 70.0, rtol=1e-5)
    np.testing.assert_allclose(scales.detach().numpy(), SCALE_CM, rtol=1e-5)
