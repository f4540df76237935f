"""Entries in Slicer's module Sample Data. A click draws the scans in the background and loads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer

from wbcss.errors import WbcssError
from wbcss.resources import resource_path

from ..SampleData import CATEGORY, SAMPLES, Sample, SampleMaker, SampleScan
from ..Translation import _

POLL_INTERVAL_MS = 200


class SampleDataSources:
    """Registered once, when Slicer has started. It must be kept alive as long as Slicer runs."""

    def __init__(self, maker: SampleMaker | None = None) -> None:
        self._maker = maker or SampleMaker(_cacheFolder)
        self._maker.onReady = self._load
        self._maker.onFailed = slicer.util.errorDisplay
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_INTERVAL_MS)
        self._timer.connect("timeout()", self._poll)
        self.onLoaded: Callable[[list[Any]], None] = lambda nodes: None

    def register(self) -> None:
        """Show the samples. Nothing is drawn, and nothing downloaded, until the user clicks."""
        import SampleData

        for sample in SAMPLES:
            SampleData.SampleDataLogic.registerCustomSampleDataSource(
                category=CATEGORY,
                sampleName=sample.name,
                # Never fetched: Slicer wants an address for every entry, also for one that is made by a function.
                uris=f"wbcss-phantom:{sample.name}",
                fileNames=f"{sample.name}.nrrd",
                nodeNames=sample.name,
                customDownloader=lambda _source=None, sample=sample: self.make(sample),
                thumbnailFileName=str(resource_path("Icons", f"{sample.name}.png")),
            )

    def make(self, sample: Sample) -> None:
        """Draw and load one sample; returns at once."""
        try:
            self._maker.start(sample)
        except WbcssError as error:
            slicer.util.errorDisplay(str(error))
            return
        slicer.util.showStatusMessage(_("Drawing {name} on this computer ...").format(name=sample.name))
        self._timer.start()

    def cleanup(self) -> None:
        """Stop drawing."""
        self._timer.stop()
        self._maker.close()

    def _poll(self) -> None:
        self._maker.poll()
        if not self._maker.isRunning:
            self._timer.stop()

    def _load(self, scans: tuple[SampleScan, ...]) -> None:
        nodes = []
        for scan in scans:
            nodes.append(slicer.util.loadVolume(str(scan.volume), {"name": scan.name}))
            if scan.labels is not None:
                segmentationNode = slicer.util.loadSegmentation(str(scan.labels), {"name": f"{scan.name} annotation"})
                segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(nodes[-1])
                nodes.append(segmentationNode)
        slicer.util.showStatusMessage(_("Loaded: {names}").format(names=", ".join(scan.name for scan in scans)), 3000)
        self.onLoaded(nodes)


def _cacheFolder() -> Path:
    manager = slicer.mrmlScene.GetCacheManager()
    folder = manager.GetRemoteCacheDirectory() if manager is not None else ""
    return Path(folder or slicer.app.temporaryPath)
