"""Durable file operations under a registry: write, sync, hash, rename, lock. Every change of a registry passes here."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import OutputError, RegistryError

STAGING_PREFIX = ".staging-"
LOCK_NAME = ".lock"
_STAGING = re.compile(r"\.staging-(\d+)-[0-9a-f]+(\.tmp)?")
_CHUNK_BYTES = 1 << 20
_LOCK_POLL_S = 0.02
_log = logging.getLogger(__name__)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of ``data`` as hex."""
    return hashlib.sha256(data).hexdigest()


def make_folder(path: Path) -> None:
    """Make one folder and record it in its parent; an existing folder is fine."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)  # noqa: PTH102 -- all changes go through `os`, so that a test can stop any of them
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut. Windows keeps them by itself and cannot open folders."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        _write_all(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)


def write_stream(path: Path, stream: BinaryIO, *, max_bytes: int) -> str:
    """Copy ``stream`` to a new file, wait until it is on the disk, and return its SHA-256.

    Raises RegistryError as soon as more than ``max_bytes`` came.
    """
    digest = hashlib.sha256()
    num_bytes = 0
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        while chunk := stream.read(_CHUNK_BYTES):
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise RegistryError(f"{path.name} must be at most {max_bytes} bytes, got more")
            digest.update(chunk)
            _write_all(handle, chunk)
        os.fsync(handle)
    finally:
        os.close(handle)
    return digest.hexdigest()


def write_promised(path: Path, stream: BinaryIO, *, max_bytes: int, promised: str) -> str:
    """``write_stream``, with the SHA-256 that a card promises, or empty. Raises RegistryError if it is another one."""
    sha256 = write_stream(path, stream, max_bytes=max_bytes)
    if promised and sha256 != promised:
        raise RegistryError(f"{path.name} must have the SHA-256 of its card, {promised}, got {sha256}")
    return sha256


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def rename_folder(source: Path, target: Path) -> None:
    """The one step that makes a staged folder visible. Fails if ``target`` exists and holds anything."""
    os.rename(source, target)  # noqa: PTH104
    _settle(target.parent)
    _settle(source.parent)


def replace_file(path: Path, data: bytes, *, staging_root: Path) -> None:
    """Give ``path`` new content in one step; readers see the old or the new content, never a part."""
    temporary = staging_path(staging_root, suffix=".tmp")
    try:
        write_bytes(temporary, data)
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    _settle(path.parent)


def _settle(folder: Path) -> None:
    """Sync a folder after a rename. The change is visible by then, so a refusal is no failure of it, only a risk."""
    try:
        sync_folder(folder)
    except OSError as error:
        _log.warning("a change is visible but may not survive a power cut: %s", error.strerror)


def staging_path(root: Path, *, suffix: str = "") -> Path:
    """A fresh name under ``root`` that says which process owns it."""
    return root / f"{STAGING_PREFIX}{os.getpid()}-{secrets.token_hex(6)}{suffix}"


def remove_tree(path: Path) -> None:
    """Delete a staging folder or file; what cannot be deleted stays for the next cleaning."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108


def staging_leftovers(root: Path) -> list[Path]:
    """Staging folders and files under ``root``, whoever owns them."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if _STAGING.fullmatch(path.name))


def clean_staging(root: Path) -> None:
    """Delete what processes that are gone have left behind. Call it with the lock held."""
    for path in staging_leftovers(root):
        match = _STAGING.fullmatch(path.name)
        if match and not is_process_alive(int(match.group(1))):
            remove_tree(path)


def is_process_alive(pid: int) -> bool:
    """Whether a process of this number exists, whoever owns it."""
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        if not handle:
            return bool(kernel.GetLastError() == 5)  # ERROR_ACCESS_DENIED: it exists and belongs to another user
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return code.value == 259  # STILL_ACTIVE
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def locked(root: Path, *, timeout_s: float = 60.0) -> Iterator[None]:
    """Hold the registry's lock; the system frees it when the process ends, however it ends.

    Raises OutputError if another process holds it for longer than ``timeout_s``.
    """
    with held(root / LOCK_NAME, timeout_s=timeout_s) as is_held:
        if not is_held:
            raise OutputError(
                f"the registry {root} must be free for writing, but another process has been writing into it for "
                f"more than {timeout_s:g} s; try again later"
            )
        yield


@contextlib.contextmanager
def held(path: Path, *, timeout_s: float = 0.0) -> Iterator[bool]:
    """Hold the lock file ``path``, which is made; yields False if another process held it for ``timeout_s``.

    The system frees it when the process ends, however it ends.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        give_up_s = time.monotonic() + timeout_s
        while not (is_held := _try_lock(handle)) and time.monotonic() < give_up_s:
            time.sleep(_LOCK_POLL_S)
        yield is_held
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def writing_reported(root: Path) -> Iterator[None]:
    """Turn an operating system's refusal into an OutputError that names the registry and the reason."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write into the registry {root}: {reason}; check permissions and free space, nothing was published"
        ) from error
