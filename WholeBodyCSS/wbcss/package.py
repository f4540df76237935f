"""A task as one file to carry to another hospital: ``NAME-VERSION.wbtask``, a zip of its folder and a manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from . import storage, weights
from .cards import TaskCard, task_card_from_bytes, task_card_to_bytes
from .errors import InputError, OutputError, RegistryError
from .evidencefile import MAX_EVIDENCE_BYTES
from .io.atomic import atomic_path
from .labels import TaskId
from .layout import CARD, DECODER, EVIDENCE
from .registry import Registry
from .schemas import MAX_DOCUMENT_BYTES, dump_document, read_document

SUFFIX = ".wbtask"
MANIFEST = "manifest.json"
LIMITS_BYTES: Mapping[str, int] = {
    MANIFEST: 1 << 20,
    CARD: MAX_DOCUMENT_BYTES,
    DECODER: weights.MAX_WEIGHTS_BYTES,
    EVIDENCE: MAX_EVIDENCE_BYTES,
}
"""The members of a package, in order, and how large each may be; the last one is not in every package."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_CHUNK_BYTES = 1 << 20
_DRIVE = re.compile(r"[A-Za-z]:")
_PLAIN_FILE = (stat.S_IFREG | 0o644) << 16


def package_name(card: TaskCard) -> str:
    """File name of the package of a card, as in ``liver-2.wbtask``."""
    return f"{card.task}-{card.version}{SUFFIX}"


def export_task(registry: Registry, task: TaskId, path: Path, *, version: int | None = None) -> Path:
    """Write ``task`` (newest visible version, or ``version``) as a package and return where it lies.

    Equal tasks give equal bytes, in whatever registry they lie. The weights are checked on the way.

    Args:
        registry: Where the task is published.
        task: Its name.
        path: A folder, or a file name that ends in ``.wbtask``; an existing package is replaced.
        version: Which version; retired ones too.

    Raises:
        RegistryError: the task is unknown or its files do not match its card.
        OutputError: the file cannot be written.
    """
    card = registry.card(task, version=version)
    path = path / package_name(card) if path.is_dir() else path
    if path.suffix != SUFFIX:
        raise OutputError(f"a task package must be named *{SUFFIX}, got {path.name!r}")
    files = {DECODER: registry.task_weights(card)}
    if card.evidence_sha256:
        files[EVIDENCE] = registry.task_evidence(card)
    # The place in this registry's order means nothing elsewhere, so it does not travel.
    card_data = task_card_to_bytes(dataclasses.replace(card, sequence=0))
    members = {
        CARD: {"bytes": len(card_data), "sha256": storage.sha256_bytes(card_data)},
        **{name: _checked_file(card, source) for name, source in files.items()},
    }
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_member(MANIFEST), _manifest(card, members))
        archive.writestr(_member(CARD), card_data)
        for name, source in files.items():
            info = _member(name)
            info.file_size = members[name]["bytes"]
            with archive.open(info, "w") as target, source.open("rb") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    target.write(chunk)
    return path


def _checked_file(card: TaskCard, path: Path) -> dict[str, Any]:
    """Size and hash of a file that is to be exported, which must be those of the card."""
    promised = card.weights_sha256 if path.name == DECODER else card.evidence_sha256
    try:
        found, num_bytes = storage.sha256_file(path), path.stat().st_size
    except OSError as error:
        raise RegistryError(f"{card.title} {path.name} cannot be read: {error.strerror or error}") from error
    if found != promised:
        raise RegistryError(
            f"{card.title} {path.name} must have the SHA-256 of its card, {promised}, got {found}; "
            "it is damaged and is not exported"
        )
    return {"bytes": num_bytes, "sha256": promised}


