"""Is an image a CT of a body in Hounsfield units, on a grid that a scanner makes?"""

from __future__ import annotations

from wbcss.hounsfield import doubt_values
from wbcss.preprocess import MAX_SIZE_MM
from wbcss.volume import Volume

from .findings import Notes

PLAUSIBLE_SPACING_MM = (0.2, 10.0)
"""Body CT outside of this range is rare enough to be mentioned."""

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
    doubt = doubt_values(volume.voxels)
    if doubt is not None:
        notes.add(
            "image_without_body" if doubt.is_air else "image_not_hu",
            "error" if doubt.is_certain else "warning",
            doubt.sentence,
        )
