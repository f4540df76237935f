"""The wizard from the first click to the exported file, with the real back end: a script for one of the widget hosts.

Arguments: registry, base of work folders, ``.wbtask`` file to write, JSON file to report into. Slicer is "closed" in
the middle of the training: the panel is cleaned up and another one finds the run.
"""

from __future__ import annotations

import json
import sys
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import slicer
import tiny_cases
import tiny_enrollment
from vtk.util.numpy_support import numpy_to_vtk
from WidgetTesting import WidgetTestCase

from WholeBodyCSSLib.CaseExport import CaseExport
from WholeBodyCSSLib.EnrollLogic import EnrollLogic
from WholeBodyCSSLib.EnrollScene import EnrollScene
from WholeBodyCSSLib.OrganSegments import LABELMAP
from WholeBodyCSSLib.Panels.WizardPanel import ORGAN, PUBLISH, RESULT, TRAIN, WizardPanel
from WholeBodyCSSLib.RunWatcher import RunState
from WholeBodyCSSLib.SceneGeometry import matrixOf
from WholeBodyCSSLib.Settings import Settings

LONG_S = 900.0
REGISTRY, BASE, PACKAGE, REPORT = map(Path, sys.argv[1:5])


def addCase(number: int) -> tuple[Any, Any]:
    """A scan with its liver drawn as "Lump" and its left kidney misspelt, in the scene."""
    labels = tiny_cases.labels()
    hu = tiny_cases.hu(number) + tiny_enrollment.CONTRAST[labels]
    affine = tiny_cases.AFFINE
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", f"Smith^John {number}")
    slicer.util.updateVolumeFromArray(volume, np.ascontiguousarray(hu.T))
    volume.SetIJKToRASMatrix(matrixOf(affine))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"drawn {number}")
    node.GetSegmentation().SetSourceRepresentationName(LABELMAP)
    for name, value in (("Lump", 3), ("Kidny left", 1)):
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(*labels.shape)
        mask = np.ascontiguousarray((labels == value).astype(np.uint8).T).ravel()
        image.GetPointData().SetScalars(numpy_to_vtk(mask, deep=True))
        image.SetImageToWorldMatrix(matrixOf(affine))
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.SetLabelValue(1)
        segment.AddRepresentation(LABELMAP, image)
        node.GetSegmentation().AddSegment(segment)
    return volume, node


