"""A gzip stream from slabs, made by several threads, that tells of a full disk and never holds the whole volume."""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

LEVEL = 3
"""Measured on a label map: a third smaller than level 1 in the same time; level 6 halves that in thrice the time."""

_MAX_THREADS = 4


def write_gzip(file: IO[bytes], chunks: Iterable[bytes]) -> None:
    """Write ``chunks`` one after the other as a single gzip member.

    Every chunk is deflated on its own and closed at a byte boundary, so that the parts join to one valid stream
    (RFC 1951, section 2.3; RFC 1952). At most a few chunks are held at a time. The same chunks give the same bytes.
    """
    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    checksum, length = 0, 0
    file.write(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[bytes]] = deque()
        for chunk in chunks:
            checksum, length = zlib.crc32(chunk, checksum), length + len(chunk)
            pending.append(pool.submit(_deflate, chunk))
            if len(pending) > threads:
                file.write(pending.popleft().result())
        while pending:
            file.write(pending.popleft().result())
    # An empty last block, then the checks of the whole.
    file.write(b"\x03\x00" + struct.pack("<2I", checksum, length & 0xFFFFFFFF))


def _deflate(chunk: bytes) -> bytes:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(chunk) + packer.flush(zlib.Z_SYNC_FLUSH)
