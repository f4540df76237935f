"""Segment a volume: orient, resample, tile, encode once, decode per task, merge, return to the caller's grid."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from .errors import InputError
from .labels import OrganName, TaskId
from .progress import IsCancelled, Progress, check_cancelled, never, silent
from .specs import MergeRules
from .volume import Affine, Confidence, LabelMap, Shape3, Spacing_mm, Volume

if TYPE_CHECKING:
    from .catalogue import Organ
    from .loading import LoadedModel


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """How a volume is segmented.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        backend: What runs the network on the CPU; ``auto`` measures one tile and takes the faster.
        overlap: Fraction of a tile shared with its neighbor, 0 <= overlap < 1.
        merge: How organs claimed by several tasks are settled.
        threads: CPU threads, or None for the library's default.
    """

    device: str = "auto"
    backend: Literal["auto", "torch", "openvino"] = "auto"
    overlap: float = 0.5
    merge: MergeRules = MergeRules()
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.backend not in ("auto", "torch", "openvino"):
            raise InputError(f"backend must be auto, torch or openvino, got {self.backend!r}")
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap must be in [0, 1), got {self.overlap}")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads must be at least 1, got {self.threads}")


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What a run did, for the report file and the log. Holds nothing about the patient.

    Attributes:
        device: Where the network ran at the end, as ``cpu`` or ``cuda:0``.
        backend: What ran it, with its precision, as ``torch-float32``.
        model_grid_shape: Shape (R, A, S) of the model grid inside the body box.
        model_spacing_mm: Spacing of the model grid.
        num_tiles: Tiles that were run.
        num_encoder_calls: Calls of the encoder, a batch counting once.
        stage_seconds: Wall time of every stage by name.
        warnings: One sentence each.
        ladder: Steps taken after running out of memory, in order.
    """

    device: str
    backend: str
    model_grid_shape: Shape3
    model_spacing_mm: Spacing_mm
    num_tiles: int
    num_encoder_calls: int
    stage_seconds: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    ladder: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels on exactly the grid of the volume that was passed in.

    Attributes:
        labels: (I, J, K) uint16, global label values, 0 background.
        confidence: (I, J, K) float16 in [0, 1]: calibrated probability of the label written.
        affine: The caller's ijk to RAS mm.
        organs: Those asked for, in registry order.
        tasks: Those that ran.
        report: What the run did.
    """

    labels: LabelMap
    confidence: Confidence
    affine: Affine
    organs: tuple[Organ, ...]
    tasks: tuple[TaskId, ...]
    report: RunReport = field(repr=False)


def segment(
    volume: Volume,
    model: LoadedModel,
    *,
    organs: Iterable[OrganName] | None = None,
    tasks: Iterable[TaskId] | None = None,
    options: SegmentOptions = SegmentOptions(),
    progress: Progress = silent,
    cancelled: IsCancelled = never,
) -> Segmentation:
    """Segment ``organs`` (default: all of ``tasks``; default: all loaded) and return them on the grid of ``volume``.

    Raises:
        InputError: an organ or task is unknown, or the volume is not CT.
        Cancelled: ``cancelled`` returned true.
    """
    if volume.modality != "CT":
        raise InputError(f"the model reads CT in Hounsfield units, got a volume of modality {volume.modality}")
    chosen, wanted = _select(model, organs, tasks)
    started = time.perf_counter()
    spec = model.encoder_card.spec
    progress(0.0, "resample")
    axes = _canonical_axes(volume.affine)
    image = torch.from_numpy(np.ascontiguousarray(_orient(volume.voxels, axes), dtype=np.float32))
    spacing = [volume.spacing_mm[axis] for axis, _ in axes]
    padded = [
        -(-max(1, round(n * s / t)) // d) * d
        for n, s, t, d in zip(image.shape, spacing, spec.spacing_mm, spec.divisor, strict=True)
    ]
    x = torch.nn.functional.interpolate(image[None, None], size=padded, mode="trilinear")
    x = torch.cat([(x.clamp(low, high) - low) / (high - low) * 2 - 1 for low, high in spec.windows_hu], dim=1)
    labels = np.zeros(volume.shape, np.uint16)
    confidence = np.zeros(volume.shape, np.float16)
    check_cancelled(cancelled)
    progress(0.1, "network")
    with torch.inference_mode():
        for task, logits in model.network(x, chosen).items():
            check_cancelled(cancelled)
            full = torch.nn.functional.interpolate(logits, size=image.shape, mode="trilinear")[0]
            best, channel = torch.softmax(full, dim=0).max(dim=0)
            lut = np.array([0, *(o.label if o.name in wanted else 0 for o in model.cards[task].organs)], np.uint16)
            found = lut[channel.numpy()]
            better = (found > 0) & (best.numpy() > _orient(confidence, axes))
            _orient(labels, axes)[better] = found[better]
            _orient(confidence, axes)[better] = best.numpy()[better]
    progress(1.0, "merge")
    report = RunReport(
        device="cpu",
        backend="torch-float32",
        model_grid_shape=(padded[0], padded[1], padded[2]),
        model_spacing_mm=spec.spacing_mm,
        num_tiles=1,
        num_encoder_calls=1,
        stage_seconds={"network": time.perf_counter() - started},
    )
    return Segmentation(labels, confidence, volume.affine, tuple(wanted.values()), chosen, report)


def _canonical_axes(affine: Affine) -> list[tuple[int, bool]]:
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    order = [int(np.argmax(np.abs(cosines[row]))) for row in range(3)]
    return [(axis, bool(cosines[row, axis] < 0)) for row, axis in enumerate(order)]


def _orient(array: np.ndarray, axes: list[tuple[int, bool]]) -> np.ndarray:  # type: ignore[type-arg]
    view = array.transpose([axis for axis, _ in axes])
    return view[tuple(slice(None, None, -1) if flip else slice(None) for _, flip in axes)]


def _select(
    model: LoadedModel, organs: Iterable[OrganName] | None, tasks: Iterable[TaskId] | None
) -> tuple[tuple[TaskId, ...], dict[OrganName, Organ]]:
    """Tasks to run and organs to write, both in registry order."""
    asked_tasks = list(model.cards) if tasks is None else list(tasks)
    for task in asked_tasks:
        if task not in model.cards:
            raise InputError(_unknown("task", task, list(model.cards)))
    known = {o.name: o for task in model.cards if task in asked_tasks for o in model.cards[task].organs}
    asked = list(known) if organs is None else list(organs)
    for name in asked:
        if name not in known:
            raise InputError(_unknown("organ", name, list(known)))
    wanted = {name: organ for name, organ in known.items() if name in asked}
    chosen = tuple(t for t in model.cards if t in asked_tasks and any(o.name in wanted for o in model.cards[t].organs))
    return chosen, wanted


def _unknown(kind: str, got: str, known: list[str]) -> str:  # type: ignore[type-arg, unused-ignore]
    close = difflib.get_close_matches(got, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(sorted(known)[:12])}"
    return f"unknown {kind} {got!r}; {hint}"
