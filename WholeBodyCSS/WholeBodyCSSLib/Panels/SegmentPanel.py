"""The Segment page: volume, organs, options, one big button, progress that is true, cancel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer

from wbcss.errors import Cancelled

from ..OrganChoice import WHOLE_BODY
from ..ParameterNode import ParameterNode
from ..RunOptions import DEVICES, RunOptions
from ..SegmentQueue import Status
from ..SegmentSession import SegmentSession
from ..Settings import QUALITIES, Settings
from ..Translation import _
from .OrganTree import OrganTree
from .PanelParts import UiLoader, duration, loadPanel
from .ScanList import ScanList, statusTexts

POLL_INTERVAL_MS = 50
_STEPS = 1000


class SegmentPanel:
    """Shows a SegmentSession. What the user chooses is kept in the parameter node, and follows it.

    Args:
        uiLoader: ``slicer.util.loadUI``.
        session: Does the work.
        results: Results in the scene, to say what there is already.
        settings: Preferences of the machine.
        ensure: Installs what is missing, after asking; raises WbcssError if it is still missing then.

    Attributes:
        onRunning: Called with whether something is being segmented, whenever that may have changed.
        onKnownResult: Called with the result of a volume that the user chose, if it has one.
    """

    def __init__(
        self, uiLoader: UiLoader, session: SegmentSession, results: Any, settings: Settings, ensure: Callable[[], None]
    ) -> None:
        self.widget, self.ui = loadPanel(uiLoader, "SegmentPanel")
        self._session = session
        self._queue = session.queue
        self._results = results
        self._settings = settings
        self._ensure = ensure
        self._parameters: ParameterNode | None = None
        self._isShowing = False
        self._problem = ""
        self.onRunning: Callable[[bool], None] = lambda isRunning: None
        self.onKnownResult: Callable[[Any], None] = lambda segmentationNode: None
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_INTERVAL_MS)
        self._timer.connect("timeout()", self._queue.poll)
        self._fillBoxes()
        self._tree = OrganTree(self.ui.organTree, session.choice, self._onTicked)
        self._list = ScanList(self.ui, self._queue)
        self._connect()
        self._queue.onProgress = self._onProgress
        self._queue.onChanged = self._showState
        self._queue.onEnded = self._onEnded
        self._showState()

    def enter(self) -> None:
        """The page is shown: tasks may have come or gone meanwhile."""
        if self._parameters is None:
            self._observe()
        if not self._queue.isRunning:
            self._problem = self._session.refresh()
            if self._parameters is not None:
                self._session.choice.choose(self._parameters.organs)
            self._tree.fill()
        self._showState()

    def exit(self) -> None:
        """The page is left; what runs goes on."""

    def cleanup(self) -> None:
        """The module goes away."""
        self.onSceneClosing()

    def onSceneClosing(self) -> None:
        """Stop at once: the scene that the result belongs to is going."""
        self._timer.stop()
        self._queue.close()
        if self._parameters is not None:
            self._parameters.close()
            self._parameters = None
        self.ui.statusLabel.text = ""
        self._list.clear()
        self._showState()

    def onSceneLoaded(self) -> None:
        """A scene was loaded: nodes that its parameters name were not there yet when those came."""
        self._showParameters()

    def showResult(self, segmentationNode: Any) -> None:
        """A result was made or changed."""
        self._showState()

    @property
    def volumeNode(self) -> Any:
        """The volume or sequence that is chosen, or None."""
        return self.ui.inputSelector.currentNode()

    def _observe(self) -> None:
        self._parameters = ParameterNode.inScene(slicer.mrmlScene)
        self._parameters.observe(self._showParameters)
        self._showParameters()

    def _connect(self) -> None:
        ui = self.ui
        ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onInput)
        ui.segmentButton.connect("clicked(bool)", self._onSegment)
        ui.tickedButton.connect("clicked(bool)", self._onSegmentTicked)
        ui.cancelButton.connect("clicked(bool)", self._onCancel)
        ui.searchEdit.connect("textChanged(QString)", self._tree.search)
        ui.presetBox.connect("activated(int)", self._onPreset)
        ui.addBox.connect("toggled(bool)", self._showState)
        ui.deviceBox.connect("activated(int)", self._onDevice)
        ui.qualityBox.connect("activated(int)", self._onQuality)
        ui.statisticsBox.connect("toggled(bool)", self._onStatistics)
        ui.listButton.connect("clicked(bool)", self._onSegmentList)
        ui.resumeButton.connect("clicked(bool)", self._onResume)

    def _fillBoxes(self) -> None:
        devices = {
            "auto": _("Automatic: a graphics card if there is one"),
            "cpu": _("Processor (CPU)"),
            "cuda": _("Graphics card (CUDA)"),
        }
        qualities = {"fast": _("Fast"), "normal": _("Normal"), "best": _("Best")}
        for device in DEVICES:
            self.ui.deviceBox.addItem(devices[device], device)
        if self._settings.device not in DEVICES:
            self.ui.deviceBox.addItem(self._settings.device, self._settings.device)
        for quality in QUALITIES:
            self.ui.qualityBox.addItem(qualities[quality], quality)
        self.ui.deviceBox.setCurrentIndex(self.ui.deviceBox.findData(self._settings.device))

    def _options(self) -> RunOptions:
        parameters = self._parameters
        if parameters is None:
            return RunOptions(device=self._settings.device)
        return RunOptions(device=self._settings.device, quality=parameters.quality, statistics=parameters.statistics)

    def _onSegment(self, _checked: bool = False) -> None:
        self._start(lambda node: self._session.segment(node, self._session.choice.usual, self._options()))

    def _onSegmentTicked(self, _checked: bool = False) -> None:
        names, isAdded = self._session.choice.ticked, bool(self.ui.addBox.checked)
        self._start(lambda node: self._session.segment(node, names, self._options(), add=isAdded))

    def _onSegmentList(self, _checked: bool = False) -> None:
        names, scans = self._session.choice.ticked, self._list
        self._start(
            lambda node: self._session.segmentList(
                scans.volumeNodes(), scans.files(), scans.folder(), names, self._options()
            )
        )

    def _onResume(self, _checked: bool = False) -> None:
        self._start(lambda node: self._queue.resume())

    def _start(self, begin: Callable[[Any], None]) -> None:
        with slicer.util.tryWithErrorDisplay(_("The segmentation cannot start.")):
            try:
                self._ensure()
            except Cancelled:
                self.ui.statusLabel.text = _("Nothing was installed, and nothing was started.")
                return
            self.ui.progressBar.value = 0
            self.ui.statusLabel.text = _("Starting ...")
            try:
                begin(self.ui.inputSelector.currentNode())
            except Exception:
                self.ui.statusLabel.text = ""
                raise
            finally:
                self._showState()
            self._timer.start()

    def _onCancel(self, _checked: bool = False) -> None:
        self.ui.statusLabel.text = _("Cancelling ...")
        self.ui.cancelButton.enabled = False
        self._queue.cancel()

    def _onProgress(self, fraction: float, stage: str, remaining_s: float | None) -> None:
        rows = self._queue.rows
        done = sum(row.status not in (Status.WAITING, Status.RUNNING) for row in rows)
        self.ui.progressBar.value = int(_STEPS * (done + fraction) / max(1, len(rows)))
        parts = [stageText(stage)]
        if len(rows) > 1:
            parts.insert(0, _("Scan {number} of {count}").format(number=self._queue.number, count=len(rows)))
        if remaining_s is not None:
            parts.append(_("about {time} left").format(time=duration(remaining_s)))
        self.ui.statusLabel.text = " \u2013 ".join(parts)

    def _onEnded(self) -> None:
        self._timer.stop()
        rows = self._queue.rows
        self.ui.statusLabel.text = self._summary()
        self._showState()
        if len(rows) == 1 and rows[0].status is Status.FAILED:
            slicer.util.errorDisplay(rows[0].message)

    def _summary(self) -> str:
        rows = self._queue.rows
        if len(rows) != 1:
            texts = statusTexts()
            counts = {status: sum(row.status is status for row in rows) for status in Status}
            return ", ".join(f"{texts[status]}: {count}" for status, count in counts.items() if count)
        (row,) = rows
        if row.status is Status.CANCELLED:
            return _("Cancelled; the scene is unchanged.")
        if row.status is Status.FAILED:
            return row.message
        return "\n".join(filter(None, (_("Done. See the page Results."), row.message)))

    def _onInput(self, node: Any) -> None:
        if not self._isShowing and self._parameters is not None:
            self._parameters.inputVolume = node
        self._showState()
        result = None if node is None else self._results.resultOf(node)
        if result is not None:
            self.onKnownResult(result)

    def _onTicked(self) -> None:
        if self._parameters is not None:
            self._parameters.organs = self._session.choice.wanted
        self._showState()

    def _onPreset(self, index: int) -> None:
        preset = self.ui.presetBox.itemData(index)
        if preset:
            self._session.choice.applyPreset(preset)
            self._tree.showTicks()
            self._onTicked()

    def _onDevice(self, index: int) -> None:
        self._settings.device = self.ui.deviceBox.itemData(index)
        self._showState()

    def _onQuality(self, index: int) -> None:
        if self._parameters is not None:
            self._parameters.quality = self.ui.qualityBox.itemData(index)

    def _onStatistics(self, isOn: bool) -> None:
        if self._parameters is not None and not self._isShowing:
            self._parameters.statistics = bool(isOn)

    def _showParameters(self) -> None:
        """The parameter node was changed, here, by a script, or by loading a scene."""
        parameters = self._parameters
        if parameters is None:
            return
        self._isShowing = True
        try:
            self.ui.inputSelector.setCurrentNode(parameters.inputVolume)
            self.ui.qualityBox.setCurrentIndex(self.ui.qualityBox.findData(parameters.quality))
            self.ui.statisticsBox.checked = parameters.statistics
            if parameters.organs != self._session.choice.wanted and not self._queue.isRunning:
                self._session.choice.choose(parameters.organs)
                self._tree.showTicks()
        finally:
            self._isShowing = False
        self._showState()

    def _showState(self, _anything: Any = None) -> None:
        ui, running = self.ui, self._queue.isRunning
        node, ticked = ui.inputSelector.currentNode(), self._session.choice.ticked
        result = self._results.resultOf(node) if node is not None else None
        adds = bool(ui.addBox.checked) and result is not None
        names = self._session.missing(node) if adds else ticked
        reason = self._problem or ("" if node is not None else _("Choose a CT volume first"))
        ui.segmentButton.enabled = not running and not reason
        ui.segmentButton.toolTip = reason or self._everythingText()
        ui.tickedButton.enabled = not running and not reason and bool(names)
        ui.tickedButton.toolTip = reason or _("Segment {count} organs").format(count=len(names))
        ui.runningArea.visible = running
        ui.cancelButton.enabled = running
        for widget in (ui.inputSelector, ui.organTree, ui.presetBox, ui.deviceBox, ui.qualityBox, ui.statisticsBox):
            widget.enabled = not running
        ui.addBox.enabled = not running and result is not None
        ui.resultLabel.text = self._resultText(result)
        ui.summaryLabel.text = self._problem or self._choiceText(names)
        self._showPreset()
        self._list.show(isReady=not self._problem and bool(ticked))
        self.onRunning(running)

    def _resultText(self, result: Any) -> str:
        if result is None:
            return _("None yet")
        return _("{name}, organs: {count}").format(name=result.GetName(), count=len(self._results.organs(result)))

    def _choiceText(self, names: tuple[str, ...]) -> str:
        tasks = self._session.choice.tasks(names)
        text = _("{ticked} of {all} organs to segment").format(ticked=len(names), all=len(self._session.choice.organs))
        if not names:
            return text
        return text + _(", tasks: {tasks}").format(tasks=", ".join(tasks)) + self._time(names)

    def _everythingText(self) -> str:
        """What the big button does, and what it leaves out."""
        choice = self._session.choice
        left = ", ".join(organ.display_name for organ in choice.organs if organ.is_on_request)
        text = _("Segment every organ{time}").format(time=self._time(choice.usual))
        return text + (_("; on request, so tick it to segment it: {organs}").format(organs=left) if left else "")

    def _time(self, names: tuple[str, ...]) -> str:
        seconds = self._session.seconds(self.ui.inputSelector.currentNode(), self._options(), names)
        if seconds is None:
            return _("; the time is known after the first run")
        return _("; about {time}").format(time=duration(seconds))

    def _showPreset(self) -> None:
        """Show the preset that is ticked, and offer those that hold an organ."""
        box, choice = self.ui.presetBox, self._session.choice
        titles = presetTitles()
        ids = ("", *choice.presets())
        if tuple(box.itemData(index) for index in range(box.count)) != ids:
            wasBlocked = box.blockSignals(True)
            box.clear()
            for name in ids:
                box.addItem(titles[name], name)
            box.blockSignals(wasBlocked)
        box.setCurrentIndex(box.findData(choice.preset()))


def presetTitles() -> dict[str, str]:
    """What the presets are called."""
    return {
        "": _("Own choice"),
        WHOLE_BODY: _("Whole body"),
        "headNeck": _("Head and neck"),
        "chest": _("Chest"),
        "abdomen": _("Abdomen"),
        "pelvis": _("Pelvis"),
        "skeleton": _("Skeleton"),
        "vascular": _("Heart and vessels"),
        "muscles": _("Muscles"),
        "lesions": _("Lesions"),
    }


def stageText(stage: str) -> str:
    """What the engine does now, in words; a stage that is new here is shown as it is called."""
    return {
        "read": _("Reading the scan"),
        "load model": _("Loading the model"),
        "prepare": _("Preparing"),
        "resample": _("Segmenting"),
        "network": _("Segmenting"),
        "native": _("Segmenting"),
        "merge": _("Merging the tasks"),
        "write": _("Measuring and writing"),
        "done": _("Bringing the organs into the scene"),
    }.get(stage, stage)
