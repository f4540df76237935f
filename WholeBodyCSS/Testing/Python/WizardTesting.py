"""What tests of the wizard need: a back end that is played by files and ready answers, and a user in a hurry."""

import json
import tempfile
from pathlib import Path
from unittest import mock

import qt
import slicer
from WidgetTesting import WidgetTestCase

from WholeBodyCSSLib.EnrollLogic import EnrollLogic
from WholeBodyCSSLib.EnrollScene import EnrollScene
from WholeBodyCSSLib.Panels.WizardPanel import WizardPanel
from WholeBodyCSSLib.Settings import Settings
from WholeBodyCSSLib.TrainProcess import OUTPUT, JobEnd

TITLES = ["ct_a.nii.gz", "ct_b.nii.gz", "ct_c.nii.gz", "ct_d.nii.gz"]
NAMES = {
    "format": "wbcss-case-names",
    "cases": TITLES,
    "names": [
        {"name": "Kidney_L", "cases": 4, "organ": "kidney_left", "near": [], "new": False},
        {"name": "Livr", "cases": 1, "organ": None, "near": ["liver", "spleen"], "new": False},
        {"name": "GTV", "cases": 4, "organ": None, "near": [], "new": False},
    ],
}
SHIFTED = "image and labels of a case must share a grid, got corners 0.12 voxels apart (the labels)"
PIECES = "liver should be in one piece, got 14 pieces, the largest with 61% of its voxels; check for strayed voxels"
SHARES = {
    "errors": [{"kind": "labels_shifted", "case": 2, "organ": None, "message": SHIFTED}],
    "warnings": [{"kind": "organ_in_pieces", "case": 3, "organ": "liver", "message": PIECES}],
}
REPORT = {
    "task": "gtv@1",
    "published": False,
    "unchanged": ["wholebody@1", "headneck@2"],
    "unchanged_organs": 143,
    "validation": {
        "cases": 2,
        "note": "2 held-out cases only: the intervals are rough and probably too narrow",
        "organs": {
            "kidney_left": {
                "count": 2, "dice": 0.912, "hd95_mm": 3.4, "surface_dice": 0.944, "dice_ci95": [0.89, 0.93]
            },
            "gtv": {"count": 1, "dice": 0.631, "hd95_mm": 11.2, "surface_dice": 0.58, "dice_ci95": None},
        },
        "scores": [
            {"number": 1, "organs": {"kidney_left": {"dice": 0.93, "hd95_mm": 2.9, "surface_dice": 0.95}}},
            {"number": 2, "organs": {"gtv": {"dice": 0.631, "hd95_mm": 11.2, "surface_dice": 0.58}}},
        ],
    },
}  # fmt: skip


class ReadyJob:
    """A job that has ended before anybody asks."""

    progress = (1.0, "done")

    def __init__(self, end):
        self.end = end

    def poll(self):
        return self.end

    def cancel(self):
        self.end = JobEnd(exitCode=130)


