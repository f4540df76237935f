"""How long Slicer's window does not answer while 143 organs and their surfaces come into the scene.

    .venv/bin/python Testing/benchmarks/blocked_window.py [--side 400] [--peer]

Everything timed here would run in the GUI's thread: the code of ``WholeBodyCSSLib`` on the real MRML scene of
slicer-core. What the surface process does meanwhile is told apart. Views, which slicer-core lacks, are not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "WholeBodyCSS"), str(ROOT / "Testing")]

import mrml_nodes  # noqa: E402 -- after the path
import numpy as np  # noqa: E402
import slicer  # noqa: E402
import slicer.util  # noqa: E402
from many_organs import NUM_ORGANS, first_organs, items_of, many_organs  # noqa: E402

from wbcss.arrayfile import write_array  # noqa: E402
from WholeBodyCSSLib import OrganSegments, SceneBridge, SurfaceLogic, Surfaces  # noqa: E402
from WholeBodyCSSLib.EngineProcess import EngineProcess, workerCommand  # noqa: E402

BUDGET_S = 0.5
POLL_INTERVAL_S = 0.1


class Stopwatch:
    """Wall and CPU seconds of named steps. A step within a step counts for the inner one only."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._inner: list[list[float]] = []

    def __call__(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, timed as the step ``name``."""

        def timed(*args: Any, **named: Any) -> Any:
            self._inner.append([0.0, 0.0])
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            try:
                return function(*args, **named)
            finally:
                whole = [time.perf_counter() - wall_s, time.process_time() - cpu_s]
                inner = self._inner.pop()
                for n in range(2):
                    self.spent[name][n] += whole[n] - inner[n]
                    if self._inner:
                        self._inner[-1][n] += whole[n]

        return timed


def new_scene() -> None:
    """A scene with a subject hierarchy, as the application has one."""
    mrml_nodes.new_scene()
    slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy(slicer.mrmlScene)


def measure(side: int, count: int) -> tuple[Stopwatch, dict[str, float]]:
    """Bring ``count`` organs on ``side``^3 voxels into a new scene; the steps, and what else is worth knowing."""
    new_scene()
    organs = first_organs(count)
    items = items_of(organs)
    labels = many_organs(side, organs)
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ct")
    slicer.util.updateVolumeFromArray(volume, np.zeros((side,) * 3, dtype=np.int16))
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = watch("hand the volume over", SceneBridge.SceneBridge().writeVolume)(volume, folder / "ct.npy")
        file = write_array(folder / "labels.npy", labels, written.affine_ras_mm)
        del labels
        with _parts_timed(watch):
            node = watch("node, display, geometry, place", SceneBridge.SceneBridge().showOrgans)(
                file, items, volume, found={organ.name for organ in organs}
            )
            facts = _surfaces(watch, node, file, items)
    facts["segments"] = node.GetSegmentation().GetNumberOfSegments()
    return watch, facts


@contextlib.contextmanager
def _parts_timed(watch: Stopwatch) -> Iterator[None]:
    """Time the parts of the work where the product calls them."""
    with contextlib.ExitStack() as stack:
        for module, function, step in (
            (SceneBridge, "labelImage", "labels from the file into VTK"),
            (SceneBridge, "organSegment", "segments with names, colors, codes"),
            (Surfaces, "readSurface", "read surfaces"),
        ):
            stack.enter_context(mock.patch.object(module, function, watch(step, getattr(module, function))))
        yield


def _surfaces(watch: Stopwatch, node: Any, file: Any, items: Any) -> dict[str, float]:
    process = EngineProcess(workerCommand("WholeBodyCSSLib.SurfaceWorker"), title="surface process")
    logic = SurfaceLogic.SurfaceLogic(process, Surfaces.Surfaces())
    done: list[Any] = []
    logic.onFinished = lambda node, number: done.append(number)
    logic.onFailed = done.append
    started_s = time.perf_counter()
    watch("start the surface process", logic.start)(node, file, items)
    poll, longest_s = watch("poll, attach, show in 3D, end the process", logic.poll), 0.0
    while not done:
        time.sleep(POLL_INTERVAL_S)
        before_s = time.perf_counter()
        poll()
        longest_s = max(longest_s, time.perf_counter() - before_s)
    if not isinstance(done[0], int):
        sys.exit(f"no surfaces: {done[0]}")
    segmentation = node.GetSegmentation()
    triangles = sum(
        segmentation.GetNthSegment(n).GetRepresentation(OrganSegments.SURFACE).GetNumberOfPolys()
        for n in range(segmentation.GetNumberOfSegments())
    )
    seconds = time.perf_counter() - started_s
    return {"surfaces": done[0], "triangles": triangles, "seconds until 3D": seconds, "longest poll": longest_s}


def peer(side: int, count: int) -> None:
    """The route of Slicer's own functions, all of it in the window's thread."""
    new_scene()
    labels = many_organs(side, first_organs(count))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(labels.T).astype(np.int16))
    result = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    watch = Stopwatch()
    watch("ImportLabelmapToSegmentationNode", slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode)(
        node, result
    )
    watch("CreateClosedSurfaceRepresentation", result.CreateClosedSurfaceRepresentation)()
    show(watch, f"Slicer's own functions, {result.GetSegmentation().GetNumberOfSegments()} organs, {side}^3")


def show(watch: Stopwatch, title: str, *, apart: str = "") -> float:
    """Print the table and return the sum of its wall seconds; the step ``apart`` is not part of that."""
    sys.stdout.write(f"\n{title}\n\n| step in the window's thread | wall s | CPU s |\n|-|-|-|\n")
    rows = [(name, wall_s, cpu_s) for name, (wall_s, cpu_s) in watch.spent.items() if name != apart]
    total = ("**sum**", sum(row[1] for row in rows), sum(row[2] for row in rows))
    for name, wall_s, cpu_s in [*rows, total]:
        sys.stdout.write(f"| {name} | {wall_s:.3f} | {cpu_s:.3f} |\n")
    if apart in watch.spent:
        wall_s, cpu_s = watch.spent[apart]
        sys.stdout.write(f"| before the run, apart: {apart} | {wall_s:.3f} | {cpu_s:.3f} |\n")
    return total[1]


def main() -> int:
    """Measure, print, and fail if the budget is exceeded."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--side", type=int, default=400)
    parser.add_argument("--organs", type=int, default=NUM_ORGANS)
    parser.add_argument("--peer", action="store_true", help="also time Slicer's own functions (a minute)")
    args = parser.parse_args()
    watch, facts = measure(args.side, args.organs)
    total_s = show(watch, f"WholeBodyCSS, {args.organs} organs, {args.side}^3", apart="hand the volume over")
    sys.stdout.write("\n" + "; ".join(f"{name}: {value:.4g}" for name, value in facts.items()) + "\n")
    if args.peer:
        peer(args.side, args.organs)
    return 0 if total_s <= BUDGET_S else 1


if __name__ == "__main__":
    sys.exit(main())
