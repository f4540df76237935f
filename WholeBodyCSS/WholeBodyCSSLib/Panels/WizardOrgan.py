"""Step 2 of *Add an organ*: name, kind, color and code of each organ, and the words of the card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import qt

from ..EnrollLogic import EnrollLogic
from ..EnrollOrgan import LICENSES, OrganDraft, SearchHit, searchCodes
from ..Translation import _
from .PanelParts import UiLoader, loadPanel

_AUTO, _NONE = "auto", "none"


class WizardOrgan:
    """Shows and changes ``logic.draft``.

    Args:
        uiLoader: Loads a ``.ui`` file.
        logic: The enrolment.
        tasks: Names of the published tasks.
        onChanged: Called when the shell must look again.
    """

    def __init__(
        self,
        uiLoader: UiLoader,
        logic: EnrollLogic,
        tasks: Callable[[], Sequence[str]],
        onChanged: Callable[[], None],
    ) -> None:
        self._logic, self._tasks, self._onChanged = logic, tasks, onChanged
        self._isFilling = False
        self._hits: tuple[SearchHit, ...] = ()
        self.widget, self.ui = loadPanel(uiLoader, "WizardOrgan")
        ui = self.ui
        for text in LICENSES:
            ui.licenseSelector.addItem(text)
        ui.licenseSelector.setCurrentIndex(-1)
        ui.organSelector.connect("currentIndexChanged(int)", lambda _index: self.showOrgan())
        ui.titleEdit.connect("textChanged(QString)", lambda text: self._change(title=text))
        ui.lesionRadio.connect("toggled(bool)", lambda isOn: self._change(isLesion=isOn))
        ui.colorButton.connect("colorChanged(QColor)", self.onColor)
        ui.searchEdit.connect("textChanged(QString)", lambda _text: self.showHits())
        ui.hitList.connect("currentRowChanged(int)", lambda _row: self._showButtons())
        ui.hitList.connect("itemDoubleClicked(QListWidgetItem*)", lambda _item: self.onTakeCode())
        ui.takeCodeButton.connect("clicked(bool)", self.onTakeCode)
        ui.noCodeButton.connect("clicked(bool)", lambda _checked: self._change(code=None))
        ui.taskEdit.connect("textChanged(QString)", lambda _text: self.onWords())
        ui.startSelector.connect("currentIndexChanged(int)", lambda _index: self.onWords())
        for edit in (ui.provenanceEdit, ui.limitsEdit):
            edit.connect("textChanged(QString)", lambda _text: self.onWords())
        ui.onRequestCheck.connect("toggled(bool)", self.onRequest)
        ui.licenseSelector.connect("currentTextChanged(QString)", lambda _text: self.onWords())

    # Life of the step

    def enter(self) -> None:
        """Show the organs that the cases hold."""
        draft = self._logic.draft
        self._isFilling = True
        try:
            self.ui.organSelector.clear()
            for organ in draft.organs:
                self.ui.organSelector.addItem(organ.title, organ.name)
            self.ui.startSelector.clear()
            self.ui.startSelector.addItem(_("The nearest published task"), _AUTO)
            self.ui.startSelector.addItem(_("Random weights"), _NONE)
            for task in self._tasks():
                self.ui.startSelector.addItem(task, task)
            index = self.ui.startSelector.findData(draft.startFrom)
            self.ui.startSelector.setCurrentIndex(max(0, index))
            self.ui.taskEdit.text = draft.task
            self.ui.licenseSelector.setCurrentIndex(self.ui.licenseSelector.findText(draft.license))
            if draft.license and self.ui.licenseSelector.currentIndex < 0:
                self.ui.licenseSelector.setEditText(draft.license)
            self.ui.provenanceEdit.text, self.ui.limitsEdit.text = draft.provenance, draft.limits
        finally:
            self._isFilling = False
        self.showOrgan()

    def leave(self) -> None:
        """The draft is always up to date."""

    def poll(self) -> None:
        """Nothing happens in the background here."""

    def problem(self) -> str:
        """What is missing."""
        text = self._logic.draft.problem()
        return text[:1].upper() + text[1:] + "." if text else ""

    # What the user does

    def onColor(self, color: qt.QColor) -> None:
        self._change(color=(color.red(), color.green(), color.blue()))

    def onTakeCode(self, _checked: bool = False) -> None:
        row = self.ui.hitList.currentRow
        if 0 <= row < len(self._hits):
            self._change(code=self._hits[row].organ)

    def onWords(self) -> None:
        if self._isFilling:
            return
        ui = self.ui
        self._logic.draft = replace(
            self._logic.draft,
            task=ui.taskEdit.text.strip(),
            startFrom=str(ui.startSelector.itemData(ui.startSelector.currentIndex) or _AUTO),
            license=ui.licenseSelector.currentText,
            provenance=ui.provenanceEdit.text,
            limits=ui.limitsEdit.text,
        )
        self._onChanged()

    def onRequest(self, isOn: bool) -> None:
        if not self._isFilling:
            self._logic.draft = replace(self._logic.draft, onRequest=bool(isOn))
            self._onChanged()

    # What is shown

    def showOrgan(self) -> None:
        """The organ that is chosen above."""
        organ = self._organ()
        if organ is None or self._isFilling:
            return
        self._isFilling = True
        try:
            ui = self.ui
            ui.titleEdit.text = organ.title
            ui.lesionRadio.checked, ui.organRadio.checked = organ.isLesion, not organ.isLesion
            ui.colorButton.color = qt.QColor(*organ.color)
            for widget in (ui.titleEdit, ui.lesionRadio, ui.organRadio, ui.colorButton, ui.searchBox):
                widget.enabled = not organ.isKnown
            ui.searchBox.visible = not organ.isKnown
        finally:
            self._isFilling = False
        self._showCode(organ)
        self._showOnRequest()
        if not organ.isKnown:
            self.ui.searchEdit.text = organ.title if organ.code is None else organ.code.display_name
        self.showHits()

    def showHits(self) -> None:
        """Organs of the catalogue that fit the search."""
        self._hits = searchCodes(self.ui.searchEdit.text)
        self.ui.hitList.clear()
        for hit in self._hits:
            self.ui.hitList.addItem(hit.text)
        self._showButtons()

    def _showCode(self, organ: OrganDraft) -> None:
        text = organ.codeText
        self.ui.codeLabel.text = _("{code} (from the catalogue)").format(code=text) if organ.isKnown else text

    def _showOnRequest(self) -> None:
        """Follows the kind of the organs until the user has said something else."""
        wasBlocked = self.ui.onRequestCheck.blockSignals(True)
        self.ui.onRequestCheck.checked = self._logic.draft.isOnRequest
        self.ui.onRequestCheck.blockSignals(wasBlocked)

    def _showButtons(self) -> None:
        self.ui.takeCodeButton.enabled = self.ui.hitList.currentRow >= 0
        self._onChanged()

    def _organ(self) -> OrganDraft | None:
        index = self.ui.organSelector.currentIndex
        return self._logic.draft.organs[index] if 0 <= index < len(self._logic.draft.organs) else None

    def _change(self, **changes: object) -> None:
        organ = self._organ()
        if organ is None or organ.isKnown or self._isFilling:
            return
        changed = replace(organ, **changes)  # type: ignore[arg-type]
        self._logic.draft = self._logic.draft.withOrgan(changed)
        self.ui.organSelector.setItemText(self.ui.organSelector.currentIndex, changed.title)
        self._showCode(changed)
        self._showOnRequest()
        self._onChanged()
