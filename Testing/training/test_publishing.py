"""Prove, publish, prove again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tiny_enrollment
import torch

from wbcss.cards import TaskCard
from wbcss.catalogue import find
from wbcss.errors import RunError, SpecError
from wbcss.io.atomic import write_bytes
from wbcss.labels import OrganName
from wbcss.loading import load_encoder, save_weights
from wbcss.nn.decoder import Decoder
from wbcss.proof import take_snapshot
from wbcss.registry import Registry, StagedTask
from wbcss.snapshot import LogitHashes, Snapshot, snapshot_to_bytes
from wbcss_training.publishing import (
    new_organ,
    organs_for,
    prove_publishable,
    prove_unchanged,
    publish_proven,
    snapshot_before,
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return tiny_enrollment.registry_with_earlier_task(tmp_path / "registry")


def staged(registry: Registry, tmp_path: Path, *, seed: int = 1) -> StagedTask:
    torch.manual_seed(seed)
    save_weights(
        Decoder(tiny_enrollment.DECODER, tiny_enrollment.ENCODER).state_dict(), tmp_path / "staged.safetensors"
    )
    card = TaskCard(
        task=tiny_enrollment.TASK,
        organs=find(tiny_enrollment.ORGANS),
        spec=tiny_enrollment.DECODER,
        encoder_sha256=registry.encoder_card().weights_sha256,
        training_cases=1,
        license="CC0-1.0",
        provenance="random numbers",
        created="2026-11-20",
    )
    return StagedTask(card=card, weights=tmp_path / "staged.safetensors")


def test_a_proven_task_is_published_once(registry: Registry, tmp_path: Path) -> None:
    before, encoder = take_snapshot(registry), load_encoder(registry)
    card, unchanged = publish_proven(registry, staged(registry, tmp_path), before, encoder=encoder)
    assert (card.title, unchanged) == ("belly@1", ("spine@1",))
    again, _ = publish_proven(registry, staged(registry, tmp_path), before, encoder=encoder)
    assert again == card
    other, _ = publish_proven(registry, staged(registry, tmp_path, seed=2), before, encoder=encoder)
    assert other.title == "belly@2"


def test_other_logits_than_before_keep_a_task_out(registry: Registry, tmp_path: Path) -> None:
    before, encoder = take_snapshot(registry), load_encoder(registry)
    assert before.logits is not None
    forged = dataclasses.replace(before, logits=dataclasses.replace(before.logits, tasks={"spine@1": "0" * 64}))
    with pytest.raises(
        RunError, match=r"bit for bit as it was, got 1 change\(s\): spine@1 logits changed since the run"
    ):
        publish_proven(registry, staged(registry, tmp_path), forged, encoder=encoder)
    assert registry.versions(tiny_enrollment.TASK) == ()


def test_a_file_that_is_gone_keeps_a_task_out(registry: Registry, tmp_path: Path) -> None:
    before = take_snapshot(registry)
    more = Snapshot(files={**before.files, "tasks/heart/1/card.json": "1" * 64}, logits=before.logits)
    with pytest.raises(RunError, match=r"tasks/heart/1/card\.json is gone since the run began"):
        publish_proven(registry, staged(registry, tmp_path), more, encoder=load_encoder(registry))
    assert registry.versions(tiny_enrollment.TASK) == ()


def test_an_encoder_whose_weights_were_touched_keeps_a_task_out(registry: Registry, tmp_path: Path) -> None:
    before, encoder = take_snapshot(registry), load_encoder(registry)
    with torch.no_grad():
        encoder.stages[1][0].conv.bias[0] += 1e-7  # type: ignore[index,union-attr,operator]
    with pytest.raises(RunError, match=r"1 change\(s\): the encoder's stages\.1\.0\.conv\.bias"):
        prove_unchanged(registry, before, encoder=encoder)


def test_the_first_snapshot_of_a_run_is_the_one_that_counts(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    first = snapshot_before(registry, path)
    publish_proven(registry, staged(registry, tmp_path), first, encoder=load_encoder(registry))
    assert snapshot_before(registry, path) == first
    assert list(first.logits.tasks) == ["spine@1"]  # type: ignore[union-attr]


def test_on_another_machine_the_logits_are_taken_anew_and_the_files_are_not(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    now = take_snapshot(registry)
    foreign = Snapshot(files={"tasks/x": "0" * 64}, logits=LogitHashes(machine="an abacus", tasks={}))
    write_bytes(path, snapshot_to_bytes(foreign))
    assert snapshot_before(registry, path) == Snapshot(files=foreign.files, logits=now.logits, created=foreign.created)


def test_new_organs_get_labels_and_known_ones_keep_theirs(registry: Registry) -> None:
    liver, tumor = organs_for(registry, [OrganName("liver"), OrganName("my_tumor")])
    assert liver == find(["liver"])[0]
    assert (tumor.label, tumor.type.meaning, tumor.exact) == (10000, "Anatomical Structure", False)
    assert organs_for(registry, [OrganName("my_tumor")]) == (tumor,)
    assert organs_for(registry, [OrganName("other_tumor")])[0].label == 10001


def test_what_would_be_published_is_proven_and_stays_out(registry: Registry, tmp_path: Path) -> None:
    before, encoder = take_snapshot(registry), load_encoder(registry)
    card, unchanged = prove_publishable(registry, staged(registry, tmp_path), before, encoder=encoder)
    assert (card.title, unchanged, registry.versions(tiny_enrollment.TASK)) == ("belly@1", ("spine@1",), ())
    published, _ = publish_proven(registry, staged(registry, tmp_path), before, encoder=encoder)
    assert published.weights_sha256 == card.weights_sha256


def test_what_is_known_of_a_new_organ_is_on_its_card() -> None:
    organ = new_organ(OrganName("my_tumor"), 10007, {"display": "My tumor", "color_rgb": [1, 2, 3]})
    assert (organ.label, organ.display_name, organ.color_rgb, organ.type.meaning) == (
        10007,
        "My tumor",
        (1, 2, 3),
        "Anatomical Structure",
    )
    with pytest.raises(SpecError, match="the card of the new organ 'my_tumor' may not give its name, got 'x'"):
        new_organ(OrganName("my_tumor"), 10007, {"name": "x"})
    with pytest.raises(SpecError, match="an organ has no field size"):
        new_organ(OrganName("my_tumor"), 10007, {"size": 1})
