"""An encoder that goes on learning stays near its former self."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny_training
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wbcss.errors import SpecError
from wbcss.labels import OrganName, TaskId
from wbcss.loading import load_model
from wbcss.registry import Registry
from wbcss_training.encoder import publish_model, train_encoder
from wbcss_training.former import FormerSelf, feature_distance
from wbcss_training.learner import Learner
from wbcss_training.plan import EncoderPlan, read_plan

TASK = tiny_training.TASK
NEW = TaskId("more_boxes")


def levels(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 4, 4, 6, generator=generator), torch.randn(2, 5, 2, 2, 3, generator=generator)]


def test_distance_is_the_plain_formula() -> None:
    now, former = levels(0), levels(1)
    parts = []
    for ours, theirs in zip(now, former, strict=True):
        error = energy = 0.0
        for index in np.ndindex(*ours.shape):
            error += (float(ours[index]) - float(theirs[index])) ** 2
            energy += float(theirs[index]) ** 2
        parts.append(error / energy)
    assert float(feature_distance(now, former)) == pytest.approx(sum(parts) / 2, rel=1e-5)


def test_an_unchanged_encoder_costs_nothing_and_feels_nothing() -> None:
    now = [level.requires_grad_() for level in levels(0)]
    distance = feature_distance(now, [level.detach().clone() for level in now])
    distance.backward()
    assert float(distance.detach()) == 0
    assert all(level.grad is not None and not bool(level.grad.any()) for level in now)


@settings(deadline=None)  # the first call is slow on a busy machine
@given(factor=st.floats(0.1, 3.0), unit=st.floats(1e-3, 1e3))
def test_features_that_grow_by_a_factor_cost_its_square_in_any_unit(factor: float, unit: float) -> None:
    former = [unit * level for level in levels(3)]
    assert float(feature_distance([(1 + factor) * level for level in former], former)) == pytest.approx(
        factor**2, rel=1e-3
    )


def test_a_patch_twice_as_large_with_the_same_content_costs_the_same() -> None:
    now, former = levels(0), levels(1)
    twice = [[torch.cat([level, level], dim=4) for level in side] for side in (now, former)]
    torch.testing.assert_close(feature_distance(*twice), feature_distance(now, former))


def test_features_of_other_levels_are_refused() -> None:
    with pytest.raises(SpecError, match=r"must have the same levels, at least one, got \[\(2, 3, 4, 4, 6\)\] and"):
        feature_distance(levels(0)[:1], levels(0))


@pytest.fixture
def learner() -> Learner:
    return tiny_training.learner(tiny_training.config(feature_distillation=2.0, decoder_distillation=3.0))


def former_of(learner: Learner) -> FormerSelf:
    return FormerSelf(learner.model.encoder, {TASK: learner.model.decoder(TASK)})


def loss_of(learner: Learner) -> torch.Tensor:
    patches = [tiny_training.BoxPatches().patch(0)]
    return learner(TASK, patches, step=0, generator=torch.Generator().manual_seed(0))


def test_the_loss_of_a_step_adds_both_distances_with_their_weights(learner: Learner) -> None:
    former = former_of(tiny_training.learner(seed=7))
    plain = loss_of(learner)
    learner.former = former
    with torch.no_grad():
        image = tiny_training.BoxPatches().patch(0).image[None]
        now, then = learner.model.encoder(image), former.encoder(image)
        decoder = former.decoders[TASK]
        read = feature_distance([decoder.features(now)], [decoder.features(then)])
        expected = plain.detach() + 2 * feature_distance(now, then) + 3 * read
    torch.testing.assert_close(loss_of(learner).detach(), expected)


def test_at_the_start_the_loss_is_that_of_a_run_without(learner: Learner) -> None:
    plain = loss_of(learner)
    learner.former = former_of(learner)
    torch.testing.assert_close(loss_of(learner), plain, rtol=0, atol=1e-6)


def test_the_former_self_is_nobody_s_to_train_or_to_store(learner: Learner) -> None:
    keys, parameters = set(learner.state_dict()), len(list(learner.parameters()))
    learner.former = former_of(learner)
    assert set(learner.state_dict()) == keys
    assert len(list(learner.parameters())) == parameters
    assert copy.deepcopy(learner).former is learner.former
    before = copy.deepcopy(learner.former.encoder.state_dict())
    optimizer = torch.optim.AdamW(learner.parameters(), lr=0.1)
    loss_of(learner).backward()
    optimizer.step()
    assert all(torch.equal(value, learner.former.encoder.state_dict()[name]) for name, value in before.items())
    assert not torch.equal(next(learner.model.encoder.parameters()), next(learner.former.encoder.parameters()))


@pytest.fixture
def plan(atlas_dir: Path, tmp_path: Path) -> EncoderPlan:
    """Continues a published encoder of task ``boxes`` on a second task."""

    def organs(facts: dict) -> None:  # type: ignore[type-arg]
        facts["tasks"][0]["organs"] = list(tiny_training.ORGANS)

    source = {"kind": "atlas", "folder": str(atlas_dir)}
    first = read_plan(tiny_training.write_plan(tmp_path / "first.json", source, change=organs, steps=2))
    model = train_encoder(first, run_dir=tmp_path / "first", device="cpu", num_workers=0)
    publish_model(model, first, Registry(tmp_path / "models"), run_dir=tmp_path / "first")

    def second(facts: dict) -> None:  # type: ignore[type-arg]
        facts["tasks"][0] |= {"task": NEW, "organs": ["humerus_left", "colon"]}
        facts["initial"] = "models"

    return read_plan(
        tiny_training.write_plan(tmp_path / "second.json", source, change=second, steps=4, feature_distillation=1.0)
    )


def run(plan: EncoderPlan, folder: Path, **train: float) -> torch.nn.Module:
    changed = dataclasses.replace(plan, train=dataclasses.replace(plan.train, **train))  # type: ignore[arg-type]
    return train_encoder(changed, run_dir=folder, device="cpu", num_workers=0)


def test_distillation_holds_the_encoder_back(plan: EncoderPlan, tmp_path: Path) -> None:
    assert plan.initial is not None
    then = load_model(Registry(plan.initial)).network.encoder
    image = tiny_training.BoxPatches().patch(1).image[None]
    drift = []
    for weight in (0.0, 30.0):
        model = run(plan, tmp_path / f"run{weight}", feature_distillation=weight, learning_rate=0.02, steps=12)
        with torch.no_grad():
            drift.append(float(feature_distance(model.encoder(image), then(image))))  # type: ignore[operator]
    assert drift[1] < 0.5 * drift[0]


def test_a_continued_run_resumes_bit_for_bit(plan: EncoderPlan, tmp_path: Path) -> None:
    whole = run(plan, tmp_path / "whole", decoder_distillation=0.5).state_dict()
    part = dataclasses.replace(plan, train=dataclasses.replace(plan.train, decoder_distillation=0.5))
    for _ in range(2):
        train_encoder(part, run_dir=tmp_path / "part", device="cpu", num_workers=0, cancelled=lambda: True)
    resumed = run(plan, tmp_path / "part", decoder_distillation=0.5).state_dict()
    assert [name for name, value in whole.items() if not torch.equal(value, resumed[name])] == []


def test_decoders_of_the_former_registry_are_carried_over(plan: EncoderPlan, tmp_path: Path) -> None:
    assert plan.initial is not None
    model = train_encoder(plan, run_dir=tmp_path / "run", device="cpu", num_workers=0)
    registry = Registry(tmp_path / "continued")
    publish_model(model, plan, registry, run_dir=tmp_path / "run")
    assert [card.task for card in registry.tasks()] == [TASK, NEW]
    old, new = load_model(Registry(plan.initial)), load_model(registry)
    theirs, ours = (loaded.network.decoder(TASK).state_dict() for loaded in (old, new))
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())
    assert new.encoder_card.weights_sha256 != old.encoder_card.weights_sha256
    card = registry.card(TASK)
    assert card.provenance.endswith("The encoder was trained further afterwards (tiny), this decoder not.")
    assert card.validation == {}
    assert [organ.name for organ in registry.card(NEW).organs] == [OrganName("humerus_left"), OrganName("colon")]


def test_there_must_be_something_to_stay_near_to(plan: EncoderPlan) -> None:
    with pytest.raises(SpecError, match="'tiny' keeps its encoder near a former one, so it must name that one under"):
        dataclasses.replace(plan, initial=None)
    with pytest.raises(SpecError, match=r"feature_distillation must not be negative, got -1"):
        tiny_training.config(feature_distillation=-1)
