"""Step 5 of *Add an organ*: the card, the publication, and the file for other computers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt

from wbcss.errors import WbcssError
from wbcss.package import SUFFIX

from ..EnrollLogic import EnrollLogic
from ..RunWatcher import RunState
from ..Translation import _
from .PanelParts import UiLoader, loadPanel
from .StatusIcons import showIcon


class WizardPublish:
    """Publishes the proven task of ``logic`` and exports it.

    Args:
        uiLoader: Loads a ``.ui`` file.
        logic: The enrolment.
        onChanged: Called when the shell must look again.
        showTask: Shows a task on the page Tasks.
    """

    def __init__(
        self,
        uiLoader: UiLoader,
        logic: EnrollLogic,
        onChanged: Callable[[], None],
        showTask: Callable[[str], None],
    ) -> None:
        self._logic, self._onChanged, self._showTask = logic, onChanged, showTask
        self._message = ""
        self._isProblem = False
        self._shownFor: RunState | None = None
        self.widget, self.ui = loadPanel(uiLoader, "WizardPublish")
        self.ui.publishButton.connect("clicked(bool)", self.onPublish)
        self.ui.exportButton.connect("clicked(bool)", self.onExport)
        self.ui.tasksButton.connect("clicked(bool)", lambda _checked: self._showTask(self._logic.draft.task))

    # Life of the step

    def enter(self) -> None:
        """Show the card as it stands."""
        self._message, self._shownFor = "", None
        self.showState()

    def leave(self) -> None:
        """There is no further step."""

    def poll(self) -> None:
        """Show how the publication goes."""
        self.showState()

    def problem(self) -> str:
        """There is no further step."""
        return ""

    # What the user does

    def onPublish(self, _checked: bool = False) -> None:
        self._attempt(self._logic.publish)

    def onExport(self, _checked: bool = False) -> None:
        title, kinds = _("Export a task"), _("Task packages (*{suffix})").format(suffix=SUFFIX)
        name = f"{self._logic.publishedTitle.replace('@', '-')}{SUFFIX}"
        path = qt.QFileDialog.getSaveFileName(self.widget, title, name, kinds)
        if path:
            self._attempt(lambda: self._logic.export(Path(path)))

    # What is shown

    def showState(self) -> None:
        """State, card, and what can be clicked now."""
        ui, view, isExporting = self.ui, self._logic.view, self._logic.isExporting
        isPublished = view.state == RunState.PUBLISHED
        ui.progressBar.visible = view.isWorking or isExporting
        ui.publishButton.enabled = view.state == RunState.PROVEN or view.canResume
        ui.publishButton.visible = not isPublished
        ui.exportButton.enabled = isPublished and not isExporting
        ui.tasksButton.enabled = isPublished
        message, state = self._status(view.state)
        ui.stateLabel.text = message
        showIcon(ui.stateIcon, state)
        if view.state != self._shownFor:
            self._shownFor = view.state
            ui.cardBrowser.html = self._logic.cardHtml()
        self._onChanged()

    def _status(self, state: RunState) -> tuple[str, str]:
        if self._message:
            return self._message, "bad"
        if self._logic.message:
            return self._logic.message, "bad"
        if self._logic.isExporting:
            return _("The file is being written ..."), ""
        title = self._logic.publishedTitle
        texts = {
            RunState.PROVEN: (_("Ready to be published as {title}. Nobody else sees it yet.").format(title=title), ""),
            RunState.PUBLISHED: (self._published(title), "good"),
            RunState.RUNNING: (_("Proving once more, and publishing ..."), ""),
            RunState.FAILED: (self._logic.view.message, "bad"),
        }
        return texts.get(state, ("", ""))

    def _published(self, title: str) -> str:
        if self._logic.exported is not None:
            return _("{title} is published, and saved as {name}.").format(title=title, name=self._logic.exported.name)
        return _("{title} is published and in the list of organs.").format(title=title)

    def _attempt(self, action: Callable[[], None]) -> None:
        """Run ``action``; a refusal is shown in its own words."""
        self._message = ""
        try:
            action()
        except WbcssError as error:
            self._message = str(error)
        self.showState()
