"""A task travels as one file, and nothing else travels with it."""

from __future__ import annotations

import dataclasses
import json
import stat
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tiny_registry import new_registry, publish

from wbcss import package
from wbcss.cards import task_card_to_bytes
from wbcss.errors import OutputError, RegistryError
from wbcss.labels import TaskId
from wbcss.package import export_task, import_task, read_package_card
from wbcss.registry import Registry
from wbcss.storage import sha256_bytes

LIVER = TaskId("liver")
Members = list[tuple[str, bytes]]


@pytest.fixture
def sender(tmp_path: Path) -> Registry:
    registry = new_registry(tmp_path / "sender")
    publish(registry, "bones", {"x_bone": 10001})
    publish(registry, "liver", {"liver": 5, "x_cyst": 10002}, validation={"dice": 0.9})
    return registry


@pytest.fixture
def receiver(tmp_path: Path) -> Registry:
    """Another registry with the same encoder."""
    return new_registry(tmp_path / "receiver")


@pytest.fixture
def sent(sender: Registry, tmp_path: Path) -> Path:
    return export_task(sender, LIVER, tmp_path)


def members_of(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def rewrite(path: Path, members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def with_manifest(members: Members, change: Callable[[dict[str, Any]], object]) -> Members:
    contents = dict(members)
    manifest = json.loads(contents["manifest.json"])
    change(manifest)
    return [("manifest.json", json.dumps(manifest).encode()), *members[1:]]


def refused(receiver: Registry, path: Path, message: str) -> None:
    """Importing ``path`` fails with ``message`` and leaves the registry as it was, byte for byte."""
    before = {file: file.read_bytes() for file in receiver.root.rglob("*") if file.is_file()}
    with pytest.raises(RegistryError, match=message) as caught:
        import_task(receiver, path)
    assert "\n" not in str(caught.value)
    after = {file: file.read_bytes() for file in receiver.root.rglob("*") if file.is_file()}
    assert after == before
    assert receiver.notes() == []


def test_a_task_arrives_as_it_was_sent(sender: Registry, receiver: Registry, sent: Path) -> None:
    assert sent.name == "liver-1.wbtask"
    card = import_task(receiver, sent)
    assert card == dataclasses.replace(sender.card(LIVER), sequence=1)
    assert receiver.task_weights(card).read_bytes() == sender.task_weights(sender.card(LIVER)).read_bytes()
    assert receiver.verify() == []
    assert receiver.tasks() == (card,)


def test_equal_tasks_give_equal_packages_wherever_they_lie(
    sender: Registry, receiver: Registry, sent: Path, tmp_path: Path
) -> None:
    again = export_task(sender, LIVER, tmp_path / "again.wbtask")
    assert again.read_bytes() == sent.read_bytes()
    import_task(receiver, sent)
    onwards = export_task(receiver, LIVER, tmp_path / "onwards.wbtask")
    assert onwards.read_bytes() == sent.read_bytes()


def test_a_package_holds_the_version_folder_and_a_manifest_of_hashes(sender: Registry, sent: Path) -> None:
    members = dict(members_of(sent))
    assert list(members) == ["manifest.json", "card.json", "decoder.safetensors"]
    card = sender.card(LIVER)
    assert members["decoder.safetensors"] == sender.task_weights(card).read_bytes()
    manifest = json.loads(members["manifest.json"])
    assert manifest["encoder_sha256"] == sender.encoder_card().weights_sha256
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == {
        name: sha256_bytes(members[name]) for name in ("card.json", "decoder.safetensors")
    }


def test_a_package_can_be_looked_into_without_importing_it(sender: Registry, sent: Path) -> None:
    assert read_package_card(sent) == dataclasses.replace(sender.card(LIVER), sequence=0)


def test_an_older_or_retired_version_can_be_exported(sender: Registry, receiver: Registry, tmp_path: Path) -> None:
    publish(sender, "liver", {"liver": 5}, seed=6)
    sender.retire(LIVER)
    path = export_task(sender, LIVER, tmp_path, version=1)
    assert import_task(receiver, path).version == 1


def test_a_package_replaces_one_of_the_same_name_only_when_it_is_whole(
    sender: Registry, sent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sent.read_bytes()

    def full_disk(name: str) -> zipfile.ZipInfo:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(package, "_member", full_disk)
    with pytest.raises(OutputError, match=r"cannot write .*liver-1\.wbtask: the disk is full"):
        export_task(sender, LIVER, sent)
    assert sent.read_bytes() == before
    assert [path.name for path in sent.parent.glob(".wbcss*")] == []


def test_damaged_weights_are_not_exported(sender: Registry, tmp_path: Path) -> None:
    weights = sender.task_weights(sender.card(LIVER))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(
        RegistryError, match=r"liver@1 decoder\.safetensors must have the SHA-256 of its card, \w+, got"
    ):
        export_task(sender, LIVER, tmp_path / "x.wbtask")
    weights.unlink()
    with pytest.raises(RegistryError, match=r"liver@1 decoder\.safetensors cannot be read: No such file"):
        export_task(sender, LIVER, tmp_path / "x.wbtask")
    assert not (tmp_path / "x.wbtask").exists()


def test_a_package_must_have_its_suffix(sender: Registry, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a task package must be named \*\.wbtask, got 'liver\.zip'"):
        export_task(sender, LIVER, tmp_path / "liver.zip")


# What does not fit here


def test_a_task_of_another_encoder_is_refused(sent: Path, tmp_path: Path) -> None:
    other = new_registry(tmp_path / "other", seed=3)
    refused(other, sent, r"liver-1\.wbtask: task 'liver' was made for the encoder \w{12}\.\.\., but the registry")


def test_a_registry_without_an_encoder_takes_no_task(sent: Path, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"liver-1\.wbtask: no encoder is published in the registry"):
        import_task(Registry(tmp_path / "empty"), sent)
    assert not (tmp_path / "empty").exists()


def test_a_version_that_is_there_already_is_refused(receiver: Registry, sent: Path) -> None:
    import_task(receiver, sent)
    refused(receiver, sent, r"liver-1\.wbtask: liver@1 is already published in the registry")


def test_a_label_value_of_another_organ_is_refused(receiver: Registry, sent: Path) -> None:
    publish(receiver, "vessel", {"x_stent": 10002})
    refused(receiver, sent, "gives the label value 10002 to 'x_cyst', but here it belongs to 'x_stent'")


def test_an_organ_with_another_value_here_is_refused(receiver: Registry, sent: Path) -> None:
    publish(receiver, "other", {"x_cyst": 10005})
    refused(receiver, sent, "gives 'x_cyst' the label value 10002, but here this organ has the value 10005")


# What is no package, or a hostile one


def test_what_is_no_zip_is_refused(receiver: Registry, tmp_path: Path) -> None:
    path = tmp_path / "x.wbtask"
    path.write_text("I am a letter")
    refused(receiver, path, r"x\.wbtask is no intact task package \(File is not a zip file\); ask for the file again")


def test_what_is_not_there_is_refused(receiver: Registry, tmp_path: Path) -> None:
    refused(receiver, tmp_path / "x.wbtask", r"a task package \(\.wbtask\) must exist, got .*x\.wbtask")


@pytest.mark.parametrize("kept", [0.2, 0.9, 0.99])
def test_a_package_that_was_cut_is_refused(receiver: Registry, sent: Path, kept: float) -> None:
    data = sent.read_bytes()
    sent.write_bytes(data[: int(kept * len(data))])
    refused(receiver, sent, r"liver-1\.wbtask is no intact task package")


def test_a_flipped_bit_in_the_weights_is_refused(receiver: Registry, sent: Path) -> None:
    data = bytearray(sent.read_bytes())
    position = data.index(b'{"head.bias"') + 2000  # inside the stored weights
    data[position] ^= 1
    sent.write_bytes(bytes(data))
    refused(receiver, sent, r"liver-1\.wbtask is no intact task package \(Bad CRC-32")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../card.json", r"holds the member '\.\./card\.json', which would leave its folder"),
        ("a/../../x", r"holds the member 'a/\.\./\.\./x', which would leave its folder"),
        ("..\\x", r"which would leave its folder"),
        ("/etc/passwd", r"holds the member '/etc/passwd', which would leave its folder"),
        ("C:\\x.json", r"which would leave its folder"),
        ("c:x.json", r"holds the member 'c:x\.json', which would leave its folder"),
        ("folder/", r"holds the member 'folder/', which is a folder or special file"),
        ("sub/card.json", r"holds the unexpected member 'sub/card\.json'; it may hold manifest\.json, card\.json"),
        ("run.py", r"holds the unexpected member 'run\.py'"),
    ],
)
def test_a_member_that_does_not_belong_is_refused(receiver: Registry, sent: Path, name: str, message: str) -> None:
    members = members_of(sent)
    refused(receiver, rewrite(sent, [*members, (name, b"" if name.endswith("/") else b"x")]), message)


def test_a_link_is_refused(receiver: Registry, sent: Path) -> None:
    members = dict(members_of(sent))
    link = zipfile.ZipInfo("decoder.safetensors")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    changed: list[tuple[str | zipfile.ZipInfo, bytes]] = [
        ("manifest.json", members["manifest.json"]),
        ("card.json", members["card.json"]),
        (link, b"/etc/passwd"),
    ]
    refused(receiver, rewrite(sent, changed), r"holds the member 'decoder\.safetensors', which is a link")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_given_twice_is_refused(receiver: Registry, sent: Path) -> None:
    members = members_of(sent)
    refused(receiver, rewrite(sent, [*members, members[1]]), r"holds the member 'card\.json' twice")


@pytest.mark.parametrize("name", ["manifest.json", "card.json", "decoder.safetensors"])
def test_a_missing_member_is_named(receiver: Registry, sent: Path, name: str) -> None:
    members = [member for member in members_of(sent) if member[0] != name]
    refused(receiver, rewrite(sent, members), rf"must hold manifest\.json, .*; it lacks {name}")


def test_a_decoder_that_claims_to_be_enormous_is_not_unpacked(receiver: Registry, sent: Path) -> None:
    """Four megabytes of zeros shrink to four kilobytes; this decoder's spec allows a hundred."""
    size = 4 << 20
    members = dict(members_of(sent))

    def promise(manifest: dict[str, Any]) -> None:
        manifest["files"]["decoder.safetensors"]["bytes"] = size

    bomb = [*with_manifest(members_of(sent), promise)[:2], ("decoder.safetensors", bytes(size))]
    rewrite(sent, bomb, compression=zipfile.ZIP_DEFLATED)
    assert sent.stat().st_size < len(members["decoder.safetensors"]) + 20_000
    refused(receiver, sent, rf"decoder\.safetensors must be at most \d+ bytes by its spec, got {size}")


@pytest.mark.parametrize("name", ["manifest.json", "card.json", "decoder.safetensors"])
def test_a_member_above_its_limit_is_not_unpacked(
    receiver: Registry, sent: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    size = len(dict(members_of(sent))[name])
    monkeypatch.setattr(package, "LIMITS_BYTES", {**package.LIMITS_BYTES, name: size - 1})
    refused(
        receiver, sent, rf"liver-1\.wbtask: {name} must be at most {size - 1} bytes, got {size}; it is not unpacked"
    )


def test_a_member_that_is_larger_than_it_claims_is_refused(receiver: Registry, sent: Path) -> None:
    """The size field of the directory lies; the stored data go on."""
    data = bytearray(rewrite(sent, members_of(sent)).read_bytes())
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)  # directory entry of card.json
    for offset in (20, 24):
        data[entry + offset : entry + offset + 4] = (100).to_bytes(4, "little")
    sent.write_bytes(bytes(data))
    refused(receiver, sent, r"liver-1\.wbtask: card\.json must have \d+ bytes by the manifest, got 100")


def test_a_size_that_differs_from_the_manifest_is_refused(receiver: Registry, sent: Path) -> None:
    members = with_manifest(members_of(sent), lambda values: values["files"]["card.json"].update(bytes=3))
    refused(receiver, rewrite(sent, members), r"card\.json must have 3 bytes by the manifest, got \d+")


def test_a_card_that_differs_from_the_manifest_is_refused(receiver: Registry, sent: Path) -> None:
    members = with_manifest(members_of(sent), lambda values: values["files"]["card.json"].update(sha256="ab" * 32))
    refused(receiver, rewrite(sent, members), rf"card\.json must have the SHA-256 of the manifest, {'ab' * 32}, got")


@pytest.mark.parametrize(("field", "value"), [("task", "bones"), ("version", 2), ("encoder_sha256", "cd" * 32)])
def test_a_manifest_that_contradicts_the_card_is_refused(
    receiver: Registry, sent: Path, field: str, value: object
) -> None:
    members = with_manifest(members_of(sent), lambda values: values.update({field: value}))
    refused(receiver, rewrite(sent, members), rf"{field} must be the same in card and manifest, got .* and {value!r}")


def test_weights_that_differ_from_card_and_manifest_are_refused(receiver: Registry, sent: Path) -> None:
    members = members_of(sent)
    changed = members[2][1][:-1] + bytes([members[2][1][-1] ^ 1])
    refused(
        receiver,
        rewrite(sent, [*members[:2], (members[2][0], changed)]),
        r"liver-1\.wbtask: decoder\.safetensors must have the SHA-256 of its card, \w{64}, got \w{64}",
    )


def test_weights_that_do_not_fit_their_spec_are_refused(receiver: Registry, sender: Registry, sent: Path) -> None:
    """All hashes are in order, but the weights are those of another task."""
    bones = sender.task_weights(sender.card(TaskId("bones"))).read_bytes()
    card = dataclasses.replace(sender.card(LIVER), sequence=0, weights_sha256=sha256_bytes(bones))
    card_data = task_card_to_bytes(card)

    def promise(manifest: dict[str, Any]) -> None:
        manifest["files"]["card.json"] = {"bytes": len(card_data), "sha256": sha256_bytes(card_data)}
        manifest["files"]["decoder.safetensors"] = {"bytes": len(bones), "sha256": sha256_bytes(bones)}

    manifest = with_manifest(members_of(sent), promise)[0]
    path = rewrite(sent, [manifest, ("card.json", card_data), ("decoder.safetensors", bones)])
    refused(receiver, path, r"the weight 'head\.weight' must have shape \(3, 2, 1, 1, 1\) by its spec, got \(2, 2")


def test_an_encrypted_member_is_refused(receiver: Registry, sent: Path) -> None:
    data = bytearray(sent.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    sent.write_bytes(bytes(data))
    refused(receiver, sent, r"liver-1\.wbtask: manifest\.json is encrypted; export it without a password")


def test_a_manifest_of_a_later_program_is_refused(receiver: Registry, sent: Path) -> None:
    members = with_manifest(members_of(sent), lambda values: values.update(format_version=2))
    refused(receiver, rewrite(sent, members), r"manifest\.json has format_version 2, this program reads version 1")
