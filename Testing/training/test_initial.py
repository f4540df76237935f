"""Starting a run from a published model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import tiny_registry
import tiny_training
import torch

from wbcss.errors import RegistryError, SpecError
from wbcss.labels import OrganName
from wbcss.loading import load_model
from wbcss.nn.encoder import Encoder
from wbcss.registry import Registry
from wbcss.specs import DecoderSpec, EncoderSpec
from wbcss_training.encoder import publish_model, train_encoder
from wbcss_training.initial import nearest_relative, start_from
from wbcss_training.learner import Learner, build_learner
from wbcss_training.plan import EncoderPlan, read_plan

LIVER, SPLEEN, VERTEBRA = tiny_training.ORGANS
TASK = tiny_training.TASK


@pytest.fixture
def published(atlas_dir: Path, tmp_path: Path) -> Path:
    """A registry whose task knows the vertebra and the liver, in that order."""
    plan = read_plan(_plan_file(atlas_dir, tmp_path / "first.json"))
    model = train_encoder(plan, run_dir=tmp_path / "first", device="cpu", num_workers=0)
    publish_model(
        model, plan, Registry(tmp_path / "models"), run_dir=tmp_path / "first", organs={TASK: (VERTEBRA, LIVER)}
    )
    return tmp_path / "models"


def _plan_file(atlas_dir: Path, path: Path, **extra: str) -> Path:
    def change(facts: dict) -> None:  # type: ignore[type-arg]
        facts["tasks"][0]["organs"] = list(tiny_training.ORGANS)
        facts.update(extra)

    source = {"kind": "atlas", "folder": str(atlas_dir)}
    return tiny_training.write_plan(path, source, change=change, steps=2)


def test_weights_are_taken_over_and_heads_are_matched_by_organ(published: Path) -> None:
    learner = tiny_training.learner(seed=9)
    fresh = {name: value.clone() for name, value in learner.state_dict().items()}
    assert start_from(learner, published, {TASK: tiny_training.ORGANS}) == [TASK]
    theirs = load_model(Registry(published)).network
    for name, value in theirs.encoder.state_dict().items():
        assert torch.equal(learner.model.encoder.state_dict()[name], value)
    ours, decoder = learner.model.decoder(TASK).state_dict(), theirs.decoder(TASK).state_dict()
    for name, value in decoder.items():
        if not name.startswith("head."):
            assert torch.equal(ours[name], value)
    for part in ("head.weight", "head.bias"):
        background, vertebra, liver = decoder[part]
        assert torch.equal(ours[part][0], background)
        assert torch.equal(ours[part][1 + tiny_training.ORGANS.index(LIVER)], liver)
        assert torch.equal(ours[part][1 + tiny_training.ORGANS.index(VERTEBRA)], vertebra)
        row = 1 + tiny_training.ORGANS.index(SPLEEN)  # unknown there
        before = next(value for name, value in fresh.items() if name.endswith(part) and "supervision" not in name)
        assert torch.equal(ours[part][row], before[row])


def test_a_run_starts_there_once_and_says_so(published: Path, atlas_dir: Path, tmp_path: Path) -> None:
    plan = read_plan(_plan_file(atlas_dir, tmp_path / "second.json", initial="models"))
    assert plan.initial == published
    frozen = dataclasses.replace(plan, train=dataclasses.replace(plan.train, learning_rate=1e-12, weight_decay=0.0))
    model = train_encoder(frozen, run_dir=tmp_path / "second", device="cpu", num_workers=0)
    theirs = load_model(Registry(published)).network.encoder.state_dict()
    for name, value in model.encoder.state_dict().items():
        torch.testing.assert_close(value, theirs[name], atol=1e-6, rtol=0)
    facts = json.loads((tmp_path / "second" / "config.json").read_text())
    assert facts["initial"] == Registry(published).encoder_card().weights_sha256
    assert str(tmp_path) not in json.dumps(facts)


def test_the_relative_knows_most_of_the_organs_and_then_most_organs() -> None:
    small = tiny_registry.task_card("small", {"liver": 5, "spleen": 1})
    large = tiny_registry.task_card("large", {"liver": 5, "colon": 20, "brain": 90})
    liver, spleen, kidney = (OrganName(name) for name in ("liver", "spleen", "kidney_left"))
    assert nearest_relative([], [liver]) is None
    assert nearest_relative([small, large], [liver, spleen]) is small
    assert nearest_relative([small, large], [liver]) is large
    assert nearest_relative([large, small], [kidney]) is large


def test_another_architecture_is_refused(published: Path) -> None:
    wide = dataclasses.replace(tiny_training.ENCODER, tile=tuple(2 * n for n in tiny_training.ENCODER.tile))
    learner = _learner_of(wide)
    with pytest.raises(SpecError, match=r"must train the encoder published there, .*copy its spec into the plan"):
        start_from(learner, published, {TASK: tiny_training.ORGANS})
    other = tiny_training.decoder_spec()
    narrow = dataclasses.replace(other, stage_channels=tuple(max(1, n // 2) for n in other.stage_channels))
    with pytest.raises(SpecError, match=r"starts from boxes@1 needs .* the registry holds \("):
        start_from(_learner_of(tiny_training.ENCODER, narrow), published, {TASK: tiny_training.ORGANS})


def _learner_of(encoder: EncoderSpec, decoder: DecoderSpec | None = None) -> Learner:
    return build_learner(Encoder(encoder), {TASK: decoder or tiny_training.decoder_spec()}, tiny_training.config())


def test_a_registry_without_encoder_is_refused(atlas_dir: Path, tmp_path: Path) -> None:
    plan: EncoderPlan = read_plan(_plan_file(atlas_dir, tmp_path / "plan.json", initial="nothing"))
    with pytest.raises(RegistryError, match="no encoder is published"):
        train_encoder(plan, run_dir=tmp_path / "run", device="cpu", num_workers=0)
