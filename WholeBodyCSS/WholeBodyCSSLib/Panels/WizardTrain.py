"""Step 3 of *Add an organ*: what it will take, and the run in the background."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt
import slicer

from wbcss.errors import WbcssError

from ..DecoderSize import DEFAULT_BUDGET
from ..EnrollLogic import EnrollLogic, Needs
from ..RunWatcher import RunState, RunView
from ..Translation import _
from .PanelParts import UiLoader, duration, loadPanel
from .StatusIcons import showIcon

_STAGES = {
    "encode": _("encoding"),
    "train": _("training"),
    "validate": _("measuring"),
    "trim": _("making it smaller"),
}
_TRIM = "trim"
_SIZES: tuple[tuple[str, float | None], ...] = (
    (_("Small and fast (15% of the arithmetic)"), DEFAULT_BUDGET),
    (_("Medium (40% of the arithmetic)"), 0.4),
    (_("Full size"), None),
)
"""What a user can choose, and the budget that it means."""


class WizardTrain:
    """Shows ``logic.needs`` and ``logic.view``.

    Args:
        uiLoader: Loads a ``.ui`` file.
        logic: The enrolment.
        prepare: Makes sure that everything for training is installed; raises WbcssError if it is not.
        onChanged: Called when the shell must look again.
    """

    def __init__(
        self, uiLoader: UiLoader, logic: EnrollLogic, prepare: Callable[[], None], onChanged: Callable[[], None]
    ) -> None:
        self._logic, self._prepare, self._onChanged = logic, prepare, onChanged
        self._shownCurve: tuple[Path, int] | None = None
        self._message = ""
        self._isFilling = False
        self.widget, self.ui = loadPanel(uiLoader, "WizardTrain")
        ui = self.ui
        ui.sizeSelector.addItems([text for text, _budget in _SIZES])
        ui.sizeSelector.connect("currentIndexChanged(int)", lambda _index: self.onLimit())
        ui.estimateButton.connect("clicked(bool)", self.onEstimate)
        ui.limitCheck.connect("toggled(bool)", lambda _isOn: self.onLimit())
        ui.minutesSpin.connect("valueChanged(int)", lambda _value: self.onLimit())
        ui.startButton.connect("clicked(bool)", self.onStart)
        ui.pauseButton.connect("clicked(bool)", self.onPause)
        ui.resumeButton.connect("clicked(bool)", self.onResume)
        ui.cancelButton.connect("clicked(bool)", self.onCancel)

    # Life of the step

    def enter(self) -> None:
        """Estimate a run that has not begun."""
        minutes = self._logic.minutes
        budgets = [budget for _text, budget in _SIZES]
        self._isFilling = True
        try:
            if self._logic.trimBudget in budgets:
                self.ui.sizeSelector.setCurrentIndex(budgets.index(self._logic.trimBudget))
            self.ui.limitCheck.checked = minutes is not None
            if minutes is not None:
                self.ui.minutesSpin.value = int(minutes)
        finally:
            self._isFilling = False
        if self._logic.view.state == RunState.NONE and not self._logic.isEstimating:
            self.onEstimate()
        self.showState()

    def leave(self) -> None:
        """The run goes on by itself."""

    def poll(self) -> None:
        """Show how far it is."""
        self.showState()

    def problem(self) -> str:
        """Why there is no result yet."""
        view = self._logic.view
        if view.isEnded:
            return ""
        return _("The training is not done yet.") if view.state != RunState.NONE else _("Start the training.")

    # What the user does

    def onEstimate(self, _checked: bool = False) -> None:
        self._attempt(self._logic.estimate, prepare=True)

    def onLimit(self) -> None:
        if self._isFilling:
            return  # a run that was found keeps the size and the limit it was begun with
        self._logic.trimBudget = _SIZES[self.ui.sizeSelector.currentIndex][1]
        self._logic.minutes = float(self.ui.minutesSpin.value) if self.ui.limitCheck.checked else None
        self._logic.stopJob()
        self._logic.needs = None
        self.showState()

    def onStart(self, _checked: bool = False) -> None:
        self._attempt(self._logic.start, prepare=True)

    def onPause(self, _checked: bool = False) -> None:
        self._attempt(self._logic.pause)

    def onResume(self, _checked: bool = False) -> None:
        self._attempt(self._logic.resume, prepare=True)

    def onCancel(self, _checked: bool = False) -> None:
        question = _("Discard this training? What it has learned so far is deleted. The cases themselves stay.")
        if slicer.util.confirmOkCancelDisplay(question):
            self._attempt(self._logic.cancelRun)

    # What is shown

    def showState(self) -> None:
        """Estimate, progress, curve, and what can be clicked now."""
        ui, view = self.ui, self._logic.view
        isNew = view.state == RunState.NONE
        self._showNeeds(self._logic.needs)
        ui.estimateBox.visible = isNew
        ui.startButton.visible = isNew
        ui.startButton.enabled = self._logic.needs is not None and not self._logic.needs.problem
        ui.estimateButton.enabled = isNew and not self._logic.isEstimating
        ui.minutesSpin.enabled = bool(ui.limitCheck.checked)
        ui.pauseButton.visible = view.isWorking
        ui.pauseButton.enabled = view.state == RunState.RUNNING
        ui.resumeButton.visible = view.canResume
        ui.cancelButton.visible = not isNew and not view.isEnded
        ui.progressBar.visible = not isNew
        ui.progressBar.value = int(100 * view.fraction)
        self._showStatus(view)
        self._showCurve()
        self._onChanged()

    def _showNeeds(self, needs: Needs | None) -> None:
        ui = self.ui
        ui.sizeNote.visible = needs is not None and self._logic.trimBudget is not None and _TRIM not in needs.seconds
        if needs is None:
            ui.timeLabel.text = _("is being measured ...") if self._logic.isEstimating else _("not estimated")
            ui.memoryLabel.text = ui.diskLabel.text = ""
            return
        parts = ", ".join(f"{_STAGES.get(stage, stage)} {duration(s)}" for stage, s in needs.seconds.items())
        ui.timeLabel.text = _("about {total} for {steps} steps ({parts})").format(
            total=duration(needs.totalS), steps=needs.steps, parts=parts
        )
        ui.memoryLabel.text = _size(needs.memoryMib, needs.freeMemoryMib)
        ui.diskLabel.text = _size(needs.diskMib, needs.freeDiskMib)

    def _showStatus(self, view: RunView) -> None:
        message, isProblem = _status(view)
        problem = self._message or self._logic.message
        if view.state == RunState.NONE and self._logic.needs is not None:
            problem = problem or self._logic.needs.problem
        if problem and not view.isWorking:
            message, isProblem = problem, True
        self.ui.statusLabel.text = message
        showIcon(self.ui.statusIcon, "bad" if isProblem else "good" if view.isEnded else "")

    def _showCurve(self) -> None:
        watcher = self._logic.watcher
        path = None if watcher is None else watcher.curves
        if path is None:
            self.ui.curveLabel.clear()
            self._shownCurve = None
            return
        width = int(self.ui.curveLabel.width)
        stamp = (path, hash((path.stat().st_mtime_ns, width)))
        if stamp != self._shownCurve:
            picture = qt.QPixmap(str(path))
            if not picture.isNull():
                self.ui.curveLabel.setPixmap(picture.scaledToWidth(max(width, 64), qt.Qt.SmoothTransformation))
                self._shownCurve = stamp

    def _attempt(self, action: Callable[[], None], *, prepare: bool = False) -> None:
        """Run ``action``; a refusal is shown in its own words."""
        self._message = ""
        try:
            if prepare:
                self._prepare()
            action()
        except WbcssError as error:
            self._message = str(error)
        self.showState()


def _size(neededMib: int, freeMib: int | None) -> str:
    needed = f"{neededMib / 1024:.1f} GiB" if neededMib >= 1024 else f"{neededMib} MiB"
    if freeMib is None:
        return needed
    return _("{needed}, {free} GiB are free").format(needed=needed, free=f"{freeMib / 1024:.1f}")


def _status(view: RunView) -> tuple[str, bool]:
    """One line on how the run stands, and whether it is bad news."""
    if view.state == RunState.RUNNING:
        left = "" if view.remainingS is None else _(", about {time} left").format(time=duration(view.remainingS))
        return (view.stage[:1].upper() + view.stage[1:] if view.stage else _("Starting ...")) + left, False
    done = _("step {step} of {steps}").format(step=view.step, steps=view.steps) if view.steps else ""
    texts = {
        RunState.NONE: "",
        RunState.PAUSING: _("Stopping at the next checkpoint ..."),
        RunState.PAUSED: view.message or _("Paused; everything learned so far is kept."),
        RunState.PROVEN: _("Done: the organ is learned, and the proof has passed."),
        RunState.PUBLISHED: _("Done and published."),
        RunState.FAILED: view.message,
    }
    text = texts[view.state]
    if view.canResume and done:
        text = f"{text} ({done})"
    return text, view.state == RunState.FAILED
