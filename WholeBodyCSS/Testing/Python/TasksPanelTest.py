"""The page Tasks as a user meets it, over real registries: the shipped one and one of the user's own."""

import json
import math
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest.mock import patch

import qt
import slicer
from WidgetTesting import WidgetTestCase

from wbcss.cards import TaskCard
from wbcss.catalogue import Organ
from wbcss.labels import OrganName, TaskId
from wbcss.package import export_task
from wbcss.registry import Registry, StagedTask
from wbcss.resources import starter_registry
from wbcss.specs import DecoderSpec
from wbcss.terminology import Code
from wbcss.weights import decoder_shapes
from WholeBodyCSSLib.Panels.TasksPanel import TasksPanel
from WholeBodyCSSLib.RegistryPlaces import RegistryPlaces
from WholeBodyCSSLib.Settings import Settings
from WholeBodyCSSLib.TaskManager import TaskManager

STRUCTURE = Code(scheme="SCT", value="123037004", meaning="Anatomical Structure")
LIMIT_S = 60.0


class TasksPanelTest(WidgetTestCase):
    def setUp(self):
        super().setUp()
        self.folder = Path(tempfile.mkdtemp(prefix="Jörg Müller "))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.settings = Settings()
        # As if one task were shipped, so that the cases do not change with what is.
        self.shipped = self.folder / "shipped"
        others = {card.task for card in Registry(starter_registry()).tasks()} - {"wholebody"}
        shutil.copytree(starter_registry(), self.shipped, ignore=shutil.ignore_patterns(*others))
        self.places = RegistryPlaces(self.settings, lambda: self.folder / "registry", self.shipped)
        self.manager = TaskManager(self.places, self.settings)
        self.panel = TasksPanel(slicer.util.loadUI, self.manager, self.places, self.settings)
        self.addCleanup(self.panel.cleanup)
        self.ui = self.panel.ui
        self.show(self.panel.widget, 480, 700)

    def test_theShippedTaskIsListedWithItsCard(self):
        self.assertEqual(self.cells("Task"), ["wholebody"])
        self.assertEqual(self.cells("State"), ["in use"])
        text = self.ui.cardBrowser.plainText
        title = Registry(self.shipped).card("wholebody").title
        for words in (title, "CC-BY-SA", "BodyParts3D", "mean Dice", "Not for diagnosis"):
            self.assertIn(words, text)
        self.assertEqual(self.ui.registrySelector.currentText, "Shipped with the extension (read-only)")
        self.assertFalse(self.ui.updateButton.enabled)
        self.assertFalse(self.ui.cancelButton.isVisible())

    def test_aTaskIsSwitchedOffWithItsCheckMark(self):
        changes = []
        self.panel.onChanged = lambda: changes.append(self.manager.enabledTasks())
        self.ui.taskTable.item(0, 0).setCheckState(qt.Qt.Unchecked)
        self.assertEqual(changes, [()])
        self.assertEqual(self.cells("State"), ["switched off"])
        self.ui.taskTable.item(0, 0).setCheckState(qt.Qt.Checked)
        self.assertEqual(changes, [(), ("wholebody",)])
        self.assertFalse(self.places.hasOwn)

    def test_aTaskThatRunsOnRequestSaysSo(self):
        self.publish(Registry(self.places.writable()), "liver_tumor", 10000, on_request=True)
        self.panel.refresh()
        self.assertEqual(self.cells("State"), ["in use", "on request"])
        self.select("liver_tumor")
        self.assertIn("never by itself", self.ui.cardBrowser.plainText)
        self.screenshot(self.panel.widget, "tasks-on-request")
        self.select("wholebody")
        self.assertIn("with every segmentation of the whole body", self.ui.cardBrowser.plainText)

    def test_theCardOfATrimmedTaskSaysHowSmallItsDecoderIs(self):
        trimming = {
            "full": {"parameters": 1_620_300, "macs": 52_000_000_000, "mean": {"dice": 0.824}},
            "kept": {"parameters": 213_480, "macs": 6_760_000_000, "mean": {"dice": 0.82}},
        }
        self.publish(Registry(self.places.writable()), "liver_tumor", 10000, trimming=trimming)
        self.panel.refresh()
        self.select("liver_tumor")
        text = self.ui.cardBrowser.plainText
        for words in ("0.21 million parameters (full: 1.62 million)", "13% of the arithmetic", "0.820 (full: 0.824)"):
            self.assertIn(words, text)
        self.screenshot(self.panel.widget, "tasks-trimmed")
        self.select("wholebody")  # which was never trimmed
        self.assertNotIn("of the arithmetic", self.ui.cardBrowser.plainText)

    def test_aPackageIsImportedIntoARegistryOfTheUsersOwn(self):
        package = self.makePackage()
        with patch("qt.QFileDialog.getOpenFileName", return_value=str(package)):
            self.click(self.ui.importButton)
        self.assertTrue(self.ui.cancelButton.isVisible())
        self.assertFalse(self.ui.importButton.enabled)
        self.screenshot(self.panel.widget, "tasks-importing")
        self.waitForEnd()
        self.assertEqual(self.ui.statusLabel.text, "liver_cyst, version 1, is ready. Organs: 1.")
        self.assertEqual(self.cells("Task"), ["wholebody", "liver_cyst"])
        self.assertEqual(self.ui.registrySelector.currentText, "My tasks")
        self.select("liver_cyst")
        self.assertIn("3 held-out scans", self.ui.cardBrowser.plainText)
        self.screenshot(self.panel.widget, "tasks")

    def test_aRefusalIsShownInTheWordsOfTheEngine(self):
        package = self.folder / "holiday.wbtask"
        package.write_bytes(b"no zip")
        self.panel.importPackages([package])
        self.assertIn("holiday.wbtask is no intact task package", self.ui.statusLabel.text)
        self.assertTrue(self.ui.statusIcon.isVisible())
        self.assertFalse(self.places.hasOwn)
        self.screenshot(self.panel.widget, "tasks-refused")

    def test_severalPackagesAreImportedOneAfterTheOtherAlsoIfOneIsRefused(self):
        broken = self.folder / "broken.wbtask"
        broken.write_bytes(b"no zip")
        self.panel.importPackages([broken, self.makePackage("liver_cyst"), self.makePackage("scar", label=10007)])
        self.waitForEnd()
        self.assertEqual(self.cells("Task"), ["wholebody", "liver_cyst", "scar"])

    def test_aTaskIsExported(self):
        target = self.folder / "für Zürich.wbtask"
        with patch("qt.QFileDialog.getSaveFileName", return_value=str(target)):
            self.click(self.ui.exportButton)
        self.waitForEnd()
        self.assertTrue(target.is_file())
        self.assertIn("was written to", self.ui.statusLabel.text)

    def test_verifyingNamesTheFileThatWasChanged(self):
        self.click(self.ui.verifyButton)
        self.waitForEnd()
        self.assertIn("files are as they were published", self.ui.statusLabel.text)
        own = Registry(self.places.writable())
        path = own.task_weights(own.tasks()[0])
        path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
        self.panel.refresh()
        self.click(self.ui.verifyButton)
        self.waitForEnd()
        name = path.relative_to(own.root).as_posix()
        self.assertIn(f"{name} was changed", self.ui.statusLabel.text)
        self.screenshot(self.panel.widget, "tasks-damaged")

    def test_aDamagedCardIsAListedTaskAndNotACrash(self):
        own = Registry(self.places.writable())
        card = own.task_weights(own.card("wholebody")).with_name("card.json")
        card.write_bytes(card.read_bytes().replace(b"wholebody", b"wholebxdy", 1))
        self.panel.enter()
        self.assertEqual(self.cells("State"), ["damaged"])
        self.assertIn("Import the task again", self.ui.cardBrowser.plainText)
        self.assertFalse(self.ui.exportButton.enabled)

    def test_retiringAsksFirstAndHidesTheTask(self):
        with patch("slicer.util.confirmOkCancelDisplay", return_value=False):
            self.click(self.ui.retireButton)
        self.assertEqual(self.cells("State"), ["in use"])
        with patch("slicer.util.confirmOkCancelDisplay", return_value=True):
            self.click(self.ui.retireButton)
        self.assertEqual(self.cells("State"), ["retired"])
        self.assertFalse(self.ui.retireButton.enabled)
        self.assertEqual([card.task for card in Registry(self.shipped).tasks()], ["wholebody"])

    def test_theUserGoesBackToTheShippedRegistry(self):
        self.places.writable()
        self.panel.refresh()
        self.ui.registrySelector.setCurrentIndex(1)
        self.assertEqual(self.places.inUse, self.shipped)
        self.ui.registrySelector.setCurrentIndex(0)
        self.assertEqual(self.places.inUse, self.folder / "registry")

    def test_aNewerTaskOfTheExtensionIsTakenWithAClick(self):
        self.places.writable()
        self.publish(Registry(self.places.shipped), "liver_cyst", 10000)
        self.panel.refresh()
        self.select("liver_cyst")
        self.assertEqual(self.cells("State"), ["in use", "not installed"])
        self.click(self.ui.updateButton)
        self.waitForEnd()
        self.assertEqual(self.cells("State"), ["in use", "in use"])

    def test_aFolderThatCannotBeWrittenIsExplained(self):
        (self.folder / "registry").write_text("in the way", encoding="ascii")
        self.panel.importPackages([self.makePackage()])
        self.assertIn("own tasks", self.ui.statusLabel.text)
        self.assertFalse(self.manager.isBusy)

    def test_cancellingAnImportLeavesNothing(self):
        self.panel.importPackages([self.makePackage()])
        self.click(self.ui.cancelButton)
        self.assertFalse(self.manager.isBusy)
        self.assertEqual(self.ui.statusLabel.text, "Cancelled; nothing was changed.")
        self.assertEqual(Registry(self.places.own).verify(), [])

    # Helpers

    def cells(self, title):
        table = self.ui.taskTable
        column = next(n for n in range(table.columnCount) if table.horizontalHeaderItem(n).text() == title)
        return [table.item(row, column).text() for row in range(table.rowCount)]

    def select(self, task):
        self.ui.taskTable.selectRow(self.cells("Task").index(task))
        slicer.app.processEvents()

    def waitForEnd(self):
        self.waitUntil(lambda: not self.manager.isBusy, "the command to end", timeout_s=LIMIT_S)

    def makePackage(self, task="liver_cyst", label=10000):
        """A task that another hospital taught the shipped encoder."""
        other = self.folder / f"other-{task}"
        shutil.copytree(starter_registry(), other)
        self.publish(Registry(other), task, label)
        return export_task(Registry(other), TaskId(task), self.folder)

    def publish(self, registry, task, label, trimming=None, **changes):
        encoder = registry.encoder_card()
        spec = DecoderSpec(stage_channels=(2, 3), kernels=((3, 3, 3), (3, 3, 3)), convs_per_stage=(1, 1), num_organs=1)
        organ = Organ(
            name=OrganName(f"{task}_lesion"),
            label=label,
            side="none",
            group="other",
            color_rgb=(230, 180, 60),
            category=STRUCTURE,
            type=STRUCTURE,
        )
        dice = {"dice": 0.82, "hd95_mm": 4.1}
        card = TaskCard(
            task=TaskId(task),
            organs=(organ,),
            spec=spec,
            encoder_sha256=encoder.weights_sha256,
            training_cases=12,
            validation={
                "held_out": {"cases": 3, "mean": dice, "organs": {organ.name: dice}, "note": "Few cases."},
                **({"trimming": trimming} if trimming else {}),
            },
            license="CC-BY-4.0",
            provenance="12 abdominal CT of one hospital, drawn by one reader and checked by another.",
            created="2026-11-21",
            limits="Portal phase only.",
            **changes,
        )
        weights = self.folder / f"{task}.safetensors"
        weights.write_bytes(zeros(decoder_shapes(spec, encoder.spec)))
        return registry.publish(StagedTask(card=card, weights=weights))


def zeros(shapes):
    """A safetensors file written by hand: eight bytes of length, a JSON header, the numbers."""
    header, start = {}, 0
    for name, shape in sorted(shapes.items()):
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode("ascii")
    return len(text).to_bytes(8, "little") + text + bytes(start)


if __name__ == "__main__":
    unittest.main()
