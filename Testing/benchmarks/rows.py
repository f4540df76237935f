"""What is measured and what is wanted: the rows of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scans
from job import Job
from runner import JobError, Runner

ORGANS = (20, 60, 118, 143)
MOST = ORGANS[-1]
THIN = 8
"""Features of a thin decoder, a quarter of nnU-Net's."""

MIN_AGREEMENT = 0.999


@dataclass(frozen=True)
class Scale:
    """How large the stubbed runs are: edges of the two cubic scans, and of the tile."""

    edges: tuple[int, int]
    tile: int

    def cube(self, edge: int) -> str:
        """Name of the scan."""
        return scans.noise_name((edge, edge, edge))


SCALES: Mapping[str, Scale] = {
    "toy": Scale((32, 48), 32),
    "quick": Scale((96, 128), 64),
    "full": Scale((192, 256), 128),
}


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One line of the table of goals.

    Attributes:
        row: Name of the row.
        what: What is compared.
        ours: Measured value with unit.
        peer: Same for the peer, or what else it is held against.
        value: The number that the goal is about.
        goal: Upper limit of ``value`` (lower, if ``at_least``).
        must: A weaker limit that has to hold, if there is one.
        at_least: Whether ``value`` must be at least ``goal``.
        note: What to know about it.
    """

    row: str
    what: str
    ours: str
    peer: str
    value: float
    goal: float
    must: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or ``missed, but within ...``."""
        if self._holds(self.goal):
            return "met"
        if self.must is not None and self._holds(self.must):
            return f"missed, but within {self.must:.3g}"
        return "missed"

    def _holds(self, limit: float) -> bool:
        return self.value >= limit if self.at_least else self.value <= limit


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a row gives: lines for the goals, lines with every number, or why there are none."""

    goals: tuple[Goal, ...] = ()
    numbers: tuple[Mapping[str, Any], ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One row: its name, a sentence, and how it is measured."""

    name: str
    text: str
    measure: Callable[[Runner, Scale], Found]
    slow: bool = False


def outside_network(result: Mapping[str, Any]) -> float:
    """CPU seconds of the measured part without the network."""
    return float(result["work_cpu_s"] - (result["network_cpu_s"] or 0.0))


def agreement(runner: Runner, one: Job, other: Job) -> float:
    """Fraction of voxels with one label; plane by plane, so that this process stays small."""
    first, second = (np.load(runner.labels(job), mmap_mode="r") for job in (one, other))
    if first.shape != second.shape:
        raise JobError(f"{one.system} answered on a grid of {first.shape}, {other.system} of {second.shape}")
    same = sum(int((first[i] == second[i]).sum()) for i in range(len(first)))
    return same / first.size


def stub_job(system: str, scale: Scale, edge: int, organs: int) -> Job:
    """A system on a cube of noise with the network replaced."""
    return Job(system=system, network="stub", scan=scale.cube(edge), organs=organs, tile=scale.tile, keep_labels=True)


def stub(runner: Runner, scale: Scale, *, edge: int, organs: int) -> Found:
    """Everything but the network, against the peers that are installed."""
    ours = stub_job("ours", scale, edge, organs)
    mine = runner.measure(ours)
    plain = stub_job("naive", scale, edge, organs)
    runner.measure(plain)
    same = agreement(runner, ours, plain)
    where = f"{organs} organs, {edge}^3"
    numbers = [_number(where, mine, agreement=same)]
    goals = [
        Goal(
            row="stub",
            what=f"labels of full logit averaging, {where}",
            ours=f"{same:.5f}",
            peer="1",
            value=same,
            goal=MIN_AGREEMENT,
            at_least=True,
        )
    ]
    missing = []
    for system, module in (("nnunet", "nnunetv2"), ("monai", "monai")):
        if not runner.has(module):
            missing.append(f"{where}: {module} is not installed; run Testing/benchmarks/setup.sh")
            continue
        job = stub_job(system, scale, edge, organs)
        theirs = runner.measure(job)
        numbers.append(_number(where, theirs, agreement=agreement(runner, job, plain), ours=mine))
        goals += _against(where, system, mine, theirs)
    return Found(goals=tuple(goals), numbers=tuple(numbers), missing=tuple(missing))


