"""The product: ``wbcss.segment.segment`` as everybody calls it."""

from __future__ import annotations

from typing import Any

import numpy as np
import stub
import torch
from job import Job, Outcome, Prepared, scan_voxels

from wbcss.cards import EncoderCard, TaskCard
from wbcss.catalogue import Organ, catalogue
from wbcss.labels import TaskId
from wbcss.loading import LoadedModel
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import Encoder, Skips, freeze
from wbcss.nn.model import WholeBodyModel, build_model
from wbcss.segment import SegmentOptions, segment
from wbcss.specs import DecoderSpec, EncoderSpec
from wbcss.volume import Volume

WIDTHS = (32, 64, 128, 256, 320, 320)
"""nnU-Net's own default for a 128^3 patch."""

BACKGROUND_LEAD = 1.0
"""Added to the background's logit of random networks, whose logits have a standard deviation near 0.4."""

ANY_SHA = "0" * 64


class _StubEncoder(Encoder):
    """Hands the input on."""

    def forward(self, x: torch.Tensor) -> Skips:
        return [x, x[:, :, ::2, ::2, ::2]]


class _StubDecoder(Decoder):
    """Features in closed form; the last layer is the product's own business."""

    def __init__(self, spec: DecoderSpec, encoder: EncoderSpec, stopwatch: stub.Stopwatch) -> None:
        super().__init__(spec, encoder)
        self.stopwatch = stopwatch
        weight, bias = stub.head(spec.num_features, spec.num_organs)
        self.head.load_state_dict({"weight": weight.view(*weight.shape, 1, 1, 1), "bias": bias})

    def features(self, skips: Skips) -> torch.Tensor:
        with self.stopwatch:
            return stub.features(skips[0], self.spec.num_features)


def prepare(job: Job) -> Prepared:
    """Build the model and load the scan."""
    torch.set_num_threads(1)
    voxels, affine = scan_voxels(job)
    volume = Volume(voxels, affine)
    stopwatch = stub.Stopwatch()
    model = _stub_model(job, stopwatch) if job.network == "stub" else _convolutions(job)
    backend: Any = "torch" if job.network == "stub" else "auto"
    options = SegmentOptions(device="cpu", backend=backend, overlap=job.overlap, threads=1)

    def run() -> Outcome:
        found = segment(volume, model, options=options)
        report = found.report
        details = {
            "tiles": report.num_tiles,
            "backend": report.backend,
            "stage_seconds": dict(report.stage_seconds),
            "model_grid_shape": list(report.model_grid_shape),
            "output_mib": (found.labels.nbytes + found.confidence.nbytes) / 2**20,
            "foreground": float(np.count_nonzero(found.labels)) / found.labels.size,
        }
        labels = _channels(found.labels, model) if job.keep_labels else found.labels
        return Outcome(labels=labels, network_cpu_s=stopwatch.cpu_s if stopwatch.calls else None, details=details)

    return run


def _channels(labels: Any, model: LoadedModel) -> Any:
    """Global labels back to channel numbers of the only task."""
    (card,) = model.cards.values()
    table = np.zeros(max(organ.label for organ in card.organs) + 1, np.uint16)
    for channel, organ in enumerate(card.organs, start=1):
        table[organ.label] = channel
    return table[labels]


def _stub_model(job: Job, stopwatch: stub.Stopwatch) -> LoadedModel:
    one = ((1, 1, 1),)
    encoder = EncoderSpec(
        stage_channels=(1, 1),
        strides=((1, 1, 1), (2, 2, 2)),
        kernels=one * 2,
        convs_per_stage=(1, 1),
        spacing_mm=(job.spacing_mm,) * 3,
        windows_hu=((stub.LOW_HU, stub.HIGH_HU),),
        tile=(job.tile,) * 3,
    )
    spec = DecoderSpec(stage_channels=(job.features,), kernels=one, convs_per_stage=(1,), num_organs=job.organs)
    task = TaskId("stub")
    network = WholeBodyModel(_StubEncoder(encoder), {task: _StubDecoder(spec, encoder, stopwatch)})
    return _loaded(network, encoder, {task: spec})


def _convolutions(job: Job) -> LoadedModel:
    depth = len(WIDTHS) - 1
    encoder = EncoderSpec(
        stage_channels=WIDTHS,
        strides=((1, 1, 1), *((2, 2, 2),) * depth),
        kernels=((3, 3, 3),) * (depth + 1),
        convs_per_stage=(2,) * (depth + 1),
        spacing_mm=(job.spacing_mm,) * 3,
        windows_hu=((stub.LOW_HU, stub.HIGH_HU),),
        tile=(job.tile,) * 3,
    )
    decoder = DecoderSpec(
        stage_channels=tuple(width * job.features // WIDTHS[0] for width in WIDTHS[:-1]),
        kernels=((3, 3, 3),) * depth,
        convs_per_stage=(2,) * depth,
        num_organs=job.organs,
    )
    specs = {TaskId(f"task{number}"): decoder for number in range(job.tasks)}
    torch.manual_seed(0)
    network = build_model(encoder, specs)
    for task in specs:
        # A trained task leaves most of the body alone. Random logits would claim every voxel for every task.
        with torch.no_grad():
            network.decoder(task).head.bias[0] += BACKGROUND_LEAD
    return _loaded(network, encoder, specs)


def _loaded(network: WholeBodyModel, encoder: EncoderSpec, specs: dict[TaskId, DecoderSpec]) -> LoadedModel:
    freeze(network)
    known = list(catalogue().values())
    cards, first = {}, 0
    for task, spec in specs.items():
        cards[task] = _card(task, spec, tuple(known[first : first + spec.num_organs]))
        first += spec.num_organs
    card = EncoderCard(name="bench", spec=encoder, license="none", provenance="random numbers", created="2026-11-20")
    return LoadedModel(network, card, cards)


def _card(task: TaskId, spec: DecoderSpec, organs: tuple[Organ, ...]) -> TaskCard:
    return TaskCard(
        task=task,
        version=1,
        organs=organs,
        spec=spec,
        encoder_sha256=ANY_SHA,
        training_cases=0,
        license="none",
        provenance="random numbers",
        created="2026-11-20",
    )
