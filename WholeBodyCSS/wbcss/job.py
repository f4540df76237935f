"""One segmentation from file to files: what ``wbcss segment`` and the worker both do."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from .arrayfile import ArrayFile, describe_array, read_array_volume
from .cards import TaskCard
from .delivery import Finished, deliver
from .dicomseg import DicomSource, check_dicom_folder, check_installed, read_source
from .errors import InputError
from .io.atomic import output_error
from .io.reading import read_volume
from .io.writing import check_output
from .labels import OrganName, TaskId
from .mergerules import read_rules
from .outputs import OutputPaths
from .pace import Pace, Report
from .progress import IsCancelled, check_cancelled, never
from .protocol import OrganRow, Quality, Result
from .reference import Reference, read_reference
from .registry import Registry
from .resume import input_sha256, is_finished, model_hashes
from .selection import left_out_note
from .specs import MergeRules, spec_to_json
from .volume import Volume
from .warm import WarmModel, needed_tasks

if TYPE_CHECKING:
    from .loading import LoadedModel
    from .segment import Segmentation

OVERLAP: Mapping[Quality, float] = {"fast": 0.25, "normal": 0.5, "best": 0.625}
"""Fraction of a tile that its neighbor sees too; fewer tiles are faster and less sure at tile borders."""

_BYTES_PER_VOXEL = {".npy": 2.0, ".nii.gz": 0.1, ".seg.nrrd": 0.1}
"""Room that labels take on the disk; compressed ones measured on whole-body results take less."""

_DICOM_SEG_BYTES_PER_VOXEL = 4.0
"""A bit for each voxel of every slice that an organ is in; an average one of 143 lies in a fifth of the slices."""


def silent(fraction: float, stage: str, remaining_s: float | None) -> None:
    """A report to nobody."""


@dataclass(frozen=True, kw_only=True)
class SegmentJob:
    """What to segment and where to put it.

    Attributes:
        input: A volume file, a DICOM folder, or voxels in a shared file.
        output: Path of the labels; the other files lie beside it (see ``outputs.OutputPaths``).
        registry: Folder of the registry.
        organs: Organs wanted; None means all of ``tasks``.
        tasks: Tasks wanted; None means all of the registry but those that run on request.
        series: DICOM series UID when a folder holds several.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        quality: Overlap of the tiles.
        threads: CPU threads, or None for the library's choice.
        statistics: Write a table of the organs.
        preview: Write a picture.
        confidence: Write the confidence volume.
        dicom_seg: Write the organs as a DICOM object; ``input`` must be a DICOM folder.
        merge_rules: File of rules for organs that several tasks know; None for the defaults.
        repair_numbering: Number vertebrae and ribs anew where their order says so.
        body_part: Check which part of the body the scan shows, where the registry has a level head.
        reference: Labels to compare with, on the grid of the input.
    """

    input: Path | ArrayFile
    output: Path
    registry: Path
    organs: tuple[OrganName, ...] | None = None
    tasks: tuple[TaskId, ...] | None = None
    series: str | None = None
    device: str = "auto"
    quality: Quality = "normal"
    threads: int | None = None
    statistics: bool = False
    preview: bool = False
    confidence: bool = False
    dicom_seg: bool = False
    body_part: bool = True
    merge_rules: Path | None = None
    repair_numbering: bool = False
    reference: Path | None = None

    def __post_init__(self) -> None:
        if self.quality not in get_args(Quality):
            raise InputError(f"quality must be one of {', '.join(get_args(Quality))}, got {self.quality!r}")
        for name, values in (("organs", self.organs), ("tasks", self.tasks)):
            if values is not None and not values:
                raise InputError(f"{name} must name at least one, got none; leave them out to segment all")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads must be at least 1, got {self.threads}")

    @property
    def paths(self) -> OutputPaths:
        """Where the outputs go. Raises OutputError for a name that is no segmentation's."""
        return OutputPaths(self.output)


