"""From a finished segmentation in memory to its files, all of them at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arrayfile import write_array
from .cards import TaskCard
from .catalogue import Organ
from .dicomseg import DicomSource, write_dicom_seg
from .io.writing import write_segmentation, write_volume
from .labels import OrganName
from .outputs import OutputPaths, commit, staging_folder
from .preview import write_preview
from .progress import IsCancelled, check_cancelled, never
from .protocol import OrganCheck, OrganRow
from .reference import Reference, dice_per_organ
from .report import build_report, write_report
from .resume import file_sha256
from .statistics import OrganStatistics, organ_statistics, write_statistics_csv
from .volume import Volume

if TYPE_CHECKING:
    from .loading import LoadedModel
    from .segment import Segmentation


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """A segmentation and all that its files tell about it.

    Attributes:
        volume: What was segmented.
        segmentation: On the grid of ``volume``.
        model: What segmented it.
        reference: Labels to compare with, or None.
        warnings: From reading, one sentence each; the engine's own are in ``segmentation``.
        made_from: What decides the result; see ``job.made_from``.
        stage_seconds: Wall time of the stages outside the engine.
        dicom_source: The slices that a DICOM SEG belongs to, or None.
        left_out: Tasks that run on request, for which nobody asked.
    """

    volume: Volume
    segmentation: Segmentation
    model: LoadedModel
    reference: Reference | None
    warnings: tuple[str, ...]
    made_from: Mapping[str, Any]
    stage_seconds: Mapping[str, float]
    dicom_source: DicomSource | None = None
    left_out: tuple[TaskCard, ...] = ()


def deliver(
    finished: Finished, paths: OutputPaths, wanted: Mapping[str, Path], *, cancelled: IsCancelled = never
) -> tuple[OrganRow, ...]:
    """Write the ``wanted`` files (kind to path) and return the organ table in label order.

    Raises OutputError if the disk refuses, Cancelled if ``cancelled`` says so; nothing of it is in place then.
    """
    started_s = time.perf_counter()
    result = finished.segmentation
    statistics = organ_statistics(
        finished.volume,
        result.labels,
        result.confidence,
        result.affine,
        result.organs,
        facts=result.facts,
        cancelled=cancelled,
    )
    reference = finished.reference
    dice = {} if reference is None else dice_per_organ(result.labels, result.organs, reference)
    with staging_folder(paths) as folder:
        staged = {kind: folder / path.name for kind, path in wanted.items()}
        _write_volumes(finished, staged)
        check_cancelled(cancelled)
        if "statistics" in staged:
            write_statistics_csv(staged["statistics"], statistics)
        if "preview" in staged:
            write_preview(staged["preview"], finished.volume, result.labels, result.organs)
        report = build_report(
            volume=finished.volume,
            segmentation=result,
            model=finished.model,
            statistics=statistics,
            seconds={**finished.stage_seconds, "write": time.perf_counter() - started_s},
            warnings=finished.warnings,
            dice=dice,
            left_out=finished.left_out,
        )
        report["made_from"] = {**finished.made_from, "labels_sha256": file_sha256(staged["labels"])}
        write_report(staged["report"], report)
        check_cancelled(cancelled)
        commit(folder, paths)
    return organ_rows(result.organs, statistics, dice)


def organ_rows(
    organs: Sequence[Organ], statistics: Sequence[OrganStatistics], dice: Mapping[OrganName, float]
) -> tuple[OrganRow, ...]:
    """The organ table as it is shown and sent, in label order."""
    rows = (
        OrganRow(
            organ=organ.name,
            label=organ.label,
            voxels=row.voxels,
            volume_ml=row.volume_ml,
            mean_hu=row.mean_hu,
            sd_hu=row.sd_hu,
            mean_confidence=row.mean_confidence,
            center_ras_mm=row.center_ras_mm,
            dice=dice.get(organ.name),
            flags=row.flags,
            checks=tuple(
                OrganCheck(flag=check.flag, reason=check.reason, place_ras_mm=check.place_ras_mm)
                for check in row.checks
            ),
            lesion_ml=row.lesion_ml,
        )
        for organ, row in zip(organs, statistics, strict=True)
    )
    return tuple(sorted(rows, key=lambda row: row.label))


def _write_volumes(finished: Finished, staged: Mapping[str, Path]) -> None:
    result = finished.segmentation
    if staged["labels"].suffix == ".npy":
        write_array(staged["labels"], result.labels, result.affine)
    else:
        write_segmentation(staged["labels"], result.labels, result.affine, result.organs, reference=finished.volume)
    if "dicom_seg" in staged and finished.dicom_source is not None:
        write_dicom_seg(
            staged["dicom_seg"],
            result.labels,
            result.affine,
            result.organs,
            finished.dicom_source,
            model_sha256=finished.made_from["model_sha256"],
        )
    if "confidence" in staged:
        write = write_array if staged["confidence"].suffix == ".npy" else write_volume
        write(staged["confidence"], result.confidence, result.affine)
