"""Scans that the benchmarks run on, written as plain arrays so that no system's file reader is measured.

``python scans.py NAME FOLDER`` writes ``voxels.npy`` (int16 HU) and ``affine.npy``. Names:
``noise-IxJxK@S``: smooth noise on a grid of S mm; no voxel is air, so that the tiles of every system are the same.
``chest``: the contrast chest CT of ../shared/data, 512x512x102 native voxels.
``phantom``: the product's own chest phantom on a native-like grid, where that data is not at hand.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

CHEST = Path(__file__).resolve().parents[3] / "shared/data/tcia_ct/CPTAC-PDA_C3N-00249_chest.nii.gz"
NOISE_HU = (-430.0, 980.0)
KNOT = 12
"""Voxels between the knots of the noise."""


def real_scan() -> str:
    """The chest CT where it is at hand, else the phantom."""
    return "chest" if CHEST.is_file() else "phantom"


def noise_name(shape: tuple[int, int, int], spacing_mm: float = 1.5) -> str:
    """Name of a noise scan."""
    return f"noise-{'x'.join(str(n) for n in shape)}@{spacing_mm:g}"


def main() -> int:
    """Write one scan; an interrupted run leaves none."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    if name.startswith("noise-"):
        voxels, affine = _noise(name)
    elif name == "chest":
        voxels, affine = _chest()
    else:
        voxels, affine = _phantom()
    for stem, array in (("affine", affine), ("voxels", voxels)):
        partial = folder / f"{stem}.partial.npy"
        np.save(partial, array)
        partial.replace(folder / f"{stem}.npy")
    return 0


def _noise(name: str) -> tuple[np.ndarray, np.ndarray]:
    match = re.fullmatch(r"noise-(\d+)x(\d+)x(\d+)@([\d.]+)", name)
    if match is None:
        raise ValueError(f"a noise scan is called like noise-64x64x64@1.5, got {name!r}")
    shape = tuple(int(n) for n in match.groups()[:3])
    rng = np.random.default_rng(20261120)
    values = rng.uniform(*NOISE_HU, size=[n // KNOT + 2 for n in shape])
    for axis, size in enumerate(shape):
        values = np.moveaxis(np.tensordot(_linear(size, values.shape[axis]), values, axes=(1, axis)), 0, axis)
    return values.astype(np.int16), np.diag([float(match.group(4))] * 3 + [1.0])


def _linear(size: int, knots: int) -> np.ndarray:
    """(size, knots) matrix of linear interpolation."""
    position = np.arange(size) / KNOT
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(knots)[None]))


def _chest() -> tuple[np.ndarray, np.ndarray]:
    from wbcss.io.reading import read_volume

    volume = read_volume(CHEST).volume
    return np.ascontiguousarray(volume.voxels.astype(np.int16)), volume.affine


def _phantom() -> tuple[np.ndarray, np.ndarray]:
    from wbcss.phantom import make_phantom

    volume = make_phantom("chest", spacing_mm=(0.9, 0.9, 3.0)).volume
    return volume.voxels.astype(np.int16), volume.affine


if __name__ == "__main__":
    sys.exit(main())
