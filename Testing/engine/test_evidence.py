"""What lies beside a decoder: confidence head and organ sums, published, carried, checked and read."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny_registry
import torch

from wbcss.anomaly import OrganReference, VolumeSums, alarm_threshold
from wbcss.cards import TaskCard
from wbcss.confidence import MAX_LOG_ODDS, ConfidenceHead
from wbcss.errors import RegistryError
from wbcss.evidencefile import check_evidence
from wbcss.heads import TaskHead, channel_labels
from wbcss.layout import EVIDENCE
from wbcss.loading import TaskEvidence, load_evidence, load_model, save_evidence
from wbcss.nn.decoder import Decoder
from wbcss.package import export_task, import_task
from wbcss.pooling import MIN_VOXELS, OrganPool
from wbcss.registry import Registry, StagedTask
from wbcss.resume import model_hashes
from wbcss.weights import CONFIDENCE_WIDTH


def a_head(features: int, *, seed: int = 0) -> ConfidenceHead:
    generator = torch.Generator().manual_seed(seed)
    return ConfidenceHead(
        torch.randn(CONFIDENCE_WIDTH, features + 1, generator=generator),
        torch.randn(CONFIDENCE_WIDTH, generator=generator),
        torch.randn(CONFIDENCE_WIDTH, generator=generator),
        torch.randn(1, generator=generator),
        torch.tensor([0.5, -0.25]),
    )


def a_reference(organs: int, features: int, *, seed: int = 0) -> OrganReference:
    rng = np.random.default_rng(seed)
    return OrganReference.summed([rng.normal(size=(organs, 2 * features)) for _ in range(5)])


def published(tmp_path: Path) -> tuple[Registry, TaskCard]:
    registry = tiny_registry.new_registry(tmp_path / "registry")
    staged = tiny_registry.stage_task(registry)
    save_evidence(TaskEvidence(a_head(2), a_reference(2, 2)), tmp_path / "staged.safetensors")
    return registry, registry.publish(
        StagedTask(card=staged.card, weights=staged.weights, evidence=tmp_path / "staged.safetensors")
    )


def test_scales_of_organs_are_read_back_and_must_be_as_many_as_the_organs(tmp_path: Path) -> None:
    registry = tiny_registry.new_registry(tmp_path / "registry")
    staged = tiny_registry.stage_task(registry)
    path = tmp_path / "staged.safetensors"
    for organs in (2, 3):
        scales = torch.arange(2.0 * organs).reshape(organs, 2)
        save_evidence(TaskEvidence(dataclasses.replace(a_head(2), organ_scale=scales)), path)
        bundle = StagedTask(card=staged.card, weights=staged.weights, evidence=path)
        if organs == 2:
            head = load_evidence(registry, registry.publish(bundle)).certainty
            assert head is not None
            assert head.organ_scale is not None
            assert torch.equal(head.organ_scale, scales)
        else:
            with pytest.raises(RegistryError, match=r"confidence\.organ_scale"):
                registry.publish(bundle)


def test_evidence_is_published_read_back_and_carried_to_another_registry(tmp_path: Path) -> None:
    registry, card = published(tmp_path)
    assert registry.verify() == []
    assert len(card.evidence_sha256) == 64
    found = load_model(registry).evidence[card.task]
    assert found.certainty is not None
    assert found.reference is not None
    torch.testing.assert_close(found.certainty.hidden_weight, a_head(2).hidden_weight)
    np.testing.assert_allclose(found.reference.scatter, a_reference(2, 2).scatter, rtol=1e-6)
    assert f"{card.title} evidence" in model_hashes(registry, [card.task], body_part=False)
    package = export_task(registry, card.task, tmp_path / "liver.wbtask")
    other = tiny_registry.new_registry(tmp_path / "other")
    assert import_task(other, package).evidence_sha256 == card.evidence_sha256
    assert other.verify() == []
    assert (other.root / "tasks/liver/1" / EVIDENCE).read_bytes() == registry.task_evidence(card).read_bytes()


def test_a_task_without_evidence_has_none_and_its_card_does_not_speak_of_it(tmp_path: Path) -> None:
    registry = tiny_registry.new_registry(tmp_path / "registry")
    card = tiny_registry.publish(registry)
    assert load_model(registry).evidence == {}
    assert vars(load_evidence(registry, card)) == {"certainty": None, "reference": None}
    assert b"evidence" not in (registry.root / "tasks/liver/1/card.json").read_bytes()


def test_changed_missing_or_strange_evidence_is_found(tmp_path: Path) -> None:
    registry, card = published(tmp_path)
    path = registry.task_evidence(card)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert any("evidence.safetensors was changed after it was published" in text for text in registry.verify())
    with pytest.raises(RegistryError, match=r"evidence\.safetensors was changed after it was published"):
        load_model(registry)
    with pytest.raises(RegistryError, match=r"liver@1 evidence\.safetensors must have the SHA-256 of its card"):
        export_task(registry, card.task, tmp_path / "x.wbtask")
    path.unlink()
    assert registry.verify() == ["tasks/liver/1/evidence.safetensors is missing"]
    plain = tiny_registry.publish(registry, "plain", {"spleen": 1})
    registry.task_evidence(plain).write_bytes(whole)
    assert "tasks/plain/1/evidence.safetensors is not named by the card of plain@1" in registry.verify()


def test_evidence_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    registry = tiny_registry.new_registry(tmp_path / "registry")
    staged = tiny_registry.stage_task(registry)
    path = tmp_path / "staged.safetensors"
    save_evidence(TaskEvidence(reference=a_reference(3, 2)), path)
    wrong = r"evidence\.safetensors: the weight 'anomaly\.count' must have shape \(2,\) by its spec, got \(3,\)"
    with pytest.raises(RegistryError, match=wrong):
        registry.publish(dataclasses.replace(staged, evidence=path))
    assert registry.tasks() == ()
    card = dataclasses.replace(staged.card, evidence_sha256="a" * 64)
    with pytest.raises(RegistryError, match=r"the card of task 'liver' names an evidence\.safetensors, got none"):
        registry.publish(dataclasses.replace(staged, card=card))
    save_evidence(TaskEvidence(reference=a_reference(2, 2)), path)
    with pytest.raises(RegistryError, match=f"must have the SHA-256 of its card, {'a' * 64}, got "):
        registry.publish(StagedTask(card=card, weights=staged.weights, evidence=path))
    path.write_bytes(tiny_registry.safetensors_bytes({"head.bias": (2,)}))
    with pytest.raises(RegistryError, match=r"must hold tensors of confidence or anomaly, got head\.bias"):
        check_evidence(path, staged.card)
    with pytest.raises(RegistryError, match=r"staged\.safetensors must hold at least one tensor, got none"):
        save_evidence(TaskEvidence(), path)
    bad = dataclasses.replace(a_head(2), out_bias=torch.tensor([torch.nan]))
    with pytest.raises(RegistryError, match=r"'confidence\.out_bias' of staged\.safetensors must be finite, got nan"):
        save_evidence(TaskEvidence(bad), path)


@pytest.mark.parametrize("has_scales", [False, True])
def test_a_confidence_head_equals_its_formula(has_scales: bool) -> None:
    own = torch.tensor([[2.0, 1.0], [1.0, 0.0], [0.5, -3.0]])
    head = dataclasses.replace(a_head(3), organ_scale=own if has_scales else None)
    features, odds, organs = torch.randn(5, 3), torch.linspace(-3, 3, 5), torch.tensor([0, 1, 2, 2, 0])
    for row in range(5):
        inputs = torch.cat([features[row], odds[row : row + 1] / MAX_LOG_ODDS])
        hidden = [max(0.0, float(w @ inputs + b)) for w, b in zip(head.hidden_weight, head.hidden_bias, strict=True)]
        raw = float(odds[row]) + sum(h * float(w) for h, w in zip(hidden, head.out_weight, strict=True))
        log_odds = 0.5 * (raw + float(head.out_bias)) - 0.25
        slope, shift = own[organs[row]].tolist() if has_scales else (1.0, 0.0)
        expected = 1 / (1 + np.exp(-(slope * log_odds + shift)))
        assert float(head.probability(features, odds, organs)[row]) == pytest.approx(expected, rel=1e-4)


def test_the_head_speaks_where_an_organ_wins_and_the_softmax_where_none_does() -> None:
    torch.manual_seed(2)
    decoder = Decoder(tiny_registry.decoder_spec(2), tiny_registry.ENCODER_SPEC).requires_grad_(False)
    features = torch.randn(300, 2) * 3
    labels, cpu = channel_labels([4, 6]), torch.device("cpu")
    plain = TaskHead.of(decoder, labels, temperature=2.0, device=cpu)
    head = dataclasses.replace(a_head(2), organ_scale=torch.tensor([[2.0, 1.0], [0.5, -3.0]]))
    learned = TaskHead.of(decoder, labels, temperature=2.0, device=cpu, certainty=head)
    channel, softmax = plain.classify(features)
    same, confidence = learned.classify(features)
    assert torch.equal(channel, same)
    organ = channel > 0
    assert organ.any()
    assert not organ.all()
    torch.testing.assert_close(confidence[~organ], softmax[~organ])
    odds = torch.logit(softmax[organ].double()).float()
    expected = head.probability(features[organ], odds, channel[organ].long() - 1)
    torch.testing.assert_close(confidence[organ], expected, atol=1e-4, rtol=1e-4)


def test_the_pool_gives_mean_and_spread_of_every_organ(rng: np.random.Generator) -> None:
    pool = OrganPool(3, 2, torch.device("cpu"))
    channels = np.repeat([0, 1, 2], [40, 30, MIN_VOXELS - 1])
    features = rng.normal(3, 2, (len(channels), 2)).astype(np.float32)
    for part in np.array_split(rng.permutation(len(channels)), 4):
        pool.add(torch.from_numpy(channels[part]).int(), torch.from_numpy(features[part]))
    own = features[channels == 1].astype(float)
    found = pool.descriptors()
    np.testing.assert_allclose(found[0], [*own.mean(axis=0), *own.std(axis=0)], rtol=1e-5)
    assert np.isnan(found[1:]).all()


def test_a_diagonal_reference_gives_the_distance_in_closed_form() -> None:
    """Independent features of unit variance: the root mean square deviation, less what an uncertain mean explains."""
    reference = OrganReference(
        count=np.array([100.0, 1.0]), total=np.array([[200.0, 0.0], [0.0, 0.0]]), scatter=np.eye(2) * 99
    )
    found = reference.distances(np.array([[5.0, 4.0], [0.0, 0.0]]))
    assert found[0] == pytest.approx(np.sqrt((9 + 16) / 2 / 1.01))
    assert np.isnan(found[1])
    assert np.isnan(reference.distances(np.full((2, 2), np.nan))).all()


def test_sums_tell_what_is_strange_and_do_not_depend_on_the_order_of_cases(rng: np.random.Generator) -> None:
    mixing = rng.normal(size=(6, 6))
    cases = [rng.normal(size=(4, 6)) @ mixing + np.arange(4)[:, None] for _ in range(40)]
    cases[3][2] = np.nan
    reference = OrganReference.summed(cases)
    again = OrganReference.summed(cases[::-1])
    np.testing.assert_allclose(reference.scatter, again.scatter)
    assert reference.count.tolist() == [40, 40, 39, 40]
    fresh = np.concatenate([reference.distances(rng.normal(size=(4, 6)) @ mixing + np.arange(4)[:, None])] * 1)
    strange = reference.distances(rng.normal(size=(4, 6)) @ mixing + np.arange(4)[:, None] + 30)
    assert (fresh < 2).all()
    assert (strange > 3).all()


@pytest.mark.parametrize(("num", "place"), [(19, 18), (39, 37), (99, 94)])
def test_the_threshold_is_the_conformal_order_statistic(num: int, place: int) -> None:
    distances = np.random.default_rng(0).permutation(num).astype(float).tolist()
    assert alarm_threshold([*distances, float("nan")], false_alarm_rate=0.05) == place


def test_too_few_distances_give_no_threshold() -> None:
    assert alarm_threshold([1.0] * 18, false_alarm_rate=0.05) is None


def test_new_organs_alarm_as_rarely_as_promised(rng: np.random.Generator) -> None:
    alarms = []
    for _ in range(400):
        limit = alarm_threshold(rng.gamma(2, size=39).tolist(), false_alarm_rate=0.05)
        assert limit is not None
        alarms.append(rng.gamma(2) > limit)
    assert np.mean(alarms) < 0.08


def test_the_range_of_volumes_is_a_prediction_interval() -> None:
    sums = VolumeSums.of([100.0, 200.0, 400.0])
    found = sums.range_ml(false_alarm_rate=0.05, least_cases=3)
    assert found is not None
    # t(0.975, 2) = 4.3027; standard deviation ln 2; sqrt(1 + 1/3)
    reach = 4.302653 * np.log(2) * np.sqrt(4 / 3)
    assert found == pytest.approx((200 * np.exp(-reach), 200 * np.exp(reach)), rel=1e-5)
    assert sums.range_ml(false_alarm_rate=0.05, least_cases=4) is None
