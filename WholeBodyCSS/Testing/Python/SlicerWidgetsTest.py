"""What panels rely on of Slicer's own widgets: true of the application, and kept true of the stand-ins."""

import unittest

import ctk
import qt
import slicer
from WidgetTesting import WidgetTestCase


def addNode(kind, name, **attributes):
    node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
    for key, value in attributes.items():
        node.SetAttribute(key, value)
    return node


class SlicerWidgetsTest(WidgetTestCase):
    def makeSelector(self, *nodeTypes, **properties):
        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes = list(nodeTypes)
        selector.addEnabled = False
        for name, value in properties.items():
            setattr(selector, name, value)
        selector.setMRMLScene(slicer.mrmlScene)
        return selector

    def makeSegmentation(self, *names):
        node = addNode("vtkMRMLSegmentationNode", "Organs")
        node.CreateDefaultDisplayNodes()
        for name in names:
            node.GetSegmentation().AddEmptySegment(name.lower(), name)
        return node

    def test_aSelectorListsTheNodesOfItsClassOnly(self):
        addNode("vtkMRMLModelNode", "Mesh")
        addNode("vtkMRMLLabelMapVolumeNode", "Labels")
        hidden = addNode("vtkMRMLScalarVolumeNode", "Hidden")
        hidden.SetHideFromEditors(True)
        addNode("vtkMRMLScalarVolumeNode", "CT")
        strict = self.makeSelector("vtkMRMLScalarVolumeNode", showChildNodeTypes=False)
        self.assertEqual([strict.nodeFromIndex(index).GetName() for index in range(strict.nodeCount())], ["CT"])
        wide = self.makeSelector("vtkMRMLScalarVolumeNode")
        self.assertEqual(wide.nodeCount(), 2)

    def test_aSelectorFollowsTheScene(self):
        selector = self.makeSelector("vtkMRMLScalarVolumeNode", noneEnabled=True)
        self.assertIsNone(selector.currentNode())
        volumeNode = addNode("vtkMRMLScalarVolumeNode", "CT")
        self.assertIsNone(selector.currentNode(), "with None to choose nothing is chosen for the user")
        selector.setCurrentNode(volumeNode)
        self.assertEqual(selector.currentNodeID, volumeNode.GetID())
        slicer.mrmlScene.RemoveNode(volumeNode)
        self.assertIsNone(selector.currentNode())
        self.assertEqual(selector.nodeCount(), 0)

    def test_aSelectorWithoutNoneTakesTheFirstNode(self):
        selector = self.makeSelector("vtkMRMLScalarVolumeNode", noneEnabled=False)
        volumeNode = addNode("vtkMRMLScalarVolumeNode", "CT")
        self.assertIs(selector.currentNode(), volumeNode)

    def test_aSelectorTellsOnceWhatWasChosen(self):
        selector, chosen = self.makeSelector("vtkMRMLScalarVolumeNode", noneEnabled=True), []
        selector.connect("currentNodeChanged(vtkMRMLNode*)", chosen.append)
        volumeNode = addNode("vtkMRMLScalarVolumeNode", "CT")
        selector.setCurrentNode(volumeNode)
        selector.setCurrentNode(volumeNode)
        selector.setCurrentNode(None)
        self.assertEqual(chosen, [volumeNode, None])

    def test_aSelectorCanAskForAnAttribute(self):
        addNode("vtkMRMLScalarVolumeNode", "MR", Modality="MR")
        ctNode = addNode("vtkMRMLScalarVolumeNode", "CT", Modality="CT")
        selector = self.makeSelector("vtkMRMLScalarVolumeNode")
        selector.addAttribute("vtkMRMLScalarVolumeNode", "Modality", "CT")
        self.assertEqual(selector.nodeCount(), 1)
        self.assertIs(selector.nodeFromIndex(0), ctNode)

    def test_aTableOfSegmentsFollowsTheSegmentation(self):
        segmentationNode = self.makeSegmentation("Liver", "Spleen")
        table = slicer.qMRMLSegmentsTableView()
        table.setMRMLScene(slicer.mrmlScene)
        table.setSegmentationNode(segmentationNode)
        self.assertEqual(table.segmentCount(), 2)
        table.setSelectedSegmentIDs(["liver", "spleen"])
        self.assertEqual(sorted(table.selectedSegmentIDs()), ["liver", "spleen"])
        segmentationNode.GetSegmentation().RemoveSegment("liver")
        self.assertEqual(table.segmentCount(), 1)

    def test_aSegmentIsChosenWithItsSegmentation(self):
        segmentationNode = self.makeSegmentation("Liver", "Spleen")
        selector = slicer.qMRMLSegmentSelectorWidget()
        selector.setMRMLScene(slicer.mrmlScene)
        selector.setCurrentNode(segmentationNode)
        selector.setCurrentSegmentID("spleen")
        self.assertIs(selector.currentNode(), segmentationNode)
        self.assertEqual(selector.currentSegmentID(), "spleen")

    def test_aSliderKeepsToItsRange(self):
        for slider in (ctk.ctkSliderWidget(), slicer.qMRMLSliderWidget(), ctk.ctkDoubleSpinBox()):
            with self.subTest(slider.className()):
                values = []
                slider.minimum, slider.maximum, slider.decimals = 0, 10, 1
                slider.connect("valueChanged(double)", values.append)
                slider.value = 12
                self.assertEqual(slider.value, 10)
                slider.value = 2.5
                self.assertEqual(values, [10, 2.5])

    def test_aSectionFoldsItsContents(self):
        section = ctk.ctkCollapsibleButton()
        section.text = "Advanced"
        column = qt.QVBoxLayout(section)
        shown, hidden = qt.QLabel("shown"), qt.QLabel("hidden")
        column.addWidget(shown)
        column.addWidget(hidden)
        hidden.hide()
        self.show(section, 300, 200)
        for collapsed in (True, False):
            section.collapsed = collapsed
            self.assertEqual(shown.isVisible(), not collapsed)
            self.assertFalse(hidden.isVisible(), "what was hidden before stays hidden")

    def test_aPathIsToldAsItIsTyped(self):
        edit, paths = ctk.ctkPathLineEdit(), []
        edit.filters = ctk.ctkPathLineEdit.Dirs
        edit.connect("currentPathChanged(QString)", paths.append)
        edit.currentPath = "/data/Fälle"
        self.assertEqual((edit.currentPath, paths), ("/data/Fälle", ["/data/Fälle"]))

    def test_aSettingsPageKeepsWhatIsChosen(self):
        for expected in (True, False):
            page, box = ctk.ctkSettingsPanel(), qt.QCheckBox()
            box.checked = not expected
            page.registerProperty("WholeBodyCSS/statistics", box, "checked", str(qt.SIGNAL("toggled(bool)")))
            box.checked = expected
            again, other = ctk.ctkSettingsPanel(), qt.QCheckBox()
            again.registerProperty("WholeBodyCSS/statistics", other, "checked", str(qt.SIGNAL("toggled(bool)")))
            self.assertEqual(other.checked, expected)

    def test_registeredSampleDataIsListed(self):
        import SampleData

        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="SlicerWidgetsTest", sampleName="CT", uris="https://example.org/ct.nrrd", fileNames="ct.nrrd",
            nodeNames="CT", checksums="SHA256:00",
        )  # fmt: skip
        sources = slicer.modules.sampleDataSources.pop("SlicerWidgetsTest")
        self.assertEqual([source.sampleName for source in sources], ["CT"])

    def test_slicesJumpToAPoint(self):
        self.needMainWindow()
        slicer.modules.markups.logic().JumpSlicesToLocation(4.0, 5.0, 6.0, True)
        views = slicer.app.layoutManager()
        offsets = [views.sliceWidget(name).mrmlSliceNode().GetSliceOffset() for name in ("Red", "Yellow", "Green")]
        self.assertEqual([abs(offset) for offset in offsets], [6.0, 4.0, 5.0])

    def test_theSegmentEditorIsHandedASegment(self):
        self.needMainWindow()
        segmentationNode = self.makeSegmentation("Liver", "Spleen")
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(segmentationNode)
        editor.setCurrentSegmentID("spleen")
        self.assertEqual(slicer.util.selectedModule(), "SegmentEditor")
        self.assertIs(editor.segmentationNode(), segmentationNode)
        self.assertEqual(editor.currentSegmentID(), "spleen")

    def test_aVolumeIsWrittenAndReadAgain(self):
        volumeNode = slicer.util.addVolumeFromArray(self.makeRamp(), name="CT")
        path = f"{slicer.app.temporaryPath}/CT.nrrd"
        self.assertTrue(slicer.util.saveNode(volumeNode, path))
        again = slicer.util.loadVolume(path)
        self.assertTrue((slicer.util.arrayFromVolume(again) == self.makeRamp()).all())

    def makeRamp(self):
        import numpy as np

        return np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


if __name__ == "__main__":
    unittest.main()
