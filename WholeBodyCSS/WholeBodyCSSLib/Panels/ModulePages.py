"""The pages of the module in their tabs, and what one page tells another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import qt
import slicer

from wbcss.arrayfile import ArrayFile
from wbcss.errors import WbcssError
from wbcss.protocol import OrganItem
from wbcss.resources import resource_path

from .. import Dependencies
from ..CaseExport import CaseExport
from ..DoctorCheck import DoctorCheck
from ..DoctorReport import Needs, needsOf
from ..EnrollLogic import EnrollLogic
from ..EnrollScene import EnrollScene
from ..ModuleLogic import ModuleLogic
from ..TaskManager import TaskManager
from ..Translation import _
from .DoctorPanel import DoctorPanel
from .PanelParts import UiLoader
from .ResultsPanel import ResultsPanel
from .SegmentPanel import SegmentPanel
from .TasksPanel import TasksPanel
from .WizardPanel import WizardPanel

POLL_INTERVAL_MS = 100
_MESSAGE_MS = 5000


class PanelProtocol(Protocol):
    """What every page is to the module."""

    widget: Any

    def enter(self) -> None: ...

    def exit(self) -> None: ...

    def cleanup(self) -> None: ...

    def onSceneClosing(self) -> None: ...


class ModulePages:
    """Makes the pages and hands on what happens to the module and to the scene.

    Args:
        tabs: The QTabWidget that they go into.
        uiLoader: ``slicer.util.loadUI``.
        logic: What they work with.
        ensure: Installs what is missing, after asking. Raises WbcssError.
    """

    def __init__(self, tabs: Any, uiLoader: UiLoader, logic: ModuleLogic, ensure: Callable[[], None]) -> None:
        self._tabs = tabs
        self._logic = logic
        self._isEntered = False
        self.segment = SegmentPanel(uiLoader, logic.session, logic.results, logic.settings, ensure)
        self.results = ResultsPanel(uiLoader, logic.results, logic.keeper, logic.settings)
        manager = TaskManager(logic.places, logic.settings)
        self.wizard = WizardPanel(
            uiLoader,
            EnrollLogic(logic.settings, logic.places.writable),
            EnrollScene(CaseExport()),
            lambda: self._ensureTraining(ensure),
            lambda: [str(row.task) for row in manager.listing().rows],
        )
        self.tasks = TasksPanel(uiLoader, manager, logic.places, logic.settings)
        version = str(slicer.app.applicationVersion)
        self.doctor = DoctorPanel(uiLoader, DoctorCheck(logic.places, logic.settings, version), ensure, self._needs)
        titled: tuple[tuple[PanelProtocol, str], ...] = (
            (self.segment, _("Segment")),
            (self.results, _("Results")),
            (self.wizard, _("Add an organ")),
            (self.tasks, _("Tasks")),
            (self.doctor, _("Doctor")),
        )
        self._panels = tuple(panel for panel, _title in titled)
        self._shown = self._panels[0]
        for panel, title in titled:
            tabs.addTab(panel.widget, title)
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_INTERVAL_MS)
        self._connect()

    def _connect(self) -> None:
        logic = self._logic
        self._tabs.connect("currentChanged(int)", self._onTab)
        self._timer.connect("timeout()", logic.surfaces.poll)
        logic.segmenting.onShown = self._onShown
        logic.session.onResult = self._onResult
        logic.surfaces.onFinished = lambda segmentationNode, count: self._timer.stop()
        logic.surfaces.onFailed = self._onNoSurfaces
        self.segment.onRunning = self._onRunning
        self.segment.onKnownResult = self.results.showResult
        self.wizard.onShowTasks = lambda task: self._tabs.setCurrentWidget(self.tasks.widget)

    def enter(self) -> None:
        """The module is shown."""
        self._isEntered = True
        self._shown.enter()

    def exit(self) -> None:
        """The module is left; what runs goes on."""
        self._isEntered = False
        self._shown.exit()

    def cleanup(self) -> None:
        """The module goes away: nothing may outlive it."""
        self._timer.stop()
        for panel in self._panels:
            panel.cleanup()
        self._logic.close()

    def onSceneClosing(self) -> None:
        """The scene goes: drop what belongs to it."""
        self._timer.stop()
        self._logic.surfaces.close()
        for panel in self._panels:
            panel.onSceneClosing()

    def onSceneClosed(self) -> None:
        """There is a new scene."""
        if self._isEntered:
            self._shown.enter()

    def onSceneLoaded(self) -> None:
        """Nodes came out of a file."""
        self.segment.onSceneLoaded()

    def importPackages(self, paths: Sequence[Path]) -> None:
        """Import task packages that were dropped onto Slicer."""
        self._tabs.setCurrentWidget(self.tasks.widget)
        self.tasks.importPackages(paths)

    def _ensureTraining(self, ensure: Callable[[], None]) -> None:
        """Install what teaching an organ needs beyond segmenting, after asking. Raises WbcssError."""
        ensure()
        requirements = resource_path(Dependencies.TRAINING_REQUIREMENTS)
        Dependencies.ensure(slicer, requirements, self._logic.settings, modules=Dependencies.TRAINING_MODULES)

    def _needs(self) -> Needs | None:
        """What the chosen scan and the ticked organs need."""
        volumeNode, session = self.segment.volumeNode, self._logic.session
        if volumeNode is None:
            return None
        return needsOf(self._logic.results.numVoxels(volumeNode), len(session.choice.tasks()))

    def _onTab(self, index: int) -> None:
        self._shown.exit()
        self._shown = self._panels[index]
        self._shown.enter()

    def _onResult(self, segmentationNode: Any) -> None:
        self.segment.showResult(segmentationNode)
        self.results.showResult(segmentationNode)

    def _onShown(self, segmentationNode: Any, labels: ArrayFile, organs: Sequence[OrganItem]) -> None:
        """Organs are in the scene: their surfaces follow while the user goes on."""
        if self._logic.settings.show3D:
            try:
                self._logic.surfaces.start(segmentationNode, labels, organs)
                self._timer.start()
            except WbcssError as error:
                self._onNoSurfaces(str(error))

    def _onNoSurfaces(self, message: str) -> None:
        """No reason for a dialog: the organs are there, and *Show 3D* makes surfaces too."""
        self._timer.stop()
        slicer.util.showStatusMessage(message, _MESSAGE_MS)

    def _onRunning(self, isRunning: bool) -> None:
        if not isRunning and not self._logic.settings.keepWorkerWarm:
            self._logic.process.kill()
