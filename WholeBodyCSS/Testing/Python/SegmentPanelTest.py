"""The Segment and Results pages with the real worker: what a user clicks, waits for, breaks, and sees."""

import os
import signal
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
from WidgetTesting import WidgetTestCase

from WholeBodyCSSLib.ParameterNode import ParameterNode
from WholeBodyCSSLib.Settings import Settings

try:
    from tiny_scan import make_registry, scan_voxels
except ImportError:  # inside 3D Slicer without the project's Testing folder
    make_registry = None

PATIENCE_S = 60.0
LARGE = (56, 56, 56)
"""A volume on which even the tiny model is busy for some seconds."""


@unittest.skipIf(make_registry is None, "needs the modules of the project's Testing folder on PYTHONPATH")
class SegmentPanelTest(WidgetTestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "Größe 大"
        self.folder.mkdir()
        make_registry(self.folder / "registry")
        Settings(qt.QSettings()).registryFolder = str(self.folder / "registry")
        self.module = self.openModule()
        self.module.exit()
        self.module.enter()
        self.panel = self.module.pages.segment
        self.ui = self.panel.ui
        self.module.ui.pages.setCurrentWidget(self.panel.widget)
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
        return set(Path(tempfile.gettempdir()).glob("WholeBodyCSS-*"))

    # What happens when everything goes well

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

    def tick(self, text, only=False):
        """Tick the organ called ``text`` in the tree."""
        if only:
            self.module.logic.session.choice.choose([])
            self.panel._tree.showTicks()
        for branch in map(self.ui.organTree.topLevelItem, range(self.ui.organTree.topLevelItemCount)):
            for item in map(branch.child, range(branch.childCount())):
                if item.text(0) == text:
                    item.setCheckState(0, qt.Qt.Checked)
                    slicer.app.processEvents()
                    return
        self.fail(f"the tree has no {text}")

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

    # The results

    def test_resultsAreListedJumpedToHiddenAndRefined(self):
        node, result = self.segmented()
        self.module.ui.pages.setCurrentWidget(self.module.pages.results.widget)
        results, ui = self.module.logic.results, self.module.pages.results.ui
        self.assertIs(ui.resultSelector.currentNode(), result)
        rows = results.rows(result)
        self.assertEqual(ui.organTable.rowCount, len(rows))
        row = self.module.pages.results._shown[0]
        ui.organTable.selectRow(0)
        self.module.pages.results._onCell(0, 1)
        red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
        center = [red.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)]
        np.testing.assert_allclose(center, row.center_ras_mm, atol=1e-6)
        self.module.pages.results._onCell(0, 0)
        self.assertFalse(result.GetDisplayNode().GetSegmentVisibility(row.organ))
        result.GetDisplayNode().SetSegmentVisibility(row.organ, True)
        self.assertEqual(ui.organTable.item(0, 0).toolTip(), "Shown; click to hide")
        self.screenshot(self.module.parent, "results")
        self.click(ui.copyButton)
        self.assertIn(row.organ, qt.QApplication.clipboard().text())
        self.click(ui.refineButton)
        self.assertEqual(slicer.util.selectedModule(), "SegmentEditor")
        editor = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
        self.assertEqual(editor.GetSelectedSegmentID(), row.organ)
        self.assertIs(editor.GetSourceVolumeNode(), node)

    def test_theTableIsExportedAndACaseIsKeptOnClick(self):
        self.segmented("Müller, 1970")
        self.module.ui.pages.setCurrentWidget(self.module.pages.results.widget)
        ui = self.module.pages.results.ui
        table = self.folder / "organs.csv"
        with mock.patch("qt.QFileDialog.getSaveFileName", return_value=str(table)):
            self.click(ui.exportButton)
        self.assertEqual(len(table.read_text(encoding="utf-8").splitlines()), 1 + ui.organTable.rowCount)
        self.assertFalse(ui.keepButton.enabled)
        ui.caseFolderEdit.currentPath = str(self.folder / "cases")
        self.click(ui.keepButton)
        self.waitUntil(lambda: "Kept as" in ui.statusLabel.text, "the case", PATIENCE_S)
        names = sorted(path.name for path in (self.folder / "cases").iterdir())
        self.assertEqual(names, ["case_0001.nrrd", "case_0001.seg.nrrd"])
        self.assertNotIn(b"ller", (self.folder / "cases" / "case_0001.seg.nrrd").read_bytes()[:20000])

    # What breaks other modules

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

    def test_anEmptyVolumeIsRefusedInWords(self):
        self.choose(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))
        self.click(self.ui.segmentButton)
        self.waitForEnd()
        self.assertIn("empty must hold voxels", self.ui.statusLabel.text)

    def test_withoutTorchItSaysWhatToDoAndStartsNothing(self):
        self.choose(self.volume())
        missing = RuntimeError("PyTorch is missing: install it on the page Doctor")
        with mock.patch.object(self.panel, "_ensure", side_effect=missing), self.expectError("PyTorch is missing"):
            self.click(self.ui.segmentButton)
        self.assertFalse(self.module.logic.queue.isRunning)
        self.assertTrue(self.ui.segmentButton.enabled)

    def test_aFullDiskIsSaid(self):
        self.choose(self.volume())
        full = OSError(28, "No space left on device")
        with mock.patch("WholeBodyCSSLib.SceneBridge.write_array", side_effect=full):
            self.click(self.ui.segmentButton)
            self.waitForEnd()
        self.assertRegex(self.ui.statusLabel.text, "No space left on device; free some space")

    def test_aBrokenRegistryIsSaidAndNothingCanBeStarted(self):
        for card in (self.folder / "registry" / "tasks").rglob("card.json"):
            card.write_text("{", encoding="utf-8")
        self.choose(self.volume())
        self.panel.enter()
        self.assertFalse(self.ui.segmentButton.enabled)
        self.assertEqual(self.ui.summaryLabel.text, "No task is switched on, or none can be read. See the page Tasks.")

    # Several scans

    def test_aListOfVolumesAndFilesIsWorkedOffAndResumed(self):
        for number in range(2):
            self.volume(f"scan {number + 1}")
        scans = self.folder / "スキャン"
        scans.mkdir()
        for number in range(2):
            path = scans / f"file_{number + 1}.nrrd"
            self.assertTrue(slicer.util.saveNode(slicer.util.getNode("scan 1"), str(path)))
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
