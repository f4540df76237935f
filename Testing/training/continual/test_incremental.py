"""A shared network whose head grows, and what each recipe sees of a batch."""

from __future__ import annotations

import dataclasses

import pytest
import tiny_training
import torch

from wbcss.errors import SpecError
from wbcss.labels import TaskId
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import Encoder
from wbcss.nn.model import WholeBodyModel
from wbcss_training.config import TrainConfig
from wbcss_training.continual.incremental import SHARED, IncrementalLearner, Recipe, grown
from wbcss_training.continual.lwf import OldOutputs, old_output_loss
from wbcss_training.continual.mib import spread_background
from wbcss_training.continual.plop import IGNORED
from wbcss_training.continual.view import View
from wbcss_training.former import FormerSelf
from wbcss_training.losses import OrganLoss
from wbcss_training.patches import Patch

LIVER, SPLEEN, VERTEBRA = tiny_training.ORGANS
FIRST, SECOND = TaskId("first"), TaskId("second")
CONFIG = tiny_training.config(sampled_voxels=10**6, deep_supervision=1, balanced_fraction=0.0)


def network(num_organs: int, seed: int = 0) -> WholeBodyModel:
    torch.manual_seed(seed)
    encoder = Encoder(tiny_training.ENCODER)
    return WholeBodyModel(encoder, {SHARED: Decoder(tiny_training.decoder_spec(num_organs), encoder.spec)})


def second_task(recipe: Recipe, former: FormerSelf | None = None, config: TrainConfig = CONFIG) -> IncrementalLearner:
    """Liver and spleen are known, the vertebra and the liver again are learned."""
    organs = (LIVER, SPLEEN, VERTEBRA)
    return IncrementalLearner(network(3), organs, {SECOND: (VERTEBRA, LIVER)}, config, recipe, former)


def batch(*, annotated: tuple[bool, bool, bool] = (True, True, True), count: int = 2) -> list[Patch]:
    """Patches of the second task: channel 1 is the vertebra, 2 the liver."""
    source = tiny_training.BoxPatches(task=SECOND, organs=(VERTEBRA, LIVER), annotated=(*annotated, True))
    patches = [source.patch(index) for index in range(count)]
    return [dataclasses.replace(patch, annotated=torch.tensor(annotated)) for patch in patches]


def loss_of(learner: IncrementalLearner, patches: list[Patch]) -> torch.Tensor:
    return learner(SECOND, patches, step=0, generator=torch.Generator().manual_seed(0))


def logits_of(model: WholeBodyModel, patches: list[Patch]) -> torch.Tensor:
    with torch.no_grad():
        return model.decoder(SHARED)(model.encoder(torch.stack([patch.image for patch in patches]))).flatten(2)


def global_labels(patches: list[Patch]) -> torch.Tensor:
    lookup = torch.tensor([0, 3, 1])
    return lookup[torch.stack([patch.labels for patch in patches]).long()].flatten(1)


@pytest.mark.parametrize(
    ("old", "known"), [("background", [True, True, True, True]), ("unknown", [True, True, False, True])]
)
def test_an_old_organ_is_background_or_unknown_as_the_recipe_says(old: str, known: list[bool]) -> None:
    learner = second_task(Recipe(old_organs=old))  # type: ignore[arg-type]
    patches = batch()
    plain = OrganLoss(batch_dice=True)(logits_of(learner.model, patches), global_labels(patches), torch.tensor(known))
    torch.testing.assert_close(loss_of(learner, patches).detach(), plain)


@pytest.mark.parametrize("old", ["background", "unknown"])
def test_what_a_case_leaves_out_is_unknown_for_every_method(old: str) -> None:
    learner = second_task(Recipe(old_organs=old))  # type: ignore[arg-type]
    patches = batch(annotated=(True, True, False))
    known = torch.tensor([True, False, old == "background", True])
    plain = OrganLoss(batch_dice=True)(logits_of(learner.model, patches), global_labels(patches), known)
    torch.testing.assert_close(loss_of(learner, patches).detach(), plain)


