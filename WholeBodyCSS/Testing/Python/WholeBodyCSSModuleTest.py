"""Runs inside 3D Slicer with PyTorch installed: volume node, real worker, segmentation node."""

import time
import unittest

import numpy as np
import slicer

from WholeBodyCSS import WholeBodyCSSLogic

TIMEOUT_S = 600


class WholeBodyCSSModuleTest(unittest.TestCase):
    def test_aVolumeIsSegmentedByTheWorkerWhileSlicerStaysResponsive(self):
        slicer.mrmlScene.Clear()
        hounsfield_kji = np.full((60, 50, 40), -1000, dtype=np.int16)
        hounsfield_kji[5:55, 10:40, 8:32] = 0
        volumeNode = slicer.util.addVolumeFromArray(hounsfield_kji, name="water in air")
        volumeNode.SetSpacing(3.0, 3.0, 3.0)

        logic = WholeBodyCSSLogic()
        self.addCleanup(logic.close)
        logic.segment(volumeNode)
        deadline = time.monotonic() + TIMEOUT_S
        while logic.queue.isRunning and time.monotonic() < deadline:
            slicer.app.processEvents()
            logic.queue.poll()
            time.sleep(0.05)
        failures = [row.message for row in logic.queue.rows if row.status.value == "failed"]
        found = logic.results.resultOf(volumeNode)

        self.assertEqual(failures, [])
        self.assertIsNotNone(found)
        self.assertEqual(found.GetNodeReferenceID("referenceImageGeometryRef"), volumeNode.GetID())


if __name__ == "__main__":
    unittest.main()
