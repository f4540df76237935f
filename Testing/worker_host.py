"""The host's side of a worker, for tests."""

from __future__ import annotations

import queue
import threading
from typing import IO, Any

from wbcss import protocol

PATIENCE_S = 60.0


class Host:
    """The other side of the pipes: sends requests and collects replies."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes], *, patience_s: float = PATIENCE_S) -> None:
        self.requests = requests
        self._patience_s = patience_s
        self._replies: queue.Queue[protocol.Reply | None] = queue.Queue()
        self.collector = threading.Thread(target=self._collect, args=(replies,), daemon=True)
        self.collector.start()

    def _collect(self, replies: IO[bytes]) -> None:
        for line in replies:
            self._replies.put(protocol.parse_reply(line))
        self._replies.put(None)

    def send(self, request: protocol.Request) -> None:
        self.send_line(protocol.encode(request).encode())

    def send_line(self, line: bytes) -> None:
        self.requests.write(line)
        self.requests.flush()

    def receive(self) -> protocol.Reply | None:
        """The next reply, or None when the worker has closed its side."""
        return self._replies.get(timeout=self._patience_s)

    def receive_until(self, kind: type[Any]) -> Any:
        while not isinstance(reply := self.receive(), kind):
            assert reply is not None, f"the worker left before any {kind.__name__}"
        return reply


def segment_request(name: str = "s1", **changes: Any) -> protocol.SegmentRequest:
    return protocol.SegmentRequest(**{"id": name, "input": "/in/ct.nii.gz", "output": "/out/ct.seg.nrrd", **changes})
