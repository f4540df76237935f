"""Results in the scene: which segmentation belongs to which volume, its table, its display, the way to the editor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import slicer

from .ResultTable import CSV_COLUMNS, ResultRow, csvText, parseRows

INPUT_ROLE = "WholeBodyCSS.input"
TABLE_ROLE = "WholeBodyCSS.statistics"
EDITOR_TAG = "SegmentEditor"


class ResultScene:
    """Remembers results in ``slicer.mrmlScene`` by node references, so that they survive saving and loading."""

    def __init__(self) -> None:
        self._unsaved: dict[str, tuple[ResultRow, ...]] = {}

    def results(self) -> tuple[Any, ...]:
        """The segmentations made by this module, oldest first."""
        nodes = slicer.mrmlScene.GetNodesByClass("vtkMRMLSegmentationNode")
        nodes.UnRegister(None)
        found = (nodes.GetItemAsObject(number) for number in range(nodes.GetNumberOfItems()))
        return tuple(node for node in found if node.GetNodeReferenceID(INPUT_ROLE))

    def resultOf(self, volumeNode: Any) -> Any:
        """The latest segmentation of ``volumeNode``, or None."""
        if volumeNode is None:
            return None
        nodes = [node for node in self.results() if node.GetNodeReferenceID(INPUT_ROLE) == volumeNode.GetID()]
        return nodes[-1] if nodes else None

    def volumeOf(self, segmentationNode: Any) -> Any:
        """The volume that was segmented; None if it was removed."""
        return segmentationNode.GetNodeReference(INPUT_ROLE)

    def remember(self, segmentationNode: Any, volumeNode: Any, rows: Sequence[ResultRow], inTable: bool) -> None:
        """Tie a result to its volume, and keep its rows: in a table of the scene, or only until the scene is closed."""
        segmentationNode.SetNodeReferenceID(INPUT_ROLE, volumeNode.GetID())
        tableNode = segmentationNode.GetNodeReference(TABLE_ROLE)
        if tableNode is None and not inTable:
            self._unsaved[segmentationNode.GetID()] = tuple(rows)
            return
        if tableNode is None:
            tableNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", f"{segmentationNode.GetName()} table")
            segmentationNode.SetNodeReferenceID(TABLE_ROLE, tableNode.GetID())
            _placeBeside(tableNode, segmentationNode)
        _fill(tableNode, rows)

    def rows(self, segmentationNode: Any) -> tuple[ResultRow, ...]:
        """What was measured, of the organs whose segments are still there."""
        tableNode = segmentationNode.GetNodeReference(TABLE_ROLE)
        if tableNode is None:
            rows = self._unsaved.get(segmentationNode.GetID(), ())
        else:
            columns = {tableNode.GetColumnName(number): number for number in range(tableNode.GetNumberOfColumns())}
            rows = parseRows(
                lambda row, name: tableNode.GetCellText(row, columns[name]) if name in columns else "",
                tableNode.GetNumberOfRows(),
            )
        segmentation = segmentationNode.GetSegmentation()
        return tuple(row for row in rows if segmentation.GetSegment(row.organ) is not None)

    def liters(self, volumeNode: Any) -> float:
        """Size of a volume, or of the first frame of a sequence; 0 if it is empty."""
        volumeNode = _firstFrame(volumeNode)
        return 0.0 if volumeNode is None else self.numVoxels(volumeNode) * math.prod(volumeNode.GetSpacing()) / 1e6

    def numVoxels(self, volumeNode: Any) -> int:
        """Voxels of a volume, or of the first frame of a sequence; 0 if it is empty."""
        volumeNode = _firstFrame(volumeNode)
        image = None if volumeNode is None else volumeNode.GetImageData()
        return 0 if image is None else math.prod(image.GetDimensions())

    def organs(self, segmentationNode: Any) -> frozenset[str]:
        """Ids of the segments, which are the names of their organs."""
        return frozenset(segmentationNode.GetSegmentation().GetSegmentIDs())

    def color(self, segmentationNode: Any, organ: str) -> tuple[float, float, float]:
        """Red, green and blue of a segment, each 0..1."""
        red, green, blue = segmentationNode.GetSegmentation().GetSegment(organ).GetColor()
        return red, green, blue

    def isVisible(self, segmentationNode: Any, organ: str) -> bool:
        """Whether the segment is shown."""
        display = segmentationNode.GetDisplayNode()
        return display is not None and bool(display.GetSegmentVisibility(organ))

    def setVisible(self, segmentationNode: Any, organs: Sequence[str], isVisible: bool) -> None:
        """Show or hide segments."""
        segmentationNode.CreateDefaultDisplayNodes()
        display = segmentationNode.GetDisplayNode()
        wasModifying = display.StartModify()  # a hundred segments, one redraw
        try:
            for organ in organs:
                display.SetSegmentVisibility(organ, isVisible)
        finally:
            display.EndModify(wasModifying)

    def jumpTo(self, place_ras_mm: tuple[float, float, float], *, isMarked: bool = False) -> None:
        """Bring a place into the middle of every slice view, and the crosshair to it, to be seen if ``isMarked``."""
        slices = slicer.mrmlScene.GetNodesByClass("vtkMRMLSliceNode")
        slices.UnRegister(None)
        for number in range(slices.GetNumberOfItems()):
            slices.GetItemAsObject(number).JumpSliceByCentering(*place_ras_mm)
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        if crosshair is None:
            return
        crosshair.SetCrosshairRAS(*place_ras_mm)
        if isMarked and crosshair.GetCrosshairMode() == slicer.vtkMRMLCrosshairNode.NoCrosshair:
            crosshair.SetCrosshairMode(slicer.vtkMRMLCrosshairNode.ShowBasic)

    def select(self, segmentationNode: Any, organ: str) -> None:
        """Make ``organ`` the selected segment of the Segment Editor, where that shows this segmentation."""
        editorNode = slicer.mrmlScene.GetSingletonNode(EDITOR_TAG, "vtkMRMLSegmentEditorNode")
        if editorNode is not None and editorNode.GetSegmentationNode() is segmentationNode:
            editorNode.SetSelectedSegmentID(organ)

    def prepareEditor(self, segmentationNode: Any, organ: str) -> None:
        """Set the Segment Editor's own parameters, which it reads when it is entered: segmentation, organ, volume."""
        scene = slicer.mrmlScene
        editorNode = scene.GetSingletonNode(EDITOR_TAG, "vtkMRMLSegmentEditorNode")
        if editorNode is None:
            editorNode = slicer.vtkMRMLSegmentEditorNode()
            editorNode.SetSingletonTag(EDITOR_TAG)
            editorNode = scene.AddNode(editorNode)
        wasModifying = editorNode.StartModify()
        try:
            editorNode.SetAndObserveSegmentationNode(segmentationNode)
            editorNode.SetAndObserveSourceVolumeNode(self.volumeOf(segmentationNode))
            editorNode.SetSelectedSegmentID(organ)
        finally:
            editorNode.EndModify(wasModifying)

    def forget(self) -> None:
        """Drop what is kept outside the scene: it is being closed."""
        self._unsaved.clear()


def _firstFrame(volumeNode: Any) -> Any:
    return volumeNode.GetNthDataNode(0) if volumeNode.IsA("vtkMRMLSequenceNode") else volumeNode


def _fill(tableNode: Any, rows: Sequence[ResultRow]) -> None:
    lines = [line.split("\t") for line in csvText(rows, delimiter="\t").splitlines()[1:]]
    wasModifying = tableNode.StartModify()
    try:
        tableNode.RemoveAllColumns()
        for name in CSV_COLUMNS:
            tableNode.AddColumn().SetName(name)
        for number, cells in enumerate(lines):
            tableNode.AddEmptyRow()
            for column, cell in enumerate(cells):
                tableNode.SetCellText(number, column, cell)
    finally:
        tableNode.EndModify(wasModifying)


def _placeBeside(node: Any, neighbor: Any) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item, neighborItem = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(neighbor)
    if item and neighborItem:  # without the application's plugins nodes have no item
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(neighborItem))
