"""Bring a volume to the model grid in bounded memory: orientation, anti-aliased resampling, HU windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .errors import GeometryError
from .specs import WindowHU
from .volume import Affine, Shape3, Spacing_mm, Volume

AIR_HU = -1024.0
"""What lies outside a scan."""

MAX_SIZE_MM = 4000.0
"""No patient is longer; a larger grid has a wrong spacing, and would ask for a model grid that fits no memory."""

VOXELS_PER_STEP = 2**24
"""Native voxels held as float32 while they are resampled."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Orientation:
    """How an array's axes lie in the patient.

    Attributes:
        permutation: Array axis that runs closest to R, to A and to S.
        flips: Whether that axis runs the other way (to L, to P, to I).
    """

    permutation: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def view(self, array: Array) -> Array:
        """``array`` (I, J, K) with its axes along R, A, S: a view, so writing to it writes to ``array``."""
        steps = tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)
        view: Array = array.transpose(self.permutation)[steps]
        return view

    def shape(self, shape: Shape3) -> Shape3:
        """Shape along R, A, S of an array of ``shape``."""
        i, j, k = (shape[axis] for axis in self.permutation)
        return i, j, k


def canonical_orientation(affine: Affine) -> Orientation:
    """The permutation and flips that bring the axes of ``affine`` closest to R, A, S; oblique grids are not rotated."""
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    rows = np.arange(3)
    best = max(permutations(range(3)), key=lambda order: float(np.abs(cosines[rows, list(order)]).sum()))
    i, j, k = (bool(cosines[row, axis] < 0) for row, axis in enumerate(best))
    return Orientation((best[0], best[1], best[2]), (i, j, k))


