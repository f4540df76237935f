"""The report of a run: what was used, what it cost, what came out. For machines, and fit to be sent to a stranger.

``report.json`` holds these sections. What is not known is null; a section that does not apply is empty.

- ``schema``: 1. Counts up when a field changes its meaning.
- ``versions``: wbcss, python and every library that decides the numbers.
- ``system``: os, processor, cores, memory_mib.
- ``device``: what ran the network (``name``, with ``accelerator`` for a GPU), ``backend``, and the steps of the
  out-of-memory ladder.
- ``input``: shape, spacing_mm, axes (such as "RAS": where i, j and k point) and modality of the grid. No path, no file
  name, no date, no position in the scanner, nothing about the patient.
- ``model``: ``encoder`` (name, version, weights_sha256), ``tasks`` (task, version, kind, organs, weights_sha256), and
  ``left_out``: the tasks (task, version, organs by name) that run on request, where nobody asked for anything by name.
- ``run``: model_grid_shape, model_spacing_mm, num_tiles, num_encoder_calls.
- ``body_part``: which part of the body the scan shows and what was skipped or dropped for it; see
  ``bodypart.BodyPartReport``. Empty without a level head or with ``--no-body-part``.
- ``seconds``: wall time by stage, and their ``total``.
- ``memory``: peak_mib of this process since it started, input_mib, and peak_accelerator_mib.
- ``organs``: how many were asked for, how many found, and for every organ found its volume_ml and flags.
- ``dice``: agreement with reference labels by organ, and their ``mean``; empty without a reference.
- ``warnings``: one sentence each.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__, machine
from .axes import axes_of
from .cards import TaskCard
from .errors import OutputError
from .io.atomic import write_text
from .labels import OrganName
from .statistics import OrganStatistics
from .volume import Volume

if TYPE_CHECKING:
    from .loading import LoadedModel
    from .segment import RunReport, Segmentation

SCHEMA = 1
LIBRARIES = ("torch", "numpy", "scipy", "SimpleITK", "safetensors", "openvino")

_MIB = 1 << 20
_HIDDEN = "(name removed)"
_PATH = re.compile(r"(?:[A-Za-z]:)?[\\/](?:[^\\/\s'\"]+[\\/])+[^\\/\s'\"]*")
_FILE_NAME = re.compile(r"[^\s'\"/\\()]+\.(?:nii(?:\.gz)?|(?:seg\.)?nrrd|nhdr|mha|mhd|dcm|ima|npy)\b", re.IGNORECASE)


def build_report(
    *,
    volume: Volume,
    segmentation: Segmentation,
    model: LoadedModel,
    statistics: Sequence[OrganStatistics] = (),
    seconds: Mapping[str, float] | None = None,
    warnings: Sequence[str] = (),
    dice: Mapping[OrganName, float] | None = None,
    private: Iterable[str] = (),
    left_out: Sequence[TaskCard] = (),
) -> dict[str, Any]:
    """The report of one segmentation as plain JSON values, in the sections listed at the head of this module.

    Args:
        volume: What was segmented; only its grid is described.
        segmentation: The result.
        model: What made it.
        statistics: Rows of the organs.
        seconds: Wall time of stages outside of ``segment``, such as reading and writing.
        warnings: From reading; those of ``segmentation`` are added.
        dice: Agreement with a reference.
        private: Texts that must not appear, such as the parts of the input's path and the names in its header; they,
            and whatever looks like a path or an image file, are taken out of the warnings.
        left_out: Tasks that would have run had anybody asked for them.
    """
    run = segmentation.report
    stages = {**(seconds or {}), **run.stage_seconds}
    hidden = tuple(private)
    return {
        "schema": SCHEMA,
        "versions": _versions(),
        "system": _system(),
        "device": {**_device(run.device), "backend": run.backend, "ladder": list(run.ladder)},
        "input": _input(volume),
        "model": _model(model, segmentation, left_out),
        "run": _run(run),
        "body_part": {} if run.body_part is None else run.body_part.to_json(),
        "seconds": {**{name: round(s, 3) for name, s in stages.items()}, "total": round(sum(stages.values()), 3)},
        "memory": _memory(volume, run.device),
        "organs": _organs(segmentation, statistics),
        "dice": _dice(dice or {}),
        "warnings": [remove_names(text, hidden) for text in (*warnings, *run.warnings)],
    }


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write ``report`` as indented JSON, whole or not at all. Raises OutputError."""
    try:
        text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise OutputError(f"a report must hold plain finite JSON values, got {error}") from error
    write_text(path, text + "\n")


