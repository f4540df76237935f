"""What users do in the middle of a run, with the real worker: each case ends in words, and the next run works."""

import os
import signal
import time
import unittest

import slicer
from SegmentTesting import LARGE, SegmentTestCase


class SegmentBreaksTest(SegmentTestCase):
    def test_closingTheSceneStopsTheWorkerAndTheNextRunWorks(self):
        before = self.temporaryFolders()
        self.choose(self.volume(shape=LARGE))
        self.click(self.ui.segmentButton)
        self.waitUntilBusy()
        began_s = time.monotonic()
        slicer.mrmlScene.Clear()
        self.assertLess(time.monotonic() - began_s, 1.0)
        self.assertFalse(self.module.logic.process.isRunning)
        self.assertEqual(self.temporaryFolders(), before)
        _node, result = self.segmented()
        self.assertIsNotNone(result)

    def test_deletingTheVolumeEndsTheRunInWords(self):
        node = self.choose(self.volume(shape=LARGE))
        self.click(self.ui.segmentButton)
        self.waitUntilBusy()
        slicer.mrmlScene.RemoveNode(node)
        self.waitForEnd()
        self.assertIn("the volume was removed while it was segmented", self.ui.statusLabel.text)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)

    def test_deletingTheResultMakesANewOneOfWhatIsAdded(self):
        node, result = self.segmented()
        slicer.mrmlScene.RemoveNode(result)
        self.assertIsNone(self.module.logic.results.resultOf(node))
        self.click(self.ui.tickedButton)
        self.waitForEnd()
        self.assertIsNotNone(self.module.logic.results.resultOf(node))

    @unittest.skipIf(os.name == "nt", "Windows has no such signal")
    def test_aKilledWorkerIsSaidAndStartedAgain(self):
        self.choose(self.volume(shape=LARGE))
        self.click(self.ui.segmentButton)
        self.waitUntilBusy()
        os.kill(self.module.logic.process._process.pid, signal.SIGKILL)
        self.waitForEnd()
        self.assertRegex(self.ui.statusLabel.text, "the segmentation process ended: exit code -9")
        self.screenshot(self.module.parent, "segment-worker-killed")
        _node, result = self.segmented("again")
        self.assertIsNotNone(result)

    def test_aSecondRunIsRefusedWhileOneGoesOn(self):
        node = self.choose(self.volume(shape=LARGE))
        self.click(self.ui.segmentButton)
        with self.assertRaisesRegex(Exception, "a segmentation is running; wait for it or cancel it"):
            self.module.logic.segment(node)
        self.assertTrue(self.module.logic.queue.isRunning)

    def test_reloadingTheModuleStopsWhatRuns(self):
        self.choose(self.volume(shape=LARGE))
        self.click(self.ui.segmentButton)
        process = self.module.logic.process
        slicer.util.reloadScriptedModule("WholeBodyCSS")
        self.assertFalse(process.isRunning)
        self.module = self.openModule()
        self.panel, self.ui = self.module.pages.segment, self.module.pages.segment.ui
        self.module.enter()
        _node, result = self.segmented()
        self.assertIsNotNone(result)


if __name__ == "__main__":
    unittest.main()
