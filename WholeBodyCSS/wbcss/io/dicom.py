"""A folder of DICOM files to one CT volume: which series, which of its files, and what was doubtful."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

import numpy as np

from ..errors import GeometryError, VolumeFileError
from ..volume import Volume
from .dicomfile import SliceFile, is_dicom, read_slice_file
from .dicomstack import Frame, frame_of, same_place, stack
from .itkfile import absorbed_stderr

_MAX_NAMED = 6


def dicom_files(folder: Path) -> tuple[Path, ...]:
    """The files directly in ``folder`` that are DICOM by content, whatever they are called."""
    return tuple(path for path in sorted(folder.iterdir()) if path.is_file() and is_dicom(path))


def read_dicom_folder(folder: Path, *, series: str | None = None) -> tuple[Volume, tuple[str, ...], tuple[Path, ...]]:
    """The CT of ``folder``: of the series asked for, else of the axial one with the most slices.

    Localizers, screen captures, reports and files that are no DICOM are passed over. Slices are ordered by where they
    lie. A single missing slice between two others is filled in from them and irregular slices are resampled, both with
    a warning; longer gaps are refused. A tilted gantry's slices are shifted onto a rectangular grid, with a warning,
    and the volume lies on that corrected grid.

    Args:
        folder: Holds the files themselves; folders in it are not looked into.
        series: Series number as the scanner's list shows it, or series instance UID.

    Returns:
        The volume in HU, warnings (without patient identifiers, file names or UIDs), and the files used, in the order
        of the slices.

    Raises:
        VolumeFileError: No DICOM images, no CT, no such series, or slices that cannot be decoded.
        GeometryError: Slices are missing or do not form a grid.
        OSError: The folder cannot be listed.
    """
    # GDCM tells of every oddity of a header on the error stream.
    with absorbed_stderr():
        found = [item for path in dicom_files(folder) if (item := read_slice_file(path)) is not None]
        if not found:
            raise VolumeFileError(f"no DICOM images in the folder {folder}; give the folder that holds the slices")
        chosen, warnings = _choose_series(found, series)
        frame, more = _one_frame(chosen)
        voxels, affine, others = stack(frame)
    volume = Volume(voxels=voxels, affine=affine, modality="CT")
    return volume, (*warnings, *more, *others), tuple(item.path for item in frame.slices)


def _choose_series(found: Sequence[SliceFile], wanted: str | None) -> tuple[list[SliceFile], tuple[str, ...]]:
    """The slices of one series, and a warning that names the others."""
    groups = _grouped(found, lambda item: item.series_uid)
    if wanted is not None:
        chosen = _series_named(groups, wanted)
        return _slices_of(chosen), ()
    candidates = [group for group in groups if any(item.modality == "CT" and item.is_slice for item in group)]
    if not candidates:
        _slices_of(max(groups, key=len))
        raise VolumeFileError(f"no CT slices in the folder; it holds {_described(groups)}")
    # max keeps the first of equals, and groups come in file order: the choice does not vary from run to run.
    chosen = max(candidates, key=lambda group: (_is_axial(group), sum(item.is_slice for item in group)))
    others = [group for group in candidates if group is not chosen]
    warnings = []
    if others:
        warnings.append(
            f"the folder holds several CT series; used {_name(chosen)}, left out {_described(others)}; "
            "another one can be asked for by its number"
        )
    if not _is_axial(chosen):
        warnings.append("no axial CT series in the folder; a coronal or sagittal one is used")
    return _slices_of(chosen), tuple(warnings)


def _series_named(groups: Sequence[list[SliceFile]], wanted: str) -> list[SliceFile]:
    matches = [group for group in groups if wanted in (group[0].series_uid, group[0].series_number)]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise VolumeFileError(f"no series {wanted!r} in the folder; it holds {_described(groups)}")
    raise VolumeFileError(
        f"{len(matches)} series of the folder have the number {wanted}; give the series instance UID of one: "
        + ", ".join(f"{group[0].series_uid} ({len(group)} slices)" for group in matches[:_MAX_NAMED])
    )


def _slices_of(group: Sequence[SliceFile]) -> list[SliceFile]:
    """The slices proper of one series. Raises VolumeFileError if it is no CT or has none."""
    modalities = Counter(item.modality for item in group)
    modality = modalities.most_common(1)[0][0]
    if modality != "CT":
        raise VolumeFileError(
            f"expected a CT series, got modality {modality or 'unknown'} ({len(group)} images); choose a CT series"
        )
    if any(item.is_enhanced for item in group):
        raise VolumeFileError(
            "the series holds many slices in one file (enhanced or multi-frame CT), which is not supported; "
            "convert it to NIfTI or to one file a slice first"
        )
    slices = [item for item in group if item.is_slice and item.modality == "CT"]
    if not slices:
        raise VolumeFileError(
            f"the series holds {len(group)} images but no CT slice with a place in the patient (localizers or screen "
            "captures only); choose another series"
        )
    return slices


def _one_frame(slices: Sequence[SliceFile]) -> tuple[Frame, tuple[str, ...]]:
    """The largest set of ``slices`` that share size and orientation, without copies, one acquisition if several."""
    warnings = []
    sets = sorted(_alike(slices), key=len, reverse=True)
    if len(sets) > 1:
        odd = sum(len(other) for other in sets[1:])
        warnings.append(
            f"left out {odd} slice(s) of another size, spacing or orientation than the other {len(sets[0])}"
        )
    kept = list({item.instance_uid or str(item.path): item for item in reversed(sets[0])}.values())[::-1]
    if len(kept) < len(sets[0]):
        warnings.append(f"left out {len(sets[0]) - len(kept)} file(s) that repeat a slice")
    frame = frame_of(kept)
    if not len(same_place(frame)):
        return frame, tuple(warnings)
    parts = _grouped(kept, lambda item: item.acquisition)
    clean = [part for part in map(frame_of, parts) if not len(same_place(part))]
    if len(parts) < 2 or not clean:
        place = frame.distance_mm[same_place(frame)[0]]
        raise GeometryError(
            f"{len(same_place(frame))} slices lie where another one lies (the first at {place:.1f} mm along the slice "
            "direction): several scans in one series; separate them and give one"
        )
    best = max(clean, key=lambda part: len(part.slices))
    warnings.append(
        f"the series holds {len(parts)} scans of the same place; used the one with {len(best.slices)} slices "
        f"(acquisition {best.slices[0].acquisition or 'without number'})"
    )
    return best, tuple(warnings)


def _alike(slices: Sequence[SliceFile]) -> list[list[SliceFile]]:
    """Sets of slices that share size, pixel spacing and orientation up to rounding."""
    sets: list[list[SliceFile]] = []
    for item in slices:
        for group in sets:
            first = group[0]
            if (
                item.shape == first.shape
                and np.allclose(item.spacing_mm, first.spacing_mm, rtol=1e-3)
                and np.allclose([*item.row_lps, *item.column_lps], [*first.row_lps, *first.column_lps], atol=2e-3)
            ):
                group.append(item)
                break
        else:
            sets.append([item])
    return sets


def _grouped(items: Iterable[SliceFile], key: Callable[[SliceFile], Hashable]) -> list[list[SliceFile]]:
    groups: dict[Hashable, list[SliceFile]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return list(groups.values())


def _is_axial(group: Sequence[SliceFile]) -> bool:
    """Whether most slices of ``group`` face head or feet."""
    normals = [np.abs(np.cross(item.row_lps, item.column_lps)) for item in group if item.is_slice]
    return sum(int(np.argmax(normal)) == 2 for normal in normals) * 2 > len(normals)


def _name(group: Sequence[SliceFile]) -> str:
    number = group[0].series_number or "without number"
    return f"series {number} ({len(group)} slices)"


def _described(groups: Sequence[Sequence[SliceFile]]) -> str:
    named = [
        f"series {group[0].series_number or 'without number'} ({group[0].modality or 'unknown'}, {len(group)} images)"
        for group in sorted(groups, key=len, reverse=True)
    ]
    more = f" and {len(named) - _MAX_NAMED} more" if len(named) > _MAX_NAMED else ""
    return ", ".join(named[:_MAX_NAMED]) + more
