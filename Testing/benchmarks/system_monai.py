"""MONAI's ``SlidingWindowInferer``, then the arg-max of its logits."""

from __future__ import annotations

import stub
import torch
from job import Job, Outcome, Prepared, scan_voxels
from monai.inferers import SlidingWindowInferer


def prepare(job: Job) -> Prepared:
    """Build the network and normalize the scan."""
    torch.set_num_threads(1)
    if job.network != "stub":
        raise ValueError(f"MONAI is measured with the stub only, got {job.network!r}")
    voxels, _ = scan_voxels(job)
    x = stub.normalized(voxels)[None]
    network = stub.StubNetwork(job.features, job.organs)
    inferer = SlidingWindowInferer(
        roi_size=(job.tile,) * 3, sw_batch_size=1, overlap=job.overlap, mode="gaussian", sigma_scale=0.125
    )

    def run() -> Outcome:
        with torch.inference_mode():
            labels = inferer(x, network)[0].argmax(dim=0)
        return Outcome(
            labels=labels.numpy(),
            network_cpu_s=network.stopwatch.cpu_s,
            details={"tiles": network.stopwatch.calls},
        )

    return run