class WizardEndToEnd(WidgetTestCase):
    def open(self) -> WizardPanel:
        self.logic = EnrollLogic(self.settings, registry=lambda: REGISTRY, base=lambda: BASE)
        panel = WizardPanel(slicer.util.loadUI, self.logic, EnrollScene(CaseExport()), tasks=lambda: ("spine",))
        self.show(panel.widget, width=520, height=860)
        panel.enter()
        return panel

    def runTest(self) -> None:
        self.settings = Settings()
        self.settings.device = "cpu"
        panel = self.open()
        self.chooseCases(panel)
        self.describe(panel)
        panel = self.train(panel)
        self.publish(panel)

    def chooseCases(self, panel: WizardPanel) -> None:
        ui = panel.cases.ui
        for number in range(3):
            volume, segmentation = addCase(number)
            ui.volumeSelector.setCurrentNode(volume)
            ui.segmentationSelector.setCurrentNode(segmentation)
            self.click(ui.addPairButton)
        self.screenshot(panel.widget, "enroll-1-scene")
        self.click(ui.readButton)
        self.waitUntil(lambda: bool(self.logic.cases.names), "the names", LONG_S)
        rows = [row.name for row in self.logic.cases.names]
        for name, text in (("lump", "New organ: lump"), ("kidny_left", "Left kidney")):
            combo = ui.namesTable.cellWidget(rows.index(name), 2)
            texts = [combo.itemText(index) for index in range(combo.count)]
            combo.setCurrentIndex(texts.index(text))
        self.click(ui.checkButton)
        self.waitUntil(lambda: panel.ui.nextButton.enabled, "the check", LONG_S)
        self.screenshot(panel.widget, "enroll-1-cases")
        assert "2 cases to learn from, 1 held out" in ui.statusLabel.text
        self.click(panel.ui.nextButton)

    def describe(self, panel: WizardPanel) -> None:
        assert panel.step == ORGAN
        ui = panel.organ.ui
        names = [draft.name for draft in self.logic.draft.organs]
        ui.organSelector.setCurrentIndex(names.index("lump"))
        ui.titleEdit.text = "Lump of the liver"
        ui.titleEdit.textEdited.emit("Lump of the liver")
        ui.lesionRadio.checked = True
        ui.searchEdit.text = "liver"
        ui.hitList.setCurrentRow(0)
        self.click(ui.takeCodeButton)
        ui.taskEdit.text = "lump"
        ui.licenseSelector.setEditText("CC0-1.0")
        ui.provenanceEdit.text = "three tiny bodies of a test"
        ui.limitsEdit.text = "knows blocks only"
        self.screenshot(panel.widget, "enroll-2-organ")
        self.click(panel.ui.nextButton)

    def train(self, panel: WizardPanel) -> WizardPanel:
        assert panel.step == TRAIN
        ui = panel.train.ui
        self.waitUntil(lambda: ui.startButton.enabled, "the estimate", LONG_S)
        self.screenshot(panel.widget, "enroll-3-estimate")
        self.click(ui.startButton)
        self.waitUntil(lambda: self.logic.view.step > 0, "the first steps", LONG_S)
        panel.cleanup()  # Slicer is closed, and the run goes on
        panel = self.open()
        assert panel.step == TRAIN
        ui = panel.train.ui
        self.waitUntil(lambda: self.logic.view.state == RunState.RUNNING, "the run to be found", LONG_S)
        self.waitUntil(lambda: self.logic.watcher.curves is not None, "a curve", LONG_S)
        self.waitUntil(lambda: ui.progressBar.value >= 36, "a third of it", LONG_S)
        self.screenshot(panel.widget, "enroll-3-running")
        self.click(ui.pauseButton)
        self.waitUntil(lambda: self.logic.view.state == RunState.PAUSED, "the pause", LONG_S)
        self.screenshot(panel.widget, "enroll-3-paused")
        self.click(ui.resumeButton)
        self.waitUntil(lambda: not self.logic.view.isWorking, "the end of the training", LONG_S)
        assert self.logic.view.isEnded, self.logic.view.message
        self.waitUntil(lambda: panel.ui.nextButton.enabled, "the way to the result")
        self.screenshot(panel.widget, "enroll-3-done")
        self.click(panel.ui.nextButton)
        return panel

    def publish(self, panel: WizardPanel) -> None:
        assert panel.step == RESULT
        slicer.app.processEvents()
        panel.result.poll()
        assert "1 of 1 earlier organs unchanged, bit for bit" in panel.result.ui.proofLabel.text
        assert panel.result.ui.overlayBox.isVisible()
        self.screenshot(panel.widget, "enroll-4-result")
        self.click(panel.ui.nextButton)
        assert panel.step == PUBLISH
        ui = panel.publish.ui
        assert "Ready to be published as lump@1" in ui.stateLabel.text
        published: list[int] = []
        panel.onPublished = lambda: published.append(1)
        self.screenshot(panel.widget, "enroll-5-ready")
        self.click(ui.publishButton)
        self.waitUntil(lambda: not self.logic.view.isWorking, "the publication", LONG_S)
        assert self.logic.view.state == RunState.PUBLISHED, self.logic.view.message
        self.waitUntil(lambda: ui.exportButton.enabled, "the button to export")
        assert published == [1]
        with mock.patch("qt.QFileDialog.getSaveFileName", return_value=str(PACKAGE)):
            self.click(ui.exportButton)
        self.waitUntil(lambda: self.logic.exported is not None, "the file", LONG_S)
        slicer.app.processEvents()
        panel.publish.poll()
        self.screenshot(panel.widget, "enroll-5-published")
        report = self.logic.watcher.report
        REPORT.write_text(json.dumps({"report": report, "folder": str(self.logic.folder)}))
        panel.cleanup()


if __name__ == "__main__":
    outcome = unittest.TextTestRunner().run(WizardEndToEnd())
    sys.exit(not outcome.wasSuccessful())
