"""Voxels in a file that host and worker share, so that no voxel travels through a pipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .errors import OutputError, ProtocolError, VolumeFileError
from .io.atomic import atomic_path
from .jsontypes import shown
from .volume import Affine, Shape3, Volume

ArrayType = Literal["int16", "float32", "uint16", "float16"]
AffineRows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class ArrayFile:
    """An array (I, J, K) in a file of its own.

    Attributes:
        path: Absolute path. ``.npy`` in NumPy's format, or ``.raw``: the bare little-endian voxels in C order.
        shape: Number of voxels along i, j, k.
        dtype: Type of a voxel.
        affine: The four rows of the 4x4 matrix that maps (i, j, k, 1) to RAS mm.
    """

    path: str
    shape: Shape3
    dtype: ArrayType
    affine: AffineRows

    def __post_init__(self) -> None:
        if not Path(self.path).is_absolute() or Path(self.path).suffix not in (".npy", ".raw"):
            raise ProtocolError(
                f"an array file must be an absolute path ending in .npy or .raw, got {shown(self.path)}"
            )
        if min(self.shape) < 1:
            raise ProtocolError(f"shape of an array file must be positive, got {self.shape}")
        if [len(row) for row in self.affine] != [4, 4, 4, 4]:
            raise ProtocolError(f"affine of an array file must be four rows of four, got {shown(self.affine)}")

    @property
    def affine_ras_mm(self) -> Affine:
        """The matrix, shape (4, 4)."""
        return np.array(self.affine, dtype=np.float64)


def read_array(file: ArrayFile) -> npt.NDArray[Any]:
    """The voxels of ``file`` in memory, shape (I, J, K). Nothing is unpickled. Raises VolumeFileError.

    The file is copied rather than mapped: a host that deletes it early cannot take the worker down.
    """
    return np.array(map_array(file), dtype=np.dtype(file.dtype))


def map_array(file: ArrayFile) -> npt.NDArray[Any]:
    """As ``read_array``, but read-only and backed by the file, which must stay until the array is gone."""
    path = Path(file.path)
    try:
        if path.suffix == ".npy":
            mapped = np.lib.format.open_memmap(path, mode="r")
        else:
            expected = int(np.prod(file.shape, dtype=np.int64)) * np.dtype(file.dtype).itemsize
            if path.stat().st_size != expected:
                raise VolumeFileError(
                    f"{path} must hold {expected} bytes ({file.dtype}, shape {file.shape}), got {path.stat().st_size}"
                )
            mapped = np.memmap(path, dtype=np.dtype(file.dtype).newbyteorder("<"), mode="r", shape=file.shape)
    except VolumeFileError:
        raise
    except (OSError, ValueError) as error:
        raise VolumeFileError(f"{path} must be a readable array file, got: {error}") from error
    if mapped.shape != file.shape or mapped.dtype != np.dtype(file.dtype):
        raise VolumeFileError(
            f"{path} must hold {file.dtype} of shape {file.shape}, got {mapped.dtype} of shape {mapped.shape}"
        )
    return mapped


def read_array_volume(file: ArrayFile) -> Volume:
    """A CT volume from ``file``. Raises VolumeFileError, or GeometryError if the grid cannot be used."""
    if file.dtype not in ("int16", "float32"):
        raise VolumeFileError(f"an input volume must be int16 or float32, got {file.dtype}")
    voxels = read_array(file)
    if voxels.dtype == np.float32 and not np.isfinite(voxels).all():
        raise VolumeFileError(f"{file.path} must hold finite Hounsfield units, got NaN or infinite voxels")
    return Volume(voxels=voxels, affine=file.affine_ras_mm)


def write_array(path: Path, array: npt.NDArray[Any], affine: Affine, *, durable: bool = True) -> ArrayFile:
    """Write ``array`` (I, J, K) as ``.npy``, whole or not at all, and describe it. Raises OutputError.

    ``durable`` false does not wait for the disk: for a file that another process reads at once and nobody keeps.
    """
    if path.suffix != ".npy":
        raise OutputError(f"an array file must end in .npy, got {path.name}")
    with atomic_path(path, durable=durable) as partial, partial.open("wb") as stream:
        np.lib.format.write_array(stream, array, allow_pickle=False)
    return describe_array(path, array, affine)


def describe_array(path: Path, array: npt.NDArray[Any], affine: Affine) -> ArrayFile:
    """The ArrayFile of ``array`` lying at ``path``. Raises ProtocolError for a type that is not shared."""
    names: dict[str, ArrayType] = {"int16": "int16", "float32": "float32", "uint16": "uint16", "float16": "float16"}
    if array.ndim != 3 or array.dtype.name not in names:
        raise ProtocolError(f"shared arrays are 3D {', '.join(names)}, got {array.ndim}D {array.dtype.name}")
    i, j, k = array.shape
    rows = tuple(tuple(float(v) for v in row) for row in affine)
    return ArrayFile(path=str(path), shape=(i, j, k), dtype=names[array.dtype.name], affine=rows)
