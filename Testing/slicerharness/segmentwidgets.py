"""Stand-ins for the widgets that show segments, bound to real segmentation nodes."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal

from .nodewidgets import SCENE_SIGNAL, Observers, SceneFollower, qMRMLNodeComboBox
from .standin import stored, with_setters

VISIBLE, COLOR, OPACITY, NAME = range(4)
ROWS = QtCore.QItemSelectionModel.SelectionFlag.Select | QtCore.QItemSelectionModel.SelectionFlag.Rows
SEGMENT_EVENTS = ("SegmentAdded", "SegmentRemoved", "SegmentModified", "SegmentsOrderModified")


def _column(number: int) -> Property:
    """A property that shows or hides a column."""
    return Property(
        bool,
        lambda self: not self._table.isColumnHidden(number),
        lambda self, shown: self._table.setColumnHidden(number, not shown),
    )


@with_setters
class qMRMLSegmentsTableView(SceneFollower, QtWidgets.QWidget):
    """One row per segment: eye, color, opacity, name."""

    _is_cpp = True
    mrmlSceneChanged = Signal(object)
    selectionChanged = Signal(QtCore.QItemSelection, QtCore.QItemSelection)
    segmentsAboutToBeModified = Signal(list)
    cpp_signals = (
        SCENE_SIGNAL,
        "selectionChanged(QItemSelection,QItemSelection)",
        "segmentsAboutToBeModified(QStringList)",
    )
    visibilityColumnVisible = _column(VISIBLE)
    colorColumnVisible = _column(COLOR)
    opacityColumnVisible = _column(OPACITY)
    headerVisible = Property(
        bool,
        lambda self: not self._table.horizontalHeader().isHidden(),
        lambda self, shown: self._table.horizontalHeader().setVisible(shown),
    )
    statusColumnVisible = stored(bool, False)
    layerColumnVisible = stored(bool, False)
    filterBarVisible = stored(bool, False)
    readOnly = stored(bool, False)
    selectionMode = Property(int, lambda self: self._mode, lambda self, mode: self._set_mode(mode))

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        self._table = QtWidgets.QTableWidget(0, 4)
        column.addWidget(self._table)
        self._table.setHorizontalHeaderLabels(["", "", "Opacity", "Name"])
        self._table.verticalHeader().hide()
        self._table.horizontalHeader().setStretchLastSection(True)
        for number, width in ((VISIBLE, 28), (COLOR, 28), (OPACITY, 60)):
            self._table.setColumnWidth(number, width)
        self._table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectionBehavior.SelectRows)
        self._mode = int(QtWidgets.QAbstractItemView.SelectionMode.ExtendedSelection.value)
        self._table.itemChanged.connect(self._on_edited)
        self._table.cellClicked.connect(self._on_clicked)
        self._table.selectionModel().selectionChanged.connect(self.selectionChanged)
        self._node: Any = None
        self._ids: list[str] = []
        self._filling = self._stale = False
        self._observers = Observers()
        self._later = QtCore.QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(0)
        self._later.timeout.connect(self._refresh)

    def setSegmentationNode(self, node: Any) -> None:
        self._observers.clear()
        self._node = node
        if node is not None:
            for name in SEGMENT_EVENTS:
                self._observers.add(node.GetSegmentation(), getattr(slicer.vtkSegmentation, name), self._on_changed)
            if node.GetDisplayNode() is not None:
                self._observers.add(node.GetDisplayNode(), vtk.vtkCommand.ModifiedEvent, self._on_changed)
        self._fill()

    def segmentationNode(self) -> Any:
        return self._node

    def segmentCount(self) -> int:
        self._refresh()
        return len(self._ids)

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        self._refresh()
        return tuple(self._ids[index.row()] for index in self._table.selectionModel().selectedRows())

    def setSelectedSegmentIDs(self, segment_ids: Any) -> None:
        self._refresh()
        self._table.clearSelection()
        for segment_id in segment_ids:
            index = self._table.model().index(self._ids.index(segment_id), NAME)
            self._table.selectionModel().select(index, ROWS)

    def clearSelection(self) -> None:
        self._table.clearSelection()

    def _set_mode(self, mode: int) -> None:
        self._mode = int(getattr(mode, "value", mode))
        self._table.setSelectionMode(QtWidgets.QAbstractItemView.SelectionMode(self._mode))

    def _on_changed(self, *_event: Any) -> None:
        """Many segments arrive together: the rows are made once, when Slicer is idle or somebody asks."""
        if not self._filling:
            self._stale = True
            self._later.start()

    def _refresh(self) -> None:
        if self._stale:
            selected = [self._ids[index.row()] for index in self._table.selectionModel().selectedRows()]
            self._fill()
            self.setSelectedSegmentIDs([segment_id for segment_id in selected if segment_id in self._ids])

    def _fill(self) -> None:
        self._filling, self._stale = True, False
        segmentation = self._node.GetSegmentation() if self._node is not None else None
        display = self._node.GetDisplayNode() if self._node is not None else None
        self._ids = list(segmentation.GetSegmentIDs()) if segmentation is not None else []
        self._table.setRowCount(len(self._ids))
        for row, segment_id in enumerate(self._ids):
            segment = segmentation.GetSegment(segment_id)
            shown = display is None or display.GetSegmentVisibility(segment_id)
            opacity = display.GetSegmentOpacity3D(segment_id) if display is not None else 1.0
            self._put(row, VISIBLE, "\u25c9" if shown else "\u25cb", editable=False)
            self._put(row, COLOR, "", editable=False).setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
            self._put(row, OPACITY, f"{opacity:.2f}", editable=False)
            self._put(row, NAME, segment.GetName(), editable=not self.readOnly)
        self._filling = False

    def _put(self, row: int, column: int, text: str, *, editable: bool) -> QtWidgets.QTableWidgetItem:
        item = QtWidgets.QTableWidgetItem(text)
        flags = QtCore.Qt.ItemFlag.ItemIsEnabled | QtCore.Qt.ItemFlag.ItemIsSelectable
        item.setFlags(flags | QtCore.Qt.ItemFlag.ItemIsEditable if editable else flags)
        self._table.setItem(row, column, item)
        return item

    def _on_edited(self, item: QtWidgets.QTableWidgetItem) -> None:
        if not self._filling and item.column() == NAME:
            self._node.GetSegmentation().GetSegment(self._ids[item.row()]).SetName(item.text())

    def _on_clicked(self, row: int, column: int) -> None:
        display = self._node.GetDisplayNode()
        if column == VISIBLE and display is not None:
            segment_id = self._ids[row]
            display.SetSegmentVisibility(segment_id, not display.GetSegmentVisibility(segment_id))


@with_setters
class qMRMLSegmentSelectorWidget(SceneFollower, QtWidgets.QWidget):
    """Chooses a segmentation and one of its segments."""

    _is_cpp = True
    mrmlSceneChanged = Signal(object)
    currentNodeChanged = Signal(object)
    currentSegmentChanged = Signal(str)
    cpp_signals = (SCENE_SIGNAL, "currentNodeChanged(vtkMRMLNode*)", "currentSegmentChanged(QString)")
    noneEnabled = Property(bool, lambda s: s._nodes.noneEnabled, lambda s, on: setattr(s._nodes, "noneEnabled", on))
    segmentationNodeSelectorVisible = Property(
        bool, lambda self: not self._nodes.isHidden(), lambda self, shown: self._nodes.setVisible(shown)
    )
    selectNodeUponCreation = stored(bool, True)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        self._nodes, self._segments = qMRMLNodeComboBox(self), QtWidgets.QComboBox()
        self._nodes.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._nodes.noneEnabled, self._nodes.addEnabled = True, False
        row.addWidget(self._nodes)
        row.addWidget(self._segments)
        self._ids: list[str] = []
        self._observers = Observers()
        self._nodes.currentNodeChanged.connect(self._on_node)
        self._segments.currentIndexChanged.connect(lambda _: self.currentSegmentChanged.emit(self.currentSegmentID()))

    def _scene_was_set(self) -> None:
        self._nodes.setMRMLScene(self._scene)

    def _on_node(self, node: Any) -> None:
        self._observers.clear()
        if node is not None:
            for name in SEGMENT_EVENTS:
                self._observers.add(node.GetSegmentation(), getattr(slicer.vtkSegmentation, name), self._fill)
        self._fill()
        self.currentNodeChanged.emit(node)

    def _fill(self, *_event: Any) -> None:
        node, kept = self._nodes.currentNode(), self.currentSegmentID()
        segmentation = node.GetSegmentation() if node is not None else None
        self._ids = list(segmentation.GetSegmentIDs()) if segmentation is not None else []
        self._segments.clear()
        for segment_id in self._ids:
            self._segments.addItem(segmentation.GetSegment(segment_id).GetName())
        if kept in self._ids:
            self._segments.setCurrentIndex(self._ids.index(kept))

    def currentNode(self) -> Any:
        return self._nodes.currentNode()

    def setCurrentNode(self, node: Any) -> None:
        self._nodes.setCurrentNode(node)

    def currentNodeID(self) -> str:
        return str(self._nodes.currentNodeID)

    def currentSegmentID(self) -> str:
        index = self._segments.currentIndex
        return self._ids[index] if 0 <= index < len(self._ids) else ""

    def setCurrentSegmentID(self, segment_id: str) -> None:
        self._segments.setCurrentIndex(self._ids.index(segment_id))


class qMRMLSegmentationShow3DButton(SceneFollower, QtWidgets.QPushButton):
    """Makes and removes the surfaces of a segmentation."""

    _is_cpp = True
    mrmlSceneChanged = Signal(object)
    cpp_signals = (SCENE_SIGNAL,)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__("Show 3D", parent)
        self.setCheckable(True)
        self._node: Any = None
        self.toggled.connect(self._on_toggled)

    def setSegmentationNode(self, node: Any) -> None:
        self._node = node
        with QtCore.QSignalBlocker(self):
            surfaces = node is not None and node.GetSegmentation().ContainsRepresentation("Closed surface")
            self.setChecked(bool(surfaces))

    def segmentationNode(self) -> Any:
        return self._node

    def _on_toggled(self, on: bool) -> None:
        if self._node is not None:
            (self._node.CreateClosedSurfaceRepresentation if on else self._node.RemoveClosedSurfaceRepresentation)()
