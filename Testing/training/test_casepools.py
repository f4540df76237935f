"""Pools of a request: encoded once, found again by what they hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tiny_enrollment
import torch

from wbcss.loading import load_encoder
from wbcss_training.casepools import CasePools, case_patches, encode_case_pools
from wbcss_training.enrollment import EnrollmentRequest, schedule_of
from wbcss_training.features import encode_patch

CONFIG = dataclasses.replace(tiny_enrollment.CONFIG, steps=4)


def test_patches_are_encoded_once_and_found_again(tmp_path: Path) -> None:
    registry = tiny_enrollment.registry_with_earlier_task(tmp_path / "registry")
    encoder, encoder_sha256 = load_encoder(registry), registry.encoder_card().weights_sha256
    request = tiny_enrollment.request(tmp_path / "cases")
    schedule = schedule_of(request, encoder.spec, CONFIG)
    calls: list[int] = []
    encoder.register_forward_hook(lambda *_: calls.append(1))

    def pools_of(request: EnrollmentRequest) -> CasePools:
        return encode_case_pools(
            request,
            dataclasses.replace(schedule, num_validation=len(request.validation) and schedule.num_validation),
            encoder,
            encoder_sha256=encoder_sha256,
            run_dir=tmp_path / "run",
            device=torch.device("cpu"),
        )

    pools = pools_of(request)
    assert pools.held_out is not None
    assert len(calls) == pools.training.count + pools.held_out.count == schedule.num_training + schedule.num_validation
    assert pools_of(request) == pools
    assert len(calls) == schedule.num_training + schedule.num_validation
    none_held_out = pools_of(dataclasses.replace(request, validation=(), validation_ids=()))
    assert (none_held_out.training, none_held_out.held_out) == (pools.training, None)
    source = case_patches(
        request, request.validation, schedule, encoder=encoder.spec, run_dir=tmp_path / "run", held_out=True
    )
    first = encode_patch(source.patch(0), encoder, spec=schedule.features, device=torch.device("cpu"))
    held = [pools.held_out.patch(n) for n in range(pools.held_out.count)]
    assert any(torch.equal(patch.skips[0], first.skips[0]) for patch in held)
