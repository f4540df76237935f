"""Run jobs one after the other, each in a process of its own, and keep their results."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from job import ROOT, Job, sha256

HERE = Path(__file__).resolve().parent
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


PEER_SETTINGS = {
    "nnUNet_def_n_proc": "1",
    **dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), os.devnull),
    "PYTHONWARNINGS": "ignore",
}
"""nnU-Net reads its number of processes and its folders from the environment; it asks for all of them to be set."""


class JobError(Exception):
    """A job did not finish; the message says why."""


class Runner:
    """Measures jobs and remembers what it measured in ``folder``.

    A result is used again as long as the code of this project that was loaded for it is the same.

    Args:
        folder: For scans, results and labels.
        python: Interpreter that has the systems installed.
        say: Takes progress lines.
        fresh: Measure again even what is known.
    """

    def __init__(self, folder: Path, python: str, say: Callable[[str], None], *, fresh: bool = False) -> None:
        self._folder = folder
        self._python = python
        self._say = say
        self._fresh = fresh
        self._seen: dict[Job, dict[str, Any]] = {}

    def scan(self, name: str) -> str:
        """Folder of a scan, made if need be."""
        folder = self._folder / "scans" / name
        if not (folder / "voxels.npy").is_file():
            self._say(f"making scan {name}")
            self._execute([str(HERE / "scans.py"), name, str(folder)])
        return str(folder)

    def measure(self, job: Job) -> dict[str, Any]:
        """The result of ``job``: see job.py, and ``wall_s``, ``cpu_s`` of the whole process. Raises JobError."""
        job = dataclasses.replace(job, scan=self.scan(job.scan))
        if job not in self._seen:
            path = self._path(job)
            if self._fresh or not _is_current(path):
                self._run(job, path)
            self._seen[job] = json.loads(path.read_text())
        return self._seen[job]

    def labels(self, job: Job) -> Path:
        """The labels of a job measured with ``keep_labels``."""
        return self._path(dataclasses.replace(job, scan=self.scan(job.scan))).with_suffix(".npy")

    def has(self, module: str) -> bool:
        """Whether the interpreter can import ``module``."""
        code = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
        return subprocess.run([self._python, "-c", code], capture_output=True).returncode == 0

    def _run(self, job: Job, path: Path) -> None:
        self._say(job.title.replace(str(self._folder / "scans") + os.sep, ""))
        path.parent.mkdir(parents=True, exist_ok=True)
        description, partial = path.with_suffix(".job.json"), path.with_suffix(".partial.json")
        description.write_text(json.dumps(dataclasses.asdict(job)))
        usage = self._execute([str(HERE / "job.py"), str(description), str(partial)])
        result = {
            **json.loads(partial.read_text()),
            **usage,
            "measured": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        }
        partial.unlink()
        description.unlink()
        if job.keep_labels:
            partial.with_suffix(".npy").replace(path.with_suffix(".npy"))
        path.write_text(json.dumps(result, indent=1))
        self._say(f"  {result['cpu_s']:.1f} CPU s, {result['peak_mib']:.0f} MiB at the peak")

    def _execute(self, arguments: list[str]) -> dict[str, float]:
        """Run a script to its end; wall and CPU seconds of the whole process (and of those it waited for)."""
        environment = {**os.environ, **dict.fromkeys(ONE_THREAD, "1"), **PEER_SETTINGS}
        log = self._folder / "last.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [self._python, *arguments], stdout=stream, stderr=subprocess.STDOUT, cwd=HERE, env=environment
            )
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                process.wait()
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            tail = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            reason = "killed, most likely for its memory" if process.returncode == -9 else tail[0]
            raise JobError(f"exit {process.returncode}: {reason}")
        return {"wall_s": time.perf_counter() - started, "cpu_s": usage.ru_utime + usage.ru_stime}

    def _path(self, job: Job) -> Path:
        key = hashlib.sha256(json.dumps(dataclasses.asdict(job)).encode()).hexdigest()[:16]
        return self._folder / "jobs" / f"{job.system}-{key}.json"


def _is_current(path: Path) -> bool:
    """Whether a result is there and the code that gave it is unchanged."""
    if not path.is_file():
        return False
    sources: dict[str, str] = json.loads(path.read_text())["sources"]
    return all(sha256(ROOT / name) == digest for name, digest in sources.items())


def default_python() -> str:
    """The environment that setup.sh makes, else this interpreter."""
    made = HERE.parents[2] / "bench-venv" / "bin" / "python"
    return os.environ.get("WBCSS_BENCH_PYTHON") or (str(made) if made.is_file() else sys.executable)
