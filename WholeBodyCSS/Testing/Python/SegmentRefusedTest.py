"""What cannot be segmented here: the page says why and what to do, and nothing starts."""

import os
import unittest
from unittest import mock

import slicer
from SegmentTesting import SegmentTestCase


class SegmentRefusedTest(SegmentTestCase):
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

    def test_aWorkerWithoutTorchSaysWhatToDo(self):
        broken = self.folder / "broken"
        broken.mkdir()
        (broken / "torch.py").write_text("raise ImportError('No module named torch')")
        process = self.module.logic.process
        process.kill()
        paths = os.pathsep.join([str(broken), process._environment["PYTHONPATH"]])
        with mock.patch.dict(process._environment, PYTHONPATH=paths):
            self.choose(self.volume())
            self.click(self.ui.segmentButton)
            self.waitForEnd()
        self.assertRegex(self.ui.statusLabel.text, "missing or broken: No module named torch; .* the page Doctor")
        process.kill()

    def test_aFolderThatCannotBeWrittenIsSaidBeforeAnythingRuns(self):
        (self.folder / "file").write_text("x")
        self.panel._list.addFiles(self.scans(1))
        self.panel._list.show(isReady=True)
        self.ui.listSection.collapsed = False
        self.ui.folderEdit.currentPath = str(self.folder / "file")
        with self.expectError("must be a folder, but .*file is a file"):
            self.click(self.ui.listButton)
        self.assertFalse(self.module.logic.queue.isRunning)

    def test_withoutAFolderForTemporaryFilesItSaysSo(self):
        self.choose(self.volume())
        with mock.patch("tempfile.tempdir", str(self.folder / "gone")):
            self.click(self.ui.segmentButton)
            self.waitForEnd()
        self.assertRegex(self.ui.statusLabel.text, "folder for temporary files must be writable, got No such file")

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


if __name__ == "__main__":
    unittest.main()
