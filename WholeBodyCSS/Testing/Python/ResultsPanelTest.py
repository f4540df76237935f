"""The page Results with the real worker: the table, the jump, the eye, the editor, the kept case."""

import unittest
from unittest import mock

import numpy as np
import qt
import slicer
from SegmentTesting import PATIENCE_S, SegmentTestCase

from wbcss.protocol import OrganCheck
from WholeBodyCSSLib.CheckText import checkTexts
from WholeBodyCSSLib.ResultTable import ResultRow

TRUNK = (
    ("spleen", "Spleen", (134, 76, 116), 212.4, 101.0, 0.94),
    ("kidney_right", "Right kidney", (185, 102, 83), 168.2, 142.0, 0.95),
    ("kidney_left", "Left kidney", (185, 102, 83), 171.9, 139.0, 0.95),
    ("gallbladder", "Gallbladder", (139, 150, 98), 31.0, 12.0, 0.58, "low_confidence"),
    ("liver", "Liver", (221, 130, 101), 1543.8, 98.0, 0.97, "touches_border"),
    ("stomach", "Stomach", (216, 132, 105), 402.7, 21.0, 0.88),
    ("pancreas", "Pancreas", (249, 180, 111), 79.5, 84.0, 0.81),
    ("colon", "Colon", (204, 168, 143), 611.3, -87.0, 0.72, "touches_border", "several_pieces", "volume_unusual"),
    ("aorta", "Aorta", (224, 97, 76), 148.6, 196.0, 0.93),
    ("inferior_vena_cava", "Inferior vena cava", (0, 151, 206), 92.4, 118.0, 0.86),
    ("lung_left", "Left lung", (172, 138, 115), 1804.2, -812.0, 0.98, "expected_size"),
    ("vertebrae_L3", "L3 vertebra", (212, 188, 102), 58.1, 221.0, 0.9),
)
"""Organ, name, color, ml, HU, confidence and flags as a contrast CT of a trunk may have them."""

MEASURED = {
    "several_pieces": "lies in 2 large pieces, the place is that of the second largest",
    "volume_unusual": "has 611.3 ml, where 720.4 to 1310.9 ml are usual",
}


