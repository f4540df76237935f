"""Takes an edited result out of the scene and keeps it as a case for the next enrolment. No Qt."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from wbcss.arrayfile import ArrayFile, read_array
from wbcss.catalogue import FIRST_CUSTOM_LABEL
from wbcss.errors import InputError, RunError
from wbcss.labels import MAX_LABEL
from wbcss.protocol import OrganItem

from .CaseFolder import CaseFolder, Keeping, organOf
from .LabelReader import readLabels

_FREE_LABEL = (FIRST_CUSTOM_LABEL + MAX_LABEL) // 2


class VolumeWriter(Protocol):
    """What is needed of SceneBridge."""

    def writeVolume(self, volumeNode: Any, path: Path) -> ArrayFile: ...


class CaseKeeper:
    """One case at a time, written in the background.

    Args:
        bridge: Reads volumes.
        organs: What the registry knows, for the names and codes of segments.
    """

    def __init__(self, bridge: VolumeWriter, organs: Callable[[], Sequence[OrganItem]]) -> None:
        self._bridge = bridge
        self._organs = organs
        self._keeping: Keeping | None = None

    @property
    def isDone(self) -> bool:
        """Whether nothing is being written."""
        return self._keeping is None or self._keeping.isDone

    def start(self, segmentationNode: Any, volumeNode: Any, segmentIds: Sequence[str], folder: Path) -> None:
        """Begin to write the volume and its segments ``segmentIds``.

        Raises:
            InputError: There is no volume or segment, or a segment's name makes no organ.
            GeometryError: The segmentation lies on another grid than the volume.
            RunError: Another case is being written.
        """
        if not self.isDone:
            raise RunError("one case can be written at a time, and another one still is; wait a moment")
        if volumeNode is None or not segmentIds:
            raise InputError("a case needs its volume in the scene and an organ that is shown, got none")
        segmentation, known = segmentationNode.GetSegmentation(), self._organs()
        organs = []
        for number, segmentId in enumerate(segmentIds):
            segment = segmentation.GetSegment(segmentId)
            red, green, blue = (round(255 * channel) for channel in segment.GetColor())
            label = _FREE_LABEL + number
            organs.append(organOf(segmentId, segment.GetName(), (red, green, blue), known, freeLabel=label))
        values = {segmentId: organ.label for segmentId, organ in zip(segmentIds, organs, strict=True)}
        labels = readLabels(segmentationNode, volumeNode, values)
        with tempfile.TemporaryDirectory(prefix="WholeBodyCSS-") as temporary:
            file = self._bridge.writeVolume(volumeNode, Path(temporary) / "volume.npy")
            voxels, affine = read_array(file), file.affine_ras_mm
        self._keeping = Keeping(CaseFolder(folder), voxels, affine, labels, organs)

    def take(self) -> tuple[Path | None, str]:
        """The path of the labels written, or None and what went wrong; after that the next case may start."""
        keeping, self._keeping = self._keeping, None
        return (None, "") if keeping is None else (keeping.path, keeping.message)