def test_a_term_sees_both_networks_at_the_same_voxels() -> None:
    old = network(2, seed=3)
    seen: list[View] = []

    def spy(view: View) -> torch.Tensor:
        seen.append(view)
        return view.logits.new_tensor(5.0)

    learner = second_task(Recipe(terms=(spy,)), FormerSelf(old.encoder, {SHARED: old.decoder(SHARED)}))
    patches = batch()
    without = loss_of(second_task(Recipe()), patches)
    torch.testing.assert_close(loss_of(learner, patches), without + 5.0)
    (view,) = seen
    torch.testing.assert_close(view.logits.detach(), logits_of(learner.model, patches), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(view.former_logits, logits_of(old, patches), atol=1e-5, rtol=1e-5)
    assert not view.former_logits.requires_grad
    assert [skip.shape for skip in view.skips] == [skip.shape for skip in view.former_skips]
    assert set(view.parameters) == {name for name, _ in learner.model.named_parameters()}


def test_a_published_baseline_adds_its_term() -> None:
    old = network(2, seed=3)
    former = FormerSelf(old.encoder, {SHARED: old.decoder(SHARED)})
    patches = batch()
    learner = second_task(Recipe(terms=(OldOutputs(weight=2.0),)), former)
    term = old_output_loss(logits_of(learner.model, patches), logits_of(old, patches), temperature=2.0)
    expected = loss_of(second_task(Recipe()), patches).detach() + 2 * term
    torch.testing.assert_close(loss_of(learner, patches).detach(), expected)


def test_ignored_voxels_cost_nothing_and_the_loss_shrinks_with_their_share() -> None:
    old = network(2, seed=3)
    former = FormerSelf(old.encoder, {SHARED: old.decoder(SHARED)})
    patches = batch(count=1)
    nobody = second_task(Recipe(thresholds=torch.zeros(3)), former)  # no voxel is sure enough
    assert float(loss_of(nobody, patches).detach()) == 0  # nu is 0
    everybody = second_task(Recipe(thresholds=torch.ones(3) * 2), former)
    labels = global_labels(patches)
    completed = torch.where(labels == 0, logits_of(old, patches).argmax(dim=1), labels)
    plain = OrganLoss(batch_dice=True)(logits_of(everybody.model, patches), completed, torch.ones(4, dtype=torch.bool))
    torch.testing.assert_close(loss_of(everybody, patches).detach(), plain)
    some = second_task(Recipe(), former)
    logits, ignored = logits_of(some.model, patches), labels.clone()
    ignored[:, ::3] = IGNORED
    kept = ignored[0] != IGNORED
    annotated = torch.ones(4, dtype=torch.bool)
    torch.testing.assert_close(
        some.loss(logits, ignored, annotated), OrganLoss(batch_dice=True)(logits[..., kept], labels[:, kept], annotated)
    )


def test_a_grown_head_answers_as_before_on_its_former_channels() -> None:
    model = network(2)
    torch.manual_seed(1)
    larger = grown(model.decoder(SHARED), model.encoder, num_new=2)
    skips = model.encoder(torch.randn(1, 1, 16, 16, 16))
    assert larger.spec.num_organs == 4
    torch.testing.assert_close(larger(skips)[:, :3], model.decoder(SHARED)(skips))
    spread = grown(model.decoder(SHARED), model.encoder, num_new=2, start=spread_background)
    torch.testing.assert_close(
        spread(skips).softmax(dim=1)[:, [0, 3, 4]].sum(dim=1), model.decoder(SHARED)(skips).softmax(dim=1)[:, 0]
    )


def test_a_former_network_needs_the_finest_level() -> None:
    old = network(2)
    with pytest.raises(SpecError, match="finest_level must be 0 to compare with a former network, got 1"):
        second_task(
            Recipe(),
            FormerSelf(old.encoder, {SHARED: old.decoder(SHARED)}),
            tiny_training.config(finest_level=1, deep_supervision=2),
        )