def run_job(
    job: SegmentJob,
    *,
    warm: WarmModel | None = None,
    report: Report = silent,
    cancelled: IsCancelled = never,
    job_id: str = "",
) -> Result:
    """Do ``job`` and describe what is on the disk then.

    Everything that can be refused is refused before the long part begins: output, organs, tasks, registry, input,
    reference. The outputs appear together at the very end, or none does.

    Raises:
        InputError, VolumeFileError, GeometryError, OutputError, RegistryError: the user can mend it.
        DeviceError: the computer cannot do it.
        Cancelled: ``cancelled`` returned true.
    """
    started_s = time.perf_counter()
    pace = Pace(report)
    registry = Registry(job.registry)
    check_outputs(job)
    tasks = check_request(job)
    if job.dicom_seg:
        check_dicom_folder(job.input if isinstance(job.input, Path) else None)
    check_cancelled(cancelled)
    pace.part(0.0, 1.0)(0.0, "read")
    volume, reference, warnings, dicom_source = _open(job)
    check_cancelled(cancelled)
    opened_s = time.perf_counter()
    pace.part(0.05, 0.1)(0.0, "load model")
    model = (warm or WarmModel()).load(registry, tasks)
    made, left_out = made_from(job, registry, tasks), _left_out(job, registry)
    check_cancelled(cancelled)
    stage_seconds = {"open": opened_s - started_s, "load model": time.perf_counter() - opened_s}
    segmentation = _segment(job, volume, model, tasks, pace=pace, cancelled=cancelled)
    pace.part(0.9, 1.0)(0.0, "write")
    finished = Finished(
        volume=volume,
        segmentation=segmentation,
        model=model,
        reference=reference,
        warnings=(*warnings, *([left_out_note(registry.tasks())] if left_out else [])),
        made_from=made,
        stage_seconds=stage_seconds,
        dicom_source=dicom_source,
        left_out=left_out,
    )
    rows = deliver(finished, job.paths, wanted_files(job), cancelled=cancelled)
    pace.part(0.9, 1.0)(1.0, "done")
    return _result(job, finished, rows, job_id=job_id, seconds=time.perf_counter() - started_s)


def check_outputs(job: SegmentJob) -> None:
    """Refuse an output that could not be written. Raises OutputError; takes no time and leaves nothing behind."""
    try:
        check_output(_checked_path(job))
        job.paths.check_free()
    except OSError as error:  # even asking for a name can be refused, as for one that is too long
        raise output_error(job.output, error) from error


def check_request(job: SegmentJob) -> tuple[TaskId, ...]:
    """The tasks that ``job`` runs. Raises InputError, RegistryError or DeviceError for what cannot be run here."""
    tasks = needed_tasks(Registry(job.registry), organs=job.organs, tasks=job.tasks)
    if job.dicom_seg:
        check_installed()
    if job.merge_rules is not None:
        read_rules(job.merge_rules)
    from .devices import resolve_device

    resolve_device(job.device)
    return tasks


def _left_out(job: SegmentJob, registry: Registry) -> tuple[TaskCard, ...]:
    """The tasks that did not run because nobody asked for them, where nobody asked for anything by name."""
    if job.organs is not None or job.tasks is not None:
        return ()
    return tuple(card for card in registry.tasks() if card.on_request)


def is_done(job: SegmentJob) -> bool:
    """Whether the outputs of ``job`` are there already, made from the same input by the same model and options."""
    registry = Registry(job.registry)
    tasks = needed_tasks(registry, organs=job.organs, tasks=job.tasks)
    return is_finished(job.paths, made_from(job, registry, tasks), list(wanted_files(job).values()))


