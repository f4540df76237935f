"""NIfTI-1 and NIfTI-2 files, header and voxels.

Written out here because ITK's reader and writer cannot be trusted with a patient's scan (measured with SimpleITK 2.5):
it reads a truncated file as if it were whole, writes to a full disk without an error, refuses a file whose sform is
perpendicular only to five digits, and makes a sheared one perpendicular without a word. Layout of the header from the
NIfTI-1 and NIfTI-2 standards (nifti.nimh.nih.gov); the choice between sform and qform is ITK's, so that results lie
where 3D Slicer shows the scan.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import GeometryError, VolumeFileError
from ..volume import MAX_SHEAR, Affine, Shape3, check_affine

HEADER_BYTES = 352
"""Length of the header written here: NIfTI-1's 348 bytes and four that say that no extension follows."""

MAX_SIDE = 32767
"""NIfTI-1 stores sizes in 16 bits."""

_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_COLOR_TYPES = {32: "complex", 128: "RGB", 1536: "extended float", 1792: "complex", 2048: "complex", 2304: "RGBA"}
_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_ROUNDING_32, _ROUNDING_64 = 4e-7, 1e-15
_SCANNER = 1
_AGREE_MM = 0.01
_MAX_GZIP_RATIO = 1100
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """What a NIfTI file says about its voxels.

    Attributes:
        shape: Number of voxels along i, j, k.
        dtype: Type and byte order of a stored voxel.
        affine: (i, j, k, 1) to RAS mm, shape (4, 4).
        slope: Stored value to HU.
        intercept: HU of the stored value 0.
        offset_bytes: Where in the (decompressed) file the first voxel starts.
        warnings: What was doubtful, in words.
    """

    shape: Shape3
    dtype: np.dtype[Any]
    affine: Affine
    slope: float
    intercept: float
    offset_bytes: int
    warnings: tuple[str, ...]


def read_nifti(path: Path) -> tuple[NiftiHeader, npt.NDArray[Any]]:
    """The header of ``path`` and its stored, not yet rescaled voxels: shape (I, J, K), Fortran order.

    Raises:
        VolumeFileError: Not a NIfTI file, not one three-dimensional scalar volume, truncated or damaged.
        GeometryError: The grid is sheared, or its matrix is unusable.
        OSError: The file cannot be opened.
    """
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            if not compressed:
                return _read(raw, available=path.stat().st_size)
            with gzip.GzipFile(fileobj=raw) as unpacked:
                return _read(unpacked, available=path.stat().st_size * _MAX_GZIP_RATIO)
        except MemoryError:
            raise VolumeFileError("the header promises more voxels than fit in memory; is the file whole?") from None
        except EOFError:
            raise VolumeFileError("the file is truncated: its compressed data ends too early; copy it again") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise VolumeFileError(f"the file is damaged: {error}; copy it again") from None


def _read(file: io.BufferedIOBase, *, available: int) -> tuple[NiftiHeader, npt.NDArray[Any]]:
    header = _read_header(file)
    num_bytes = int(np.prod(header.shape, dtype=object)) * header.dtype.itemsize
    if header.offset_bytes + num_bytes > available:
        raise _truncated(num_bytes, max(0, available - header.offset_bytes))
    buffer = np.empty(num_bytes, dtype=np.uint8)
    filled = _fill(file, buffer.data)
    if filled < num_bytes:
        raise _truncated(num_bytes, filled)
    # Reading on to the end makes gzip compare its checksum.
    while file.read(_CHUNK_BYTES):
        pass
    return header, buffer.view(header.dtype).reshape(header.shape, order="F")


def _fill(file: io.BufferedIOBase, target: memoryview) -> int:
    filled = 0
    while filled < len(target):
        count = file.readinto(target[filled : filled + _CHUNK_BYTES])
        if not count:
            break
        filled += count
    return filled


def _truncated(expected: int, found: int) -> VolumeFileError:
    return VolumeFileError(
        f"the file is truncated: its header promises {expected} bytes of voxels, {found} are there; copy it again"
    )


def _read_header(file: io.BufferedIOBase) -> NiftiHeader:
    start = file.read(348)
    if len(start) < 348:
        raise VolumeFileError(f"not a NIfTI file: {len(start)} bytes are too few for its header")
    for order in "<>":
        (size,) = struct.unpack_from(order + "i", start)
        if size == 348 and start[344:347] == b"n+1":
            return _parse(start, order, _NIFTI1, file)
        if size == 348 and start[344:347] == b"ni1":
            raise VolumeFileError("the voxels of this NIfTI lie in a second file (.img); convert it to .nii.gz")
        if size == 540 and start[4:7] == b"n+2":
            return _parse(start + file.read(192), order, _NIFTI2, file)
    raise VolumeFileError("not a NIfTI file: its first bytes are no NIfTI header")


