"""Step 1 of *Add an organ*: where the cases lie, what was drawn, and what the case check says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import qt

from wbcss.catalogue import catalogue
from wbcss.errors import WbcssError
from wbcss.labels import OrganName

from ..EnrollCases import Activity, CaseFinding, CaseRow, EnrollCases, Mend, NameRow
from ..EnrollLogic import EnrollLogic
from ..EnrollScene import EnrollScene
from ..Translation import _
from .PanelParts import UiLoader, loadPanel
from .StatusIcons import showIcon, statusIcon

_FROM_SCENE, _FROM_FOLDER = 0, 1
_ROW_HEIGHT_PX = 26
_OPEN, _NEW, _OMIT = "", "new", "omit"


class WizardCases:
    """Shows ``logic.cases``.

    Args:
        uiLoader: Loads a ``.ui`` file.
        logic: The enrolment.
        scene: Cases out of the scene.
        onChanged: Called when the shell must look again.
    """

    def __init__(
        self, uiLoader: UiLoader, logic: EnrollLogic, scene: EnrollScene, onChanged: Callable[[], None]
    ) -> None:
        self._logic, self._scene, self._onChanged = logic, scene, onChanged
        self._isFilling = False
        self._shownNames: tuple[str, ...] = ()
        self.widget, self.ui = loadPanel(uiLoader, "WizardCases")
        scene.onDone = lambda path: self._read(path, [pair.volumeNode.GetName() for pair in scene.pairs])
        ui = self.ui
        ui.sourceSelector.connect("currentIndexChanged(int)", self.onSource)
        ui.addPairButton.connect("clicked(bool)", self.onAddPair)
        ui.removePairButton.connect("clicked(bool)", self.onRemovePair)
        ui.readButton.connect("clicked(bool)", self.onRead)
        ui.stopButton.connect("clicked(bool)", self.onStop)
        ui.checkButton.connect("clicked(bool)", self.onCheck)
        ui.sameGridButton.connect("clicked(bool)", self.onSameGrid)
        ui.leaveOutButton.connect("clicked(bool)", self.onLeaveOut)
        ui.casesTable.connect("itemSelectionChanged()", self.showFindings)
        ui.casesTable.connect("itemChanged(QTableWidgetItem*)", self.onItemChanged)
        for selector in (ui.volumeSelector, ui.segmentationSelector):
            selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self.showState())
        ui.casesPathEdit.connect("currentPathChanged(QString)", lambda _path: self.showState())
        ui.pairList.connect("currentRowChanged(int)", lambda _row: self.showState())
        for table in (ui.namesTable, ui.casesTable):
            _prepare(table)
        self._follow()
        self.onSource(_FROM_SCENE)

    # Life of the step

    def enter(self) -> None:
        """Show what is known."""
        self.refresh()

    def leave(self) -> None:
        """The next step is about the organs of these cases."""
        self._logic.takeOrgans()

    def reset(self) -> None:
        """Another enrolment begins."""
        self._scene.clear()
        self._shownNames = ()
        self._follow()
        self.refresh()

    def poll(self) -> None:
        """Take up what background jobs have done."""
        wasBusy = self._scene.isBusy
        self._scene.poll()
        if wasBusy and not self._scene.isBusy and self._scene.message:
            self._say(self._scene.message, isProblem=True)
        self._showProgress()

    def problem(self) -> str:
        """Why these cases cannot be learned from yet."""
        if self.isBusy:
            return _("The cases are being looked at.")
        if not self._cases.rows:
            return _("Choose cases and read them.")
        try:
            self._cases.arguments()
        except WbcssError as error:
            return _("To go on, {reason}.").format(reason=error)
        return "" if self._cases.isChecked else _("Check the cases; errors have to be mended first.")

    @property
    def isBusy(self) -> bool:
        """Whether cases are written, read or checked."""
        return self._scene.isBusy or self._cases.activity != Activity.IDLE

    def onSceneClosing(self) -> None:
        """Pairs of nodes end with the scene."""
        self._scene.clear()
        self.refresh()

    # What the user does

    def onSource(self, index: int) -> None:
        self.ui.sceneSource.visible = index == _FROM_SCENE
        self.ui.folderSource.visible = index == _FROM_FOLDER
        self.showState()

    def onAddPair(self, _checked: bool = False) -> None:
        nodes = self.ui.volumeSelector.currentNode(), self.ui.segmentationSelector.currentNode()
        self._attempt(lambda: self._scene.add(*nodes))
        self._showPairs()

    def onRemovePair(self, _checked: bool = False) -> None:
        self._scene.remove(self.ui.pairList.currentRow)
        self._showPairs()

    def onRead(self, _checked: bool = False) -> None:
        if self.ui.sourceSelector.currentIndex == _FROM_SCENE:
            self._attempt(lambda: self._scene.export(self._logic.casesFolder()))
        else:
            self._read(Path(self.ui.casesPathEdit.currentPath))

    def onStop(self, _checked: bool = False) -> None:
        self._cases.close()
        self._say(_("Stopped."))
        self.refresh()

    def onCheck(self, _checked: bool = False) -> None:
        self._attempt(self._cases.check)

    def onSameGrid(self, _checked: bool = False) -> None:
        self._mend(Mend.SAME_GRID)

    def onLeaveOut(self, _checked: bool = False) -> None:
        self._mend(Mend.LEAVE_OUT)

    def onItemChanged(self, item: Any) -> None:
        if not self._isFilling and item.column() == 0:
            self._cases.use(item.row(), item.checkState() == qt.Qt.Checked)

    def onLearnAs(self, row: NameRow, combo: Any) -> None:
        choice = str(combo.itemData(combo.currentIndex))
        if choice == _OMIT:
            self._cases.doNotLearn(row.name)
        elif choice != _OPEN:
            self._attempt(lambda: self._cases.learnAs(row.name, row.name if choice == _NEW else choice))

    # What is shown

    def refresh(self) -> None:
        """Show cases, names and findings anew."""
        self._isFilling = True
        try:
            self._showNames()
            self._showRows()
        finally:
            self._isFilling = False
        if self._cases.message:
            self._say(self._cases.message, isProblem=True)
        elif self._cases.activity == Activity.IDLE and self._cases.rows:
            self._say(self._summary())
        self._showPairs()
        self.showFindings()
        self._showProgress()

    def showState(self) -> None:
        """What can be clicked now."""
        ui, isBusy = self.ui, self.isBusy
        isScene = ui.sourceSelector.currentIndex == _FROM_SCENE
        hasNodes = ui.volumeSelector.currentNode() is not None and ui.segmentationSelector.currentNode() is not None
        hasSource = bool(self._scene.pairs) if isScene else bool(ui.casesPathEdit.currentPath)
        ui.addPairButton.enabled = hasNodes and not isBusy
        ui.removePairButton.enabled = ui.pairList.currentRow >= 0 and not isBusy
        ui.readButton.enabled = hasSource and not isBusy
        ui.namesBox.visible = bool(self._cases.names)
        ui.checkBox.visible = bool(self._cases.rows)
        ui.namesTable.enabled = ui.casesTable.enabled = not isBusy
        ui.checkButton.enabled = bool(self._cases.rows) and not isBusy and not self._cases.isChecked
        self._onChanged()

    def showFindings(self) -> None:
        """What the check says of the selected case, and of all cases."""
        row = self._selected()
        parts = [] if row is None else _told(row.title, row.findings, isChecked=self._cases.isChecked)
        parts += _told(_("All cases"), self._cases.general, isChecked=False)
        self.ui.findingsBrowser.html = "".join(parts)
        mends = {mend for finding in (row.findings if row else ()) for mend in finding.mends}
        self.ui.sameGridButton.visible = Mend.SAME_GRID in mends
        self.ui.leaveOutButton.visible = Mend.LEAVE_OUT in mends
        self.showState()

    @property
    def _cases(self) -> EnrollCases:
        return self._logic.cases

    def _follow(self) -> None:
        """The logic makes new cases for each enrolment."""
        self._cases.onChanged = self.refresh

    def _read(self, path: Path, titles: Sequence[str] = ()) -> None:
        self._attempt(lambda: self._cases.read(path, titles))

    def _mend(self, mend: Mend) -> None:
        self._cases.mend(mend, self.ui.casesTable.currentRow())

    def _attempt(self, action: Callable[[], None]) -> None:
        """Run ``action``; a refusal is shown in its own words."""
        try:
            action()
        except WbcssError as error:
            self._say(str(error), isProblem=True)
        else:
            if self.isBusy:
                self._say("")
        self.showState()
        self._showProgress()

    def _showPairs(self) -> None:
        self.ui.pairList.clear()
        for pair in self._scene.pairs:
            self.ui.pairList.addItem(pair.title)
        self.showState()

    def _showNames(self) -> None:
        """Once for each reading: a combo box must not be replaced while it tells of its own change."""
        names = tuple(row.name for row in self._cases.names)
        if names == self._shownNames:
            return
        self._shownNames = names
        table = self.ui.namesTable
        table.setRowCount(0)
        table.setRowCount(len(names))
        for number, row in enumerate(self._cases.names):
            table.setItem(number, 0, qt.QTableWidgetItem(row.name))
            table.setItem(number, 1, qt.QTableWidgetItem(str(row.numCases)))
            combo = qt.QComboBox()
            for text, data in _choices(row):
                combo.addItem(text, data)
            combo.setCurrentIndex([data for _text, data in _choices(row)].index(_chosen(row)))
            combo.connect("currentIndexChanged(int)", lambda _index, row=row, combo=combo: self.onLearnAs(row, combo))
            table.setCellWidget(number, 2, combo)

    def _showRows(self) -> None:
        table = self.ui.casesTable
        chosen = table.currentRow()
        table.setRowCount(len(self._cases.rows))
        for number, row in enumerate(self._cases.rows):
            first = qt.QTableWidgetItem(row.title)
            first.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable)
            first.setCheckState(qt.Qt.Checked if row.isUsed else qt.Qt.Unchecked)
            table.setItem(number, 0, first)
            table.setItem(number, 1, qt.QTableWidgetItem(_role(row)))
            verdict, state = _verdict(row, isChecked=self._cases.isChecked)
            last = qt.QTableWidgetItem(verdict)
            if state:
                last.setIcon(statusIcon(self.widget, state))
            table.setItem(number, 2, last)
        rows = self._cases.rows
        if rows and not (0 <= chosen < len(rows) and rows[chosen].findings):
            # What has to be mended comes first, then what is worth knowing.
            table.selectRow(max(range(len(rows)), key=lambda n: (rows[n].numErrors, len(rows[n].findings), -n)))

    def _selected(self) -> CaseRow | None:
        number = self.ui.casesTable.currentRow()
        return self._cases.rows[number] if 0 <= number < len(self._cases.rows) else None

    def _showProgress(self) -> None:
        fraction = self._scene.progress if self._scene.isBusy else self._cases.progress[0]
        self.ui.progressBar.visible = self.ui.stopButton.visible = self.isBusy
        self.ui.stopButton.enabled = not self._scene.isBusy
        self.ui.progressBar.value = int(100 * fraction)

    def _summary(self) -> str:
        cases = self._cases
        if not cases.isChecked:
            return _("{count} cases found.").format(count=len(cases.rows))
        return _("{learn} cases to learn from, {held} held out to measure how well the organ is found.").format(
            learn=cases.numUsed - cases.numHeldOut, held=cases.numHeldOut
        )

    def _say(self, message: str, *, isProblem: bool = False) -> None:
        self.ui.statusLabel.text = message
        showIcon(self.ui.statusIcon, "bad" if isProblem else "")


def _choices(row: NameRow) -> list[tuple[str, str]]:
    """What a name can be learned as: text and the data behind it."""
    organs = dict.fromkeys((*((row.organ,) if row.organ and not row.isNew else ()), *row.near))
    choices = [(_("Choose ..."), _OPEN)] if row.isOpen else []
    choices += [(catalogue()[OrganName(organ)].display_name, organ) for organ in organs]
    return [*choices, (_("New organ: {name}").format(name=row.name), _NEW), (_("Do not learn"), _OMIT)]


def _chosen(row: NameRow) -> str:
    if not row.isLearned:
        return _OMIT
    return _NEW if row.isNew else row.organ


def _role(row: CaseRow) -> str:
    if not row.isUsed:
        return _("left out")
    return {None: "", True: _("held out"), False: _("to learn from")}[row.isHeldOut]


def _verdict(row: CaseRow, *, isChecked: bool) -> tuple[str, str]:
    """A few words and the icon beside them."""
    if not row.isUsed:
        return "", ""
    warnings = len(row.findings) - row.numErrors
    if row.numErrors:
        return _("{count} to mend").format(count=row.numErrors), "bad"
    if warnings:
        return _("{count} to know").format(count=warnings), "note"
    return (_("good"), "good") if isChecked or row.isHeldOut is not None else (_("not checked"), "")


def _told(title: str, findings: tuple[CaseFinding, ...], *, isChecked: bool) -> list[str]:
    """Findings as a small page without style."""
    if not findings:
        good = _("nothing to mend and nothing to know")
        return [f"<p><b>{escape(title)}</b>: {escape(good)}</p>"] if isChecked else []
    lines = [
        f"<li><b>{escape(_('Error') if finding.isError else _('Note'))}: {escape(finding.title)}.</b> "
        f"{escape(finding.message[:1].upper() + finding.message[1:])}.</li>"
        for finding in sorted(findings, key=lambda finding: not finding.isError)
    ]
    return [f"<p><b>{escape(title)}</b></p><ul>{''.join(lines)}</ul>"]


def _prepare(table: Any) -> None:
    table.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT_PX)
    header = table.horizontalHeader()
    header.setStretchLastSection(False)
    header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
    header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