def _against(where: str, system: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Goal]:
    """The goal is about nnU-Net; MONAI's ratio is held against the same."""
    time = (outside_network(mine), outside_network(theirs))
    memory = (mine["added_mib"], theirs["added_mib"])
    return [
        Goal(
            row="stub",
            what=f"CPU time outside the network, {where}",
            ours=f"{time[0]:.1f} s",
            peer=f"{system} {time[1]:.1f} s",
            value=time[0] / time[1],
            goal=1 / 6,
            must=1 / 4,
        ),
        Goal(
            row="stub",
            what=f"added memory, {where}",
            ours=f"{memory[0]:.0f} MiB",
            peer=f"{system} {memory[1]:.0f} MiB",
            value=memory[0] / memory[1],
            goal=1 / 8,
        ),
    ]


def _number(where: str, result: Mapping[str, Any], **more: Any) -> Mapping[str, Any]:
    return {"where": where, "result": result, **more}


def flat(runner: Runner, scale: Scale) -> Found:
    """Peak memory of the whole process at the fewest and the most organs."""
    few, most = (runner.measure(stub_job("ours", scale, scale.edges[1], organs)) for organs in (ORGANS[0], MOST))
    numbers = tuple(_number(f"{n} organs, {scale.edges[1]}^3", r) for n, r in ((ORGANS[0], few), (MOST, most)))
    goal = Goal(
        row="flat",
        what=f"peak memory at {MOST} organs against {ORGANS[0]}, {scale.edges[1]}^3",
        ours=f"{most['peak_mib']:.0f} MiB",
        peer=f"{few['peak_mib']:.0f} MiB",
        value=most["peak_mib"] / few["peak_mib"],
        goal=1.1,
    )
    return Found(goals=(goal,), numbers=numbers)


def length(runner: Runner, scale: Scale) -> Found:
    """Twice the length: time per tile stays, memory grows by the outputs only."""
    t = scale.tile
    shapes = ((t, t, 4 * t), (t, t, 8 * t))
    results = [
        runner.measure(Job(system="ours", network="stub", scan=scans.noise_name(shape), organs=MOST, tile=t))
        for shape in shapes
    ]
    short, long = results
    names = ["x".join(str(n) for n in shape) for shape in shapes]
    tiles = [result["details"]["tiles"] for result in results]
    outputs = long["details"]["output_mib"] - short["details"]["output_mib"]
    growth = long["added_mib"] - short["added_mib"]
    return Found(
        goals=(
            Goal(
                row="length",
                what=f"CPU time of {names[1]} against {names[0]}",
                ours=f"{long['work_cpu_s']:.1f} s",
                peer=f"{short['work_cpu_s']:.1f} s",
                value=long["work_cpu_s"] / short["work_cpu_s"],
                goal=1.05 * tiles[1] / tiles[0],
                note=f"{tiles[0]} and {tiles[1]} tiles: with overlap, twice the length is a little more than twice "
                "the tiles; the goal is their ratio and 5%",
            ),
            Goal(
                row="length",
                what="added memory beyond labels and confidence, of the longer one's",
                ours=f"+{growth:.0f} MiB",
                peer=f"outputs +{outputs:.0f} MiB",
                value=max(0.0, growth - outputs) / short["added_mib"],
                goal=0.05,
            ),
        ),
        numbers=tuple(_number(f"{MOST} organs, {name}", r) for name, r in zip(names, results, strict=True)),
    )


def fast(runner: Runner, _scale: Scale) -> Found:
    """One 3 mm task of full width on a native scan, on the CPU."""
    mine_job, theirs_job = (
        Job(system=system, network="convolutions", scan=scans.real_scan(), organs=117, spacing_mm=3.0)
        for system in ("ours", "nnunet")
    )
    mine = runner.measure(mine_job)
    if not runner.has("nnunetv2"):
        return Found(
            numbers=(_number("3 mm, 117 organs", mine),),
            missing=("3 mm: nnunetv2 is not installed; run Testing/benchmarks/setup.sh",),
        )
    theirs = runner.measure(theirs_job)
    goal = Goal(
        row="fast3mm",
        what=f"CPU time, one 3 mm task of full width, 117 organs, {mine_job.scan}",
        ours=f"{mine['work_cpu_s']:.1f} s",
        peer=f"nnunet {theirs['work_cpu_s']:.1f} s",
        value=mine["work_cpu_s"] / theirs["work_cpu_s"],
        goal=1 / 4,
        note=_run_with(mine),
    )
    return Found(goals=(goal,), numbers=(_number("3 mm", mine), _number("3 mm", theirs, ours=mine)))


