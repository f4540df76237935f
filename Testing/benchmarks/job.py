"""One measured piece of work: its description, and the process that does it and nothing else.

``python job.py DESCRIPTION.json RESULT.json`` runs in a process of its own: its time and memory are the job's alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SYSTEMS = ("ours", "nnunet", "monai", "naive")
MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to run. Equal jobs have equal answers, so a result can be kept.

    Attributes:
        system: Who does it; a module ``system_NAME.py`` beside this file.
        network: ``stub`` (features in closed form, see stub.py) or ``convolutions`` (random weights).
        scan: Folder made by scans.py.
        organs: Organs per task; the network has one more channel, background.
        tile: Edge of a cubic tile in voxels of the model grid.
        overlap: Fraction of a tile shared with its neighbor.
        features: Channels that the last layer reads, per task.
        tasks: Decoders on the one encoder.
        spacing_mm: Of the model grid, the same along all axes.
        keep_labels: Whether the answer is needed to compare it.
    """

    system: str
    network: str
    scan: str
    organs: int
    tile: int = 128
    overlap: float = 0.5
    features: int = 32
    tasks: int = 1
    spacing_mm: float = 1.5
    keep_labels: bool = False

    def __post_init__(self) -> None:
        if self.system not in SYSTEMS or self.network not in ("stub", "convolutions"):
            raise ValueError(f"a job is for one of {SYSTEMS}, got {self.system!r} with network {self.network!r}")

    @property
    def title(self) -> str:
        """For progress lines."""
        what = f"{self.tasks} x {self.organs} organs" if self.tasks > 1 else f"{self.organs} organs"
        return f"{self.system}: {what}, {self.network} of {self.features} features, tile {self.tile}, {self.scan}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a system returns from the measured part.

    Attributes:
        labels: (I, J, K) channel numbers, 0 background.
        network_cpu_s: CPU time inside the network, or None where it cannot be told apart.
        details: Free JSON: tiles, backend, stages.
    """

    labels: npt.NDArray[Any]
    network_cpu_s: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


Prepared = Callable[[], Outcome]
"""The measured part, ready to go: everything imported, network built, scan in memory."""


def main() -> int:
    """Prepare, measure, write the result."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    result_path = Path(sys.argv[2])
    run: Prepared = importlib.import_module(f"system_{job.system}").prepare(job)
    before_mib = _status_mib("VmRSS")
    preparation_peak_mib = _status_mib("VmHWM")
    _forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak_mib = _status_mib("VmHWM")
    if job.keep_labels:
        np.save(result_path.with_suffix(".npy"), outcome.labels.astype(np.uint16))
    result = {
        "job": dataclasses.asdict(job),
        "work_wall_s": wall,
        "work_cpu_s": cpu,
        "network_cpu_s": outcome.network_cpu_s,
        "before_mib": before_mib,
        "added_mib": peak_mib - before_mib,
        "peak_mib": max(peak_mib, preparation_peak_mib),
        "details": outcome.details,
        "versions": _versions(),
        "sources": loaded_sources(),
    }
    result_path.write_text(json.dumps(result, indent=1))
    return 0


def scan_voxels(job: Job) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float64]]:
    """The scan's voxels (I, J, K) in HU and its affine."""
    folder = Path(job.scan)
    return np.load(folder / "voxels.npy"), np.load(folder / "affine.npy")


def loaded_sources() -> dict[str, str]:
    """SHA-256 of every file of this project that this process runs; a kept result is good as long as they stay."""
    files = [Path(module.__file__).resolve() for module in list(sys.modules.values()) if _is_file(module)]
    return {str(file.relative_to(ROOT)): sha256(file) for file in sorted(files) if file.is_relative_to(ROOT)}


def sha256(file: Path) -> str:
    """Of its bytes, in hex; empty if it is not there."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""


def _is_file(module: Any) -> bool:
    name = getattr(module, "__file__", None)
    return name is not None and name.endswith(".py") and "site-packages" not in name


def _status_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / MIB
    raise RuntimeError(f"/proc/self/status has no {name}; the benchmarks need Linux")


def _forget_peak() -> None:
    """Let the kernel's peak of this process begin anew (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def _versions() -> dict[str, str]:
    names = ("torch", "numpy", "openvino", "nnunetv2", "monai", "skimage", "scipy")
    modules = {name: sys.modules.get(name) for name in names}
    found = {name: getattr(module, "__version__", None) for name, module in modules.items() if module is not None}
    return {"python": sys.version.split()[0], **{name: str(version) for name, version in found.items() if version}}


if __name__ == "__main__":
    sys.exit(main())
