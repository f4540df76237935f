"""A small synthetic CT file and the model that segments it in a blink."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_registry import new_registry, publish

from wbcss import backend_choice, backend_openvino
from wbcss.io.writing import write_volume
from wbcss.registry import Registry
from wbcss.volume import Affine, Shape3, Volume, Voxels

AFFINE: Affine = np.array([[-1.5, 0, 0, 20], [0, -1.5, 0, 30], [0, 0, 1.5, -40], [0, 0, 0, 1]], dtype=float)
TRUNK = {"liver": 5, "spleen": 1}
HEAD = {"brain": 90, "liver": 5, "skull": 91}


def scan_voxels(shape: Shape3 = (12, 12, 12)) -> Voxels:
    """A soft body in air, int16 HU."""
    centered = [(np.arange(n) - (n - 1) / 2) / (n / 2) for n in shape]
    i, j, k = np.meshgrid(*centered, indexing="ij")
    inside = i**2 + j**2 + 0.2 * k**2 < 0.9
    return np.where(inside, 40 + 100 * np.sin(9 * i) * np.cos(7 * j), -1000).astype(np.int16)


def tiny_volume(shape: Shape3 = (12, 12, 12)) -> Volume:
    """The scan in memory."""
    return Volume(voxels=scan_voxels(shape), affine=AFFINE)


def write_scan(path: Path, shape: Shape3 = (12, 12, 12)) -> Path:
    """The scan as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, scan_voxels(shape), AFFINE)
    return path


def fix_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run everything in float32, so that results are equal to the bit whatever a measurement on this machine says.

    Compiling a network this small for OpenVINO would also take longer than everything else.
    """
    monkeypatch.setattr(backend_openvino, "is_installed", lambda: False)
    monkeypatch.setattr(backend_choice, "has_fast_bfloat16", lambda: False)


def make_registry(root: Path) -> Registry:
    """Two tasks that both know the liver."""
    root.parent.mkdir(parents=True, exist_ok=True)
    registry = new_registry(root)
    publish(registry, "trunk", TRUNK, seed=1)
    publish(registry, "head", HEAD, seed=2)
    return registry
