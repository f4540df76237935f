"""Is an image a CT of a body in Hounsfield units, on a grid that a scanner makes?"""

from __future__ import annotations

import numpy as np

from wbcss.body import BODY_HU
from wbcss.preprocess import MAX_SIZE_MM
from wbcss.volume import Volume

from .findings import Kind, Notes, Severity

PLAUSIBLE_SPACING_MM = (0.2, 10.0)
"""Body CT outside of this range is rare enough to be mentioned."""

HIGHEST_AIR_HU = -200
"""A CT of a body without a single voxel below this shows neither air nor lung."""

FAT_HU = -20
MIN_FAT = 0.01
"""A body scan without air still shows fat; less of it than this share of the voxels is resampling of something else."""

_CT_NAMES = ("ct", "computed tomography")
_OTHER_NAMES = ("mr", "t1", "t2", "flair", "dwi", "adc", "pet", "pt", "suv", "us", "ultrasound", "xray", "x-ray")


def check_image(volume: Volume, modality: str, notes: Notes) -> None:
    """Note what speaks against ``volume`` as a training image.

    Args:
        volume: As read.
        modality: What its dataset says it is; "" if nothing.
        notes: Where findings go.
    """
    told = modality.strip().lower()
    if told and not told.startswith(_CT_NAMES):
        notes.add(
            "image_not_ct",
            "error" if told.startswith(_OTHER_NAMES) else "warning",
            f"the dataset must hold CT, got a channel called {modality!r}; only CT can be learned",
        )
    low_mm, high_mm = PLAUSIBLE_SPACING_MM
    spacing = "x".join(f"{side:.3g}" for side in volume.spacing_mm)
    if max(volume.size_mm) > MAX_SIZE_MM:
        notes.add(
            "image_geometry",
            "error",
            f"a scan must measure at most {MAX_SIZE_MM:.0f} mm along every axis, got {max(volume.size_mm):.0f} mm "
            f"with voxels of {spacing} mm; check the spacing",
        )
    elif min(volume.spacing_mm) < low_mm or max(volume.spacing_mm) > high_mm:
        notes.add(
            "image_geometry",
            "warning",
            f"voxels are usually {low_mm:g} to {high_mm:g} mm wide, got {spacing} mm; check the spacing",
        )
    doubt = _doubt(volume)
    if doubt is not None:
        notes.add(*doubt)


def _doubt(volume: Volume) -> tuple[Kind, Severity, str] | None:
    """What speaks against the values as Hounsfield units of a body, the plainest first."""
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    found = f"got values from {low:g} to {high:g}"
    must = "voxels must be Hounsfield units"
    if low == high:
        return "image_not_hu", "error", f"an image must show something, got {low:g} in every voxel; export it again"
    if high - low <= 2:
        return "image_not_hu", "error", f"{must}, {found}; undo the scaling to [0, 1]"
    if low >= 0:
        hint = "this is an 8-bit picture" if high <= 255 else "this is an MR, or the intercept of -1024 was lost"
        return "image_not_hu", "error", f"{must}, where fat and air lie below 0, {found}; {hint}: export the CT again"
    if high < BODY_HU:
        return "image_without_body", "error", f"a CT must show a body, {found}, which is air alone; leave the case out"
    if low <= HIGHEST_AIR_HU:
        return None
    share = float(np.mean(volume.voxels < FAT_HU))
    if share < MIN_FAT:
        why = f"where fat lies below {FAT_HU}, {found} with {share:.2%} below it"
        return "image_not_hu", "error", f"{must}, {why}; this is no CT of a body: export the CT again"
    hint = "check that the image was not rescaled"
    return "image_not_hu", "warning", f"a CT in Hounsfield units shows air near -1000, {found}; {hint}"
