"""The page *Add an organ*: five steps from annotated cases to a published task, with Back and Next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import qt
import slicer

from wbcss.errors import WbcssError

from ..EnrollLogic import EnrollLogic
from ..EnrollScene import EnrollScene
from ..RunWatcher import RunState
from ..Translation import _
from .PanelParts import UiLoader, loadPanel
from .StatusIcons import showIcon
from .WizardCases import WizardCases
from .WizardOrgan import WizardOrgan
from .WizardPublish import WizardPublish
from .WizardResult import WizardResult
from .WizardTrain import WizardTrain

POLL_INTERVAL_MS = 250
CASES, ORGAN, TRAIN, RESULT, PUBLISH = range(5)


class PageProtocol(Protocol):
    """What each step is to the shell."""

    widget: Any

    def enter(self) -> None: ...

    def leave(self) -> None: ...

    def poll(self) -> None: ...

    def problem(self) -> str: ...


class WizardPanel:
    """The shell around the steps.

    Args:
        uiLoader: Loads a ``.ui`` file.
        logic: The enrolment.
        scene: Cases out of the scene.
        prepare: Makes sure that everything for training is installed; raises WbcssError if it is not.
        tasks: Names of the published tasks.

    Attributes:
        onPublished: Called when there is a new task.
        onShowTasks: Called with the task that the user wants to see on the page Tasks.
    """

    def __init__(
        self,
        uiLoader: UiLoader,
        logic: EnrollLogic,
        scene: EnrollScene,
        prepare: Callable[[], None] = lambda: None,
        tasks: Callable[[], Sequence[str]] = lambda: (),
    ) -> None:
        self._logic = logic
        self._wasPublished = False
        self.onPublished: Callable[[], None] = lambda: None
        self.onShowTasks: Callable[[str], None] = lambda task: None
        self._titles = (_("Cases"), _("Organ"), _("Train"), _("Result"), _("Publish"))
        self._pages: tuple[PageProtocol, ...] = ()
        self.widget, self.ui = loadPanel(uiLoader, "WizardPanel")
        self.cases = WizardCases(uiLoader, logic, scene, self.showState)
        self.organ = WizardOrgan(uiLoader, logic, tasks, self.showState)
        self.train = WizardTrain(uiLoader, logic, prepare, self.showState)
        self.result = WizardResult(uiLoader, logic)
        self.publish = WizardPublish(uiLoader, logic, self.showState, lambda task: self.onShowTasks(task))
        self._pages = (self.cases, self.organ, self.train, self.result, self.publish)
        for page in self._pages:
            self.ui.pageStack.addWidget(page.widget)
        self.ui.backButton.connect("clicked(bool)", self.onBack)
        self.ui.nextButton.connect("clicked(bool)", self.onNext)
        self.ui.againButton.connect("clicked(bool)", self.onAgain)
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_INTERVAL_MS)
        self._timer.connect("timeout()", self.onTimer)
        self._go(self._firstStep())

    # Life of the page

    def enter(self) -> None:
        """Follow the run again, which may have gone on meanwhile."""
        self._timer.start()
        self._current.enter()
        self.showState()

    def exit(self) -> None:
        """Nothing has to be followed while nobody looks; the run goes on, and so does the export of cases."""
        if not self.cases.isBusy:
            self._timer.stop()

    def cleanup(self) -> None:
        """Stop what ends with Slicer."""
        self._timer.stop()
        self._logic.close()

    def onSceneClosing(self) -> None:
        """The nodes of the cases are about to go; written cases and the run are not."""
        self.cases.onSceneClosing()

    # What the user does

    def onNext(self, _checked: bool = False) -> None:
        if not self._current.problem() and self.step < PUBLISH:
            self._current.leave()
            self._go(self.step + 1)

    def onBack(self, _checked: bool = False) -> None:
        self._go(max(CASES, self.step - 1))

    def onAgain(self, _checked: bool = False) -> None:
        question = _(
            "Begin with another enrolment? The working files of this one (copies of the cases, encoded patches, "
            "pictures) are deleted; a published task stays."
        )
        if not slicer.util.confirmOkCancelDisplay(question):
            return
        try:
            self._logic.discard()
        except WbcssError as error:
            slicer.util.errorDisplay(str(error))
            return
        self.cases.reset()
        self._go(CASES)

    def onTimer(self) -> None:
        self._logic.poll()
        self._current.poll()
        state = self._logic.view.state
        if state == RunState.PUBLISHED and not self._wasPublished:
            self.onPublished()
        self._wasPublished = state == RunState.PUBLISHED
        self.showState()

    # What is shown

    @property
    def step(self) -> int:
        """Number of the page that is shown."""
        return int(self.ui.pageStack.currentIndex)

    def showState(self) -> None:
        """Which step this is, and whether and why not the next one can be taken."""
        if not self._pages:
            return  # a page that is being made
        view = self._logic.view
        marked = [f"<b>{t}</b>" if n == self.step else t for n, t in enumerate(self._titles)]
        self.ui.stepsLabel.text = " &nbsp;&rsaquo;&nbsp; ".join(f"{n}. {t}" for n, t in enumerate(marked, start=1))
        problem = self._current.problem()
        self.ui.problemLabel.text = problem
        showIcon(self.ui.problemIcon, "note" if problem else "")
        self.ui.nextButton.visible = self.step < PUBLISH
        self.ui.nextButton.enabled = not problem
        self.ui.nextButton.toolTip = problem
        isBegun = view.state != RunState.NONE
        self.ui.backButton.enabled = self.step > (TRAIN if isBegun else CASES)
        self.ui.againButton.visible = isBegun
        self.ui.againButton.enabled = not view.isWorking

    @property
    def _current(self) -> PageProtocol:
        return self._pages[self.step]

    def _firstStep(self) -> int:
        """Where a run that was found stands."""
        view = self._logic.view
        self._wasPublished = view.state == RunState.PUBLISHED
        if view.state == RunState.NONE:
            return CASES
        return RESULT if view.isEnded else TRAIN

    def _go(self, step: int) -> None:
        self.ui.pageStack.setCurrentIndex(step)
        self._current.enter()
        self.showState()
