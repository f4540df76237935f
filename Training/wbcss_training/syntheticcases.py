"""Synthetic annotated scans as files, so that a task of the atlas is enrolled as any other: from cases alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from wbcss.errors import Cancelled, SpecError
from wbcss.io.atomic import write_text
from wbcss.io.writing import check_output_folder, write_volume
from wbcss.progress import IsCancelled, Progress, never, silent

from .patches import patch_rng
from .synthesis import SyntheticPatches

LIST = "list.json"


def write_synthetic_cases(
    source: SyntheticPatches, folder: Path, *, count: int, progress: Progress = silent, cancelled: IsCancelled = never
) -> Path:
    """Write ``count`` scans of ``source``, every one another body, with their labels; returns the list of cases.

    Scan n depends on the source's seed and n alone, has the shape of its encoder's tile and the encoder's spacing.
    Labels are the channels of ``source.organs``. The list is written last, so there is none of half the cases.

    Raises:
        SpecError: ``count`` is below 1.
        OutputError: the disk refuses.
        Cancelled: ``cancelled`` returned true; scans that were written stay, and are written again next time.
    """
    if count < 1:
        raise SpecError(f"the number of synthetic cases must be at least 1, got {count}")
    folder.mkdir(parents=True, exist_ok=True)
    check_output_folder(folder)
    affine = np.diag([*source.encoder.spacing_mm, 1.0])
    entries = []
    for number in range(count):
        if cancelled():
            raise Cancelled(f"stopped after {number} of {count} synthetic cases; their list was not written")
        progress(number / count, f"scan {number + 1} of {count}")
        hu, channels = source.scan(patch_rng(source.seed, number))
        names = {"image": f"body_{number:04d}_ct.nii.gz", "labels": f"body_{number:04d}_labels.nii.gz"}
        write_volume(folder / names["image"], hu.round().numpy().astype(np.int16), affine)
        write_volume(folder / names["labels"], channels.numpy().astype(np.uint16), affine)
        entries.append(names)
    organs = {str(channel): organ for channel, organ in enumerate(source.organs, start=1)}
    path = folder / LIST
    write_text(path, json.dumps({"organs": organs, "absent": "background", "cases": entries}, indent=1) + "\n")
    progress(1.0, f"{count} scans")
    return path
