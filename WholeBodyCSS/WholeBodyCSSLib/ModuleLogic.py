"""The module without its panel: everything that works together, made once. For the panel and for Python scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wbcss.errors import RunError
from wbcss.organlist import organ_items
from wbcss.protocol import OrganItem
from wbcss.registry import Registry

from .CaseKeeper import CaseKeeper
from .EngineProcess import EngineProcess, workerCommand
from .RegistryPlaces import RegistryPlaces
from .ResultScene import ResultScene
from .RunOptions import RunOptions
from .SceneBridge import SceneBridge
from .SegmentLogic import SegmentLogic
from .SegmentQueue import SegmentQueue
from .SegmentSession import SegmentSession
from .SequenceBridge import SequenceBridge
from .Settings import Settings
from .SurfaceLogic import SurfaceLogic
from .Surfaces import Surfaces


class ModuleLogic:
    """``segment`` begins; then call ``queue.poll`` until ``queue.isRunning`` is false.

    Args:
        settings: Preferences of the machine.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.places = RegistryPlaces(settings)
        self.results = ResultScene()
        self.process = EngineProcess()
        bridge = SceneBridge()
        self.segmenting = SegmentLogic(self.process, bridge)
        self.queue = SegmentQueue(self.segmenting)
        self.session = SegmentSession(
            self.queue, self.results, SequenceBridge(), settings, self.listOrgans, lambda: self.places.inUse
        )
        self.keeper = CaseKeeper(bridge, lambda: self.session.choice.organs)
        surfaceProcess = EngineProcess(workerCommand("WholeBodyCSSLib.SurfaceWorker"), title="surface process")
        self.surfaces = SurfaceLogic(surfaceProcess, Surfaces())

    def listOrgans(self) -> tuple[OrganItem, ...]:
        """What the registry in use can segment, without the tasks that are switched off."""
        return organ_items(Registry(self.places.inUse), without=self.settings.disabledTasks)

    def segment(self, volumeNode: Any, organs: Sequence[str] | None = None, options: RunOptions | None = None) -> None:
        """Begin to segment ``organs`` (names; None: all but those on request) of a volume or a sequence.

        Raises WbcssError.
        """
        problem = self.session.refresh()
        if problem:
            raise RunError(problem)
        names = self.session.choice.usual if organs is None else organs
        self.session.segment(volumeNode, names, options or RunOptions(device=self.settings.device))

    def close(self) -> None:
        """Stop what runs and end the worker, without waiting."""
        self.surfaces.close()
        self.queue.close()
        self.process.kill()
