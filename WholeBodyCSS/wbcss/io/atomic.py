"""Files that appear whole or not at all: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import OutputError

PARTIAL_PREFIX = ".wbcss-partial-"
"""Every temporary file starts with this, so that a leftover of a killed run is recognized and never mistaken."""

STALE_AFTER_S = 24 * 3600.0
"""A leftover not touched for this long belongs to no running process and is removed."""


@contextlib.contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to, and rename it to ``path`` when the block ends well.

    The temporary keeps the suffix of ``path``, for writers that choose the format by it. On any exception, also
    KeyboardInterrupt, it is removed and ``path`` is as it was before. A process killed in the block leaves at most a
    hidden file starting with ``PARTIAL_PREFIX``, which hinders no later run. With ``durable`` false nobody waits for
    the disk, and a power cut may lose the file.

    Raises:
        OutputError: The file system refused (permission, full disk, missing folder), in the block or at the rename.
    """
    temporary = path.with_name(f"{PARTIAL_PREFIX}{secrets.token_hex(8)}{''.join(path.suffixes[-2:])[-16:]}")
    try:
        yield temporary
        if durable:
            _flush_to_disk(temporary)
        os.replace(temporary, path)  # noqa: PTH105 -- named as the system call it must be
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        # On success the name is gone already; what cannot be removed is hidden and harmless.
        with contextlib.suppress(OSError):
            temporary.unlink()
    if durable:
        _flush_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all. Raises OutputError."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write ``content`` as UTF-8 with the line ends it has, whole or not at all. Raises OutputError."""
    write_bytes(path, content.encode("utf-8"))


def remove_stale_partials(folder: Path, *, older_than_s: float = STALE_AFTER_S) -> int:
    """Remove what killed runs left in ``folder`` and return how many files that were.

    Younger leftovers stay, because another process may be writing them now. Never raises for a file it may not touch.
    """
    removed = 0
    now = time.time()
    with contextlib.suppress(OSError):
        for leftover in folder.glob(f"{PARTIAL_PREFIX}*"):
            with contextlib.suppress(OSError):
                if now - leftover.stat().st_mtime > older_than_s:
                    leftover.unlink()
                    removed += 1
    return removed


def output_error(path: Path, error: OSError) -> OutputError:
    """The OutputError that tells a user what ``error`` means for ``path`` and what to do about it."""
    reasons = {
        errno.ENOSPC: "the disk is full; free some space or choose another disk",
        errno.EDQUOT: "your disk quota is used up; free some space or choose another disk",
        errno.EFBIG: "the file would be larger than the system allows; raise the limit or choose another disk",
        errno.ENOENT: f"the folder {path.parent} does not exist; create it first",
        errno.ENOTDIR: f"{path.parent} is not a folder; choose another place",
        errno.EACCES: "permission denied; choose a folder you may write to",
        errno.EPERM: "permission denied; choose a folder you may write to",
        errno.EROFS: "the disk is read-only; choose another place",
        errno.EISDIR: "a folder of that name is there; choose another name",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    }
    reason = reasons.get(error.errno or 0, error.strerror or type(error).__name__)
    return OutputError(f"cannot write {path}: {reason}")


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system lets a folder be opened (not on Windows)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
