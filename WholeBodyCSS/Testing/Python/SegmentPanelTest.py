"""The page Segment with the real worker: what a user ticks, clicks, waits for and sees."""

import time
import unittest
from unittest import mock

import qt
import slicer
from SegmentTesting import LARGE, PATIENCE_S, SegmentTestCase, publish

from wbcss.registry import Registry
from WholeBodyCSSLib.ParameterNode import ParameterNode
from WholeBodyCSSLib.Settings import Settings


class SegmentPanelTest(SegmentTestCase):
    def test_theShippedOrgansArePickedByRegionAndTheTimeFollows(self):
        Settings(qt.QSettings()).registryInUse = "shipped"
        self.choose(self.volume("Abdomen CT", (64, 64, 64)))
        self.panel.enter()
        session = self.module.logic.session
        tasks = session.choice.tasks()
        session._estimate.learn(device="auto", quality="normal", tasks=tasks, liters=40, seconds=240)
        for index in range(self.ui.presetBox.count):
            if self.ui.presetBox.itemText(index) == "Abdomen":
                self.ui.presetBox.setCurrentIndex(index)
                self.panel._onPreset(index)
        self.assertIn("liver", session.choice.ticked)
        self.assertNotIn("brain", session.choice.ticked)
        known = len(session.choice.organs)
        self.assertRegex(self.ui.summaryLabel.text, f"of {known} organs to segment, tasks: .*wholebody.*; about")
        for number in range(self.ui.organTree.topLevelItemCount):
            branch = self.ui.organTree.topLevelItem(number)
            branch.setExpanded(branch.text(0).startswith("Abdomen"))
        self.screenshot(self.module.parent, "segment-organs")

    def test_theButtonsNeedAVolume(self):
        self.assertFalse(self.ui.segmentButton.enabled)
        self.assertEqual(self.ui.segmentButton.toolTip, "Choose a CT volume first")
        self.choose(self.volume())
        self.assertTrue(self.ui.segmentButton.enabled)
        self.assertTrue(self.ui.tickedButton.enabled)
        self.screenshot(self.module.parent, "segment-ready")

    def test_aClickEndsWithNamedOrgansATableAndNoFilesLeft(self):
        before = self.temporaryFolders()
        stages = []
        self.module.logic.segmenting.onProgress, told = (
            lambda *progress: (stages.append(progress), told(*progress)),
            self.module.logic.segmenting.onProgress,
        )
        node, result = self.segmented()
        segmentation = result.GetSegmentation()
        organs = self.module.logic.results.organs(result)
        self.assertLessEqual(organs, {"liver", "spleen", "brain", "skull"})
        self.assertGreater(len(organs), 0)
        self.assertEqual(segmentation.GetSegment(sorted(organs)[0]).GetName(), sorted(organs)[0].capitalize())
        self.assertEqual(result.GetNodeReferenceID("referenceImageGeometryRef"), node.GetID())
        fractions = [fraction for fraction, _stage, _remaining in stages]
        self.assertEqual(fractions, sorted(fractions))
        self.assertEqual(fractions[-1], 1.0)
        self.assertEqual({row.organ for row in self.module.logic.results.rows(result)}, organs)
        self.assertIn("Done", self.ui.statusLabel.text)
        self.assertFalse(self.ui.runningArea.visible)
        self.waitUntil(lambda: self.temporaryFolders() == before, "temporary files to be removed", PATIENCE_S)
        self.assertRegex(self.ui.summaryLabel.text, "about")
        self.screenshot(self.module.parent, "segment-done")

    def test_progressAndCancelWhileItRuns(self):
        self.choose(self.volume(shape=LARGE))
        self.click(self.ui.segmentButton)
        self.assertFalse(self.ui.segmentButton.enabled)
        self.waitUntilBusy()
        self.screenshot(self.module.parent, "segment-running")
        began_s = time.monotonic()
        self.click(self.ui.cancelButton)
        self.waitForEnd()
        self.assertLess(time.monotonic() - began_s, 1.0)
        self.assertEqual(self.ui.statusLabel.text, "Cancelled; the scene is unchanged.")
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)
        self.assertTrue(self.ui.segmentButton.enabled)

    def test_cancellingBeforeTheWorkerIsUpTakesLessThanASecond(self):
        self.module.logic.process.kill()
        self.choose(self.volume())
        self.click(self.ui.segmentButton)
        began_s = time.monotonic()
        self.click(self.ui.cancelButton)
        self.waitForEnd()
        self.assertLess(time.monotonic() - began_s, 1.0)

    def test_onlyTickedOrgansAreSegmentedAndAddedToTheResultLater(self):
        node = self.choose(self.volume())
        choice = self.module.logic.session.choice
        self.tick("Spleen", only=True)
        self.assertEqual(choice.tasks(), ("trunk",))
        self.assertRegex(self.ui.summaryLabel.text, "1 of 4 organs to segment, tasks: trunk")
        self.click(self.ui.tickedButton)
        self.waitForEnd()
        result = self.module.logic.results.resultOf(node)
        self.assertLessEqual(self.module.logic.results.organs(result), {"spleen"})
        before = {name: result.GetSegmentation().GetSegment(name) for name in self.module.logic.results.organs(result)}
        self.tick("Brain")
        self.click(self.ui.tickedButton)
        self.waitForEnd()
        self.assertIs(self.module.logic.results.resultOf(node), result)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 1)
        for name, segment in before.items():
            self.assertIs(result.GetSegmentation().GetSegment(name), segment)

    def test_anOrganOnRequestIsLeftOutUntilItIsTicked(self):
        registry = Registry(self.folder / "registry")
        publish(registry, "lesions", {"liver": 5, "x_tumor": 10000}, seed=3, on_request=True)
        self.choose(self.volume())
        self.panel.enter()
        item = self.item("X tumor")
        self.assertEqual((item.checkState(0), item.text(1)), (qt.Qt.Unchecked, "lesions (on request)"))
        self.assertEqual(self.item("Liver").text(1), "trunk, head, lesions (on request)")
        self.assertIn("on request, so tick it to segment it: X tumor", self.ui.segmentButton.toolTip)
        self.assertRegex(self.ui.summaryLabel.text, "4 of 5 organs to segment, tasks: trunk, head")
        item.parent().setExpanded(True)
        self.screenshot(self.module.parent, "segment-on-request")
        self.assertEqual(self.ordered(self.ui.segmentButton), ("trunk", "head"))
        self.tick("X tumor")
        self.assertEqual(self.ordered(self.ui.tickedButton), ("trunk", "head", "lesions"))
        self.assertEqual(self.ordered(self.ui.segmentButton), ("trunk", "head"))

    def ordered(self, button):
        """The tasks that a click on ``button`` asks the worker for."""
        with mock.patch.object(self.module.logic.segmenting, "start") as start:
            self.click(button)
        self.panel._queue.close()
        self.panel._showState()
        return start.call_args.args[0].tasks

    def tick(self, text, only=False):
        """Tick the organ called ``text`` in the tree."""
        if only:
            self.module.logic.session.choice.choose([])
            self.panel._tree.showTicks()
        self.item(text).setCheckState(0, qt.Qt.Checked)
        slicer.app.processEvents()

    def item(self, text):
        """The organ called ``text`` in the tree."""
        for branch in map(self.ui.organTree.topLevelItem, range(self.ui.organTree.topLevelItemCount)):
            for item in map(branch.child, range(branch.childCount())):
                if item.text(0) == text:
                    return item
        return self.fail(f"the tree has no {text}")

    def test_aGroupIsTickedWithItsOrgansAndASearchLimitsBoth(self):
        choice = self.module.logic.session.choice
        branch = self.ui.organTree.topLevelItem(0)
        branch.setCheckState(0, qt.Qt.Unchecked)
        self.assertEqual(choice.ticked, ())
        self.assertFalse(self.ui.tickedButton.enabled)
        self.ui.searchEdit.text = "liv"
        branch.setCheckState(0, qt.Qt.Checked)
        self.assertEqual(choice.ticked, ("liver",))
        self.assertEqual(branch.checkState(0), qt.Qt.PartiallyChecked)
        hidden = [branch.child(number).isHidden() for number in range(branch.childCount())]
        self.assertEqual(hidden.count(False), 1)
        self.screenshot(self.module.parent, "segment-search")

    def test_choicesAreKeptInTheSceneAndShownWhenAScriptChangesThem(self):
        node = self.choose(self.volume())
        parameters = ParameterNode.inScene(slicer.mrmlScene)
        self.assertIs(parameters.inputVolume, node)
        parameters.quality, parameters.organs = "best", ("liver",)
        self.assertEqual(self.ui.qualityBox.currentText, "Best")
        self.assertEqual(self.module.logic.session.choice.ticked, ("liver",))
        parameters.inputVolume = None
        self.assertFalse(self.ui.segmentButton.enabled)

    def test_aListOfVolumesAndFilesIsWorkedOffAndResumed(self):
        for number in range(2):
            self.volume(f"scan {number + 1}")
        scans = self.scans(2)
        self.ui.listSection.collapsed = False
        self.ui.organsSection.collapsed = True
        self.click(self.ui.addSceneButton)
        with mock.patch("qt.QFileDialog.getExistingDirectory", return_value=str(scans)):
            self.click(self.ui.addFolderButton)
        self.assertEqual(self.ui.listTree.topLevelItemCount, 4)
        self.ui.folderEdit.currentPath = str(self.folder / "results")
        self.click(self.ui.listButton)
        self.waitForEnd()
        self.assertEqual(self.statuses(), ["done"] * 4)
        self.screenshot(self.module.parent, "segment-list")
        results = sorted(path.name for path in (self.folder / "results").glob("*.seg.nrrd"))
        self.assertEqual(results, ["file_1.seg.nrrd", "file_2.seg.nrrd"])
        (self.folder / "results" / "file_2.seg.nrrd").unlink()
        self.click(self.ui.listButton)
        self.waitForEnd()
        self.assertEqual(self.statuses(), ["done", "done", "done before", "done"])

    def statuses(self):
        tree = self.ui.listTree
        return [tree.topLevelItem(number).text(1) for number in range(tree.topLevelItemCount)]

    def test_everyFrameOfASequenceIsSegmented(self):
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "beating")
        for number in range(2):
            frame = self.volume("frame")
            sequence.SetDataNodeAtValue(frame, str(number))
            slicer.mrmlScene.RemoveNode(frame)
        self.choose(sequence)
        self.click(self.ui.segmentButton)
        self.waitForEnd()
        kept = sequence.GetNodeReference("WholeBodyCSS.frames")
        self.assertEqual(kept.GetNumberOfDataNodes(), 2)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"), 0)


if __name__ == "__main__":
    unittest.main()
