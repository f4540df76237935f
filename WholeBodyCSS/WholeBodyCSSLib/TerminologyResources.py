"""The organs of the catalogue in Slicer's terminology selector."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from wbcss.errors import RunError

TYPES = "SegmentationCategoryTypeModifier-WholeBodyCSS.term.json"
REGIONS = "AnatomicRegionAndModifier-WholeBodyCSS.term.json"


class TerminologiesProtocol(Protocol):
    """What is needed of the logic of Slicer's Terminologies module."""

    def LoadTerminologyFromFile(self, path: str) -> str: ...

    def LoadRegionContextFromFile(self, path: str) -> str: ...


class TerminologyResources:
    """Loads the two files of ``Resources`` once a session."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._isLoaded = False

    def load(self, logic: TerminologiesProtocol) -> None:
        """Give ``slicer.modules.terminologies.logic()`` the organs. Raises RunError if Slicer refuses a file."""
        if self._isLoaded:
            return
        for name, loadFile in ((TYPES, logic.LoadTerminologyFromFile), (REGIONS, logic.LoadRegionContextFromFile)):
            if not loadFile(str(self._folder / name)):
                raise RunError(f"the terminology file {name} cannot be loaded; install the extension again")
        self._isLoaded = True
