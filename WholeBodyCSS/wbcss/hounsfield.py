"""Are the values of a scan Hounsfield units of a body? What an MR, a PET or a rescaled export looks like instead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .body import BODY_HU
from .volume import Voxels

HIGHEST_AIR_HU = -200
"""A CT of a body without a single voxel below this shows neither air nor lung."""

FAT_HU = -20
MIN_FAT = 0.01
"""A body scan without air still shows fat; less of it than this share of the voxels is resampling of something else."""


@dataclass(frozen=True, kw_only=True)
class ValueDoubt:
    """What speaks against the values of a scan.

    Attributes:
        found: The values, in words.
        cause: What they may be instead, and what to do.
        is_certain: This is no CT in Hounsfield units, whatever else it is; else it may be a crop without air.
        is_air: They are Hounsfield units, but of air alone.
    """

    found: str
    cause: str
    is_certain: bool = True
    is_air: bool = False

    @property
    def sentence(self) -> str:
        """For the person who chose the scan."""
        return f"values should be Hounsfield units of a body, {self.found}; {self.cause}"


def doubt_values(voxels: Voxels) -> ValueDoubt | None:
    """What speaks against ``voxels`` as Hounsfield units of a body, the plainest first; None if nothing does."""
    low, high = float(voxels.min()), float(voxels.max())
    found = f"got values from {low:g} to {high:g}"
    if low == high:
        return ValueDoubt(found=f"got {low:g} in every voxel", cause="the image shows nothing: export it again")
    if high - low <= 2:
        return ValueDoubt(found=found, cause="undo the scaling to [0, 1]")
    if low >= 0:
        what = "this is an 8-bit picture" if high <= 255 else "this is an MR, or the intercept of -1024 was lost"
        return ValueDoubt(found=f"{found}, although fat and air lie below 0", cause=f"{what}: export the CT again")
    if high < BODY_HU:
        return ValueDoubt(found=f"{found}, which is air alone", cause="choose a scan with a patient", is_air=True)
    if low <= HIGHEST_AIR_HU:
        return None
    # Plane by plane: a mask of the whole scan would be the largest array of the run after the scan itself.
    share = sum(int(np.count_nonzero(voxels[..., k] < FAT_HU)) for k in range(voxels.shape[2])) / voxels.size
    if share < MIN_FAT:
        return ValueDoubt(
            found=f"{found} with {share:.2%} below {FAT_HU}, where fat lies",
            cause="this is no CT of a body: export the CT again",
        )
    return ValueDoubt(
        found=f"{found}, although air lies near -1000", cause="check that it was not rescaled", is_certain=False
    )
