"""The page in the application settings: what is chosen is kept, what was kept is shown."""

import unittest
from pathlib import Path

import qt
import slicer
from WidgetTesting import WidgetTestCase

from WholeBodyCSSLib.Panels.SettingsPanel import TITLE, SettingsPanel
from WholeBodyCSSLib.RegistryPlaces import RegistryPlaces
from WholeBodyCSSLib.Settings import Settings


class SettingsPanelTest(WidgetTestCase):
    def setUp(self):
        super().setUp()
        self.settings = Settings(qt.QSettings())

    def test_whatIsChosenIsKeptInTheSettingsOfSlicer(self):
        panel = self.open()
        panel.ui.deviceSelector.setCurrentIndex(panel.ui.deviceSelector.findData("cpu"))
        panel.ui.qualitySelector.setCurrentIndex(panel.ui.qualitySelector.findData("best"))
        panel.ui.show3DCheckBox.checked = False
        panel.ui.keepWarmCheckBox.checked = False
        panel.ui.registryFolderEdit.currentPath = "/data/Träger"
        panel.ui.caseFolderEdit.currentPath = "/data/cases"
        kept = Settings(qt.QSettings())
        self.assertEqual((kept.device, kept.quality), ("cpu", "best"))
        self.assertEqual((kept.show3D, kept.keepWorkerWarm), (False, False))
        self.assertEqual((kept.registryFolder, kept.caseFolder), ("/data/Träger", "/data/cases"))
        self.assertEqual(panel.ui.registryFolderHint.text, f"Made when it is first needed: {Path('/data/Träger')}")
        self.screenshot(panel.widget, "settings")

    def test_whatWasKeptIsShownAndOpeningChangesNothing(self):
        self.settings.device, self.settings.quality, self.settings.show3D = "cuda:1", "fast", False
        panel = self.open()
        self.assertEqual(panel.ui.deviceSelector.currentText, "cuda:1")
        self.assertEqual(panel.ui.qualitySelector.currentText, "Fast")
        self.assertFalse(panel.ui.show3DCheckBox.checked)
        self.assertEqual(self.settings.device, "cuda:1")
        self.settings.device = "auto"
        panel.refresh()
        self.assertEqual(panel.ui.deviceSelector.currentText, "Automatic")

    def test_thePageIsInTheDialogOfSlicer(self):
        panel = self.open()
        panel.addToDialog()
        self.assertIsNotNone(slicer.app.settingsDialog().panel(TITLE))

    def open(self):
        places = RegistryPlaces(self.settings, lambda: Path("/nowhere/registry"))
        panel = SettingsPanel(slicer.util.loadUI, self.settings, places)
        self.show(panel.widget, 540, 330)
        return panel


if __name__ == "__main__":
    unittest.main()
