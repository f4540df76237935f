"""The names of the segments in a ``.seg.nrrd``, read from its header alone."""

from __future__ import annotations

from pathlib import Path

import SimpleITK

from wbcss.errors import CaseError, VolumeFileError
from wbcss.io.itkfile import absorbed_stderr
from wbcss.io.seg_nrrd import parse_segments


def segment_names(path: Path) -> tuple[str, ...]:
    """Names as ``read_labels`` gives them, in the order of the file. Raises CaseError if there are none, or twins."""
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO")
    with absorbed_stderr():
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            raise CaseError(f"{path.name} is not a readable .seg.nrrd: its header is missing or damaged") from None
    try:
        segments = parse_segments({key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()})
    except VolumeFileError as error:
        raise CaseError(f"{path.name}: {error}") from error
    names = [segment.organ for segment in segments]
    if not names:
        raise CaseError(f"{path.name} must name its segments, got none; is it a plain label map?")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise CaseError(f"{path.name} may name a segment once, got {twice!r} again; rename one")
    return tuple(names)
