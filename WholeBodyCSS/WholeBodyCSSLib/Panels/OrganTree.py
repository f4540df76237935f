"""The organ tree of the Segment page: shows an OrganChoice in a QTreeWidget and hands ticks back to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt

from wbcss.protocol import OrganItem

from ..OrganChoice import OrganChoice, Tick
from ..Translation import _

_NAME, _TASKS = 0, 1


class OrganTree:
    """Groups with organs under them.

    Args:
        tree: The QTreeWidget.
        choice: What is shown and changed.
        onTicked: Called after the user ticked or unticked something.
    """

    def __init__(self, tree: Any, choice: OrganChoice, onTicked: Callable[[], None]) -> None:
        self._tree = tree
        self._choice = choice
        self._onTicked = onTicked
        self._text = ""
        self._items: dict[str, Any] = {}
        self._groups: dict[str, Any] = {}
        tree.setHeaderLabels([_("Organ"), _("Task")])
        tree.header().setStretchLastSection(False)
        tree.header().setSectionResizeMode(_NAME, qt.QHeaderView.Stretch)
        tree.header().setSectionResizeMode(_TASKS, qt.QHeaderView.ResizeToContents)
        tree.connect("itemChanged(QTreeWidgetItem*,int)", self._onChanged)

    def fill(self) -> None:
        """Build the tree anew: the registry has changed."""
        wasBlocked = self._tree.blockSignals(True)
        self._tree.clear()
        self._items, self._groups = {}, {}
        for group in self._choice.groups():
            branch = qt.QTreeWidgetItem(self._tree)
            branch.setText(_NAME, _("{group} ({count})").format(group=group.title, count=len(group.organs)))
            branch.setData(_NAME, qt.Qt.UserRole, group.name)
            branch.setFlags(branch.flags() | qt.Qt.ItemIsUserCheckable)
            self._groups[group.name] = branch
            for organ in group.organs:
                item = qt.QTreeWidgetItem(branch)
                item.setText(_NAME, organ.display_name)
                item.setText(_TASKS, tasksText(organ))
                if organ.is_on_request:
                    item.setToolTip(_NAME, _("Runs on request: no preset ticks it, and it is ticked by itself."))
                item.setIcon(_NAME, colorIcon(organ.color_rgb))
                item.setData(_NAME, qt.Qt.UserRole, organ.name)
                item.setFlags(item.flags() | qt.Qt.ItemIsUserCheckable)
                self._items[organ.name] = item
        self._tree.blockSignals(wasBlocked)
        self.showTicks()
        self.search(self._text)

    def showTicks(self) -> None:
        """Show the ticks of the choice."""
        wasBlocked = self._tree.blockSignals(True)
        states = {Tick.OFF: qt.Qt.Unchecked, Tick.PARTLY: qt.Qt.PartiallyChecked, Tick.ON: qt.Qt.Checked}
        for group in self._choice.groups():
            self._groups[group.name].setCheckState(_NAME, states[self._choice.state(group.organs)])
            for organ in group.organs:
                isTicked = self._choice.isTicked(organ.name)
                self._items[organ.name].setCheckState(_NAME, qt.Qt.Checked if isTicked else qt.Qt.Unchecked)
        self._tree.blockSignals(wasBlocked)

    def search(self, text: str) -> None:
        """Show only what fits ``text``, unfolded; everything, folded, if there is none."""
        self._text = text
        found = self._choice.matches(text)
        for name, item in self._items.items():
            item.setHidden(name not in found)
        for group in self._choice.groups():
            branch = self._groups[group.name]
            branch.setHidden(not any(organ.name in found for organ in group.organs))
            branch.setExpanded(bool(text.strip()))

    def _onChanged(self, item: Any, column: int) -> None:
        if column != _NAME:
            return
        name, isOn = item.data(_NAME, qt.Qt.UserRole), item.checkState(_NAME) == qt.Qt.Checked
        if item.parent() is None:
            # While a search hides some of a group, its box stands for those that are shown.
            found = self._choice.matches(self._text)
            organs = next(group.organs for group in self._choice.groups() if group.name == name)
            shown = [organ for organ in organs if organ.name in found]
            self._choice.tick([organ.name for organ in (self._choice.boxed(shown) if isOn else shown)], isOn)
        else:
            self._choice.tick([name], isOn)
        self.showTicks()
        self._onTicked()


def tasksText(organ: OrganItem) -> str:
    """The tasks that segment an organ, as in ``wholebody, sarcoma (on request)``."""
    asked = _("{task} (on request)")
    return ", ".join(asked.format(task=task) if task in organ.on_request else task for task in organ.tasks)


def colorIcon(color_rgb: tuple[int, int, int]) -> Any:
    """A square of an organ's color."""
    pixmap = qt.QPixmap(12, 12)
    pixmap.fill(qt.QColor(*color_rgb))
    return qt.QIcon(pixmap)
