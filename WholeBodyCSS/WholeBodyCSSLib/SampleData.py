"""Sample scans that the engine draws on this computer: nobody's body, and nothing is downloaded. No Qt, no MRML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wbcss.errors import RunError

from .CommandJob import CommandJob, JobProtocol, Runner
from .Translation import _

CATEGORY = "WholeBodyCSS"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One entry of Slicer's module Sample Data.

    Attributes:
        name: Of the entry and of the nodes.
        region: What the scans show.
        seeds: One scan for each.
        hasLabels: Whether the annotation is loaded with each scan.
    """

    name: str
    region: str
    seeds: tuple[int, ...]
    hasLabels: bool = False

    def nodeName(self, seed: int) -> str:
        """Of the scan with this seed."""
        return self.name if len(self.seeds) == 1 else f"{self.name}{self.seeds.index(seed) + 1}"


SAMPLES = (
    Sample(name="SyntheticBodyCT", region="whole", seeds=(7,)),
    Sample(name="SyntheticAbdomenCT", region="abdomen", seeds=(1,)),
    Sample(name="AnnotatedAbdomenCT", region="abdomen", seeds=(21, 22, 23), hasLabels=True),
)
SPACING_MM = 3


@dataclass(frozen=True, kw_only=True)
class SampleScan:
    """Files of one drawn scan; ``labels`` None if they are not wanted."""

    name: str
    volume: Path
    labels: Path | None = None


class SampleMaker:
    """Draws one sample at a time: from ``start`` to one call of ``onReady`` or ``onFailed``; ``poll`` moves it on.

    Files that are there already are used again: the same seed always draws the same body.

    Attributes:
        onReady: Called with the scans.
        onFailed: Called with one line for the user.
    """

    def __init__(self, folder: Callable[[], Path], runner: Runner = CommandJob) -> None:
        self._folder = folder
        self._runner = runner
        self._sample: Sample | None = None
        self._waiting: list[int] = []
        self._job: JobProtocol | None = None
        self.onReady: Callable[[tuple[SampleScan, ...]], None] = lambda scans: None
        self.onFailed: Callable[[str], None] = lambda message: None

    @property
    def isRunning(self) -> bool:
        """Whether a sample is being drawn."""
        return self._sample is not None

    def start(self, sample: Sample) -> None:
        """Draw what is missing of ``sample``. Raises RunError if another one is being drawn."""
        if self._sample is not None:
            raise RunError(f"one sample at a time: wait for {self._sample.name}, got {sample.name}")
        self._sample, self._waiting = sample, list(sample.seeds)

    def poll(self) -> None:
        """Begin the next scan, or report."""
        if self._sample is None:
            return
        try:
            self._step(self._sample)
        except (OSError, RunError) as error:
            self._fail(str(error))

    def close(self) -> None:
        """Stop without reporting."""
        job, self._job, self._sample = self._job, None, None
        if job is not None:
            job.cancel()

    def _step(self, sample: Sample) -> None:
        if self._job is not None:
            end = self._job.poll()
            if end is None:
                return
            self._job = None
            if not end.isDone:
                self._fail(_("The sample cannot be drawn: {reason}").format(reason=end.message))
                return
        while self._waiting:
            seed = self._waiting.pop(0)
            volume = self._volume(sample, seed)
            if not (volume.is_file() and _labels(volume).is_file()):
                volume.parent.mkdir(parents=True, exist_ok=True)
                options = ("--region", sample.region, "--seed", str(seed), "--spacing", str(SPACING_MM), "--json")
                self._job = self._runner(("phantom", str(volume), *options))
                return
        scans = tuple(self._scan(sample, seed) for seed in sample.seeds)
        self._sample = None
        self.onReady(scans)

    def _scan(self, sample: Sample, seed: int) -> SampleScan:
        volume = self._volume(sample, seed)
        labels = _labels(volume) if sample.hasLabels else None
        return SampleScan(name=sample.nodeName(seed), volume=volume, labels=labels)

    def _volume(self, sample: Sample, seed: int) -> Path:
        return self._folder() / CATEGORY / f"{sample.region}-{seed}.nrrd"

    def _fail(self, message: str) -> None:
        self.close()
        self.onFailed(message)


def _labels(volume: Path) -> Path:
    """Where ``wbcss phantom`` puts the labels of a scan; it writes them first."""
    return volume.with_name(f"{volume.stem}-labels.seg.nrrd")
