"""Accepted corrections, kept as annotated cases that an enrolment can learn from. No Qt and no scene.

A case is an image and its organs beside it, ``case_0001.nrrd`` and ``case_0001.seg.nrrd``: numbers only, for a name or
an identifier of a patient must not travel in a file name.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wbcss.catalogue import Organ, catalogue
from wbcss.errors import InputError, OutputError, SpecError, WbcssError
from wbcss.io.writing import check_output_folder, write_segmentation, write_volume
from wbcss.labels import OrganName
from wbcss.protocol import OrganItem
from wbcss.terminology import Code, Terminology
from wbcss.volume import Affine, LabelMap

_CASE = re.compile(r"case_(\d{4,})\.(?:seg\.nrrd|nrrd)")
_STRUCTURE = Code(scheme="SCT", value="123037004", meaning="Anatomical Structure")


class CaseFolder:
    """The user's folder of cases; made when the first one is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def numCases(self) -> int:
        """Cases in the folder."""
        return len(set(self._numbers()))

    def keep(self, voxels: npt.NDArray[np.generic], affine: Affine, labels: LabelMap, organs: Sequence[Organ]) -> Path:
        """Write one case and return the path of its labels; both files are there whole, or neither.

        Args:
            voxels: (I, J, K) HU.
            affine: ijk to RAS mm.
            labels: (I, J, K) label values of ``organs``.
            organs: What was contoured.

        Raises:
            InputError: No organ has a voxel.
            OutputError: The folder cannot be written, or the disk is full.
        """
        present = set(np.unique(labels).tolist())
        kept = [organ for organ in organs if organ.label in present]
        if not kept:
            raise InputError("a case must hold at least one organ with voxels, got none; show the organs to keep")
        check_output_folder(self.folder, expected_bytes=voxels.nbytes // 2)
        name = f"case_{max(self._numbers(), default=0) + 1:04d}"
        image, segmentation = self.folder / f"{name}.nrrd", self.folder / f"{name}.seg.nrrd"
        try:
            write_volume(image, voxels, affine)
            write_segmentation(segmentation, labels, affine, kept)
        except BaseException:
            image.unlink(missing_ok=True)  # an image alone would be a case without an organ
            raise
        return segmentation

    def _numbers(self) -> list[int]:
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OutputError(
                f"the folder of cases must be readable, got {self.folder}: {error.strerror or error}; choose another"
            ) from error
        return [int(match[1]) for name in names if (match := _CASE.fullmatch(name))]


class Keeping:
    """One case being written in a thread: compressing takes seconds in which the window must not stand still."""

    def __init__(
        self,
        folder: CaseFolder,
        voxels: npt.NDArray[np.generic],
        affine: Affine,
        labels: LabelMap,
        organs: Sequence[Organ],
    ) -> None:
        self.path: Path | None = None
        self.message = ""

        def work() -> None:
            try:
                self.path = folder.keep(voxels, affine, labels, organs)
            except (WbcssError, OSError, MemoryError) as error:
                self.message = str(error) or type(error).__name__

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    @property
    def isDone(self) -> bool:
        """Whether ``path`` or ``message`` is set."""
        return not self._thread.is_alive()


def organOf(
    segmentId: str, name: str, color_rgb: tuple[int, int, int], known: Sequence[OrganItem], *, freeLabel: int
) -> Organ:
    """The organ of a segment: the one of the registry or catalogue, else one of the user's own with ``freeLabel``.

    Any label will do for that: the organ goes by its name in the file. Raises InputError for a name without letters.
    """
    item = next((item for item in known if item.name == segmentId), None)
    if item is not None:
        return _ofItem(item)
    words = "_".join(re.findall(r"[a-z0-9]+", name.lower()))
    if words in catalogue():
        return catalogue()[OrganName(words)]
    if not re.match(r"[a-z]", words):
        raise InputError(f"the segment must have a name that begins with a letter a-z, got {name!r}; rename it")
    return Organ(
        name=OrganName(words),
        label=freeLabel,
        side="none",
        group="custom",
        color_rgb=color_rgb,
        category=_STRUCTURE,
        type=_STRUCTURE,
        display=name,
        exact=False,
    )


def _ofItem(item: OrganItem) -> Organ:
    if item.name in catalogue():
        return catalogue()[OrganName(item.name)]
    try:
        terms = Terminology.parse(item.terminology)
    except SpecError:
        terms = Terminology(category=_STRUCTURE, type=_STRUCTURE)
    return Organ(
        name=OrganName(item.name),
        label=item.label,
        side="none",
        group=item.group,
        color_rgb=item.color_rgb,
        category=terms.category,
        type=terms.type,
        display=item.display_name,
        exact=False,
    )
