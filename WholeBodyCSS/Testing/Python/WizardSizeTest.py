"""The size of a new decoder in the wizard: chosen and estimated before the training, told after it."""

import unittest

from WizardTesting import WizardTestCase

TRIMMING = {
    "full": {"parameters": 1_620_300, "macs": 52_000_000_000, "mean": {"dice": 0.772}, "organs": {}},
    "kept": {"parameters": 213_480, "macs": 6_760_000_000, "mean": {"dice": 0.7698}, "organs": {}},
    "steps": [{"accepted": True}],
    "tolerance": 0.005,
    "budget": 0.15,
}
"""What the back end reports of a trimming, without the specs."""


class WizardSizeTest(WizardTestCase):
    def test_theSizeOfTheDecoderIsChosenInWordsAndEstimatedWithTheRest(self):
        self.backEnd.canTrim = True
        panel = self.open()
        self.describe()
        self.click(panel.ui.nextButton)
        ui = self.estimated()
        self.assertEqual(ui.sizeSelector.currentText, "Small and fast (15% of the arithmetic)")
        command = self.backEnd.commands[-1]
        self.assertEqual(command[command.index("--trim-budget") + 1], "0.15")
        self.assertIn("about 54 min for 1500 steps", ui.timeLabel.text)
        self.assertIn("making it smaller 24 min", ui.timeLabel.text)
        self.screenshot(panel.widget, "wizard-train-size")
        ui.sizeSelector.setCurrentIndex(1)
        self.assertFalse(ui.startButton.enabled)  # the estimate was of something else
        self.estimated()
        command = self.backEnd.commands[-1]
        self.assertEqual(command[command.index("--trim-budget") + 1], "0.4")
        ui.sizeSelector.setCurrentIndex(2)
        self.estimated()
        self.assertNotIn("--trim-budget", self.backEnd.commands[-1])
        self.assertIn("--no-trim", self.backEnd.commands[-1])
        self.assertIn("about 30 min", ui.timeLabel.text)
        self.assertFalse(ui.sizeNote.isVisible())

    def test_tooFewHeldOutCasesForASmallDecoderAreToldBeforeTheRun(self):
        panel = self.open()
        self.describe()
        self.click(panel.ui.nextButton)
        ui = self.estimated()
        self.assertTrue(ui.sizeNote.isVisible())
        self.assertIn("too few held-out cases", ui.sizeNote.text)
        self.screenshot(panel.widget, "wizard-train-size-note")
        ui.sizeSelector.setCurrentIndex(2)
        self.estimated()
        self.assertFalse(ui.sizeNote.isVisible())

    def test_theSizeThatWasChosenIsStillThereAfterSlicerWasClosed(self):
        for place, words in enumerate((["--trim-budget", "0.15"], ["--trim-budget", "0.4"], ["--no-trim"])):
            with self.subTest(words):
                panel = self.open()
                self.describe()
                self.click(panel.ui.nextButton)
                panel.train.ui.sizeSelector.setCurrentIndex(place)
                self.click(self.estimated().startButton)
                begun = self.backEnd.commands[-1]
                self.assertIn(" ".join(words), " ".join(begun))
                self.backEnd.write("state.json", {"state": "paused", "message": ""})
                panel.cleanup()
                panel = self.open()
                self.assertEqual(panel.train.ui.sizeSelector.currentIndex, place)
                self.click(panel.train.ui.resumeButton)
                self.assertEqual(self.backEnd.commands[-1], begun)
                self.backEnd.write("state.json", {"state": "failed", "message": "enough"})
                self.backEnd.exitCode = 3
                self.logic.poll()
                self.logic.discard()
                panel.cleanup()

    def test_theResultSaysHowSmallAndFastTheDecoderIs(self):
        ui = self.finished(trimming=TRIMMING)
        for words in (
            "0.21 million parameters (full: 1.62 million)",
            "13% of the arithmetic",
            "Dice 0.770 (full: 0.772)",
        ):
            self.assertIn(words, ui.sizeLabel.text)
        self.assertTrue(ui.sizeIcon.isVisible())
        self.screenshot(self.panel.widget, "wizard-result-size")

    def test_theResultSaysThatNothingSmallerWasGoodEnough(self):
        ui = self.finished(trimming={**TRIMMING, "kept": TRIMMING["full"]})
        self.assertIn("nothing smaller was as good in the held-out cases", ui.sizeLabel.text)
        self.assertIn("1.62 million parameters", ui.sizeLabel.text)
        self.screenshot(self.panel.widget, "wizard-result-full")

    def test_theResultSaysWhyItCouldNotBeMadeSmaller(self):
        ui = self.finished(trimming={}, untrimmed="at least 3 held-out case(s) are needed, got 1")
        self.assertEqual(
            ui.sizeLabel.text,
            "The decoder keeps its full size: at least 3 held-out case(s) are needed, got 1.",
        )


if __name__ == "__main__":
    unittest.main()
