"""What the surface process is asked; it answers with ``progress``, ``result`` and ``error`` of ``wbcss.protocol``.

==============  ================================================================================================
request         answered by
==============  ================================================================================================
``surfaces``    any number of ``progress``, then exactly one ``result`` or ``error``. ``files`` of the result maps
                label values, as texts, to ``.vtp`` files
``cancel``      ``cancelling`` at once; the making of surfaces then ends with ``error``, kind ``cancelled``
``shutdown``    ``goodbye``. The end of the input means the same
==============  ================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from wbcss.arrayfile import AffineRows, ArrayFile
from wbcss.errors import ProtocolError
from wbcss.protocol import Cancel, Message, Shutdown, parse_message


@dataclass(frozen=True, kw_only=True)
class SurfaceRequest(Message):
    """Make a closed surface for each label.

    Attributes:
        labels: Where the labels lie.
        values: Label values wanted.
        affine: Rows of the matrix that maps ijk to the frame of the segmentation node, in mm: surfaces lie in that
            frame, while the affine of ``labels`` itself leads to the world.
        folder: Absolute path of the folder that the surfaces are written to.
    """

    type: ClassVar[str] = "surfaces"
    labels: ArrayFile
    values: tuple[int, ...]
    affine: AffineRows
    folder: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not Path(self.folder).is_absolute():
            raise ProtocolError(f"folder must be an absolute path, got {self.folder!r}")
        if [len(row) for row in self.affine] != [4, 4, 4, 4]:
            raise ProtocolError(f"affine must be four rows of four, got {self.affine}")


_KINDS = {kind.type: kind for kind in (SurfaceRequest, Cancel, Shutdown)}


def parseSurfaceMessage(line: bytes) -> SurfaceRequest | Cancel | Shutdown:
    """Read what the host sent. Raises ProtocolError saying what was wrong."""
    message: SurfaceRequest | Cancel | Shutdown = parse_message(line, _KINDS)
    return message
