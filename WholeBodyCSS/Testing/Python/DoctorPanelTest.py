"""The page Doctor as a user meets it: with the real engine, and with the engines of unlucky computers."""

import tempfile
import unittest
from pathlib import Path

import qt
import slicer
from WidgetTesting import WidgetTestCase

from wbcss.errors import Cancelled, RunError
from WholeBodyCSSLib.CommandJob import CommandEnd
from WholeBodyCSSLib.DoctorCheck import DoctorCheck
from WholeBodyCSSLib.DoctorReport import needsOf
from WholeBodyCSSLib.Panels.DoctorPanel import DoctorPanel
from WholeBodyCSSLib.RegistryPlaces import RegistryPlaces
from WholeBodyCSSLib.Settings import Settings

LIMIT_S = 100.0
SOUND = {
    "versions": {"wbcss": "0.1.0", "torch": "2.13.0", "openvino": "2026.4", "monai": None, "highdicom": "0.27"},
    "system": {"memory_total_mib": 32768, "memory_available_mib": 21504, "temporary_free_mib": 112640},
    "device": {
        "chosen": "cuda:0",
        "why": "it is the first CUDA device",
        "cuda_devices": [{"name": "NVIDIA RTX A2000", "memory_total_mib": 12288, "memory_free_mib": 10854}],
    },
    "registry": {"tasks": ["wholebody@1"], "organs": 139, "sound": True},
    "problems": [],
}


class AnsweredJob:
    """A command that has ended already."""

    def __init__(self, output):
        self.output = output

    def poll(self):
        return CommandEnd(exitCode=0, output=self.output)

    def cancel(self):
        pass


class DoctorPanelTest(WidgetTestCase):
    def test_theRealEngineIsAskedWhenThePageIsOpened(self):
        panel = self.open(None)
        self.assertFalse(panel.ui.checkButton.enabled)
        self.screenshot(panel.widget, "doctor-looking")
        self.waitUntil(lambda: panel.ui.checkButton.enabled, "the engine to answer", timeout_s=LIMIT_S)
        self.assertIn("Tasks", self.topics(panel))
        self.screenshot(panel.widget, "doctor-here")

    def test_aSoundComputerIsReady(self):
        panel = self.open(SOUND, numVoxels=512 * 512 * 400)
        self.waitForReport(panel)
        self.assertEqual(panel.ui.summaryLabel.text, "Ready to segment.")
        self.assertFalse(panel.ui.repairButton.enabled)
        self.assertIn("NVIDIA RTX A2000", self.found(panel, "cuda:0"))
        self.assertIn("the chosen scan needs up to 4.6 GB", self.found(panel, "Memory"))
        self.screenshot(panel.widget, "doctor")

    def test_withoutTorchTheButtonRepairs(self):
        missing = {"torch", "safetensors"}
        repaired = []

        def repair():
            repaired.append(set(missing))
            missing.clear()

        device = {"chosen": None, "why": "torch is not installed"}
        answer = {**SOUND, "versions": {**SOUND["versions"], "torch": None}, "device": device}
        panel = self.open(answer, missing=missing, repair=repair)
        self.waitForReport(panel)
        self.assertEqual(panel.ui.summaryLabel.text, "2 problems found.")
        self.assertIn("Press Repair to install it", self.found(panel, "PyTorch"))
        self.screenshot(panel.widget, "doctor-no-torch")
        self.click(panel.ui.repairButton)
        self.assertEqual(repaired, [{"torch", "safetensors"}])
        self.waitUntil(lambda: not panel.ui.repairButton.enabled, "the second look")

    def test_aRepairThatFailsOrIsDeclinedSaysWhy(self):
        errors = [
            RunError("pillow could not be installed: the disk is full; free some space"),
            Cancelled("as you wished"),
        ]

        def repair():
            raise errors.pop(0)

        panel = self.open(SOUND, missing={"PIL"}, repair=repair)
        self.waitForReport(panel)
        self.click(panel.ui.repairButton)
        self.assertIn("the disk is full", panel.ui.summaryLabel.text)
        self.click(panel.ui.repairButton)
        self.assertEqual(panel.ui.summaryLabel.text, "as you wished")

    def test_everythingThatCanBeWrongIsNamedWithWhatToDo(self):
        problems = [{"what": "tasks/wholebody/1/decoder.safetensors is missing", "remedy": "import the task again"}]
        device = {"chosen": "cpu", "why": "torch is built for CUDA 12.8 but sees no device", "cuda_devices": []}
        system = {"memory_total_mib": 8192, "memory_available_mib": 2048, "temporary_free_mib": 300}
        registry = {"tasks": [], "sound": False}
        answer = {**SOUND, "device": device, "system": system, "registry": registry, "problems": problems}
        panel = self.open(answer, numVoxels=512 * 512 * 400)
        self.waitForReport(panel)
        self.assertEqual(panel.ui.summaryLabel.text, "3 problems found.")
        self.assertIn("sees no device", self.found(panel, "Device"))
        self.screenshot(panel.widget, "doctor-problems")

    def test_theReportIsCopiedWithoutNames(self):
        panel = self.open(SOUND)
        self.waitForReport(panel)
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "DOE^JANE 19700101")
        self.click(panel.ui.copyButton)
        text = qt.QApplication.clipboard().text()
        self.assertIn("cuda:0, because it is the first CUDA device", text)
        self.assertNotIn("DOE", text)
        self.assertNotIn(str(Path.home()), text)

    # Helpers

    def open(self, answer, *, missing=frozenset(), repair=lambda: None, numVoxels=0):
        settings = Settings()
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(folder.rmdir)
        places = RegistryPlaces(settings, lambda: folder / "registry")
        options = {} if answer is None else {"runner": lambda arguments: AnsweredJob(answer)}
        check = DoctorCheck(places, settings, "5.12.3", isInstalled=lambda module: module not in missing, **options)
        needs = needsOf(numVoxels, 1) if numVoxels else None
        panel = DoctorPanel(slicer.util.loadUI, check, repair, lambda: needs)
        self.addCleanup(panel.cleanup)
        self.show(panel.widget, 480, 460)
        panel.enter()
        return panel

    def waitForReport(self, panel):
        self.waitUntil(lambda: panel.ui.copyButton.enabled, "the report")

    def topics(self, panel):
        table = panel.ui.findingTable
        return [table.item(row, 0).text() for row in range(table.rowCount)]

    def found(self, panel, topic):
        return panel.ui.findingTable.item(self.topics(panel).index(topic), 1).text()


if __name__ == "__main__":
    unittest.main()