def _member(name: str) -> zipfile.ZipInfo:
    """An entry without date, owner or system, so that equal tasks give equal packages."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3
    info.external_attr = _PLAIN_FILE
    return info


def _manifest(card: TaskCard, members: Mapping[str, Mapping[str, Any]]) -> bytes:
    values = {
        "format": "wbcss-task-package",
        "format_version": 1,
        "task": card.task,
        "version": card.version,
        "encoder_sha256": card.encoder_sha256,
        "files": members,
    }
    return dump_document(values, name=MANIFEST)


def import_task(registry: Registry, path: Path) -> TaskCard:
    """Publish the task of a package. Nothing is unpacked before names, sizes, hashes and labels are in order.

    Raises:
        RegistryError: the file is no intact package, or its task does not fit this registry: other encoder, version
            published already, label value of another organ. Nothing is left behind.
        OutputError: the registry cannot be written.
    """
    with _opened(path) as archive:
        infos = _checked_members(archive, path.name)
        manifest_data = _read_small(archive, infos[MANIFEST], path.name)
        manifest = read_document(manifest_data, schema="package_manifest", source=f"{path.name}: {MANIFEST}")
        for name, promise in manifest["files"].items():
            if name not in infos:
                raise RegistryError(f"{path.name} must hold {name} by its manifest, got none")
            if infos[name].file_size != promise["bytes"]:
                raise RegistryError(
                    f"{path.name}: {name} must have {promise['bytes']} bytes by the manifest, "
                    f"got {infos[name].file_size}"
                )
        card = _checked_card(_read_small(archive, infos[CARD], path.name), manifest, path.name)
        try:
            registry.check_publishable(card)
            _check_decoder_size(infos[DECODER], card, registry)
            with contextlib.ExitStack() as stack:
                stream, *evidence = (
                    cast(BinaryIO, stack.enter_context(archive.open(infos[name])))
                    for name in (DECODER, EVIDENCE)
                    if name in infos
                )
                return registry.publish_stream(card, stream, *evidence)
        except RegistryError as error:
            raise RegistryError(f"{path.name}: {error}") from error


def _check_decoder_size(info: zipfile.ZipInfo, card: TaskCard, registry: Registry) -> None:
    """A decoder cannot be larger than its spec says; a file that claims to be is not unpacked."""
    if card.kind == "own":
        limit = weights.largest_file_bytes(weights.decoder_shapes(card.spec, registry.encoder_card().spec))
        if info.file_size > limit:
            raise RegistryError(f"{DECODER} must be at most {limit} bytes by its spec, got {info.file_size}")


def read_package_card(path: Path) -> TaskCard:
    """The card of a package, checked against its manifest. Raises RegistryError as ``import_task`` does."""
    with _opened(path) as archive:
        infos = _checked_members(archive, path.name)
        data = _read_small(archive, infos[MANIFEST], path.name)
        manifest = read_document(data, schema="package_manifest", source=f"{path.name}: {MANIFEST}")
        return _checked_card(_read_small(archive, infos[CARD], path.name), manifest, path.name)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a package; whatever the zip reader stumbles over, now or later, becomes a RegistryError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except InputError:
        raise
    except FileNotFoundError:
        raise RegistryError(f"a task package ({SUFFIX}) must exist, got {path}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise RegistryError(
            f"{path.name} is no intact task package ({error}); ask for the file again, it may have been cut"
        ) from error
    except OSError as error:
        raise RegistryError(f"{path} cannot be read: {error.strerror or error}") from error


def _checked_members(archive: zipfile.ZipFile, source: str) -> dict[str, zipfile.ZipInfo]:
    """Entries by name. Exactly the known members, as plain files of bearable size, each once."""
    infos: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = _checked_name(info, source)
        if name in infos:
            raise RegistryError(f"{source} holds the member {name!r} twice; it is not imported")
        limit = LIMITS_BYTES[name]
        if info.file_size > limit:
            raise RegistryError(
                f"{source}: {name} must be at most {limit} bytes, got {info.file_size}; it is not unpacked"
            )
        infos[name] = info
    needed = [name for name in LIMITS_BYTES if name != EVIDENCE]
    missing = [name for name in needed if name not in infos]
    if missing:
        raise RegistryError(f"{source} must hold {', '.join(needed)}; it lacks {', '.join(missing)}")
    return infos


def _checked_name(info: zipfile.ZipInfo, source: str) -> str:
    # The name as stored; `filename` is cut at a NUL, has turned separators, and may come from an extra field.
    name = info.orig_filename
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or _DRIVE.match(name) or ".." in parts or "\0" in name:
        raise RegistryError(f"{source} holds the member {name!r}, which would leave its folder; it is not imported")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG) or info.is_dir():
        what = "a link" if stat.S_ISLNK(kind) else "a folder or special file"
        raise RegistryError(f"{source} holds the member {name!r}, which is {what}; only plain files are imported")
    if name not in LIMITS_BYTES or info.filename != name:
        raise RegistryError(f"{source} holds the unexpected member {name!r}; it may hold {', '.join(LIMITS_BYTES)}")
    if info.flag_bits & 0x1:
        raise RegistryError(f"{source}: {name} is encrypted; export it without a password")
    return name


def _read_small(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: str) -> bytes:
    """A member that fits into memory, read no further than its limit whatever it claims."""
    limit = LIMITS_BYTES[info.filename]
    with archive.open(info) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit or len(data) != info.file_size:
        raise RegistryError(f"{source}: {info.filename} must have {info.file_size} bytes, got {len(data)} or more")
    return data


def _checked_card(data: bytes, manifest: Mapping[str, Any], source: str) -> TaskCard:
    found, promised = storage.sha256_bytes(data), manifest["files"][CARD]["sha256"]
    if found != promised:
        raise RegistryError(f"{source}: {CARD} must have the SHA-256 of the manifest, {promised}, got {found}")
    card = task_card_from_bytes(data, source=f"{source}: {CARD}")
    stated = {
        "task": card.task,
        "version": card.version,
        "encoder_sha256": card.encoder_sha256,
        "files.decoder.safetensors.sha256": card.weights_sha256,
        "files.evidence.safetensors.sha256": card.evidence_sha256,
    }
    evidence_sha256 = manifest["files"].get(EVIDENCE, {}).get("sha256", "")
    promises = {
        **manifest,
        "files.decoder.safetensors.sha256": manifest["files"][DECODER]["sha256"],
        "files.evidence.safetensors.sha256": evidence_sha256,
    }
    for field, value in stated.items():
        if promises[field] != value:
            raise RegistryError(
                f"{source}: {field} must be the same in card and manifest, got {value!r} and {promises[field]!r}"
            )
    return card
