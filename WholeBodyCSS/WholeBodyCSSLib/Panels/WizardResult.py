"""Step 4 of *Add an organ*: how well the organ is found, the worst cases, and the proof that nothing old changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt

from ..DecoderSize import decoderSize, outcomeSentence
from ..EnrollLogic import EnrollLogic
from ..EnrollResult import OrganScore, caseScores, organScores, proofText
from ..Translation import _
from .PanelParts import UiLoader, loadPanel
from .StatusIcons import showIcon

_BY_ORGAN = 0


class WizardResult:
    """Shows the report of the run."""

    def __init__(self, uiLoader: UiLoader, logic: EnrollLogic) -> None:
        self._logic = logic
        self._shown = 0
        self._overlays: tuple[Path, ...] = ()
        self._drawn: tuple[Path, int, int] | None = None
        self.widget, self.ui = loadPanel(uiLoader, "WizardResult")
        self.ui.scoreSelector.connect("currentIndexChanged(int)", lambda _index: self.showScores())
        self.ui.previousButton.connect("clicked(bool)", lambda _checked: self._turn(-1))
        self.ui.followingButton.connect("clicked(bool)", lambda _checked: self._turn(1))
        header = self.ui.scoreTable.horizontalHeader()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)

    # Life of the step

    def enter(self) -> None:
        """Read what the run has left."""
        self._overlays = () if self._logic.watcher is None else self._logic.watcher.overlays
        self._shown = 0
        self.showProof()
        self.showSize()
        self.showScores()
        self.showOverlay()

    def leave(self) -> None:
        """Nothing is decided here."""

    def poll(self) -> None:
        """A picture follows the width of the panel."""
        self.showOverlay()

    def problem(self) -> str:
        """Whoever has seen the result may go on."""
        return ""

    # What is shown

    def showProof(self) -> None:
        """What law 1 says of this run."""
        text = proofText(self._report)
        self.ui.proofLabel.text = text
        showIcon(self.ui.proofIcon, "good" if text else "")

    def showSize(self) -> None:
        """How small and fast the decoder is, or why it is not smaller."""
        size = decoderSize(self._report.get("trimming"))
        text = outcomeSentence(self._report, self._logic.trimBudget)
        isSmaller = size is not None and size.isSmaller
        self.ui.sizeLabel.text = text
        showIcon(self.ui.sizeIcon, "" if not text else "good" if isSmaller else "note")

    def showScores(self) -> None:
        """The table, by organ or by case."""
        isByOrgan = self.ui.scoreSelector.currentIndex == _BY_ORGAN
        rows = organScores(self._report) if isByOrgan else caseScores(self._report)
        table = self.ui.scoreTable
        table.horizontalHeaderItem(1).setText(_("Cases") if isByOrgan else _("Case"))
        table.setColumnHidden(3, not isByOrgan)
        table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, text in enumerate(_cells(row, self._title(row.organ))):
                table.setItem(number, column, qt.QTableWidgetItem(text))
        note = str(self._report.get("validation", {}).get("note", ""))
        self.ui.scoreNote.text = note[:1].upper() + note[1:]

    def showOverlay(self) -> None:
        """The picture of one of the worst cases."""
        self.ui.overlayBox.visible = bool(self._overlays)
        if not self._overlays:
            return
        size = self.ui.overlayLabel.size
        stamp = (self._overlays[self._shown], size.width(), size.height())
        if stamp == self._drawn:
            return
        self._drawn = stamp
        picture = qt.QPixmap(str(self._overlays[self._shown]))
        self.ui.overlayLabel.setPixmap(picture.scaled(size, qt.Qt.KeepAspectRatio, qt.Qt.SmoothTransformation))
        self.ui.overlayTitle.text = _("{number} of {count}").format(number=self._shown + 1, count=len(self._overlays))
        self.ui.previousButton.enabled = self._shown > 0
        self.ui.followingButton.enabled = self._shown + 1 < len(self._overlays)

    @property
    def _report(self) -> Any:
        return {} if self._logic.watcher is None else self._logic.watcher.report

    def _title(self, organ: str) -> str:
        return next((draft.title for draft in self._logic.draft.organs if draft.name == organ), organ)

    def _turn(self, by: int) -> None:
        self._shown = min(max(0, self._shown + by), len(self._overlays) - 1)
        self.showOverlay()


def _cells(row: OrganScore, title: str) -> tuple[str, ...]:
    interval = "-" if row.interval is None else f"{row.interval[0]:.2f} - {row.interval[1]:.2f}"
    return (
        title,
        str(row.cases),
        _number(row.dice, 3),
        interval,
        _number(row.hd95Mm, 1),
        _number(row.surfaceDice, 3),
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
