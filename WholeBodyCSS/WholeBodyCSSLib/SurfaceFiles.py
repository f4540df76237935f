"""Surfaces on disk between the two processes: VTK's own XML format, not packed, for speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vtkmodules.vtkIOXML import vtkXMLPolyDataReader, vtkXMLPolyDataWriter

from wbcss.errors import OutputError, VolumeFileError


def writeSurface(path: Path, surface: Any) -> Path:
    """Write ``surface`` to ``path`` (.vtp) and return it. Raises OutputError."""
    writer = vtkXMLPolyDataWriter()
    writer.SetFileName(str(path))
    writer.SetInputData(surface)
    writer.SetDataModeToAppended()
    writer.EncodeAppendedDataOff()
    writer.SetCompressorTypeToNone()
    writer.SetHeaderTypeToUInt64()
    if writer.Write() != 1:
        raise OutputError(f"cannot write the surface {path}; is the disk full?")
    return path


def readSurface(path: Path) -> Any:
    """The vtkPolyData in ``path``. Raises VolumeFileError if there is none."""
    if not path.is_file():
        raise VolumeFileError(f"{path.name} must be a surface, got no file")
    reader = vtkXMLPolyDataReader()
    reader.SetFileName(str(path))
    reader.Update()
    surface = reader.GetOutput()
    if not surface.GetNumberOfPolys():
        raise VolumeFileError(f"{path.name} must hold a closed surface, got none")
    return surface
