"""One click on a real scan with the shipped model: a script for one of the widget hosts.

Arguments: CT file, JSON file to report into. Progress, a cancel in the middle, a second run to its end with surfaces;
a timer of 5 ms notes every longer pause of the window's thread.
"""

from __future__ import annotations

import json
import sys
import time
import unittest
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import qt
import slicer
from WidgetTesting import WidgetTestCase

from WholeBodyCSSLib.Settings import Settings

SCAN, REPORT = map(Path, sys.argv[1:3])
PATIENCE_S = 400.0
TICK_MS = 5


class Pauses:
    """How long the event loop did not come round, by what went on."""

    def __init__(self) -> None:
        self.stage = "load"
        self.longest_s: dict[str, float] = {}
        self._last_s = time.perf_counter()
        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.connect("timeout()", self._tick)
        self._timer.start()

    def enter(self, stage: str) -> None:
        """From now on pauses belong to ``stage``."""
        self._tick()
        self.stage = stage

    def _tick(self) -> None:
        now_s = time.perf_counter()
        self.longest_s[self.stage] = max(self.longest_s.get(self.stage, 0.0), now_s - self._last_s)
        self._last_s = now_s


class ClickOnAScan(WidgetTestCase):
    def runTest(self) -> None:
        Settings(qt.QSettings()).registryInUse = "shipped"
        module = self.openModule()
        module.enter()
        panel, logic = module.pages.segment, module.logic
        volume = slicer.util.loadVolume(str(SCAN))
        panel.ui.inputSelector.setCurrentNode(volume)
        slicer.app.processEvents()
        pauses = Pauses()

        pauses.enter("first run")
        self.click(panel.ui.segmentButton)
        self.waitUntil(lambda: panel.ui.progressBar.value > 150, "progress", PATIENCE_S)
        self.screenshot(module.parent, "click-running")
        workers = psutil.Process().children(recursive=True)
        assert workers
        pauses.enter("cancel")
        began_s = time.perf_counter()
        self.click(panel.ui.cancelButton)
        self.waitUntil(lambda: not logic.queue.isRunning, "the cancel", PATIENCE_S)
        cancel_s = time.perf_counter() - began_s
        assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0
        busy = self.cpuOf(workers)

        pauses.enter("second run")
        values: list[int] = []
        began_s = time.perf_counter()
        self.click(panel.ui.segmentButton)
        self.waitUntil(lambda: self.followed(panel, values) and not logic.queue.isRunning, "the result", PATIENCE_S)
        run_s = time.perf_counter() - began_s
        node = logic.results.resultOf(volume)
        pauses.enter("surfaces")
        segmentation = node.GetSegmentation()
        self.waitUntil(lambda: self.surfaces(segmentation) == self.count(segmentation), "the surfaces", PATIENCE_S)
        self.screenshot(module.parent, "click-done")
        pauses.enter("page of results")
        module.ui.pages.setCurrentWidget(module.pages.results.widget)
        slicer.app.processEvents()
        pauses.enter("end")
        self.screenshot(module.parent, "click-results")
        facts = self.organs(segmentation)
        children = len(psutil.Process().children(recursive=True))
        pauses.enter("clean up")
        module.cleanup()
        slicer.app.processEvents()
        pauses.enter("end")
        self.waitUntil(lambda: not psutil.Process().children(recursive=True), "the processes to end", 10.0)
        report = {
            "cancel_s": cancel_s,
            "worker_cpu_s_after_cancel": busy,
            "run_s": run_s,
            "progress": values,
            "longest_pause_s": pauses.longest_s,
            "children_before_cleanup": children,
            "organs": facts,
        }
        REPORT.write_text(json.dumps(report, indent=1))

    def followed(self, panel: Any, values: list[int]) -> bool:
        """Note the progress bar; always true."""
        value = int(panel.ui.progressBar.value)
        if not values or values[-1] != value:
            values.append(value)
        return True

    def cpuOf(self, workers: list[psutil.Process]) -> float:
        """CPU seconds that the processes which are left spend within a second."""
        alive = [worker for worker in workers if worker.is_running()]
        before = sum(sum(worker.cpu_times()[:2]) for worker in alive)
        until_s = time.perf_counter() + 1.0
        self.waitUntil(lambda: time.perf_counter() > until_s, "a second")
        return sum(sum(worker.cpu_times()[:2]) for worker in alive if worker.is_running()) - before

    def count(self, segmentation: Any) -> int:
        return int(segmentation.GetNumberOfSegments())

    def surfaces(self, segmentation: Any) -> int:
        segments = map(segmentation.GetNthSegment, range(self.count(segmentation)))
        return sum(segment.GetRepresentation("Closed surface") is not None for segment in segments)

    def organs(self, segmentation: Any) -> dict[str, Any]:
        segments = [segmentation.GetNthSegment(number) for number in range(self.count(segmentation))]
        polygons = [segment.GetRepresentation("Closed surface").GetNumberOfCells() for segment in segments]
        return {
            "count": len(segments),
            "names": [segment.GetName() for segment in segments],
            "coded": sum("SCT^" in segment.GetTerminology() for segment in segments),
            "most_of_one_color": max(Counter(segment.GetColor() for segment in segments).values()),
            "with_surface": sum(count > 0 for count in polygons),
            "polygons": sum(polygons),
        }


if __name__ == "__main__":
    outcome = unittest.TextTestRunner().run(ClickOnAScan())
    sys.exit(not outcome.wasSuccessful())
