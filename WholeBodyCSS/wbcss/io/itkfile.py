"""NRRD and MetaImage files through SimpleITK, with ITK's own chatter kept off the user's screen."""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK

from ..errors import VolumeFileError
from ..volume import Affine
from .voxels import check_grid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""ITK's patient axes run left, posterior, superior; ours right, anterior, superior."""

_NAMES = {"NrrdImageIO": "NRRD", "MetaImageIO": "MetaImage"}
_MAX_LINE_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 22
_STDERR_LOCK = threading.RLock()


@dataclass(frozen=True, eq=False)
class ItkImage:
    """One three-dimensional image as ITK read it.

    Attributes:
        array: Shape (I, J, K, C), C values a voxel; Fortran-like order, the memory is ITK's own.
        affine: (i, j, k, 1) to RAS mm, shape (4, 4).
        fields: The text fields of the file's header.
    """

    array: npt.NDArray[Any]
    affine: Affine
    fields: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Lets NumPy use the pixels of an ITK image in place and keep the image alive for as long as it does."""

    image: SimpleITK.Image
    __array_interface__: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        interface = dict(SimpleITK.GetArrayViewFromImage(self.image).__array_interface__)
        # Nobody else holds the image, so there is nobody to protect from writing.
        interface["data"] = (interface["data"][0], False)
        object.__setattr__(self, "__array_interface__", interface)


def read_itk(path: Path, *, image_io: str) -> ItkImage:
    """Read ``path`` with the named ITK reader; a fourth dimension of 1 is dropped.

    Raises:
        VolumeFileError: Not such a file, not three-dimensional, truncated, damaged, or too large for the memory.
        GeometryError: Spacing or axes are unusable, or the grid is sheared.
    """
    name = _NAMES[image_io]
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(image_io)
    with absorbed_stderr():
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            raise VolumeFileError(f"not a readable {name} file: its header is missing or damaged") from None
    affine = _affine(reader)
    if image_io == "MetaImageIO" and not _is_packing_whole(path):
        raise _damaged(reader)
    with absorbed_stderr():
        try:
            image = reader.Execute()
        except RuntimeError as error:
            if "allocate memory" in str(error):
                raise VolumeFileError(f"the header promises {_size(reader)} voxels, more than fit in memory") from None
            raise _damaged(reader) from None
    fields = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    return ItkImage(array=pixels_of(image), affine=affine, fields=fields)


def pixels_of(image: SimpleITK.Image) -> npt.NDArray[Any]:
    """The pixels of a 3D image, or a 4D one with a single volume, as (I, J, K, C) in place; ``image`` is given up."""
    array: npt.NDArray[Any] = np.asarray(_Pixels(image))
    if image.GetNumberOfComponentsPerPixel() == 1:
        array = array[..., np.newaxis]
    if array.ndim == 5:
        array = array[0]
    return np.transpose(array, (2, 1, 0, 3))


@contextlib.contextmanager
def absorbed_stderr() -> Iterator[None]:
    """Drop what C and C++ libraries print to the error stream within the block.

    It is dropped for the whole process, so what other threads print there meanwhile is lost; blocks of several threads
    wait for each other. Without an error stream nothing happens.
    """
    with _STDERR_LOCK, contextlib.ExitStack() as restore:
        try:
            saved = os.dup(2)
        except OSError:
            yield
            return
        restore.callback(os.close, saved)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        restore.callback(os.close, nowhere)
        os.dup2(nowhere, 2)
        restore.callback(os.dup2, saved, 2)
        yield


def _affine(reader: SimpleITK.ImageFileReader) -> Affine:
    """(i, j, k, 1) to RAS mm of what ``reader`` is about to read. Raises for what is no 3D grid."""
    dimension = reader.GetDimension()
    if dimension < 3:
        raise VolumeFileError(f"a volume must have 3 dimensions, got a {dimension}D image of {_size(reader)}")
    if max(reader.GetSize()[3:], default=1) > 1:
        raise VolumeFileError(
            f"a volume must have 3 dimensions, got a {dimension}D image of {_size(reader)}; extract one volume first"
        )
    axes = np.array(reader.GetDirection(), dtype=np.float64).reshape(dimension, dimension)[:3, :3]
    affine: Affine = np.eye(4)
    spacing = np.array(reader.GetSpacing()[:3])
    # The direction of an axis without length is not a number; the zero is what to tell.
    affine[:3, :3] = np.where(spacing == 0, 0.0, axes * spacing)
    affine[:3, 3] = reader.GetOrigin()[:3]
    affine = LPS_TO_RAS @ affine
    check_grid(affine)
    return affine


def _is_packing_whole(path: Path) -> bool:
    """Whether the packed voxels of a MetaImage unpack to the checksum; true if they are not packed.

    MetaIO does not compare it, and where it fails to unpack it says so on the error stream only and goes on.
    """
    fields: dict[bytes, bytes] = {}
    with path.open("rb") as file:
        while b"ElementDataFile" not in fields and (line := file.readline(_MAX_LINE_BYTES)):
            key, _, value = line.partition(b"=")
            fields[key.strip()] = value.strip()
        if fields.get(b"CompressedData", b"").lower() != b"true" or fields.get(b"ElementDataFile") != b"LOCAL":
            return True
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            while not unpacker.eof and (packed := unpacker.unconsumed_tail or file.read(_CHUNK_BYTES)):
                unpacker.decompress(packed, _CHUNK_BYTES)
        except zlib.error:
            return False
        return unpacker.eof


def _damaged(reader: SimpleITK.ImageFileReader) -> VolumeFileError:
    return VolumeFileError(
        f"the file is truncated or damaged: its {_size(reader)} voxels cannot be read; copy it again"
    )


def _size(reader: SimpleITK.ImageFileReader) -> str:
    return "x".join(str(side) for side in reader.GetSize())