def made_from(job: SegmentJob, registry: Registry, tasks: tuple[TaskId, ...]) -> dict[str, Any]:
    """What decides the result, for the report: fingerprints of input and model, and the options.

    Not the device, because a batch may be finished on another machine; nothing that names the patient.
    """
    unusual: dict[str, Any] = {}
    if job.merge_rules is not None:
        unusual["merge_rules"] = spec_to_json(read_rules(job.merge_rules))
    if job.repair_numbering:
        unusual["repair_numbering"] = True
    return {
        **unusual,
        "input_sha256": input_sha256(job.input) if isinstance(job.input, Path) else None,
        "model_sha256": model_hashes(registry, tasks, body_part=job.body_part),
        "organs": None if job.organs is None else sorted(job.organs),
        "quality": job.quality,
        # A series UID identifies a study: its fingerprint is enough to tell two series apart.
        "series_sha256": None if job.series is None else hashlib.sha256(job.series.encode()).hexdigest(),
    }


def _suffix(job: SegmentJob) -> str:
    return job.paths.suffix or ""


def _checked_path(job: SegmentJob) -> Path:
    """A path in the output folder whose suffix the writers know, also for labels that go to a shared file."""
    paths = job.paths
    return paths.labels.with_name(f"{paths.name}.nii.gz") if _suffix(job) == ".npy" else paths.labels


def wanted_files(job: SegmentJob) -> dict[str, Path]:
    """Every file that ``job`` writes, by its kind, the labels first."""
    paths = job.paths
    files = {"report": paths.report}
    if _suffix(job) == ".nii.gz":
        files["label_names"] = paths.label_names
    if job.statistics:
        files["statistics"] = paths.statistics
    if job.preview:
        files["preview"] = paths.preview
    if job.confidence:
        files["confidence"] = paths.confidence
    if job.dicom_seg:
        files["dicom_seg"] = paths.dicom_seg
    return {"labels": paths.labels, **files}


def _open(job: SegmentJob) -> tuple[Volume, Reference | None, tuple[str, ...], DicomSource | None]:
    """The input, what to compare with, warnings about the input, and what a DICOM SEG must know of it.

    Refuses what would fail after the long part.
    """
    warnings: tuple[str, ...] = ()
    dicom_source = None
    if isinstance(job.input, ArrayFile):
        volume = read_array_volume(job.input)
    else:
        read = read_volume(job.input, series=job.series)
        volume, warnings = read.volume, read.warnings
        dicom_source = read_source(read.source_files) if job.dicom_seg else None
    bytes_per_voxel = _BYTES_PER_VOXEL[_suffix(job)] + (_DICOM_SEG_BYTES_PER_VOXEL if job.dicom_seg else 0.0)
    check_output(_checked_path(job), expected_bytes=int(volume.voxels.size * bytes_per_voxel))
    reference = None if job.reference is None else read_reference(job.reference, volume)
    return volume, reference, warnings, dicom_source


def _result(job: SegmentJob, finished: Finished, rows: tuple[OrganRow, ...], *, job_id: str, seconds: float) -> Result:
    result = finished.segmentation
    is_shared = _suffix(job) == ".npy"
    files = {kind: str(path) for kind, path in wanted_files(job).items()}
    warnings = (*finished.warnings, *result.report.warnings)
    if job.dicom_seg and not any(row.voxels for row in rows):
        del files["dicom_seg"]
        warnings += ("no organ was found, so there is no DICOM SEG: it cannot be empty",)
    return Result(
        id=job_id,
        files=files,
        labels=describe_array(job.output, result.labels, result.affine) if is_shared else None,
        organs=rows,
        warnings=warnings,
        seconds=round(seconds, 3),
    )


def _segment(
    job: SegmentJob,
    volume: Volume,
    model: LoadedModel,
    tasks: tuple[TaskId, ...],
    *,
    pace: Pace,
    cancelled: IsCancelled,
) -> Segmentation:
    from .segment import SegmentOptions, segment

    options = SegmentOptions(
        device=job.device,
        overlap=OVERLAP[job.quality],
        threads=job.threads,
        body_part=job.body_part,
        merge=MergeRules() if job.merge_rules is None else read_rules(job.merge_rules),
        repair_numbering=job.repair_numbering,
    )
    part = pace.part(0.1, 0.9)
    return segment(volume, model, organs=job.organs, tasks=tasks, options=options, progress=part, cancelled=cancelled)
