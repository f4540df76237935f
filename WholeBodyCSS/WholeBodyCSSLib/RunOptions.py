"""How a segmentation runs: device, quality, statistics. No Qt and no scene."""

from __future__ import annotations

import re
from dataclasses import dataclass

from wbcss.errors import InputError
from wbcss.protocol import Quality

from .Settings import QUALITIES

DEVICES = ("auto", "cpu", "cuda")

_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the user chose beside volume and organs.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        quality: ``fast``, ``normal`` or ``best``: how far the tiles overlap.
        statistics: Put the table of organs into the scene, or beside the files of a folder.
    """

    device: str = "auto"
    quality: Quality = "normal"
    statistics: bool = True

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise InputError(f"the device must be auto, cpu, cuda or cuda:N, got {self.device!r}")
        if self.quality not in QUALITIES:
            raise InputError(f"the quality must be one of {', '.join(QUALITIES)}, got {self.quality!r}")
