"""Cases out of the scene: pairs of a volume and a segmentation, written under neutral names for the back end. No Qt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from wbcss.catalogue import Organ
from wbcss.errors import InputError, WbcssError
from wbcss.io.atomic import write_text
from wbcss.volume import Affine, LabelMap

from .CaseFolder import CaseFolder, Keeping
from .Translation import _

LIST = "list.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneCase:
    """An annotated scan, away from the scene.

    Attributes:
        voxels: (I, J, K) HU.
        affine: ijk to RAS mm, parent transforms included.
        labels: (I, J, K) label values of ``organs``.
        organs: One for each segment.
        numShared: Voxels that several segments claimed; the last one got them.
        owner: A number that volumes of one patient share; a number of its own if nothing is known.
    """

    voxels: Any
    affine: Affine
    labels: LabelMap
    organs: tuple[Organ, ...]
    numShared: int
    owner: int


class ReaderProtocol(Protocol):
    """What is needed of CaseExport."""

    def read(self, volumeNode: Any, segmentationNode: Any) -> SceneCase: ...


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A volume of the scene and the segmentation that was drawn on it."""

    volumeNode: Any
    segmentationNode: Any

    @property
    def title(self) -> str:
        """What it is called on the screen."""
        return f"{self.volumeNode.GetName()}  +  {self.segmentationNode.GetName()}"


class EnrollScene:
    """The pairs that a user has put together, and their export: one case at a time, compressed in a thread.

    Attributes:
        pairs: In the order of the cases.
        notes: What a user should know of the last export.
        message: Why the last export failed, "" if it did not.
        onDone: Called with the list of the cases when all are written.
    """

    def __init__(self, reader: ReaderProtocol) -> None:
        self._reader = reader
        self._folder: Path | None = None
        self._next = 0
        self._keeping: Keeping | None = None
        self._entries: list[dict[str, str]] = []
        self.pairs: tuple[Pair, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.message = ""
        self.onDone: Callable[[Path], None] = lambda path: None

    @property
    def isBusy(self) -> bool:
        """Whether cases are being written."""
        return self._folder is not None

    @property
    def progress(self) -> float:
        """Share of the cases that are written."""
        return self._next / max(1, len(self.pairs))

    def add(self, volumeNode: Any, segmentationNode: Any) -> None:
        """One more case. Raises InputError if a part is missing or the volume is there already."""
        if volumeNode is None or segmentationNode is None:
            raise InputError(_("choose a volume and a segmentation"))
        if any(pair.volumeNode is volumeNode for pair in self.pairs):
            raise InputError(_("{name} is one of the cases already").format(name=volumeNode.GetName()))
        self.pairs = (*self.pairs, Pair(volumeNode=volumeNode, segmentationNode=segmentationNode))

    def remove(self, place: int) -> None:
        """One case less."""
        self.pairs = tuple(pair for number, pair in enumerate(self.pairs) if number != place)

    def clear(self) -> None:
        """Forget all pairs: their scene is closing."""
        self.pairs, self._folder, self._keeping = (), None, None

    def export(self, folder: Path) -> None:
        """Begin to write all pairs into ``folder``; ``poll`` goes on. Raises InputError if there is none."""
        if not self.pairs:
            raise InputError(_("add at least one case"))
        self._folder, self._next, self._keeping, self._entries = folder, 0, None, []
        self.notes, self.message = (), ""

    def poll(self) -> None:
        """Take up what was written and begin with the next case."""
        if self._folder is None or (self._keeping is not None and not self._keeping.isDone):
            return
        try:
            self._step(self._folder)
        except WbcssError as error:
            self._folder, self.message = None, str(error)

    def _step(self, folder: Path) -> None:
        if self._keeping is not None:
            if self._keeping.path is None:
                raise InputError(self._keeping.message)
            self._entries[-1]["labels"] = self._keeping.path.name
            self._entries[-1]["image"] = self._keeping.path.name.replace(".seg.nrrd", ".nrrd")
            self._keeping, self._next = None, self._next + 1
        if self._next < len(self.pairs):
            self._begin(self.pairs[self._next], folder)
            return
        write_text(folder / LIST, json.dumps({"cases": self._entries}, indent=1) + "\n")
        self._folder = None
        self.onDone(folder / LIST)

    def _begin(self, pair: Pair, folder: Path) -> None:
        case = self._reader.read(pair.volumeNode, pair.segmentationNode)
        if case.numShared:
            note = _("{title}: {count} voxels belong to several segments; the last one takes them")
            self.notes = (*self.notes, note.format(title=pair.title, count=case.numShared))
        # Volumes of one patient must not be on both sides of the split.
        owner = f"owner_{case.owner}" if case.owner else f"case_{self._next + 1}"
        self._entries.append({"patient": owner})
        self._keeping = Keeping(CaseFolder(folder), case.voxels, case.affine, case.labels, case.organs)
