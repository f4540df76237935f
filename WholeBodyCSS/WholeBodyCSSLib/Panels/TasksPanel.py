"""The page Tasks: what can be segmented here, from where it came, and what to do with it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer

from wbcss.errors import WbcssError
from wbcss.package import SUFFIX, package_name
from wbcss.resources import resource_path

from ..CardText import validationOf
from ..RegistryPlaces import RegistryPlaces
from ..Settings import AUTOMATIC, SHIPPED, Settings
from ..TaskManager import Listing, TaskManager, TaskRow, sizeText, stateText
from ..Translation import _
from .StatusIcons import showIcon

POLL_INTERVAL_MS = 100
_NUMBERS = range(1, 6)
"""Columns that hold a number each."""


class TasksPanel:
    """Rows of the table are those of the last ``TaskManager.listing``.

    Attributes:
        onChanged: Called when other pages must look again at which organs there are.
    """

    def __init__(
        self, uiLoader: Callable[[str], Any], manager: TaskManager, places: RegistryPlaces, settings: Settings
    ) -> None:
        self._manager, self._places, self._settings = manager, places, settings
        self._listing = Listing()
        self._waiting: list[Path] = []
        self._isFilling = False
        self.onChanged: Callable[[], None] = lambda: None
        self.widget = uiLoader(str(resource_path("UI", "TasksPanel.ui")))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_INTERVAL_MS)
        self._timer.connect("timeout()", manager.poll)
        manager.onDone, manager.onFailed = self._onDone, self._onFailed
        self.ui.registrySelector.connect("currentIndexChanged(int)", self.onRegistryChosen)
        self.ui.taskTable.connect("itemChanged(QTableWidgetItem*)", self.onItemChanged)
        self.ui.taskTable.connect("itemSelectionChanged()", self.showState)
        self.ui.importButton.connect("clicked(bool)", self.onImport)
        self.ui.exportButton.connect("clicked(bool)", self.onExport)
        self.ui.updateButton.connect("clicked(bool)", self.onUpdate)
        self.ui.retireButton.connect("clicked(bool)", self.onRetire)
        self.ui.verifyButton.connect("clicked(bool)", self.onVerify)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancel)
        self._say("")
        self.refresh()

    # Life of the page

    def enter(self) -> None:
        """Look again: a wizard or another Slicer may have published something."""
        if not self._manager.isBusy:
            self.refresh()

    def exit(self) -> None:
        """A running import goes on."""

    def cleanup(self) -> None:
        """Stop what runs."""
        self._timer.stop()
        self._manager.close()

    def onSceneClosing(self) -> None:
        """Tasks have nothing to do with the scene."""

    # What the user does

    def importPackages(self, paths: Sequence[Path]) -> None:
        """Import files one after the other, as dropped onto the window or chosen in the dialog."""
        self._waiting += paths
        if not self._manager.isBusy:
            self._importNext()

    def onRegistryChosen(self, index: int) -> None:
        if self._isFilling:
            return
        self._settings.registryInUse = str(self.ui.registrySelector.itemData(index))
        self._changed()

    def onItemChanged(self, item: Any) -> None:
        if self._isFilling or item.column() != 0:
            return
        row = self._listing.rows[item.row()]
        self._manager.setEnabled(row.task, item.checkState() == qt.Qt.Checked)
        self._changed()

    def onImport(self, _checked: bool = False) -> None:
        title, kinds = _("Import a task"), _("Task packages (*{suffix})").format(suffix=SUFFIX)
        path = qt.QFileDialog.getOpenFileName(self.widget, title, "", kinds)
        if path:
            self.importPackages([Path(path)])

    def onExport(self, _checked: bool = False) -> None:
        row = self._selected()
        if row is None or row.card is None:
            return
        title, kinds = _("Export a task"), _("Task packages (*{suffix})").format(suffix=SUFFIX)
        path = qt.QFileDialog.getSaveFileName(self.widget, title, package_name(row.card), kinds)
        if path:
            self._attempt(lambda: self._manager.exportTask(row, Path(path)))

    def onUpdate(self, _checked: bool = False) -> None:
        row = self._selected()
        if row is not None:
            self._attempt(lambda: self._manager.update(row))

    def onRetire(self, _checked: bool = False) -> None:
        row = self._selected()
        question = _(
            "Retire {task}? It will not be offered any more to anybody who uses this registry. Its files and label "
            "values stay; only a newer version shows it again."
        )
        if row is None or not slicer.util.confirmOkCancelDisplay(question.format(task=row.task)):
            return
        if self._attempt(lambda: self._manager.retire(row.task)):
            self._changed()
            self._say(_("{task} is retired.").format(task=row.task))

    def onVerify(self, _checked: bool = False) -> None:
        self._attempt(self._manager.verify)

    def onCancel(self, _checked: bool = False) -> None:
        self._waiting = []
        self._manager.cancel()

    # What is shown

    def refresh(self) -> None:
        """Read the registry and show it; the selected task stays selected."""
        chosen = self._selected()
        self._listing = self._manager.listing()
        self._isFilling = True
        try:
            self._showRegistries()
            self._showRows()
        finally:
            self._isFilling = False
        self._select(chosen.task if chosen else "")
        notice = self._listing.problem or self._listing.notice
        self.ui.noticeLabel.text = notice
        self.ui.noticeLabel.visible = bool(notice)
        self.showState()

    def showState(self) -> None:
        """What can be clicked now, and the card of the selected task."""
        row, isBusy = self._selected(), self._manager.isBusy
        card = None if row is None else row.card
        self.ui.cardBrowser.html = self._manager.describe(row) if row is not None else ""
        self.ui.registrySelector.enabled = not isBusy
        self.ui.taskTable.enabled = not isBusy
        self.ui.importButton.enabled = not isBusy
        self.ui.verifyButton.enabled = not isBusy
        self.ui.exportButton.enabled = card is not None and not isBusy
        self.ui.updateButton.enabled = row is not None and row.update is not None and not isBusy
        self.ui.retireButton.enabled = row is not None and row.state in ("on", "off") and bool(card) and not isBusy
        self.ui.progressBar.visible = isBusy
        self.ui.cancelButton.visible = isBusy

    def _showRegistries(self) -> None:
        selector = self.ui.registrySelector
        selector.clear()
        if self._places.hasOwn:
            selector.addItem(_("My tasks"), AUTOMATIC)
        selector.addItem(_("Shipped with the extension (read-only)"), SHIPPED)
        selector.setCurrentIndex(selector.count - 1 if self._places.isReadOnly else 0)
        selector.toolTip = str(self._places.inUse)

    def _showRows(self) -> None:
        table = self.ui.taskTable
        table.setRowCount(len(self._listing.rows))
        for number, row in enumerate(self._listing.rows):
            for column, text in enumerate(_cells(row)):
                item = qt.QTableWidgetItem(text)
                if column in _NUMBERS:
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                table.setItem(number, column, item)
            first = table.item(number, 0)
            canSwitch = row.state in ("on", "off") and row.card is not None
            first.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
            if canSwitch:
                first.setFlags(first.flags() | qt.Qt.ItemIsUserCheckable)
                first.setCheckState(qt.Qt.Checked if row.state == "on" else qt.Qt.Unchecked)
        # Fitting the columns would take the stretch of the last one back.
        table.horizontalHeader().setStretchLastSection(False)
        table.resizeColumnsToContents()
        table.horizontalHeader().setStretchLastSection(True)

    def _selected(self) -> TaskRow | None:
        number = self.ui.taskTable.currentRow()
        return self._listing.rows[number] if 0 <= number < len(self._listing.rows) else None

    def _select(self, task: str) -> None:
        tasks = [row.task for row in self._listing.rows]
        if tasks:
            self.ui.taskTable.selectRow(tasks.index(task) if task in tasks else 0)  # type: ignore[arg-type]

    # How actions go

    def _importNext(self) -> None:
        while self._waiting and not self._manager.isBusy:
            path = self._waiting.pop(0)
            self._attempt(functools.partial(self._manager.importPackage, path))

    def _attempt(self, action: Callable[[], None]) -> bool:
        """Run ``action``; a refusal is shown in its own words. Whether it was accepted."""
        try:
            action()
        except WbcssError as error:
            self._say(str(error), isProblem=True)
            self.showState()
            return False
        if self._manager.isBusy:
            self._say(self._manager.activity)
            self._timer.start()
        self.showState()
        return True

    def _onDone(self, message: str) -> None:
        self._timer.stop()
        self._changed()
        self._say(message)
        self._importNext()

    def _onFailed(self, message: str) -> None:
        self._timer.stop()
        self._changed()
        self._say(message or _("Cancelled; nothing was changed."), isProblem=bool(message))
        self._importNext()

    def _changed(self) -> None:
        self.refresh()
        self.onChanged()

    def _say(self, message: str, *, isProblem: bool = False) -> None:
        self.ui.statusLabel.text = message
        showIcon(self.ui.statusIcon, "bad" if isProblem else "")


def _cells(row: TaskRow) -> tuple[str, ...]:
    card = row.card or row.update
    state = stateText(row)
    if row.card is not None and row.update is not None:
        state = _("{state}, {version} available").format(state=state, version=row.update.version)
    if card is None:
        return (row.task, "", "", "", "", "", state)
    dice = validationOf(card).meanDice
    return (
        row.task,
        str(card.version),
        str(len(card.organs)),
        str(card.training_cases),
        "-" if dice is None else f"{dice:.2f}",
        sizeText(row.sizeBytes) if row.sizeBytes else "-",
        state,
    )
