"""The module's panel as a whole: it opens, outlives its scene and can be reloaded. Its pages have their own cases."""

import unittest

import slicer
import vtk
from WidgetTesting import WidgetTestCase


class WholeBodyCSSWidgetTest(WidgetTestCase):
    def test_theModuleOpens(self):
        panel = self.openModule()
        self.assertTrue(panel.parent.isVisible())
        self.assertGreater(len(slicer.util.findChildren(panel.parent, className="QPushButton")), 0)
        self.screenshot(panel.parent, "module")

    def test_theOrgansAreInTheTerminologySelector(self):
        self.openModule()
        names = vtk.vtkStringArray()
        slicer.modules.terminologies.logic().GetLoadedTerminologyNames(names)
        loaded = [names.GetValue(number) for number in range(names.GetNumberOfValues())]
        self.assertTrue(any("WholeBodyCSS" in name for name in loaded), loaded)

    def test_thePanelOutlivesTheScene(self):
        panel = self.openModule()
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
        slicer.mrmlScene.Clear()
        slicer.app.processEvents()
        self.assertTrue(panel.parent.isVisible())

    def test_theModuleCanBeReloaded(self):
        before = self.openModule()
        slicer.util.reloadScriptedModule("WholeBodyCSS")
        after = self.openModule()
        self.assertIsNot(after, before)
        slicer.mrmlScene.Clear()


if __name__ == "__main__":
    unittest.main()
