"""The registry: what was published is what is read, in order, unchangeable, with label values that are never reused."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest
from tiny_registry import (
    ENCODER_SPEC,
    encoder_card,
    new_registry,
    publish,
    safetensors_bytes,
    stage_task,
    task_card,
)

from wbcss.errors import OutputError, RegistryError
from wbcss.labels import OrganName, TaskId
from wbcss.registry import Registry, StagedEncoder, StagedTask
from wbcss.storage import sha256_file
from wbcss.weights import decoder_shapes, encoder_shapes

LIVER, BONES = TaskId("liver"), TaskId("bones")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return new_registry(tmp_path / "registry")


def test_what_was_published_is_read_back(registry: Registry) -> None:
    staged = stage_task(registry)
    card = registry.publish(staged)
    assert card == dataclasses.replace(staged.card, version=1, sequence=1, weights_sha256=sha256_file(staged.weights))
    again = Registry(registry.root)
    assert again.tasks() == (card,)
    assert again.card(LIVER) == card
    assert again.task_weights(card).read_bytes() == staged.weights.read_bytes()
    assert again.encoder_card().weights_sha256 == sha256_file(again.encoder_weights())
    assert registry.verify() == []
    assert registry.notes() == []


def test_the_folders_are_those_of_the_contract(registry: Registry) -> None:
    publish(registry)
    files = sorted(path.relative_to(registry.root).as_posix() for path in registry.root.rglob("*") if path.is_file())
    assert files == [
        ".lock",
        "encoder/card.json",
        "encoder/encoder.safetensors",
        "labels.json",
        "tasks/liver/1/card.json",
        "tasks/liver/1/decoder.safetensors",
    ]


def test_tasks_come_in_the_order_of_their_first_publication(registry: Registry) -> None:
    for task in ("zebra", "liver", "apple"):
        publish(registry, task)
    publish(registry, "zebra", seed=9)
    assert [(card.task, card.version) for card in Registry(registry.root).tasks()] == [
        ("zebra", 2),
        ("liver", 1),
        ("apple", 1),
    ]
    assert [card.title for card in registry.all_cards()] == ["zebra@1", "liver@1", "apple@1", "zebra@2"]


def test_versions_count_up_and_a_named_one_is_kept(registry: Registry) -> None:
    assert publish(registry).version == 1
    assert publish(registry, version=7).version == 7
    assert publish(registry).version == 8
    assert registry.versions(LIVER) == (1, 7, 8)
    assert registry.card(LIVER, version=7).version == 7


def test_tenth_version_is_newer_than_the_ninth(registry: Registry) -> None:
    publish(registry, version=9)
    publish(registry, version=10)
    assert registry.card(LIVER).version == 10


def test_a_version_is_never_overwritten(registry: Registry) -> None:
    publish(registry)
    before = registry.fingerprint()
    with pytest.raises(RegistryError, match=r"liver@1 is already published .* publish it as version 2"):
        publish(registry, version=1, seed=5)
    assert registry.fingerprint() == before


def test_publishing_changes_no_byte_of_earlier_tasks(registry: Registry) -> None:
    publish(registry, "liver")
    before = registry.fingerprint()
    publish(registry, "bones", {"x_bone": 10001})
    publish(registry, "liver", seed=4)
    registry.retire(BONES)
    after = registry.fingerprint()
    assert {name: after[name] for name in before} == before
    assert sorted(before) == [
        "encoder/card.json",
        "encoder/encoder.safetensors",
        "tasks/liver/1/card.json",
        "tasks/liver/1/decoder.safetensors",
    ]
    assert before["encoder/encoder.safetensors"] == registry.encoder_card().weights_sha256


def test_deleting_one_task_leaves_the_others_working(registry: Registry) -> None:
    publish(registry, "liver")
    bones = publish(registry, "bones", {"x_bone": 10001})
    for path in sorted((registry.root / "tasks" / "liver").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert Registry(registry.root).tasks() == (bones,)
    assert registry.verify() == []
    assert registry.label_owners()[10000] == "x_cyst"


def test_organs_and_label_space_are_the_union_of_the_tasks(registry: Registry) -> None:
    publish(registry, "bones", {"x_bone": 10001, "x_cyst": 10000})
    publish(registry, "liver", {"liver": 5, "x_cyst": 10000})
    assert [organ.name for organ in registry.organs()] == ["x_bone", "x_cyst", "liver"]
    assert registry.label_space().values == {"x_bone": 10001, "x_cyst": 10000, "liver": 5}
    assert registry.label_space([LIVER]).values == {"liver": 5, "x_cyst": 10000}


def test_an_unknown_task_is_answered_with_the_known_ones(registry: Registry) -> None:
    with pytest.raises(RegistryError, match=r"no task 'liver' in the registry .*; nothing is published there"):
        registry.card(LIVER)
    publish(registry, "bones")
    publish(registry, "heart")
    with pytest.raises(RegistryError, match=r"no task 'liver' in the registry .*; published tasks are bones, heart"):
        registry.card(LIVER)


def test_an_unknown_version_is_answered_with_the_known_ones(registry: Registry) -> None:
    publish(registry)
    publish(registry)
    with pytest.raises(RegistryError, match=r"task 'liver' has no version 5 in the registry .*; it has 1, 2"):
        registry.card(LIVER, version=5)


def test_a_missing_registry_is_empty_and_has_no_encoder(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "nowhere")
    assert registry.tasks() == ()
    assert registry.organs() == ()
    assert registry.verify() == [f"there is no registry at {tmp_path / 'nowhere'}"]
    with pytest.raises(RegistryError, match=r"no encoder is published in the registry .*nowhere; name another"):
        registry.encoder_card()
    assert not registry.root.exists()


# Label values


def test_a_retired_task_keeps_its_label_values(registry: Registry) -> None:
    publish(registry, "liver", {"x_cyst": 10000})
    registry.retire(LIVER)
    with pytest.raises(
        RegistryError, match="gives the label value 10000 to 'x_stent', but here it belongs to 'x_cyst'"
    ):
        publish(registry, "vessel", {"x_stent": 10000})
    assert registry.allocate_labels([OrganName("x_stent")]) == {"x_stent": 10001}


def test_two_tasks_may_share_an_organ_with_its_one_value(registry: Registry) -> None:
    publish(registry, "liver", {"liver": 5})
    publish(registry, "abdomen", {"liver": 5, "x_cyst": 10000})
    with pytest.raises(
        RegistryError, match="gives 'x_cyst' the label value 10002, but here this organ has the value 10000"
    ):
        publish(registry, "other", {"x_cyst": 10002})


def test_the_catalogue_owns_its_values_and_names(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="gives the label value 5 to 'x_stent', but here it belongs to 'liver'"):
        publish(registry, "vessel", {"x_stent": 5})
    with pytest.raises(RegistryError, match="gives 'liver' the label value 10000, but here this organ has the value 5"):
        publish(registry, "vessel", {"liver": 10000})


def test_allocated_values_stay_taken_although_nothing_was_published(registry: Registry) -> None:
    assert registry.allocate_labels([OrganName("x_stent"), OrganName("liver")]) == {"x_stent": 10000, "liver": 5}
    again = Registry(registry.root)
    assert again.allocate_labels([OrganName("x_graft"), OrganName("x_stent")]) == {"x_graft": 10001, "x_stent": 10000}
    with pytest.raises(
        RegistryError, match="gives the label value 10000 to 'x_cyst', but here it belongs to 'x_stent'"
    ):
        publish(registry, "liver", {"x_cyst": 10000})


def test_a_lost_ledger_is_made_anew_from_the_cards(registry: Registry) -> None:
    publish(registry, "liver", {"x_cyst": 10004})
    (registry.root / "labels.json").unlink()
    assert registry.verify() == []
    assert registry.allocate_labels([OrganName("x_stent")]) == {"x_stent": 10005}
    assert '"10004": "x_cyst"' in (registry.root / "labels.json").read_text()


# What cannot be published


def test_a_second_encoder_is_refused(registry: Registry) -> None:
    weights = registry.encoder_weights()
    with pytest.raises(RegistryError, match=r"already has an encoder, .* make a new registry for the encoder 'other'"):
        registry.publish_encoder(StagedEncoder(card=encoder_card(name="other"), weights=weights))


def test_a_task_without_an_encoder_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"x")
    with pytest.raises(RegistryError, match="no encoder is published in the registry"):
        Registry(tmp_path / "registry").publish(StagedTask(card=task_card(), weights=weights))


def test_a_task_of_another_encoder_is_refused(registry: Registry, tmp_path: Path) -> None:
    other = new_registry(tmp_path / "other", seed=3)
    own, foreign = registry.encoder_card().weights_sha256[:12], other.encoder_card().weights_sha256[:12]
    with pytest.raises(
        RegistryError, match=rf"was made for the encoder {foreign}\.\.\., but .* has {own}\.\.\. \(tiny\)"
    ):
        registry.publish(stage_task(other))


def test_weights_of_another_hash_are_refused(registry: Registry) -> None:
    with pytest.raises(
        RegistryError, match=rf"decoder\.safetensors must have the SHA-256 of its card, {'ab' * 32}, got"
    ):
        publish(registry, weights_sha256="ab" * 32)
    assert registry.tasks() == ()
    assert registry.notes() == []


def test_weights_of_another_shape_are_refused(registry: Registry) -> None:
    staged = stage_task(registry, "liver", {"liver": 5})
    wider = dataclasses.replace(stage_task(registry, "bones", {"a": 10001, "b": 10002}), weights=staged.weights)
    with pytest.raises(RegistryError, match=r"'head.weight' must have shape \(3, 2, 1, 1, 1\) by its spec, got \(2, 2"):
        registry.publish(wider)
    assert registry.versions(BONES) == ()


def test_a_decoder_with_encoder_weights_is_refused(registry: Registry) -> None:
    staged = stage_task(registry)
    shapes = decoder_shapes(staged.card.spec, ENCODER_SPEC)
    shapes |= {f"encoder.{name}": shape for name, shape in encoder_shapes(ENCODER_SPEC).items()}
    staged.weights.write_bytes(safetensors_bytes(shapes))
    with pytest.raises(
        RegistryError, match=r"holds the encoder weight 'encoder\.stages\.0\.0\.conv\.bias' \(16 in all\)"
    ):
        registry.publish(staged)


def test_an_encoder_that_does_not_fit_its_spec_is_refused(tmp_path: Path) -> None:
    weights = tmp_path / "e.safetensors"
    weights.write_bytes(safetensors_bytes({"stages.0.0.conv.weight": (1,)}))
    registry = Registry(tmp_path / "registry")
    with pytest.raises(RegistryError, match=r"encoder\.safetensors lacks the weight 'stages\.0\.0\.conv\.bias'"):
        registry.publish_encoder(StagedEncoder(card=encoder_card(), weights=weights))
    assert not (registry.root / "encoder").exists()


def test_missing_weights_are_named(registry: Registry) -> None:
    staged = stage_task(registry)
    staged.weights.unlink()
    with pytest.raises(RegistryError, match=r"the staged weights .*liver-1\.safetensors cannot be read: No such file"):
        registry.publish(staged)


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here lies a file")
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(safetensors_bytes(encoder_shapes(ENCODER_SPEC)))
    registry = Registry(tmp_path / "file" / "registry")
    with pytest.raises(OutputError, match=r"cannot write into the registry .*file/registry: Not a directory"):
        registry.publish_encoder(StagedEncoder(card=encoder_card(), weights=weights))


# Retiring


def test_a_retired_task_is_hidden_and_a_later_version_shows_again(registry: Registry) -> None:
    publish(registry, "liver")
    publish(registry, "bones", {"x_bone": 10001})
    registry.retire(LIVER)
    assert [card.task for card in Registry(registry.root).tasks()] == ["bones"]
    assert registry.retired() == ("liver",)
    with pytest.raises(RegistryError, match=r"task 'liver' is retired in the registry .*; published tasks are bones"):
        registry.card(LIVER)
    assert registry.card(LIVER, version=1).version == 1
    assert registry.verify() == []
    assert publish(registry, "liver", seed=2).version == 2
    assert [card.title for card in registry.tasks()] == ["liver@2", "bones@1"]
    assert registry.retired() == ()


def test_retiring_twice_or_what_is_unknown_is_refused(registry: Registry) -> None:
    publish(registry, "liver")
    registry.retire(LIVER)
    with pytest.raises(RegistryError, match="task 'liver' is retired"):
        registry.retire(LIVER)
    with pytest.raises(RegistryError, match="no task 'bones' in the registry"):
        registry.retire(BONES)


def test_a_damaged_retirement_hides_the_task_and_is_reported(registry: Registry) -> None:
    publish(registry, "liver")
    (registry.root / "tasks" / "liver" / "retired.json").write_text("{}")
    assert registry.tasks() == ()
    (problem,) = registry.verify()
    assert problem.startswith("tasks/liver/retired.json: the document lacks format")


# Reading


def test_a_broken_card_hides_its_task_only_and_is_reported(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    publish(registry, "liver")
    publish(registry, "bones", {"x_bone": 10001})
    (registry.root / "tasks" / "liver" / "1" / "card.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        assert [card.task for card in registry.tasks()] == ["bones"]
    assert "task liver version 1 is left out: tasks/liver/1/card.json is not readable JSON" in caplog.text
    with pytest.raises(RegistryError, match=r"tasks/liver/1/card\.json is not readable JSON"):
        registry.card(LIVER)


def test_a_broken_newest_version_does_not_bring_back_the_older_one(registry: Registry) -> None:
    publish(registry, "liver")
    publish(registry, "liver", seed=2)
    (registry.root / "tasks" / "liver" / "2" / "card.json").unlink()
    assert registry.tasks() == ()


def test_a_card_in_the_folder_of_another_task_is_refused(registry: Registry) -> None:
    publish(registry, "liver")
    (registry.root / "tasks" / "liver").rename(registry.root / "tasks" / "bones")
    with pytest.raises(RegistryError, match=r"tasks/bones/1/card\.json must be the card of bones@1, got liver@1"):
        registry.card(BONES)
