"""The list of several scans on the Segment page: volumes of the scene, files of folders, and what became of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ctk
import qt
import slicer

from wbcss.io.reading import list_inputs

from ..SegmentQueue import SegmentQueue, Status
from ..Translation import _

_NAME, _STATUS = 0, 1


class ScanList:
    """Owns the widgets under *Several scans*.

    Args:
        ui: The children of the Segment page.
        queue: Works on the list.
    """

    def __init__(self, ui: Any, queue: SegmentQueue) -> None:
        self._ui = ui
        self._queue = queue
        self._scans: list[Any] = []
        ui.listTree.setHeaderLabels([_("Scan"), _("Status")])
        ui.listTree.header().setSectionResizeMode(_NAME, qt.QHeaderView.Stretch)
        ui.listTree.header().setStretchLastSection(False)
        ui.listTree.header().setSectionResizeMode(_STATUS, qt.QHeaderView.ResizeToContents)
        ui.folderEdit.filters = ctk.ctkPathLineEdit.Dirs
        ui.addSceneButton.connect("clicked(bool)", self._onAddScene)
        ui.addFolderButton.connect("clicked(bool)", self._onAddFolder)
        ui.removeButton.connect("clicked(bool)", self._onRemove)
        ui.folderEdit.connect("currentPathChanged(QString)", self._onFolder)

    def volumeNodes(self) -> list[Any]:
        """The volumes of the list that are still in the scene."""
        nodes = [slicer.mrmlScene.GetNodeByID(scan) for scan in self._scans if isinstance(scan, str)]
        return [node for node in nodes if node is not None]

    def files(self) -> list[Path]:
        """The files and DICOM folders of the list."""
        return [scan for scan in self._scans if isinstance(scan, Path)]

    def folder(self) -> Path | None:
        """Where results of files go."""
        text = self._ui.folderEdit.currentPath.strip()
        return Path(text) if text else None

    def clear(self) -> None:
        """Empty the list."""
        self._scans.clear()
        self._ui.listTree.clear()

    def addFiles(self, folder: Path) -> None:
        """Add what can be segmented in ``folder``. Raises VolumeFileError if that is nothing."""
        self._add([item.path for item in list_inputs([folder])])

    def show(self, *, isReady: bool) -> None:
        """Show statuses, and what can be clicked."""
        ui, running = self._ui, self._queue.isRunning
        for button in (ui.addSceneButton, ui.addFolderButton, ui.removeButton, ui.folderEdit):
            button.enabled = not running
        ui.listButton.enabled = isReady and not running and bool(self._scans)
        ui.resumeButton.enabled = isReady and self._queue.canResume and len(self._queue.rows) > 1
        texts = statusTexts()
        statuses = [(row.status, row.message) for row in self._queue.rows]
        isThisList = [row.item.name for row in self._queue.rows] == [self._nameOf(scan) for scan in self._scans]
        for number in range(ui.listTree.topLevelItemCount):
            status, message = statuses[number] if isThisList else (Status.WAITING, "")
            item = ui.listTree.topLevelItem(number)
            item.setText(_STATUS, texts[status])
            item.setToolTip(_STATUS, message)

    def _add(self, scans: list[Any]) -> None:
        for scan in scans:
            if scan not in self._scans:
                self._scans.append(scan)
        # The queue works on volumes first: the list shows its order.
        self._scans.sort(key=lambda scan: isinstance(scan, Path))
        self._ui.listTree.clear()
        for scan in self._scans:
            item = qt.QTreeWidgetItem(self._ui.listTree)
            item.setText(_NAME, self._nameOf(scan))
        self.show(isReady=True)

    @staticmethod
    def _nameOf(scan: Any) -> str:
        if isinstance(scan, Path):
            return scan.name
        node = slicer.mrmlScene.GetNodeByID(scan)
        return _("(removed)") if node is None else str(node.GetName())

    def _onAddScene(self, _checked: bool = False) -> None:
        self._add([node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if isCt(node)])

    def _onAddFolder(self, _checked: bool = False) -> None:
        chosen = qt.QFileDialog.getExistingDirectory(self._ui.listTree, _("Folder of CT scans"))
        if chosen:
            with slicer.util.tryWithErrorDisplay(_("No scan can be taken from this folder."), waitCursor=True):
                self.addFiles(Path(chosen))

    def _onRemove(self, _checked: bool = False) -> None:
        tree = self._ui.listTree
        chosen = {number for number in range(tree.topLevelItemCount) if tree.topLevelItem(number).isSelected()}
        kept = [scan for number, scan in enumerate(self._scans) if number not in chosen]
        self.clear()
        self._add(kept)

    def _onFolder(self, _path: str) -> None:
        self.show(isReady=True)


def isCt(volumeNode: Any) -> bool:
    """Whether a volume may be a CT: no label map, no hidden node, not empty."""
    isImage = volumeNode.GetClassName() == "vtkMRMLScalarVolumeNode" and volumeNode.GetImageData() is not None
    return isImage and not volumeNode.GetHideFromEditors()


def statusTexts() -> dict[Status, str]:
    """What the statuses are called."""
    return {
        Status.WAITING: _("waiting"),
        Status.RUNNING: _("running"),
        Status.DONE: _("done"),
        Status.SKIPPED: _("done before"),
        Status.FAILED: _("failed"),
        Status.CANCELLED: _("cancelled"),
    }
