"""The panel as a user meets it: what can be clicked, and what it says."""

import unittest

import slicer
from WidgetTesting import WidgetTestCase


class WholeBodyCSSWidgetTest(WidgetTestCase):
    def test_theButtonNeedsAVolume(self):
        panel = self.openModule()
        self.assertFalse(panel.ui.segmentButton.enabled)
        volumeNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
        panel.ui.inputSelector.setCurrentNode(volumeNode)
        self.assertTrue(panel.ui.segmentButton.enabled)
        self.screenshot(panel.parent, "segment-ready")

    def test_closingTheSceneTakesTheChoiceBack(self):
        panel = self.openModule()
        panel.ui.inputSelector.setCurrentNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT"))
        slicer.mrmlScene.Clear()
        self.assertIsNone(panel.ui.inputSelector.currentNode())
        self.assertFalse(panel.ui.segmentButton.enabled)


if __name__ == "__main__":
    unittest.main()