class BackEnd:
    """Answers commands; grids differ until the user has joined them; ``canTrim`` with enough held-out cases."""

    def __init__(self):
        self.commands = []
        self.exitCode = None
        self.canTrim = False

    def job(self, arguments):
        self.commands.append(list(arguments))
        if "--names" in arguments:
            return ReadyJob(JobEnd(exitCode=0, lines=(NAMES,)))
        if "--dry-run" in arguments:
            stages = {"encode": 190.0, "train": 1460.0, "validate": 130.0}
            if self.canTrim and "--no-trim" not in arguments:
                stages["trim"] = 1440.0
            facts = {"estimate_s": stages, "steps": 1500, "disk_bytes": 3 << 30, "memory_bytes": 5 << 30}
            return ReadyJob(JobEnd(exitCode=0, lines=(facts,)))
        report = {"format": "wbcss-case-check", "errors": [], "warnings": []}
        if "--same-grid" not in arguments:
            report |= SHARES
        roles = {"cases": [{"title": t, "held_out": n == 3} for n, t in enumerate(TITLES)]}
        return ReadyJob(JobEnd(exitCode=2 if report["errors"] else 0, lines=(roles, report)))

    def run(self, arguments, folder):
        self.commands.append(list(arguments))
        self.folder = folder
        self.exitCode = None
        return self

    def kill(self):
        self.exitCode = -9

    def tell(self, fraction, stage):
        with (self.folder / OUTPUT).open("a") as file:
            file.write(json.dumps({"fraction": fraction, "stage": stage}) + "\n")

    def write(self, name, values):
        path = self.folder / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    def finish(self, **changes):
        """What a run leaves that has passed its proof."""
        self.write("report.json", {**REPORT, **changes})
        self.write("validation.json", {"overlays": ["case_2.png"]})
        (self.folder / "run" / "overlays").mkdir(exist_ok=True)
        picture = qt.QPixmap(720, 300)
        picture.fill(qt.QColor(60, 70, 80))
        picture.save(str(self.folder / "run" / "overlays" / "case_2.png"))
        self.write("state.json", {"state": "finished", "message": ""})
        self.exitCode = 0


class WizardTestCase(WidgetTestCase):
    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.backEnd = BackEnd()
        self.settings = Settings()

    def open(self):
        """A wizard of its own, as after a start of Slicer."""
        logic = EnrollLogic(
            self.settings,
            registry=lambda: self.folder / "registry",
            base=lambda: self.folder / "work",
            jobs=self.backEnd.job,
            runs=self.backEnd.run,
        )
        panel = WizardPanel(
            slicer.util.loadUI, logic, EnrollScene(mock.Mock()), tasks=lambda: ("wholebody", "headneck")
        )
        self.addCleanup(panel.cleanup)
        self.show(panel.widget)
        panel.enter()
        self.logic, self.panel = logic, panel
        return panel

    def readCases(self):
        ui = self.panel.cases.ui
        ui.sourceSelector.setCurrentIndex(1)
        ui.casesPathEdit.currentPath = str(self.folder)
        self.click(ui.readButton)
        self.waitUntil(lambda: bool(self.logic.cases.rows), "the names to be read")

    def choose(self, row, text):
        combo = self.panel.cases.ui.namesTable.cellWidget(row, 2)
        texts = [combo.itemText(index) for index in range(combo.count)]
        combo.setCurrentIndex(texts.index(text))

    def checkCases(self):
        """To the end of the first step."""
        self.readCases()
        self.choose(1, "Liver")
        self.choose(2, "New organ: GTV")
        self.click(self.panel.cases.ui.checkButton)
        self.waitUntil(lambda: bool(self.logic.cases.rows[1].findings), "the check")
        self.click(self.panel.cases.ui.sameGridButton)
        self.click(self.panel.cases.ui.checkButton)
        self.waitUntil(lambda: self.panel.ui.nextButton.enabled, "a check without an error")

    def describe(self):
        """To the end of the second step."""
        self.checkCases()
        self.click(self.panel.ui.nextButton)
        ui = self.panel.organ.ui
        ui.licenseSelector.setEditText("CC-BY-4.0")
        ui.provenanceEdit.text = "12 abdominal CT of our clinic"

    def train(self):
        """To a run that works."""
        self.describe()
        self.click(self.panel.ui.nextButton)
        self.waitUntil(lambda: self.panel.train.ui.startButton.enabled, "the estimate")
        self.click(self.panel.train.ui.startButton)

    def estimated(self):
        """The page *Train* with an estimate of what is chosen now."""
        ui = self.panel.train.ui
        if ui.estimateButton.enabled and not ui.startButton.enabled:
            self.click(ui.estimateButton)
        self.waitUntil(lambda: ui.startButton.enabled, "the estimate")
        return ui

    def finished(self, **report):
        """The page *Result* of a run with this in its report."""
        self.open()
        self.train()
        self.backEnd.finish(**report)
        self.panel.cleanup()
        return self.open().result.ui