@dataclass(frozen=True)
class _Layout:
    """Offsets and struct codes of the fields used, for one version of the standard."""

    num_bytes: int
    dim: tuple[int, str]
    datatype: int
    pixdim: tuple[int, str]
    vox_offset: tuple[int, str]
    scaling: tuple[int, str]
    units: tuple[int, str]
    codes: tuple[int, str]
    quaternion: tuple[int, str]
    rows: tuple[int, str]


_NIFTI1 = _Layout(348, (40, "8h"), 70, (76, "8f"), (108, "f"), (112, "2f"), (123, "B"), (252, "2h"), (256, "6f"), (280, "12f"))  # fmt: skip  # noqa: E501
_NIFTI2 = _Layout(540, (16, "8q"), 12, (104, "8d"), (168, "q"), (176, "2d"), (500, "i"), (344, "2i"), (352, "6d"), (400, "12d"))  # fmt: skip  # noqa: E501


def _parse(data: bytes, order: str, layout: _Layout, file: io.BufferedIOBase) -> NiftiHeader:
    if len(data) < layout.num_bytes:
        raise VolumeFileError("the file is truncated within its header; copy it again")

    def field(where: tuple[int, str]) -> tuple[Any, ...]:
        return struct.unpack_from(order + where[1], data, where[0])

    shape = _shape(field(layout.dim))
    (code,) = field((layout.datatype, "h"))
    if code not in _TYPES:
        kind = _COLOR_TYPES.get(code, f"type code {code}")
        raise VolumeFileError(f"voxels must be one real number each, got {kind}; convert it to a grayscale volume")
    slope, intercept = field(layout.scaling)
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        slope, intercept = 1.0, 0.0
    (offset,) = field(layout.vox_offset)
    if not np.isfinite(offset) or offset < layout.num_bytes:
        raise VolumeFileError(f"the header puts the first voxel at byte {offset:g}, inside the header; it is damaged")
    rounding = _ROUNDING_64 if layout is _NIFTI2 else _ROUNDING_32
    codes = field(layout.codes)
    # An unused quaternion may hold anything.
    qform = np.eye(4)
    if codes[0] > 0:
        qform = affine_from_quaternion(field(layout.quaternion), field(layout.pixdim), rounding=rounding)
    sform: Affine = np.vstack([np.reshape(field(layout.rows), (3, 4)), [0.0, 0.0, 0.0, 1.0]])
    affine, warnings = _affine(codes, field(layout.pixdim), qform, sform, shape)
    (units,) = field(layout.units)
    scale = _UNIT_MM.get(units & 7, 1.0)
    affine[:3] *= scale
    skip = int(offset) - layout.num_bytes
    if len(file.read(skip)) < skip:
        raise VolumeFileError("the file is truncated within its header extensions; copy it again")
    dtype = np.dtype(order + _TYPES[code])
    return NiftiHeader(shape, dtype, affine, float(slope), float(intercept), int(offset), warnings)


def _shape(dim: tuple[int, ...]) -> Shape3:
    """The three sides; further ones may only be 1."""
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise VolumeFileError(f"the header's sizes are damaged: {list(dim)}")
    sides = dim[1 : dim[0] + 1]
    if len(sides) < 3:
        raise VolumeFileError(f"a volume must have 3 dimensions, got a {len(sides)}D image of {_by(sides)}")
    if max(sides[3:], default=1) > 1:
        raise VolumeFileError(
            f"a volume must have 3 dimensions, got a {len(sides)}D image of {_by(sides)}; extract one volume first"
        )
    return int(sides[0]), int(sides[1]), int(sides[2])