@dataclass(frozen=True)
class AxisMap:
    """One axis of the native grid (in canonical direction) and of the model grid, about the same middle.

    Attributes:
        native_size: Voxels along the axis of the caller's grid.
        model_size: Voxels of the model grid; they cover the native extent.
        ratio: Model spacing divided by native spacing.
    """

    native_size: int
    model_size: int
    ratio: float

    @classmethod
    def between(cls, native_size: int, native_spacing_mm: float, model_spacing_mm: float) -> AxisMap:
        """Lay the model grid over ``native_size`` voxels; a hundredth of a model voxel may stick out."""
        ratio = model_spacing_mm / native_spacing_mm
        return cls(native_size, max(1, math.ceil(native_size / ratio - 0.01)), ratio)

    @property
    def aligned(self) -> bool:
        """Whether both grids are the same."""
        return self.ratio == 1.0

    def native_of(self, model_index: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Native index (fractional) of model indices."""
        offset = (self.native_size - self.model_size * self.ratio) / 2
        return (np.asarray(model_index, np.float64) + 0.5) * self.ratio - 0.5 + offset

    def model_of(self, native_index: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Model index (fractional) of native indices."""
        offset = (self.native_size - self.model_size * self.ratio) / 2
        return (np.asarray(native_index, np.float64) + 0.5 - offset) / self.ratio - 0.5

    def weights(self, start: int, stop: int) -> tuple[int, int, npt.NDArray[np.float32]]:
        """Native range ``first, last`` (half-open) and matrix (stop - start, last - first) that resample to the model.

        A triangle as wide as the coarser of the two spacings: linear interpolation where the model grid is finer,
        an anti-aliasing filter where it is coarser. Rows sum to 1, also at the border.
        """
        width = max(1.0, self.ratio)
        centers = self.native_of(np.arange(start, stop))
        first = max(0, math.floor(centers[0] - width) + 1)
        last = min(self.native_size, math.ceil(centers[-1] + width))
        distance = np.abs(np.arange(first, last)[None, :] - centers[:, None])
        matrix = np.maximum(0.0, 1.0 - distance / width)
        return first, last, (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class ModelGrid:
    """The whole volume's model grid: axes along R, A, S.

    Attributes:
        orientation: From the caller's axes to canonical ones.
        axes: Along R, A, S.
        spacing_mm: Of the model grid.
    """

    orientation: Orientation
    axes: tuple[AxisMap, AxisMap, AxisMap]
    spacing_mm: Spacing_mm

    @classmethod
    def of(cls, volume: Volume, spacing_mm: Spacing_mm) -> ModelGrid:
        """Lay a grid of ``spacing_mm`` over ``volume``. Raises GeometryError if the volume is larger than a patient."""
        if max(volume.size_mm) > MAX_SIZE_MM:
            size = " x ".join(f"{s:.0f}" for s in volume.size_mm)
            raise GeometryError(
                f"a scan must measure at most {MAX_SIZE_MM:.0f} mm along every axis, got {size} mm; check its spacing"
            )
        orientation = canonical_orientation(volume.affine)
        native = volume.spacing_mm
        i, j, k = (
            AxisMap.between(volume.shape[axis], native[axis], spacing_mm[row])
            for row, axis in enumerate(orientation.permutation)
        )
        return cls(orientation, (i, j, k), spacing_mm)

    @property
    def shape(self) -> Shape3:
        """Model voxels along R, A, S."""
        i, j, k = (axis.model_size for axis in self.axes)
        return i, j, k


class PlaneReader:
    """Resamples a volume to the model grid plane range by plane range; nothing larger is ever held.

    Args:
        voxels: (I, J, K) in canonical orientation (a view is fine), HU.
        axes: Along R, A, S.
        box_ij: Half-open model ranges along R and A that are wanted.
        device: Where the planes are made.
    """

    def __init__(
        self,
        voxels: Array,
        axes: tuple[AxisMap, AxisMap, AxisMap],
        box_ij: tuple[tuple[int, int], tuple[int, int]],
        device: torch.device,
    ) -> None:
        i_first, i_last, i_weights = axes[0].weights(*box_ij[0])
        j_first, j_last, j_weights = axes[1].weights(*box_ij[1])
        self._voxels = voxels[i_first:i_last, j_first:j_last]
        self._axis_k = axes[2]
        self._rows = None if axes[0].aligned else torch.from_numpy(i_weights).to(device)
        self._columns = None if axes[1].aligned else torch.from_numpy(j_weights).t().contiguous().to(device)
        self._device = device
        self._start = 0
        self._held: torch.Tensor | None = None

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Model planes ``start`` to ``stop`` as HU, (K, I, J) float32 on the device.

        Planes shared with the range read before are not made again.
        """
        held = self._held
        kept = []
        fresh = start
        if held is not None and self._start <= start < self._start + len(held):
            kept = [held[start - self._start : stop - self._start]]
            fresh = start + len(kept[0])
        native_per_plane = self._voxels.shape[0] * self._voxels.shape[1] * max(1.0, self._axis_k.ratio)
        step = max(1, int(VOXELS_PER_STEP / native_per_plane))
        made = [self._make(k, min(k + step, stop)) for k in range(fresh, stop, step)]
        self._held = torch.cat(kept + made)
        self._start = start
        return self._held

    def _make(self, start: int, stop: int) -> torch.Tensor:
        first, last, weights = self._axis_k.weights(start, stop)
        # Copying in the order of the caller's memory is several times faster than transposing on the way.
        block = np.array(self._voxels[:, :, first:last], dtype=np.float32, order="K")
        planes = torch.from_numpy(block).to(self._device).permute(2, 0, 1)
        if self._rows is not None:
            planes = torch.matmul(self._rows, planes)
        if self._columns is not None:
            planes = torch.matmul(planes, self._columns)
        if self._axis_k.aligned:
            return planes.contiguous()
        mixed = torch.from_numpy(weights).to(self._device) @ planes.reshape(last - first, -1)
        return mixed.view(stop - start, *planes.shape[1:])


def hu_to_channels(hu: torch.Tensor, windows_hu: Sequence[WindowHU]) -> torch.Tensor:
    """(B, I, J, K) HU to the network's input (B, C, I, J, K): one channel per window, mapped linearly to [-1, 1]."""
    channels = [hu.clamp(low, high).sub_((low + high) / 2).mul_(2 / (high - low)) for low, high in windows_hu]
    return torch.stack(channels, dim=1)
