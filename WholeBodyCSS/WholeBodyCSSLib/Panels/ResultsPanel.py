"""The Results page: every organ with its numbers, what to check, a jump to it, and the way to correct it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctk
import qt
import slicer

from wbcss.io.atomic import write_text

from ..CheckText import checkText, sentences
from ..ResultTable import COLUMNS, ResultRow, ResultTable, csvText
from ..Settings import Settings
from ..Translation import _
from .OrganTree import colorIcon
from .PanelParts import UiLoader, loadPanel

_EYE, _NAME = 0, 1
_EYE_PIXELS, _NAME_PIXELS, _REASON_GAP_PIXELS = 24, 122, 8
_FIRST = _NAME
"""Column of the widget that shows ``COLUMNS[0]``."""

_REASONS = _FIRST + COLUMNS.index("reasons")

POLL_INTERVAL_MS = 100


class ResultsPanel:
    """Shows the result that is chosen, which is the latest one unless the user chose another.

    Args:
        uiLoader: ``slicer.util.loadUI``.
        results: A ResultScene.
        keeper: A CaseKeeper.
        settings: Preferences of the machine.
    """

    def __init__(self, uiLoader: UiLoader, results: Any, keeper: Any, settings: Settings) -> None:
        self.widget, self.ui = loadPanel(uiLoader, "ResultsPanel")
        self._results = results
        self._keeper = keeper
        self._settings = settings
        self._table = ResultTable()
        self._shown: tuple[ResultRow, ...] = ()
        self._explained: ResultRow | None = None
        self._display: tuple[Any, int] | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_INTERVAL_MS)
        self._timer.connect("timeout()", self._onKept)
        self.onCaseKept: Callable[[Path], None] = lambda path: None
        self._prepareTable()
        self._connect()
        self.ui.caseFolderEdit.currentPath = settings.caseFolder
        self._show()

    def enter(self) -> None:
        """The page is shown: the user may have edited segments meanwhile."""
        if self.ui.caseFolderEdit.currentPath != self._settings.caseFolder:
            self.ui.caseFolderEdit.currentPath = self._settings.caseFolder
        if self._node is None and self._results.results():
            self.ui.resultSelector.setCurrentNode(self._results.results()[-1])
        self._read()

    def exit(self) -> None:
        """The page is left."""

    def cleanup(self) -> None:
        """The module goes away."""
        self.onSceneClosing()

    def onSceneClosing(self) -> None:
        """The results go."""
        self._timer.stop()
        self._unobserve()
        self._table.setRows(())
        self._shown = ()
        self._results.forget()
        self.ui.statusLabel.text = ""
        self._show()

    def showResult(self, segmentationNode: Any) -> None:
        """Show a result that was made or changed."""
        if self.ui.resultSelector.currentNode() is segmentationNode:
            self._read()
        else:
            self.ui.resultSelector.setCurrentNode(segmentationNode)

    @property
    def _node(self) -> Any:
        return self.ui.resultSelector.currentNode()

    def _prepareTable(self) -> None:
        ui, titles = self.ui, columnTitles()
        ui.caseFolderEdit.filters = ctk.ctkPathLineEdit.Dirs
        ui.organTable.setColumnCount(_FIRST + len(COLUMNS))
        ui.organTable.setHorizontalHeaderLabels(["", *(titles[name] for name in COLUMNS)])
        header = ui.organTable.horizontalHeader()
        # Not ResizeToContents, which measures all rows again at every cell that is set.
        header.setSectionResizeMode(qt.QHeaderView.Interactive)
        header.setMinimumSectionSize(_EYE_PIXELS)
        # The user may widen names; reasons take what is left, so that nothing has to be scrolled sideways.
        header.resizeSection(_NAME, _NAME_PIXELS)
        header.setSectionResizeMode(_FIRST + len(COLUMNS) - 1, qt.QHeaderView.Stretch)
        header.setSortIndicatorShown(True)
        header.setSectionsClickable(True)
        # Sorted here and not by the widget: that one would sort numbers as words.
        header.connect("sectionClicked(int)", self._onSort)

    def _connect(self) -> None:
        ui = self.ui
        ui.resultSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onChosen)
        ui.filterEdit.connect("textChanged(QString)", self._onFilter)
        ui.checkBox.connect("toggled(bool)", self._onOnlyToCheck)
        ui.organTable.connect("cellClicked(int,int)", self._onCell)
        ui.organTable.connect("itemSelectionChanged()", self._showState)
        # Both: the arrow keys change the row, and a reason that is current already can be clicked again.
        ui.reasonList.connect("currentRowChanged(int)", self._onReason)
        ui.reasonList.connect("itemClicked(QListWidgetItem*)", lambda item: self._onReason(ui.reasonList.row(item)))
        ui.showAllButton.connect("clicked(bool)", lambda checked=False: self._setVisible(True))
        ui.hideAllButton.connect("clicked(bool)", lambda checked=False: self._setVisible(False))
        ui.copyButton.connect("clicked(bool)", self._onCopy)
        ui.exportButton.connect("clicked(bool)", self._onExport)
        ui.refineButton.connect("clicked(bool)", self._onRefine)
        ui.keepButton.connect("clicked(bool)", self._onKeep)
        ui.caseFolderEdit.connect("currentPathChanged(QString)", self._onCaseFolder)

    def _onChosen(self, node: Any) -> None:
        self._unobserve()
        display = None if node is None else node.GetDisplayNode()
        if display is not None:
            tag = display.AddObserver("ModifiedEvent", lambda caller, event: self._showEyes())
            self._display = (display, tag)
        self._read()

    def _unobserve(self) -> None:
        if self._display is not None:
            self._display[0].RemoveObserver(self._display[1])
            self._display = None

    def _read(self) -> None:
        node = self._node
        self._table.setRows(() if node is None else self._results.rows(node))
        self._show()

    def _onFilter(self, text: str) -> None:
        self._table.text = text
        self._show()

    def _onOnlyToCheck(self, isOn: bool) -> None:
        self._table.onlyToCheck = bool(isOn)
        self._show()

    def _onSort(self, column: int) -> None:
        if column >= _FIRST:
            header = self.ui.organTable.horizontalHeader()
            self._table.sort(COLUMNS[column - _FIRST], header.sortIndicatorOrder() == qt.Qt.DescendingOrder)
            self._show()

    def _show(self) -> None:
        """Fill the table anew; the selected organ stays selected."""
        selected, table = self._selected(), self.ui.organTable
        wasBlocked = table.blockSignals(True)
        self._shown = self._table.rows()
        table.setRowCount(len(self._shown))
        for number, row in enumerate(self._shown):
            self._fillRow(number, row)
        table.clearSelection()
        for number, row in enumerate(self._shown):
            if selected is not None and row.organ == selected.organ:
                table.selectRow(number)
        table.blockSignals(wasBlocked)
        self._showEyes()
        for column in range(table.columnCount - 1):
            if column != _NAME:
                table.resizeColumnToContents(column)
        self._showState()

    def _fillRow(self, number: int, row: ResultRow) -> None:
        table = self.ui.organTable
        numbers = (f"{row.volume_ml:.1f}", _whole(row.mean_hu), _whole(row.sd_hu), _percent(row.confidence))
        reasons = ", ".join(checkText(flag).title for flag in row.reasons)
        for column, text in enumerate((row.name, *numbers, reasons), start=_FIRST):
            item = qt.QTableWidgetItem(text)
            isNumber = _NAME < column < _FIRST + len(COLUMNS) - 1
            item.setTextAlignment(int(qt.Qt.AlignRight if isNumber else qt.Qt.AlignLeft) | int(qt.Qt.AlignVCenter))
            item.setToolTip(text)
            table.setItem(number, column, item)
        color = [round(255 * channel) for channel in self._results.color(self._node, row.organ)]
        table.item(number, _NAME).setIcon(colorIcon((color[0], color[1], color[2])))
        table.setItem(number, _EYE, qt.QTableWidgetItem(""))

    def _showEyes(self) -> None:
        node = self._node
        if node is None:
            return
        for number, row in enumerate(self._shown):
            item = self.ui.organTable.item(number, _EYE)
            if item is not None:
                isVisible = self._results.isVisible(node, row.organ)
                item.setText("\u25c9" if isVisible else "\u25cb")
                item.setToolTip(_("Shown; click to hide") if isVisible else _("Hidden; click to show"))

    def _selected(self) -> ResultRow | None:
        number = self.ui.organTable.currentRow() if self.ui.organTable.selectedItems() else -1
        return self._shown[number] if 0 <= number < len(self._shown) else None

    def _onCell(self, number: int, column: int) -> None:
        node, row = self._node, self._shown[number]
        if column == _EYE:
            self._results.setVisible(node, [row.organ], not self._results.isVisible(node, row.organ))
            return
        if column == _REASONS and row.checks:
            self._explain(row)
            self.ui.reasonList.setCurrentRow(0)
            self._onReason(0)
        elif row.center_ras_mm is not None:
            self._results.jumpTo(row.center_ras_mm)
        self._results.select(node, row.organ)

    def _onReason(self, number: int) -> None:
        row = self._explained
        if row is None or not 0 <= number < len(row.checks):
            return
        place = row.placeOf(row.checks[number])
        if place is not None:
            self._results.jumpTo(place, isMarked=True)

    def _setVisible(self, isVisible: bool) -> None:
        self._results.setVisible(self._node, [row.organ for row in self._shown], isVisible)

    def _onCopy(self, _checked: bool = False) -> None:
        qt.QApplication.clipboard().setText(csvText(self._shown, delimiter="\t"))
        self.ui.statusLabel.text = _("{count} rows copied").format(count=len(self._shown))

    def _onExport(self, _checked: bool = False) -> None:
        path = qt.QFileDialog.getSaveFileName(self.widget, _("Export the table"), "organs.csv", _("Tables (*.csv)"))
        if path:
            with slicer.util.tryWithErrorDisplay(_("The table cannot be written.")):
                write_text(Path(path), csvText(self._table.allRows))
                self.ui.statusLabel.text = _("Written: {name}").format(name=Path(path).name)

    def _onRefine(self, _checked: bool = False) -> None:
        row = self._selected()
        if row is not None:
            self._results.prepareEditor(self._node, row.organ)
            slicer.util.selectModule("SegmentEditor")

    def _onCaseFolder(self, path: str) -> None:
        self._settings.caseFolder = path
        self._showState()

    def _onKeep(self, _checked: bool = False) -> None:
        with slicer.util.tryWithErrorDisplay(_("The case cannot be kept."), waitCursor=True):
            node = self._node
            shown = [name for name in self._results.organs(node) if self._results.isVisible(node, name)]
            self._keeper.start(node, self._results.volumeOf(node), sorted(shown), Path(self._settings.caseFolder))
            self.ui.statusLabel.text = _("Writing the case ...")
            self._timer.start()
        self._showState()

    def _onKept(self) -> None:
        if not self._keeper.isDone:
            return
        self._timer.stop()
        path, message = self._keeper.take()
        if path is None:
            self.ui.statusLabel.text = message
            slicer.util.errorDisplay(message)
        else:
            self.ui.statusLabel.text = _("Kept as {name}").format(name=path.name)
            self.onCaseKept(path)
        self._showState()

    def _showState(self) -> None:
        ui, node, row = self.ui, self._node, self._selected()
        has = node is not None and bool(self._shown)
        for button in (ui.showAllButton, ui.hideAllButton, ui.copyButton, ui.exportButton):
            button.enabled = has
        ui.refineButton.enabled = row is not None
        ui.refineButton.toolTip = (
            _("Choose an organ first") if row is None else _("Correct {organ} by hand").format(organ=row.name)
        )
        hasVolume = node is not None and self._results.volumeOf(node) is not None
        ui.keepButton.enabled = hasVolume and bool(ui.caseFolderEdit.currentPath) and self._keeper.isDone
        ui.keepButton.toolTip = (
            _("Write the volume and the organs that are shown into the folder of cases.")
            if ui.keepButton.enabled
            else _("Choose a result, whose volume is in the scene, and a folder of cases first")
        )
        ui.checkBox.text = _("Please check ({count})").format(count=self._table.numToCheck)
        ui.detailLabel.text = self._detail(row)
        self._explain(row)

    def _explain(self, row: ResultRow | None) -> None:
        """List why ``row`` should be looked at; a reason that was chosen stays so while its organ is."""
        reasons = self.ui.reasonList
        if row == self._explained:
            return
        self._explained = row
        wasBlocked = reasons.blockSignals(True)
        reasons.clear()
        for check in () if row is None else row.checks:
            reasons.addItem(sentences(check))
            reasons.item(reasons.count - 1).setToolTip(_("Click to see the place."))
        reasons.setCurrentRow(-1)
        line = reasons.fontMetrics().lineSpacing()  # a reason takes two lines, and more than three are scrolled
        reasons.setFixedHeight(min(3, reasons.count) * (2 * line + _REASON_GAP_PIXELS) + _REASON_GAP_PIXELS)
        reasons.visible = reasons.count > 0
        reasons.blockSignals(wasBlocked)

    def _detail(self, row: ResultRow | None) -> str:
        if self._node is None:
            return _("No result yet. Segment a volume on the page Segment.")
        if not self._table.allRows:
            return _("Nothing was measured of this segmentation: it was made elsewhere, or its table was not kept.")
        if row is None:
            return _("{count} organs, {check} to check").format(
                count=len(self._table.allRows), check=self._table.numToCheck
            )
        if not row.checks:
            return _("{organ}: nothing odd was found.").format(organ=row.name)
        return _("{organ}, please check (a click shows the place):").format(organ=row.name)


def _whole(number: float | None) -> str:
    return "" if number is None else f"{number:.0f}"


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.0f} %"


def columnTitles() -> dict[str, str]:
    """What the columns are called."""
    return {
        "name": _("Organ"),
        "volume_ml": _("ml"),
        "mean_hu": _("HU"),
        "sd_hu": _("SD"),
        "confidence": _("Sure"),
        "reasons": _("Please check"),
    }
