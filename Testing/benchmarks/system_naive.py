"""The plain answer: float32 logits of every tile, averaged in full with Gaussian weights. For labels, not for time.

Written without the product. Works slab by slab so that the reference fits into memory at any number of organs.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import stub
import torch
from job import Job, Outcome, Prepared, scan_voxels

SLAB = 64

FLOOR = 1e-4
"""Least weight of a voxel of a tile, as the product has it (MONAI has 1e-3, nnU-Net what float16 can hold).

It is part of the weights, not of the averaging that is checked. On the noise scans it settles every sixtieth voxel,
nearly all of them along the edges of the volume, where every tile's Gaussian is below it.
"""


def prepare(job: Job) -> Prepared:
    """Normalize the scan."""
    torch.set_num_threads(1)
    if job.network != "stub":
        raise ValueError(f"the plain answer is known for the stub only, got {job.network!r}")
    voxels, _ = scan_voxels(job)
    x = stub.normalized(voxels)

    def run() -> Outcome:
        labels = np.zeros(voxels.shape, np.uint16)
        for k in range(0, voxels.shape[2], SLAB):
            labels[:, :, k : k + SLAB] = _slab(job, x, (k, min(k + SLAB, voxels.shape[2])))
        return Outcome(labels=labels)

    return run


def _slab(job: Job, x: torch.Tensor, k: tuple[int, int]) -> np.ndarray:
    _, i_size, j_size, k_size = x.shape
    weight, bias = stub.head(job.features, job.organs)
    total = torch.zeros((len(bias), i_size, j_size, k[1] - k[0]))
    weights = torch.zeros(total.shape[1:])
    gauss = _gaussian(job.tile)
    starts = [_starts(size, job.tile, job.overlap) for size in (i_size, j_size, k_size)]
    for i, j, z in product(*starts):
        first, last = max(z, k[0]), min(z + job.tile, k[1])
        if first >= last:
            continue
        tile = x[None, :, i : i + job.tile, j : j + job.tile, z : z + job.tile]
        part = stub.features(tile, job.features)[0, ..., first - z : last - z]
        logits = torch.tensordot(weight, part, dims=1) + bias.view(-1, 1, 1, 1)
        share = gauss[:, None, None] * gauss[None, :, None] * gauss[None, None, first - z : last - z]
        share = share.clamp_min(FLOOR)
        at = (slice(i, i + job.tile), slice(j, j + job.tile), slice(first - k[0], last - k[0]))
        total[(slice(None), *at)] += logits * share
        weights[at] += share
    return (total / weights).argmax(dim=0).numpy()


def _starts(size: int, tile: int, overlap: float) -> list[int]:
    """Evenly spread, at most ``tile * (1 - overlap)`` apart."""
    steps = int(np.ceil((size - tile) / (tile * (1 - overlap))))
    return [0] if steps <= 0 else [round(n * (size - tile) / steps) for n in range(steps + 1)]


def _gaussian(tile: int) -> torch.Tensor:
    distance = torch.arange(tile) - (tile - 1) / 2
    return torch.exp(-0.5 * (distance / (tile / 8)) ** 2)
