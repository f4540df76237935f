"""Task packages dropped onto Slicer's window: taken alone, left to others in mixed company."""

import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import qt
import slicer
from WidgetTesting import WidgetTestCase

from WholeBodyCSSLib.Panels.PackageDrop import WholeBodyCSSFileDialog


class PackageDropTest(WidgetTestCase):
    def setUp(self):
        super().setUp()
        self.mimeData = qt.QMimeData()
        self.accepted = []
        parent = SimpleNamespace(mimeData=lambda: self.mimeData, acceptMimeData=self.accepted.append)
        self.dialog = WholeBodyCSSFileDialog(parent)
        self.assertEqual(parent.action, slicer.qSlicerFileDialog.Read)

    def test_packagesAreHandedToTheModule(self):
        paths = [Path("/tmp/Jörg/liver-1.wbtask").absolute(), Path("/tmp/spleen-2.WBTASK").absolute()]
        imported = []
        widget = SimpleNamespace(importPackage=imported.append)
        with patch("slicer.util.selectModule"), patch("slicer.util.getModuleWidget", return_value=widget):
            self.drop(paths)
            self.waitUntil(lambda: imported, "the import")
        self.assertEqual(imported, paths)

    def test_otherFilesAreLeftToOtherModules(self):
        self.drop([Path("/tmp/ct.nrrd")])
        self.drop([Path("/tmp/liver-1.wbtask"), Path("/tmp/ct.nrrd")])
        self.mimeData = qt.QMimeData()
        self.mimeData.setText("liver-1.wbtask")
        self.dialog.isMimeDataAccepted()
        self.assertEqual(self.accepted, [False, False, False])

    def drop(self, paths):
        self.mimeData = qt.QMimeData()
        self.mimeData.setUrls([qt.QUrl.fromLocalFile(str(path)) for path in paths])
        self.dialog.isMimeDataAccepted()
        if self.accepted[-1]:
            self.dialog.dropEvent()


if __name__ == "__main__":
    unittest.main()
