"""What tests of segmenting need: the module on a tiny registry, small volumes, clicks and waits."""

import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
from WidgetTesting import WidgetTestCase

from WholeBodyCSSLib.Settings import Settings

try:
    from tiny_registry import publish
    from tiny_scan import make_registry, scan_voxels
except ImportError:  # inside 3D Slicer without the project's Testing folder
    make_registry = publish = None

PATIENCE_S = 60.0
LARGE = (56, 56, 56)
"""A volume on which even the tiny model is busy for some seconds."""


class SegmentTestCase(WidgetTestCase):
    def setUp(self):
        if make_registry is None:
            self.skipTest("needs the modules of the project's Testing folder on PYTHONPATH")
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "Größe 大"
        self.folder.mkdir()
        make_registry(self.folder / "registry")
        (self.folder / "temporary").mkdir()
        patch = mock.patch("tempfile.tempdir", str(self.folder / "temporary"))
        patch.start()
        self.addCleanup(patch.stop)
        Settings(qt.QSettings()).registryFolder = str(self.folder / "registry")
        self.module = self.openModule()
        self.module.exit()
        self.module.enter()
        self.panel = self.module.pages.segment
        self.ui = self.panel.ui
        self.module.ui.pages.setCurrentWidget(self.panel.widget)
        self.ui.searchEdit.text = ""
        self.ui.organsSection.collapsed, self.ui.listSection.collapsed = False, True
        self.addCleanup(slicer.mrmlScene.Clear)

    def volume(self, name="CT", shape=(14, 14, 14)):
        """A soft body in air."""
        node = slicer.util.addVolumeFromArray(np.ascontiguousarray(scan_voxels(shape).T), name=name)
        node.SetSpacing(1.5, 1.5, 1.5)
        return node

    def choose(self, node):
        self.ui.inputSelector.setCurrentNode(node)
        slicer.app.processEvents()
        return node

    def waitForEnd(self):
        self.waitUntil(lambda: not self.module.logic.queue.isRunning, "the segmentation to end", PATIENCE_S)

    def segmented(self, name="CT"):
        """A volume and its result."""
        node = self.choose(self.volume(name))
        self.click(self.ui.segmentButton)
        self.waitForEnd()
        return node, self.module.logic.results.resultOf(node)

    def waitUntilBusy(self):
        """Until the network runs."""
        self.waitUntil(lambda: self.ui.progressBar.value > 100, "progress", PATIENCE_S)

    def temporaryFolders(self):
        return set((self.folder / "temporary").glob("*"))

    def scans(self, count):
        """A folder of CT files."""
        folder = self.folder / "スキャン"
        folder.mkdir()
        node = self.volume("to be saved")
        for number in range(count):
            self.assertTrue(slicer.util.saveNode(node, str(folder / f"file_{number + 1}.nrrd")))
        slicer.mrmlScene.RemoveNode(node)
        return folder
