"""What the Segment page does: orders from the user's choice, results remembered, times learned. No Qt and no scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from wbcss.errors import InputError, WbcssError
from wbcss.io.writing import check_output_folder
from wbcss.protocol import OrganItem

from .OrganChoice import OrganChoice
from .ResultTable import ResultRow, merged, rowsOf
from .RunOptions import RunOptions
from .SegmentLogic import Order, Outcome
from .SegmentQueue import FrameBridge, FrameItem, ItemProtocol, SegmentQueue, VolumeItem, fileItems
from .Settings import Settings
from .TimeEstimate import TimeEstimate
from .Translation import _

_TRUNK_LITERS = 40.0


class ResultsProtocol(Protocol):
    """What is needed of ResultScene."""

    def resultOf(self, volumeNode: Any) -> Any: ...

    def organs(self, segmentationNode: Any) -> frozenset[str]: ...

    def rows(self, segmentationNode: Any) -> tuple[ResultRow, ...]: ...

    def remember(self, segmentationNode: Any, volumeNode: Any, rows: Sequence[ResultRow], inTable: bool) -> None: ...

    def liters(self, volumeNode: Any) -> float: ...


class SequencesProtocol(FrameBridge, Protocol):
    """What is needed of SequenceBridge."""

    def numFrames(self, sequenceNode: Any) -> int: ...

    def hasResult(self, sequenceNode: Any, number: int) -> bool: ...


class SegmentSession:
    """Knows what can be segmented, and turns what the user wants into items of the queue.

    Args:
        queue: Works on the items; its ``onOutcome`` is taken over.
        results: Results in the scene.
        sequences: Frames of sequences.
        settings: Preferences of the machine.
        listOrgans: Reads what the registry in use can segment. Raises WbcssError.
        registry: The folder of the registry in use.

    Attributes:
        choice: The organs and their ticks.
        onResult: Called with a segmentation node that was made or changed.
    """

    def __init__(
        self,
        queue: SegmentQueue,
        results: ResultsProtocol,
        sequences: SequencesProtocol,
        settings: Settings,
        listOrgans: Callable[[], Sequence[OrganItem]],
        registry: Callable[[], Path],
    ) -> None:
        self.queue = queue
        self.choice = OrganChoice()
        self._results = results
        self._sequences = sequences
        self._settings = settings
        self._listOrgans = listOrgans
        self._registry = registry
        self._estimate = TimeEstimate.fromText(settings.runTimes)
        self.onResult: Callable[[Any], None] = lambda segmentationNode: None
        queue.onOutcome = self._take

    def refresh(self) -> str:
        """Read the registry again; returns what is wrong with it, or ""."""
        try:
            organs = self._listOrgans()
        except WbcssError as error:
            self.choice.setOrgans(())
            return str(error)
        self.choice.setOrgans(organs)
        return "" if organs else _("No task is switched on, or none can be read. See the page Tasks.")

    def missing(self, volumeNode: Any) -> tuple[str, ...]:
        """The ticked organs that the result of ``volumeNode`` lacks; all ticked ones if there is none."""
        segmentationNode = self._results.resultOf(volumeNode)
        there = frozenset() if segmentationNode is None else self._results.organs(segmentationNode)
        return tuple(name for name in self.choice.ticked if name not in there)

    def seconds(self, volumeNode: Any, options: RunOptions, names: Sequence[str]) -> float | None:
        """How long ``names`` will take in ``volumeNode`` (None: in a trunk); None if nothing was measured yet."""
        liters = _TRUNK_LITERS if volumeNode is None else self._results.liters(volumeNode)
        tasks = self.choice.tasks(names)
        return self._estimate.seconds(device=options.device, quality=options.quality, tasks=tasks, liters=liters)

    def segment(self, volumeNode: Any, names: Sequence[str], options: RunOptions, *, add: bool = False) -> None:
        """Segment ``names`` in a volume, or in the frames of a sequence that were not segmented yet.

        With ``add`` they join the result of the volume, and those that it has already are left as they are.

        Raises:
            InputError: There is nothing to do.
            WbcssError: It cannot start.
        """
        if volumeNode.IsA("vtkMRMLSequenceNode"):
            self.queue.start(self._frames(volumeNode, names, options))
            return
        segmentationNode = self._results.resultOf(volumeNode) if add else None
        if segmentationNode is not None:
            there = self._results.organs(segmentationNode)
            names = [name for name in names if name not in there]
            if not names:
                raise InputError(_("Every ticked organ is in the result already; tick others, or segment them anew."))
        order = self._order(volumeNode, names, options, segmentationNode=segmentationNode)
        self.queue.start([VolumeItem(name=volumeNode.GetName(), order=order)])

    def segmentList(
        self,
        volumeNodes: Sequence[Any],
        files: Sequence[Path],
        folder: Path | None,
        names: Sequence[str],
        options: RunOptions,
    ) -> None:
        """Segment volumes of the scene and files, one after another; results of files go to ``folder``.

        Raises:
            InputError: There are files and no folder for their results.
            OutputError: That folder cannot be written.
            WbcssError: It cannot start.
        """
        if files and folder is None:
            raise InputError(_("Choose the folder for the results of the files first."))
        items: list[ItemProtocol] = [
            VolumeItem(name=node.GetName(), order=self._order(node, names, options)) for node in volumeNodes
        ]
        if files and folder is not None:
            check_output_folder(folder)
            items += fileItems(files, folder, lambda path, output: self._order(path, names, options, output=output))
        self.queue.start(items)

    def _frames(self, sequenceNode: Any, names: Sequence[str], options: RunOptions) -> list[FrameItem]:
        def order(volumeNode: Any) -> Order:
            return self._order(volumeNode, names, options, isFrame=True)

        count = self._sequences.numFrames(sequenceNode)
        left = [number for number in range(count) if not self._sequences.hasResult(sequenceNode, number)]
        if not left:
            left = list(range(count))  # everything was segmented before: the user wants it anew
        return [FrameItem(self._sequences, sequenceNode, number, order) for number in left]

    def _order(self, volume: Any, names: Sequence[str], options: RunOptions, **where: Any) -> Order:
        wanted = set(names)
        return Order(
            volume=volume,
            organs=tuple(organ for organ in self.choice.organs if organ.name in wanted),
            options=options,
            registry=self._registry(),
            liters=0.0 if isinstance(volume, Path) else self._results.liters(volume),
            **where,
        )

    def _take(self, outcome: Outcome) -> None:
        """Learn from what a run took, and tie its result to its volume."""
        order, node = outcome.order, outcome.segmentationNode
        if not outcome.skipped and order.liters:
            options = order.options
            self._estimate.learn(
                device=options.device,
                quality=options.quality,
                tasks=order.tasks,
                liters=order.liters,
                seconds=outcome.seconds,
            )
            self._settings.runTimes = self._estimate.toText()
        if node is None or order.isFrame:
            return
        rows = rowsOf(outcome.rows, order.organs)
        if order.segmentationNode is node:
            rows = merged(self._results.rows(node), rows)
        self._results.remember(node, order.volume, rows, order.options.statistics)
        self.onResult(node)
