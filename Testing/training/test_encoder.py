"""Train, freeze and publish, from end to end on the atlas of boxes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import tiny_training
import torch
from torch.optim.swa_utils import AveragedModel

from wbcss.errors import DeviceError, InputError, RegistryError, RunError
from wbcss.labels import OrganName, TaskId
from wbcss.loading import load_model
from wbcss.nn.decoder import Decoder
from wbcss.registry import Registry
from wbcss_training.encoder import averaged_model, keep_organs, publish_model, train_encoder
from wbcss_training.plan import EncoderPlan, read_plan

LIVER, SPLEEN, VERTEBRA = tiny_training.ORGANS


@pytest.fixture
def plan(atlas_dir: Path, tmp_path: Path) -> EncoderPlan:
    def organs(facts: dict) -> None:  # type: ignore[type-arg]
        facts["tasks"][0]["organs"] = list(tiny_training.ORGANS)

    source = {"kind": "atlas", "folder": str(atlas_dir)}
    return read_plan(tiny_training.write_plan(tmp_path / "plan.json", source, change=organs, steps=3))


def test_a_trained_model_is_published_and_runs(plan: EncoderPlan, tmp_path: Path, rng: object) -> None:
    model = train_encoder(plan, run_dir=tmp_path / "run", device="cpu", num_workers=0)
    registry = Registry(tmp_path / "registry")
    validation = {"synthetic": {"patches": 1, "dice": {"liver": 0.5}}}
    publish_model(model, plan, registry, run_dir=tmp_path / "run", validation={tiny_training.TASK: validation})
    loaded = load_model(registry)
    card = loaded.cards[tiny_training.TASK]
    assert [organ.name for organ in card.organs] == list(tiny_training.ORGANS)
    assert card.validation == validation
    assert card.training_cases == 3
    assert registry.verify() == []
    image = torch.zeros(1, 1, *tiny_training.ENCODER.tile)
    logits = loaded.network(image, [tiny_training.TASK])[tiny_training.TASK]
    assert bool(torch.isfinite(logits).all())
    torch.testing.assert_close(logits, model(image, [tiny_training.TASK])[tiny_training.TASK], atol=0.05, rtol=0.02)


def test_the_run_folder_says_what_was_run(plan: EncoderPlan, tmp_path: Path) -> None:
    train_encoder(plan, run_dir=tmp_path / "run", device="cpu", num_workers=0)
    facts = json.loads((tmp_path / "run" / "config.json").read_text())
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["train"]["steps"] == 3
    assert str(tmp_path) not in json.dumps(facts)


def test_a_run_in_parts_resumes_bit_for_bit(plan: EncoderPlan, tmp_path: Path) -> None:
    early = dataclasses.replace(plan.train, steps=2, sampled_voxels=64, decay_fraction=0.0)
    parts = dataclasses.replace(plan, earlier=(early,), train=dataclasses.replace(plan.train, steps=4))
    whole = train_encoder(parts, run_dir=tmp_path / "whole", device="cpu", num_workers=0)
    stopped: list[float] = []
    for _ in range(3):  # each stops as soon as it can
        resumed = train_encoder(
            parts,
            run_dir=tmp_path / "resumed",
            device="cpu",
            num_workers=0,
            cancelled=lambda: True,
            progress=lambda fraction, stage: stopped.append(fraction),
        )
        assert stopped[-1] < 1
    resumed = train_encoder(parts, run_dir=tmp_path / "resumed", device="cpu", num_workers=0)
    first, second = whole.state_dict(), resumed.state_dict()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


def test_a_registry_takes_one_encoder_only(plan: EncoderPlan, tmp_path: Path) -> None:
    model = tiny_training.learner().model
    registry = Registry(tmp_path / "registry")
    (tmp_path / "run").mkdir()
    publish_model(model, plan, registry, run_dir=tmp_path / "run")
    before = registry.encoder_weights().read_bytes()
    with pytest.raises(RegistryError, match=r"already has an encoder, and its tasks depend on it.*'tiny'"):
        publish_model(tiny_training.learner(seed=1).model, plan, registry, run_dir=tmp_path / "run")
    assert registry.encoder_weights().read_bytes() == before


def test_leaving_out_organs_removes_exactly_their_rows() -> None:
    model = tiny_training.learner().model
    decoder = model.decoder(tiny_training.TASK)
    state, spec = keep_organs(model, tiny_training.TASK, tiny_training.ORGANS, (VERTEBRA, LIVER))
    assert spec.num_organs == 2
    smaller = Decoder(spec, tiny_training.ENCODER)
    smaller.load_state_dict(state)
    skips = model.encoder(torch.randn(1, 1, 16, 16, 16))
    assert torch.equal(state["head.weight"], decoder.head.weight.detach()[[0, 3, 1]])
    # Not bit for bit: the two run in different memory layouts.
    torch.testing.assert_close(smaller(skips), decoder(skips)[:, [0, 3, 1]], atol=1e-4, rtol=1e-4)
    assert decoder.head.weight.shape[0] == 4  # the trained one is as it was


def test_only_published_organs_are_named_on_the_card(plan: EncoderPlan, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    model = tiny_training.learner().model
    publish_model(model, plan, registry, run_dir=tmp_path, organs={tiny_training.TASK: (SPLEEN,)})
    assert [organ.name for organ in registry.card(tiny_training.TASK).organs] == [SPLEEN]


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ((OrganName("brain"),), "task 'boxes' was not trained for brain; it knows liver, spleen, vertebrae_L1"),
        ((), "task 'boxes' must keep at least one organ, got none"),
    ],
)
def test_organs_that_cannot_be_kept_are_named(kept: tuple[OrganName, ...], message: str) -> None:
    with pytest.raises(RunError, match=message):
        keep_organs(tiny_training.learner().model, TaskId("boxes"), tiny_training.ORGANS, kept)


def test_an_average_of_something_else_is_refused() -> None:
    with pytest.raises(RunError, match="the average must hold a Learner, got Linear"):
        averaged_model(AveragedModel(torch.nn.Linear(1, 1)))


def test_a_device_that_does_not_exist_is_refused(plan: EncoderPlan, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device must be auto, cpu, cuda or cuda:N, got 'tpu'"):
        train_encoder(plan, run_dir=tmp_path, device="tpu", num_workers=0)
    with pytest.raises(DeviceError, match="device 'cuda:99' is not on this machine"):
        train_encoder(plan, run_dir=tmp_path, device="cuda:99", num_workers=0)
