"""The entries of the module Sample Data: they are there, have pictures, and load what the engine draws."""

import dataclasses
import tempfile
import unittest
from pathlib import Path

import slicer
from WidgetTesting import WidgetTestCase

from WholeBodyCSSLib.Panels.SampleDataSources import SampleDataSources
from WholeBodyCSSLib.SampleData import CATEGORY, SAMPLES, SampleMaker

LIMIT_S = 100.0


class SampleDataTest(WidgetTestCase):
    def test_everySampleIsOfferedWithAPictureAndDownloadsNothing(self):
        sources = slicer.modules.sampleDataSources[CATEGORY]
        self.assertEqual([source.sampleName for source in sources], [sample.name for sample in SAMPLES])
        for source in sources:
            self.assertTrue(Path(source.thumbnailFileName).is_file(), source.thumbnailFileName)
            self.assertTrue(callable(source.customDownloader))

    def test_aClickDrawsAndLoadsTheScanWithItsAnnotation(self):
        with tempfile.TemporaryDirectory() as folder:
            loaded = []
            samples = SampleDataSources(SampleMaker(lambda: Path(folder)))
            samples.onLoaded = loaded.append
            self.addCleanup(samples.cleanup)
            cases = dataclasses.replace(next(sample for sample in SAMPLES if sample.hasLabels), seeds=(21, 22))
            samples.make(cases)
            self.assertEqual(loaded, [])
            self.waitUntil(lambda: loaded, "the scans to be drawn", timeout_s=LIMIT_S)
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        segmentations = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        self.assertEqual([node.GetName() for node in volumes], [f"{cases.name}{n}" for n in (1, 2)])
        self.assertEqual(len(segmentations), 2)
        for node in segmentations:
            self.assertGreater(node.GetSegmentation().GetNumberOfSegments(), 5)
            names = [node.GetSegmentation().GetNthSegment(n).GetName() for n in range(5)]
            self.assertFalse(any(name.startswith("Segment_") for name in names), names)


if __name__ == "__main__":
    unittest.main()
