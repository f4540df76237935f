"""The page Doctor: is everything there to segment, which device will be used, and one button to repair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer

from wbcss.errors import Cancelled, WbcssError
from wbcss.resources import resource_path

from ..DoctorCheck import DoctorCheck
from ..DoctorReport import Line, Needs, Report
from ..Translation import _
from .StatusIcons import showIcon, statusIcon

POLL_INTERVAL_MS = 100
ROW_GAP_PX = 6


class DoctorPanel:
    """Looks at everything when it is first shown and when asked.

    Args:
        uiLoader: Loads a ``.ui`` file.
        check: Asks the engine.
        repair: Installs what is missing, after asking; raises WbcssError saying why it cannot.
        needsNow: What the chosen scan and organs need; None if none is chosen.
    """

    def __init__(
        self,
        uiLoader: Callable[[str], Any],
        check: DoctorCheck,
        repair: Callable[[], None],
        needsNow: Callable[[], Needs | None] = lambda: None,
    ) -> None:
        self._check, self._repair, self._needsNow = check, repair, needsNow
        self._report: Report | None = None
        self.widget = uiLoader(str(resource_path("UI", "DoctorPanel.ui")))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_INTERVAL_MS)
        self._timer.connect("timeout()", check.poll)
        check.onReport = self.showReport
        self.ui.checkButton.connect("clicked(bool)", self.onCheck)
        self.ui.repairButton.connect("clicked(bool)", self.onRepair)
        self.ui.copyButton.connect("clicked(bool)", self.onCopy)
        self._say(_("Not checked yet."))
        self.showState()

    # Life of the page

    def enter(self) -> None:
        """Look, if nobody has looked yet; else hold what was found against the scan that is chosen now."""
        if self._report is None and not self._check.isRunning:
            self.onCheck()
        else:
            self._check.update(self._needsNow())

    def exit(self) -> None:
        """A running check goes on; it takes seconds."""

    def cleanup(self) -> None:
        """Stop looking."""
        self._timer.stop()
        self._check.close()

    def onSceneClosing(self) -> None:
        """The scan that the needs were of is gone."""

    # What the user does

    def onCheck(self, _checked: bool = False) -> None:
        self._say(_("Looking at packages, device, memory, disk and tasks ..."))
        self._timer.start()
        self._check.start(self._needsNow())
        self.showState()

    def onRepair(self, _checked: bool = False) -> None:
        try:
            self._repair()
        except Cancelled as error:
            self._say(str(error), "note")
            return
        except WbcssError as error:
            self._say(str(error), "bad")
            return
        self.onCheck()

    def onCopy(self, _checked: bool = False) -> None:
        if self._report is not None:
            qt.QApplication.clipboard().setText(self._report.text())
            self._say(_("The report is on the clipboard. It names no patient, no user and no computer."), "good")

    # What is shown

    def showReport(self, report: Report) -> None:
        """Show what was found."""
        self._timer.stop()
        self._report = report
        table = self.ui.findingTable
        table.setRowCount(len(report.lines))
        for number, line in enumerate(report.lines):
            topic, found = qt.QTableWidgetItem(line.topic), qt.QTableWidgetItem(_text(line))
            topic.setIcon(statusIcon(table, line.state))
            table.setItem(number, 0, topic)
            table.setItem(number, 1, found)
        table.resizeColumnToContents(0)
        table.resizeRowsToContents()
        for number in range(len(report.lines)):
            table.setRowHeight(number, table.rowHeight(number) + ROW_GAP_PX)
        self._say(report.summary, "bad" if report.problems else "good")
        self.showState()

    def showState(self) -> None:
        """What can be clicked now."""
        isRunning, report = self._check.isRunning, self._report
        canRepair = report is not None and report.canRepair
        self.ui.progressBar.visible = isRunning
        self.ui.checkButton.enabled = not isRunning
        self.ui.copyButton.enabled = report is not None and not isRunning
        self.ui.repairButton.enabled = canRepair and not isRunning
        self.ui.repairButton.toolTip = (
            _("Install what is missing. You are asked first; Slicer's own packages keep their versions.")
            if canRepair
            else _("Nothing is missing that could be installed.")
        )

    def _say(self, message: str, state: str = "") -> None:
        self.ui.summaryLabel.text = message
        showIcon(self.ui.summaryIcon, state)


def _text(line: Line) -> str:
    return f"{line.found}\n\u2192 {line.advice}" if line.advice else line.found
