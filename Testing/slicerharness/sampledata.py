"""``SampleData``: keeps what modules register in ``slicer.modules.sampleDataSources``; downloads nothing."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any

import slicer


@dataclass(frozen=True)
class SampleDataSource:
    """One entry of the sample data module."""

    sampleName: str
    uris: Any
    fileNames: Any
    nodeNames: Any
    thumbnailFileName: str | None
    loadFileTypes: Any
    loadFiles: Any
    checksums: Any
    sampleDescription: str | None = None
    customDownloader: Any = None


class SampleDataLogic:
    """Registers data sets."""

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileTypes: Any = None,
        loadFiles: Any = None,
        checksums: Any = None,
        sampleDescription: str | None = None,
    ) -> None:
        source = SampleDataSource(
            sampleName=sampleName or "",
            uris=uris,
            fileNames=fileNames,
            nodeNames=nodeNames,
            thumbnailFileName=thumbnailFileName,
            loadFileTypes=loadFileTypes,
            loadFiles=loadFiles,
            checksums=checksums,
            sampleDescription=sampleDescription,
            customDownloader=customDownloader,
        )
        slicer.modules.sampleDataSources.setdefault(category, []).append(source)


def make() -> types.ModuleType:
    """The module."""
    module = types.ModuleType("SampleData", __doc__)
    module.SampleDataLogic, module.SampleDataSource = SampleDataLogic, SampleDataSource
    return module