class ResultsPanelTest(SegmentTestCase):
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
        self.assertEqual(ui.reasonList.count, len(row.checks))
        self.assertIn("low_confidence", row.reasons)  # of a network that never learned anything
        place = row.checks[row.reasons.index("low_confidence")].place_ras_mm
        ui.reasonList.setCurrentRow(row.reasons.index("low_confidence"))
        np.testing.assert_allclose(self.places(), [place, place], atol=1e-3)
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

    def showTrunk(self):
        """A result with the organs of ``TRUNK``; flag ``f`` of organ ``n`` has its place at R 10 n, A 5 f + 5, S 0."""
        node = self.volume("Abdomen CT")
        result = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Abdomen CT organs")
        result.CreateDefaultDisplayNodes()
        rows = []
        for number, (organ, name, color, volume_ml, mean_hu, confidence, *flags) in enumerate(TRUNK):
            segment = slicer.vtkSegment()
            segment.SetName(name)
            segment.SetColor(*(channel / 255 for channel in color))
            result.GetSegmentation().AddSegment(segment, organ)
            rows.append(
                ResultRow(
                    organ=organ,
                    name=name,
                    volume_ml=volume_ml,
                    mean_hu=mean_hu,
                    sd_hu=10.0 + number,
                    confidence=confidence,
                    center_ras_mm=(10.0 * number, 0.0, 0.0),
                    checks=tuple(
                        OrganCheck(
                            flag=flag, reason=MEASURED.get(flag, ""), place_ras_mm=(10.0 * number, 5.0 * f + 5.0, 0.0)
                        )
                        for f, flag in enumerate(flags)
                    ),
                )
            )
        self.module.logic.results.remember(result, node, rows, True)
        self.module.pages.results.showResult(result)
        self.module.ui.pages.setCurrentWidget(self.module.pages.results.widget)
        return self.module.pages.results.ui

    def places(self):
        """Where the red slice view and the crosshair are."""
        red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        return tuple(red.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)), crosshair.GetCrosshairRAS()

    def test_everyReasonOfAnOrganIsASentenceAndLeadsToItsPlace(self):
        ui = self.showTrunk()
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        self.addCleanup(crosshair.SetCrosshairMode, crosshair.GetCrosshairMode())
        crosshair.SetCrosshairMode(slicer.vtkMRMLCrosshairNode.NoCrosshair)
        names = [ui.organTable.item(number, 1).text() for number in range(ui.organTable.rowCount)]
        colon = names.index("Colon")  # wherever the order of an earlier case has put it
        ui.organTable.selectRow(colon)
        flags, reasons = TRUNK[7][6:], ui.reasonList
        self.assertEqual(reasons.count, len(flags))
        self.assertTrue(reasons.isVisible())
        for number, flag in enumerate(flags):
            text, words = reasons.item(number).text(), checkTexts()[flag]
            self.assertTrue(text.endswith(words.advice), text)
            self.assertTrue(text.lower().startswith(MEASURED.get(flag, words.fact.lower())), text)
        reasons.setCurrentRow(2)
        self.assertEqual(self.places(), ((70.0, 15.0, 0.0),) * 2)
        self.assertEqual(crosshair.GetCrosshairMode(), slicer.vtkMRMLCrosshairNode.ShowBasic)
        self.screenshot(self.module.parent, "results-reasons")
        reasons.setCurrentRow(1)
        self.assertEqual(self.places(), ((70.0, 10.0, 0.0),) * 2)
        self.module.pages.results._onCell(colon, 1)  # the organ itself
        self.assertEqual(self.places(), ((70.0, 0.0, 0.0),) * 2)
        self.module.pages.results._onCell(colon, 6)  # its first reason, in the table
        self.assertEqual(self.places(), ((70.0, 5.0, 0.0),) * 2)
        ui.organTable.selectRow(names.index("Spleen"))
        self.assertFalse(reasons.isVisible())

    def test_aWholeTrunkIsSortedAndFiltered(self):
        ui = self.showTrunk()
        self.assertEqual(ui.organTable.rowCount, len(TRUNK))
        ui.organTable.selectRow(3)
        self.screenshot(self.module.parent, "results-trunk")
        self.module.pages.results._table.sort("volume_ml", True)
        self.module.pages.results._show()
        self.assertEqual(ui.organTable.item(0, 1).text(), "Left lung")
        ui.checkBox.checked = True
        self.assertEqual(ui.organTable.rowCount, sum(len(row) > 6 for row in TRUNK))
        ui.checkBox.checked = False
        ui.filterEdit.text = "left"
        shown = {ui.organTable.item(number, 1).text() for number in range(ui.organTable.rowCount)}
        self.assertEqual(shown, {"Left kidney", "Left lung"})
        ui.filterEdit.text = ""
        self.assertEqual(ui.organTable.item(0, 6).toolTip(), "Expected size")

    def test_everyVolumeHasItsResultAndTheSceneKeepsIt(self):
        first, firstResult = self.segmented("first")
        _second, secondResult = self.segmented("second")
        selector = self.module.pages.results.ui.resultSelector
        self.assertIs(selector.currentNode(), secondResult)
        self.choose(first)
        self.assertIs(selector.currentNode(), firstResult)
        self.assertRegex(self.ui.resultLabel.text, "first organs, organs: ")
        rows = self.module.logic.results.rows(firstResult)
        path = self.folder / "scene.mrml"
        slicer.mrmlScene.Commit(str(path))
        slicer.mrmlScene.Clear()
        self.assertIsNone(selector.currentNode())
        slicer.mrmlScene.SetURL(str(path))
        slicer.mrmlScene.Import()
        slicer.app.processEvents()
        self.assertEqual(self.ui.inputSelector.currentNode().GetName(), "first")
        loaded = self.module.logic.results.resultOf(self.ui.inputSelector.currentNode())
        self.assertEqual(loaded.GetName(), firstResult.GetName())
        self.assertGreater(len(rows), 0)

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


if __name__ == "__main__":
    unittest.main()
