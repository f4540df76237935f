"""The wizard *Add an organ* as a user meets it, on a back end that is played by files and ready answers."""

import unittest
from unittest import mock

import qt
import slicer
from WizardTesting import WizardTestCase

from WholeBodyCSSLib.Panels.WizardPanel import CASES, PUBLISH, RESULT
from WholeBodyCSSLib.RunWatcher import RunState


class WizardPanelTest(WizardTestCase):
    def test_openNamesAndErrorsStopAndAClickMendsWhatCanBeMended(self):
        panel = self.open()
        self.assertEqual(panel.step, CASES)
        self.assertFalse(panel.ui.nextButton.enabled)
        self.readCases()
        self.assertIn("say what Livr is", panel.ui.problemLabel.text)
        self.choose(1, "Liver")
        self.choose(2, "New organ: GTV")
        self.click(panel.cases.ui.checkButton)
        self.waitUntil(lambda: bool(self.logic.cases.rows[1].findings), "the check")
        self.assertFalse(panel.ui.nextButton.enabled)
        self.assertIn("0.12 voxels apart", panel.cases.ui.findingsBrowser.toPlainText())
        self.screenshot(panel.widget, "wizard-cases-error")
        self.click(panel.cases.ui.sameGridButton)
        self.click(panel.cases.ui.checkButton)
        self.waitUntil(lambda: panel.ui.nextButton.enabled, "a check without an error")
        self.assertEqual(panel.cases.ui.casesTable.item(3, 1).text(), "held out")
        self.assertIn("3 cases to learn from, 1 held out", panel.cases.ui.statusLabel.text)
        self.screenshot(panel.widget, "wizard-cases-good")
        self.assertIn("--same-grid", self.backEnd.commands[-1])
        organs = self.backEnd.commands[-1][self.backEnd.commands[-1].index("--organs") + 1]
        self.assertEqual(organs, "Kidney_L=kidney_left,Livr=liver,GTV=new:gtv")

    def test_aCaseWithoutItsCheckMarkIsLeftOut(self):
        self.open()
        self.checkCases()
        self.panel.cases.ui.casesTable.item(0, 0).setCheckState(qt.Qt.Unchecked)
        self.assertFalse(self.panel.ui.nextButton.enabled)
        self.click(self.panel.cases.ui.checkButton)
        self.assertEqual(self.backEnd.commands[-1][self.backEnd.commands[-1].index("--leave-out") + 1], "1")
        self.assertEqual(self.panel.cases.ui.casesTable.item(0, 1).text(), "left out")

    def test_aNewOrganGetsItsCodeFromTheCatalogueAndAKnownOneKeepsIts(self):
        self.open()
        self.checkCases()
        self.click(self.panel.ui.nextButton)
        ui = self.panel.organ.ui
        self.assertFalse(ui.searchBox.isVisible())
        self.assertIn("64033007", ui.codeLabel.text)
        ui.organSelector.setCurrentIndex(2)
        self.assertTrue(ui.searchBox.isVisible())
        ui.lesionRadio.checked = True
        ui.searchEdit.text = "10200004"
        ui.hitList.setCurrentRow(0)
        self.click(ui.takeCodeButton)
        self.assertEqual(ui.codeLabel.text, "Mass, SNOMED CT 4147007 in Liver, SNOMED CT 10200004")
        self.assertIn("license", self.panel.ui.problemLabel.text)
        self.screenshot(self.panel.widget, "wizard-organ")
        card = self.logic.draft.organCards()["gtv"]
        self.assertEqual((card["category"]["value"], card["region"]["value"]), ("49755003", "10200004"))

    def test_aLesionRunsOnRequestUnlessTheUserSaysOtherwise(self):
        self.open()
        self.describe()
        ui = self.panel.organ.ui
        ui.organSelector.setCurrentIndex(2)
        self.assertFalse(ui.onRequestCheck.checked)
        ui.lesionRadio.checked = True
        self.assertTrue(ui.onRequestCheck.checked)
        self.assertIn("--on-request", self.logic.draft.arguments())
        self.screenshot(self.panel.widget, "wizard-on-request")
        self.click(ui.onRequestCheck)
        self.assertNotIn("--on-request", self.logic.draft.arguments())
        ui.organRadio.checked = True
        ui.lesionRadio.checked = True
        self.assertFalse(ui.onRequestCheck.checked)

    def test_theCardMustNotNameAPatient(self):
        self.open()
        self.describe()
        self.assertTrue(self.panel.ui.nextButton.enabled)
        ui = self.panel.organ.ui
        ui.limitsEdit.text = "as for patient 1234567"
        self.assertIn("take 1234567 out of it", self.panel.ui.problemLabel.text)

    def test_theRunIsEstimatedFollowedPausedAndResumed(self):
        panel = self.open()
        self.describe()
        self.click(panel.ui.nextButton)
        self.waitUntil(lambda: panel.train.ui.startButton.enabled, "the estimate")
        self.assertIn("about 30 min for 1500 steps", panel.train.ui.timeLabel.text)
        self.screenshot(panel.widget, "wizard-train-estimate")
        self.click(panel.train.ui.startButton)
        self.assertIn("--no-publish", self.backEnd.commands[-1])
        self.backEnd.tell(0.42, "step 615 of 1500")
        self.waitUntil(lambda: panel.train.ui.progressBar.value == 42, "the progress")
        self.assertFalse(panel.ui.nextButton.enabled)
        self.click(panel.train.ui.pauseButton)
        self.assertTrue((self.logic.folder / "run" / "pause").exists())
        self.backEnd.write("state.json", {"state": "paused", "message": ""})
        self.backEnd.exitCode = 130
        self.waitUntil(lambda: panel.train.ui.resumeButton.isVisible(), "the pause")
        self.screenshot(panel.widget, "wizard-train-paused")
        self.click(panel.train.ui.resumeButton)
        self.assertEqual(self.logic.view.state, RunState.RUNNING)

    def test_aRunThatWasFoundGoesOnWithTheLimitItWasBegunWith(self):
        panel = self.open()
        self.describe()
        self.click(panel.ui.nextButton)
        panel.train.ui.minutesSpin.value = 7
        panel.train.ui.limitCheck.checked = True
        self.click(panel.train.ui.estimateButton)
        self.waitUntil(lambda: panel.train.ui.startButton.enabled, "the estimate")
        self.click(panel.train.ui.startButton)
        begun = self.backEnd.commands[-1]
        self.assertIn("7", begun)
        self.backEnd.write("state.json", {"state": "paused", "message": ""})
        panel.cleanup()
        panel = self.open()
        self.click(panel.train.ui.resumeButton)
        self.assertEqual(self.backEnd.commands[-1], begun)

    def test_aRunThatSlicerLeftIsFoundAgain(self):
        self.open()
        self.train()
        self.backEnd.finish()
        self.panel.cleanup()
        panel = self.open()
        self.assertEqual(panel.step, RESULT)
        self.assertIn("143 of 143 earlier organs unchanged, bit for bit", panel.result.ui.proofLabel.text)
        self.assertEqual(panel.result.ui.scoreTable.item(0, 2).text(), "0.631")
        self.screenshot(panel.widget, "wizard-result")
        panel.result.ui.scoreSelector.setCurrentIndex(1)
        self.assertEqual(panel.result.ui.scoreTable.rowCount, 2)

    def test_aFailedRunSaysWhyAndCanBeDiscarded(self):
        panel = self.open()
        self.train()
        self.backEnd.write("state.json", {"state": "failed", "message": "the loss is not finite"})
        self.backEnd.exitCode = 3
        self.waitUntil(lambda: "not finite" in panel.train.ui.statusLabel.text, "the reason")
        with mock.patch("slicer.util.confirmOkCancelDisplay", return_value=True):
            self.click(panel.train.ui.cancelButton)
        self.assertEqual(self.logic.view.state, RunState.NONE)
        self.assertFalse((self.logic.folder / "run").exists())
        self.assertTrue(panel.train.ui.startButton.isVisible())

    def test_whatIsPublishedCanBeShownInTasks(self):
        panel = self.open()
        self.train()
        self.backEnd.finish()
        self.waitUntil(lambda: panel.ui.nextButton.enabled, "the end of the run")
        self.click(panel.ui.nextButton)
        self.click(panel.ui.nextButton)
        self.assertEqual(panel.step, PUBLISH)
        self.assertFalse(panel.publish.ui.exportButton.enabled)
        self.assertIn("Ready to be published as gtv@1", panel.publish.ui.stateLabel.text)
        shown, published = [], []
        panel.onShowTasks, panel.onPublished = shown.append, lambda: published.append(1)
        self.click(panel.publish.ui.publishButton)
        self.assertNotIn("--no-publish", self.backEnd.commands[-1])
        self.backEnd.finish(published=True)
        self.waitUntil(lambda: panel.publish.ui.tasksButton.enabled, "the publication")
        self.click(panel.publish.ui.tasksButton)
        self.assertEqual((shown, published), (["gtv"], [1]))
        self.screenshot(panel.widget, "wizard-publish")
        self.assertTrue(panel.ui.againButton.isVisible())

    def test_closingTheSceneForgetsItsNodesAndNothingElse(self):
        panel = self.open()
        volumeNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
        segmentationNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Drawn")
        panel.cases.ui.volumeSelector.setCurrentNode(volumeNode)
        panel.cases.ui.segmentationSelector.setCurrentNode(segmentationNode)
        self.click(panel.cases.ui.addPairButton)
        self.assertEqual(panel.cases.ui.pairList.count, 1)
        self.screenshot(panel.widget, "wizard-cases-scene")
        panel.onSceneClosing()
        slicer.mrmlScene.Clear()
        self.assertEqual(panel.cases.ui.pairList.count, 0)
        self.assertFalse(panel.cases.ui.readButton.enabled)


if __name__ == "__main__":
    unittest.main()