def remove_names(text: str, private: Iterable[str] = ()) -> str:
    """``text`` without ``private`` words (of two letters or more), paths and names of image files."""
    for word in sorted({word for word in private if len(word) > 1}, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", _HIDDEN, text, flags=re.IGNORECASE)
    return _FILE_NAME.sub(_HIDDEN, _PATH.sub(_HIDDEN, text))


def peak_memory_mib() -> float | None:
    """Largest resident memory of this process since it started; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows has no resource module
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (_MIB if sys.platform == "darwin" else 1024), 1)


def _peak_accelerator_mib(device: str) -> float | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return round(torch.cuda.max_memory_allocated(device) / _MIB, 1)


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"wbcss": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _system() -> dict[str, Any]:
    return {
        "os": f"{platform.system()} {platform.release()}",
        "processor": machine.processor_name(),
        "cores": machine.usable_cores(),
        "memory_mib": machine.memory_mib()[0],
    }


def _device(name: str) -> dict[str, Any]:
    if not name.startswith("cuda"):
        return {"name": name, "accelerator": None}
    import torch

    return {"name": name, "accelerator": torch.cuda.get_device_name(name)}


def _input(volume: Volume) -> dict[str, Any]:
    return {
        "shape": list(volume.shape),
        "spacing_mm": [round(s, 6) for s in volume.spacing_mm],
        "axes": axes_of(volume.affine),
        "modality": volume.modality,
    }


def _run(run: RunReport) -> dict[str, Any]:
    return {
        "model_grid_shape": list(run.model_grid_shape),
        "model_spacing_mm": list(run.model_spacing_mm),
        "num_tiles": run.num_tiles,
        "num_encoder_calls": run.num_encoder_calls,
    }


def _memory(volume: Volume, device: str) -> dict[str, Any]:
    return {
        "peak_mib": peak_memory_mib(),
        "input_mib": round(volume.voxels.nbytes / _MIB, 1),
        "peak_accelerator_mib": _peak_accelerator_mib(device),
    }


def _model(model: LoadedModel, segmentation: Segmentation, left_out: Sequence[TaskCard]) -> dict[str, Any]:
    encoder = model.encoder_card
    return {
        "encoder": {"name": encoder.name, "version": encoder.version, "weights_sha256": encoder.weights_sha256},
        "tasks": [
            {
                "task": card.task,
                "version": card.version,
                "kind": card.kind,
                "organs": len(card.organs),
                "weights_sha256": card.weights_sha256,
            }
            for card in (model.cards[task] for task in segmentation.tasks)
        ],
        "left_out": [
            {"task": card.task, "version": card.version, "organs": [organ.name for organ in card.organs]}
            for card in left_out
        ],
    }


def _organs(segmentation: Segmentation, statistics: Sequence[OrganStatistics]) -> dict[str, Any]:
    found = [row for row in statistics if row.voxels]
    return {
        "asked": len(segmentation.organs),
        "found": len(found),
        "rows": [{"organ": row.organ, "volume_ml": round(row.volume_ml, 3), "flags": list(row.flags)} for row in found],
    }


def _dice(dice: Mapping[OrganName, float]) -> dict[str, Any]:
    if not dice:
        return {}
    mean = sum(dice.values()) / len(dice)
    return {"mean": round(mean, 4), "organs": {organ: round(value, 4) for organ, value in dice.items()}}
