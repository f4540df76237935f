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

        logic, found, failures = WholeBodyCSSLogic(), [], []
        logic.segmenting.onFinished = lambda segmentationNode, warnings: found.append(segmentationNode)
        logic.segmenting.onFailed = failures.append
        logic.segmenting.start(volumeNode)
        deadline = time.monotonic() + TIMEOUT_S
        while logic.segmenting.isRunning and time.monotonic() < deadline:
            slicer.app.processEvents()
            logic.segmenting.poll()
            time.sleep(0.05)
        logic.segmenting.close()

        self.assertEqual(failures, [])
        self.assertEqual(len(found), 1)
        self.assertEqual(found[0].GetNodeReferenceID("referenceImageGeometryRef"), volumeNode.GetID())


if __name__ == "__main__":
    unittest.main()
