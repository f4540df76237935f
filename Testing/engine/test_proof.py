"""Law 1: what earlier tasks answer is bit for bit the same before and after a task is published."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from tiny_registry import ENCODER_SPEC, new_registry, publish

from wbcss.cli.main import main
from wbcss.errors import Cancelled, InputError, RegistryError
from wbcss.labels import TaskId
from wbcss.loading import load_model
from wbcss.phantom import make_phantom
from wbcss.proof import hash_logits, proof_tile, take_snapshot
from wbcss.registry import Registry
from wbcss.snapshot import LogitHashes, changed_logits, read_snapshot, snapshot_to_bytes

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = new_registry(tmp_path / "registry")
    publish(registry, "liver", {"liver": 5, "x_cyst": 10000})
    publish(registry, "bones", {"x_bone": 10001})
    return registry


def verify(registry: Registry, *words: str | Path) -> int:
    return main(["tasks", "verify", *map(str, words), "--registry", str(registry.root)])


def test_hashes_are_those_of_the_logits_of_the_loaded_model(registry: Registry) -> None:
    model = load_model(registry)
    with torch.no_grad():
        logits = model.network(proof_tile(ENCODER_SPEC), model.network.tasks)
    expected = {f"{task}@1": hashlib.sha256(value.numpy().tobytes()).hexdigest() for task, value in logits.items()}
    assert hash_logits(registry).tasks == expected


def test_every_version_is_hashed_and_no_publication_changes_an_earlier_hash(registry: Registry) -> None:
    before = hash_logits(registry)
    publish(registry, "liver", {"liver": 5}, seed=3)
    registry.retire(TaskId("bones"))
    after = hash_logits(registry)
    assert list(before.tasks) == ["liver@1", "bones@1"]
    assert list(after.tasks) == ["liver@1", "bones@1", "liver@2"]
    assert changed_logits(before, after, since="now") == []
    assert len(set(after.tasks.values())) == 3


def test_the_tile_is_the_middle_of_a_body_in_the_windows_of_the_encoder() -> None:
    spec = dataclasses.replace(ENCODER_SPEC, tile=(32, 32, 32), windows_hu=((-1000.0, 1000.0), (0.0, 100.0)))
    tile = proof_tile(spec)
    hu = make_phantom("abdomen", seed=0, spacing_mm=(6.0, 6.0, 6.0)).volume.voxels
    low = [(n - 16) // 2 for n in hu.shape]
    middle = torch.from_numpy(hu[tuple(slice(start, start + 16) for start in low)]).float()
    assert tile.shape == (1, 2, 16, 16, 16)
    torch.testing.assert_close(tile[0, 0], middle.clamp(-1000, 1000) / 1000)
    torch.testing.assert_close(tile[0, 1], (middle.clamp(0, 100) - 50) / 50)


def test_a_tile_larger_than_the_body_is_filled_up_with_air() -> None:
    tile = proof_tile(dataclasses.replace(ENCODER_SPEC, tile=(8, 8, 400)))
    assert tile.shape == (1, 1, 4, 4, 200)
    assert float(tile[..., 0].max()) == float(tile[..., -1].max()) == -1.0


def test_a_registry_without_tasks_has_no_logits(tmp_path: Path) -> None:
    assert take_snapshot(new_registry(tmp_path / "registry")).logits.tasks == {}  # type: ignore[union-attr]


def test_hashing_can_be_stopped(registry: Registry) -> None:
    with pytest.raises(Cancelled, match="cancelled"):
        hash_logits(registry, cancelled=lambda: True)


def test_weights_that_are_not_those_of_the_card_are_refused(registry: Registry) -> None:
    path = registry.task_weights(registry.card(TaskId("bones")))
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    with pytest.raises(RegistryError, match=r"bones/1/decoder\.safetensors was changed after it was published"):
        hash_logits(registry)


def test_a_snapshot_comes_back_from_its_file(registry: Registry, tmp_path: Path) -> None:
    snapshot = take_snapshot(registry)
    (tmp_path / "before.json").write_bytes(snapshot_to_bytes(snapshot))
    assert read_snapshot(tmp_path / "before.json") == snapshot


def test_logits_of_another_machine_are_not_compared() -> None:
    with pytest.raises(InputError, match="compared on the machine that computed them, an abacus, got a slide rule"):
        changed_logits(
            LogitHashes(machine="an abacus", tasks={}), LogitHashes(machine="a slide rule", tasks={}), since="x.json"
        )


def test_the_command_proves_that_earlier_tasks_answer_as_before(
    registry: Registry, tmp_path: Path, capsys: Capture
) -> None:
    before = tmp_path / "before.json"
    assert verify(registry, "--snapshot", before, "--logits") == 0
    publish(registry, "heart", {"x_valve": 10002})
    hashes = hash_logits(registry).tasks
    capsys.readouterr()
    assert verify(registry, "--since", before) == 0
    assert capsys.readouterr().out == (
        f"liver@1: logits bit for bit as before (SHA-256 {hashes['liver@1'][:12]}...)\n"
        f"bones@1: logits bit for bit as before (SHA-256 {hashes['bones@1'][:12]}...)\n"
        "8 published files verified, all as published\n6 earlier files unchanged\n"
    )
    assert verify(registry, "--since", before, "--json") == 0
    assert json.loads(capsys.readouterr().out)["unchanged_logits"] == ["liver@1", "bones@1"]


def test_the_command_names_a_task_whose_logits_are_others(registry: Registry, tmp_path: Path, capsys: Capture) -> None:
    before = tmp_path / "before.json"
    verify(registry, "--snapshot", before, "--logits")
    facts = json.loads(before.read_text())
    facts["logits"]["tasks"]["bones@1"] = "0" * 64  # the files are the same: only the logits can tell
    facts["logits"]["tasks"]["heart@1"] = "1" * 64
    before.write_text(json.dumps(facts))
    capsys.readouterr()
    assert verify(registry, "--since", before) == 3
    out = capsys.readouterr().out
    assert "broken: bones@1 logits changed since before.json: SHA-256 was 000000000000..., is " in out
    assert "broken: heart@1 is gone since before.json" in out
    assert "liver@1: logits bit for bit as before" in out
    assert out.endswith("2 problems found\n")


def test_logits_without_a_snapshot_to_hold_them_are_refused(registry: Registry, capsys: Capture) -> None:
    assert verify(registry, "--logits") == 2
    assert "--logits says what --snapshot records, got no --snapshot FILE" in capsys.readouterr().err
