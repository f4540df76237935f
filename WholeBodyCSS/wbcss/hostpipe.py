"""How a process that serves a host reads its requests, writes its replies, and notices that the host is gone."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from .protocol import MAX_LINE_BYTES, Reply, encode

PARENT_CHECK_S = 0.5

_log = logging.getLogger(__name__)


class Channel:
    """The one place that writes replies: whole lines, one at a time, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, reply: Reply) -> None:
        """Write ``reply``. A host that is gone is not an error here; the reader notices it."""
        line = encode(reply).encode("ascii")
        with self._lock:
            try:
                self._stream.write(line)
                self._stream.flush()
            except (OSError, ValueError):
                _log.info("the host no longer reads")


def lines_of(requests: BinaryIO) -> Iterator[bytes]:
    """Every line of the host that is not blank, until it ends or its pipe breaks; a line too long comes cut off."""
    try:
        while line := requests.readline(MAX_LINE_BYTES + 1):
            if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                while (rest := requests.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
            if line.strip():
                yield line
    except (OSError, ValueError):
        _log.info("the host's pipe broke")


def watch_parent(on_death: Callable[[], None], *, interval_s: float = PARENT_CHECK_S) -> None:
    """Start a thread that calls ``on_death`` once the process has another parent than at the beginning.

    Only where the system reparents orphans (not on Windows, where the end of the input is the only sign).
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(interval_s)
        on_death()

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


def claim_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the host's pipes for (requests, replies).

    What anything else prints, in Python or in C, goes to standard error. Standard input becomes empty: a child process
    of a library must neither read requests nor wait for the lock that the reader holds.
    """
    sys.stdout.flush()
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, replies
