"""Chunks packed by several threads are one plain gzip stream."""

from __future__ import annotations

import gzip
import io
import zlib

import numpy as np
import pytest

from wbcss.io.gzipstream import write_gzip


@pytest.mark.parametrize("sizes", [[], [0], [1], [5, 0, 7], [100_000] * 9, [3, 1_000_000, 2]])
def test_what_is_packed_unpacks_to_the_chunks_in_order(rng: np.random.Generator, sizes: list[int]) -> None:
    chunks = [rng.integers(0, 4, size).astype(np.uint8).tobytes() for size in sizes]
    packed = io.BytesIO()
    write_gzip(packed, iter(chunks))
    assert gzip.decompress(packed.getvalue()) == b"".join(chunks)
    single = zlib.decompressobj(31)
    assert single.decompress(packed.getvalue()) == b"".join(chunks)
    assert single.eof
    assert single.unused_data == b"", "readers that stop after the first member must see everything"


def test_no_more_than_a_few_chunks_are_taken_ahead_of_the_disk() -> None:
    taken = 0

    def chunks() -> object:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield bytes(1000)

    class Disk(io.BytesIO):
        most_ahead = 0
        written = 0

        def write(self, data: object) -> int:
            self.written += 1
            self.most_ahead = max(self.most_ahead, taken - self.written)
            return super().write(data)  # type: ignore[arg-type]

    disk = Disk()
    write_gzip(disk, chunks())  # type: ignore[arg-type]
    assert taken == 100
    assert disk.most_ahead <= 6


def test_a_failing_disk_is_told() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        write_gzip(Full(), iter([b"1"]))