def tasks(runner: Runner, _scale: Scale) -> Found:
    """What another thin task costs on the same encoder."""
    counts = (1, 2, 5)
    scan = scans.noise_name((192, 192, 192))
    results = [
        runner.measure(Job(system="ours", network="convolutions", scan=scan, organs=24, features=THIN, tasks=count))
        for count in counts
    ]
    goals = []
    for n in (1, 2):
        more = counts[n] - counts[n - 1]
        value = (results[n]["work_cpu_s"] / results[n - 1]["work_cpu_s"]) ** (1 / more) - 1
        which = f"task {counts[n]}" if more == 1 else f"each of tasks {counts[n - 1] + 1} to {counts[n]}"
        goals.append(
            Goal(
                row="tasks",
                what=f"more CPU time for {which} of {THIN} features",
                ours=f"{results[n]['work_cpu_s']:.1f} s",
                peer=f"{results[n - 1]['work_cpu_s']:.1f} s",
                value=value,
                goal=0.1,
                note=_run_with(results[n]),
            )
        )
    numbers = [_number(f"{n} tasks, 192^3", r) for n, r in zip(counts, results, strict=True)]
    return Found(goals=tuple(goals), numbers=tuple(numbers))


def export(runner: Runner, _scale: Scale) -> Found:
    """The way back to the native grid, as a part of the whole run."""
    job = Job(system="ours", network="convolutions", scan=scans.real_scan(), organs=117, spacing_mm=3.0)
    result = runner.measure(job)
    seconds = result["details"]["stage_seconds"]
    total = result["work_wall_s"]
    carried = seconds.get("native", 0.0) + seconds.get("merge", 0.0)
    goal = Goal(
        row="export",
        what=f"native-grid export of the whole run, 3 mm, 117 organs, {job.scan}",
        ours=f"{carried:.1f} s",
        peer=f"{total:.1f} s",
        value=carried / total,
        goal=0.1,
        note=f"random weights: {result['details']['foreground']:.0%} of the voxels are organs; wall time",
    )
    return Found(goals=(goal,), numbers=(_number("3 mm", result),))


def five(runner: Runner, _scale: Scale) -> Found:
    """Five thin tasks at 1.5 mm against five models of the peer; one of the five is measured."""
    mine = runner.measure(
        Job(system="ours", network="convolutions", scan=scans.real_scan(), organs=25, features=THIN, tasks=5)
    )
    if not runner.has("nnunetv2"):
        return Found(missing=("1.5 mm: nnunetv2 is not installed; run Testing/benchmarks/setup.sh",))
    theirs = runner.measure(Job(system="nnunet", network="convolutions", scan=scans.real_scan(), organs=25))
    goal = Goal(
        row="five",
        what=f"CPU time, five tasks, 125 organs, 1.5 mm, {scans.real_scan()}",
        ours=f"{mine['work_cpu_s']:.1f} s",
        peer=f"5 x nnunet {theirs['work_cpu_s']:.1f} s",
        value=mine["work_cpu_s"] / (5 * theirs["work_cpu_s"]),
        goal=1 / 20,
        note=f"the peer's five models are alike: one was measured, times 5; {_run_with(mine)}",
    )
    return Found(goals=(goal,), numbers=(_number("1.5 mm", mine), _number("1.5 mm", theirs, ours=mine)))


def _run_with(result: Mapping[str, Any]) -> str:
    return f"{result['details']['tiles']} tiles, {result['details']['backend']}"


def _stub_rows() -> list[Row]:
    def row(name: str, which: int, organs: int) -> Row:
        return Row(
            name,
            f"{organs} organs, {'smaller' if which == 0 else 'larger'} cube, network replaced, all systems",
            lambda runner, scale: stub(runner, scale, edge=scale.edges[which], organs=organs),
        )

    return [
        row(f"stub-{size}-{organs}", which, organs)
        for which, size in enumerate(("small", "large"))
        for organs in ORGANS
    ]


ROWS: tuple[Row, ...] = (
    *_stub_rows(),
    Row("flat", "peak memory at 20 and at 143 organs", flat),
    Row("length", "twice the length", length),
    Row("fast3mm", "one 3 mm task on a native scan, nnU-Net's network in both", fast),
    Row("tasks", "the second and the fifth thin task", tasks),
    Row("export", "native-grid export as a part of the run", export),
    Row("five", "five thin 1.5 mm tasks against five models of the peer", five, slow=True),
)
