"""The sample scans: drawn here by the engine, once, and never downloaded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from wbcss.errors import EXIT_FAILED, RunError
from WholeBodyCSSLib.CommandJob import CommandEnd
from WholeBodyCSSLib.SampleData import SAMPLES, Sample, SampleMaker, SampleScan

BODY = Sample(name="BodyCT", region="whole", seeds=(7,))
CASES = Sample(name="CaseCT", region="abdomen", seeds=(21, 22), hasLabels=True)


class Drawing:
    """A ``wbcss phantom`` that writes empty files."""

    def __init__(self, arguments: Sequence[str], code: int = 0) -> None:
        self.arguments, self.code, self.isCancelled = tuple(arguments), code, False
        volume = Path(arguments[1])
        if code == 0:
            volume.write_bytes(b"")
            volume.with_name(f"{volume.stem}-labels.seg.nrrd").write_bytes(b"")

    def poll(self) -> CommandEnd:
        return CommandEnd(exitCode=self.code, message="" if self.code == 0 else "the disk is full")

    def cancel(self) -> None:
        self.isCancelled = True


class Told:
    """What the sample entries were told."""

    def __init__(self, maker: SampleMaker) -> None:
        self.ready: list[tuple[SampleScan, ...]] = []
        self.failed: list[str] = []
        maker.onReady, maker.onFailed = self.ready.append, self.failed.append


def _poll(maker: SampleMaker) -> None:
    for _ in range(10):
        maker.poll()


def test_every_scan_of_a_sample_is_drawn_by_the_engine_and_named(tmp_path: Path) -> None:
    drawn: list[Drawing] = []
    maker = SampleMaker(lambda: tmp_path / "Zürich", lambda arguments: drawn.append(Drawing(arguments)) or drawn[-1])  # type: ignore[func-returns-value]
    told = Told(maker)
    maker.start(CASES)
    _poll(maker)
    folder = tmp_path / "Zürich" / "WholeBodyCSS"
    assert [drawing.arguments[:2] for drawing in drawn] == [
        ("phantom", str(folder / "abdomen-21.nrrd")),
        ("phantom", str(folder / "abdomen-22.nrrd")),
    ]
    (scans,) = told.ready
    assert [scan.name for scan in scans] == ["CaseCT1", "CaseCT2"]
    assert [scan.labels for scan in scans] == [
        folder / "abdomen-21-labels.seg.nrrd",
        folder / "abdomen-22-labels.seg.nrrd",
    ]
    assert not maker.isRunning


def test_a_scan_that_was_drawn_before_is_used_again(tmp_path: Path) -> None:
    commands: list[Sequence[str]] = []

    def run(arguments: Sequence[str]) -> Drawing:
        commands.append(arguments)
        return Drawing(arguments)

    maker = SampleMaker(lambda: tmp_path, run)
    told = Told(maker)
    for _ in range(2):
        maker.start(BODY)
        _poll(maker)
    assert len(commands) == 1
    assert [[scan.labels for scan in scans] for scans in told.ready] == [[None], [None]]


def test_a_failure_is_told_with_the_reason_and_the_next_try_begins_anew(tmp_path: Path) -> None:
    codes = [EXIT_FAILED, 0]
    maker = SampleMaker(lambda: tmp_path, lambda arguments: Drawing(arguments, codes.pop(0)))
    told = Told(maker)
    maker.start(BODY)
    _poll(maker)
    assert told.failed == ["The sample cannot be drawn: the disk is full"]
    maker.start(BODY)
    _poll(maker)
    assert len(told.ready) == 1


def test_a_cache_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"")
    maker = SampleMaker(lambda: tmp_path / "cache", Drawing)
    told = Told(maker)
    maker.start(BODY)
    _poll(maker)
    assert len(told.failed) == 1
    assert "cache" in told.failed[0]


def test_a_second_sample_waits_and_closing_stops_the_first(tmp_path: Path) -> None:
    class Slow(Drawing):
        def poll(self) -> CommandEnd:
            return None  # type: ignore[return-value]

    jobs: list[Slow] = []

    def run(arguments: Sequence[str]) -> Slow:
        jobs.append(Slow(arguments))
        return jobs[-1]

    maker = SampleMaker(lambda: tmp_path, run)
    told = Told(maker)
    maker.start(BODY)
    maker.poll()
    with pytest.raises(RunError, match="one sample at a time: wait for BodyCT, got CaseCT"):
        maker.start(CASES)
    maker.close()
    assert jobs[0].isCancelled
    _poll(maker)
    assert (told.ready, told.failed) == ([], [])


@pytest.mark.slow
def test_the_engine_draws_a_sample(tmp_path: Path) -> None:
    maker = SampleMaker(lambda: tmp_path)
    told = Told(maker)
    maker.start(next(sample for sample in SAMPLES if sample.name == "SyntheticAbdomenCT"))
    deadline_s = time.monotonic() + 100
    while maker.isRunning and time.monotonic() < deadline_s:
        maker.poll()
        time.sleep(0.02)
    (scans,) = told.ready
    assert scans[0].volume.stat().st_size > 10**6
    assert told.failed == []