def _affine(
    codes: tuple[Any, ...], pixdim: tuple[Any, ...], qform: Affine, sform: Affine, shape: Shape3
) -> tuple[Affine, tuple[str, ...]]:
    """ITK's choice between the two matrices of a header, and a warning where it matters."""
    qform_code, sform_code = codes
    if sform_code <= 0 and qform_code <= 0:
        spacing = [abs(float(p)) for p in pixdim[1:4]]
        return np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]), (
            "the file does not say how the patient lies; taken as 3D Slicer takes it (first axis to the left, second "
            "to the back, third to the head): left and right may be swapped",
        )
    if sform_code <= 0:
        return qform, ()
    # Checked even where the qform is used: a qform cannot tell of shear, so it hides it.
    check_affine(sform)
    if qform_code <= 0:
        return sform, ()
    apart = float(np.abs(_corners(sform, shape) - _corners(qform, shape)).max())
    # A small shear is rounding, and only the sform can hold it, so the two differ by that much in agreement.
    if apart <= max(_AGREE_MM, MAX_SHEAR * float(np.linalg.norm(sform[:3, :3] @ shape))):
        return sform, ()
    chosen, name = (sform, "sform") if sform_code == _SCANNER else (qform, "qform")
    return chosen, (f"the file's sform and qform differ by up to {apart:.1f} mm; the {name} is used, as by 3D Slicer",)


def affine_from_quaternion(
    quaternion: tuple[Any, ...], pixdim: tuple[Any, ...], *, rounding: float = _ROUNDING_32
) -> Affine:
    """The 4x4 matrix of a NIfTI qform: unit quaternion (b, c, d), offset (x, y, z) and spacing with qfac first.

    The square of the quaternion's unstored part counts as 0 up to ``rounding``, the error of the stored ones: its
    root would be a turn of a thirtieth of a degree that nobody meant.
    """
    vector = np.array(quaternion[:3], dtype=np.float64)
    squared = float(vector @ vector)
    if not np.isfinite(squared) or squared > 1.0 + 1e-4:
        raise GeometryError(f"the qform's quaternion must have length 1 at most, got {vector.tolist()}")
    if squared > 1.0 - rounding:
        vector /= np.sqrt(squared)
        squared = 1.0
    a = np.sqrt(1.0 - squared)
    cross = np.array([[0, -vector[2], vector[1]], [vector[2], 0, -vector[0]], [-vector[1], vector[0], 0]])
    # Rodrigues' form of the rotation of a unit quaternion.
    rotation = np.eye(3) + 2.0 * (a * cross + cross @ cross)
    qfac = -1.0 if pixdim[0] < 0 else 1.0
    affine: Affine = np.eye(4)
    affine[:3, :3] = rotation * (np.array(pixdim[1:4], dtype=np.float64) * [1.0, 1.0, qfac])
    affine[:3, 3] = quaternion[3:]
    return affine


def header_bytes(shape: Shape3, dtype: np.dtype[Any], affine: Affine) -> bytes:
    """A NIfTI-1 header of ``HEADER_BYTES``: sform and qform both say ``affine``, code 1 (scanner), units mm.

    Raises GeometryError if a side is longer than the format can say.
    """
    if max(shape) > MAX_SIDE:
        raise GeometryError(f"a NIfTI-1 file holds at most {MAX_SIDE} voxels along an axis, got {_by(shape)}")
    little = dtype.newbyteorder("<")
    code = {np.dtype("<" + name): number for number, name in _TYPES.items()}[little]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    vector, qfac = _quaternion(affine[:3, :3] / spacing)
    header = bytearray(HEADER_BYTES)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, code, 8 * little.itemsize)
    struct.pack_into("<8f", header, 76, qfac, *spacing, 1, 1, 1, 1)
    struct.pack_into("<3f", header, 108, HEADER_BYTES, 1.0, 0.0)
    struct.pack_into("<B", header, 123, 2)
    struct.pack_into("<2h", header, 252, _SCANNER, _SCANNER)
    struct.pack_into("<6f", header, 256, *vector, *affine[:3, 3])
    struct.pack_into("<12f", header, 280, *affine[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header)


def _quaternion(axes: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], float]:
    """Vector part (b, c, d), scalar part not negative, of the rotation nearest to ``axes``, and qfac (-1: mirrored)."""
    left, _, right = np.linalg.svd(axes)
    rotation = left @ right
    qfac = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    rotation[:, 2] *= qfac
    # The unit quaternion is the eigenvector of the largest eigenvalue (Bar-Itzhack 2000): no case is ill-conditioned.
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    symmetric = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, yy - xx - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, zz - xx - yy],
        ]
    )
    whole = np.linalg.eigh(symmetric)[1][:, -1]
    whole = -whole if whole[0] < 0 else whole
    return whole[1:], qfac


def _corners(affine: Affine, shape: Shape3) -> npt.NDArray[Any]:
    last = np.array(shape) - 1
    indices = np.array([[i, j, k] for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])], dtype=np.float64)
    corners: npt.NDArray[Any] = indices @ affine[:3, :3].T + affine[:3, 3]
    return corners


def _by(sides: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in sides)
