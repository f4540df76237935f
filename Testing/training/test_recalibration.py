"""A published task that learns anew how sure it is: closed forms for the temperature, bits for all else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import tiny_cases
import tiny_enrollment
import torch
from analytic_model import threshold_model

from wbcss.anomaly import ConfidenceSums
from wbcss.cards import TaskCard
from wbcss.confidence import ConfidenceHead
from wbcss.errors import Cancelled, CaseError
from wbcss.io.writing import write_volume
from wbcss.labels import TaskId
from wbcss.loading import LoadedModel, TaskEvidence, load_evidence, load_model, save_evidence, save_weights
from wbcss.nn.decoder import Decoder
from wbcss.proof import hash_logits
from wbcss.registry import Registry, StagedTask
from wbcss.segment import SegmentOptions
from wbcss.weights import confidence_shapes
from wbcss_training.cases import Case, read_case_list
from wbcss_training.cli.main import main
from wbcss_training.publishing import organs_for
from wbcss_training.recalibration import fit_organs, recalibrate, rescaled, scaled, scan_facts, usual_confidences
from wbcss_training.scanclaims import ScanClaims, judge

Capture = pytest.CaptureFixture[str]
PLAIN, SHARP = TaskId("plain"), TaskId("sharp")
FACTOR = 4.0


@pytest.fixture
def cases(tmp_path: Path) -> tuple[Case, ...]:
    folder = tmp_path / "cases"
    tiny_cases.write_list(folder, tiny_enrollment.write_pairs(folder, count=3))
    return read_case_list(folder / "list.json")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Two tasks of the same weights, but for the head of one, which is ``FACTOR`` times as loud."""
    made = tiny_enrollment.registry_with_earlier_task(tmp_path / "registry")
    torch.manual_seed(5)
    decoder = Decoder(tiny_enrollment.DECODER, tiny_enrollment.ENCODER).half().float()
    for task in (PLAIN, SHARP):
        publish(made, task, decoder, tmp_path)
        with torch.no_grad():
            decoder.head.weight *= FACTOR
            assert decoder.head.bias is not None
            decoder.head.bias *= FACTOR
    return made


def publish(registry: Registry, task: TaskId, decoder: Decoder, folder: Path, *, evidence: Path | None = None) -> None:
    save_weights(decoder.state_dict(), folder / "weights.safetensors")
    card = TaskCard(
        task=task,
        organs=organs_for(registry, tiny_enrollment.ORGANS),
        spec=tiny_enrollment.DECODER,
        encoder_sha256=registry.encoder_card().weights_sha256,
        training_cases=1,
        license="CC0-1.0",
        provenance="random numbers",
        created="2026-11-20",
    )
    registry.publish(StagedTask(card=card, weights=folder / "weights.safetensors", evidence=evidence))


def test_logits_so_many_times_as_large_have_a_temperature_so_many_times_as_high(
    registry: Registry, cases: tuple[Case, ...], tmp_path: Path
) -> None:
    plain = recalibrate(registry, PLAIN, cases, run_dir=tmp_path / "plain")
    sharp = recalibrate(registry, SHARP, cases, run_dir=tmp_path / "sharp")
    assert sharp.card.temperature == pytest.approx(FACTOR * plain.card.temperature, rel=2e-3)
    assert sharp.calibration.ece_after == pytest.approx(plain.calibration.ece_after, abs=2e-3)
    assert sharp.calibration.ece_after < sharp.calibration.ece_before
    assert sharp.card.calibration["recalibrated_on"] == 3


def test_only_the_temperature_is_new(registry: Registry, cases: tuple[Case, ...], tmp_path: Path) -> None:
    before, logits, old = registry.fingerprint(), hash_logits(registry).tasks, registry.card(SHARP)
    made = recalibrate(registry, SHARP, cases, run_dir=tmp_path / "run")
    assert made.card.title == "sharp@2"
    assert made.unchanged == ("spine@1", "plain@1", "sharp@1")
    assert made.card.provenance == f"{old.provenance} Calibrated on 3 other annotated scan(s)."
    fitted = ("version", "sequence", "calibration", "confidence", "provenance", "evidence_sha256")
    assert dataclasses.replace(made.card, **{name: getattr(old, name) for name in fitted}) == old
    assert {name: sha256 for name, sha256 in registry.fingerprint().items() if name in before} == before
    after = hash_logits(registry).tasks
    assert after.items() >= logits.items()
    assert after["sharp@2"] == after["sharp@1"]
    assert registry.verify() == []


def test_a_learned_confidence_gets_a_scale_that_fits_and_keeps_the_rest(
    registry: Registry, cases: tuple[Case, ...], tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = confidence_shapes(tiny_enrollment.DECODER)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    tensors["confidence.scale"] = torch.tensor([9.0, 5.0])
    head = ConfidenceHead(**{name.removeprefix("confidence."): value for name, value in tensors.items()})
    save_evidence(TaskEvidence(head, None), tmp_path / "evidence.safetensors")
    decoder = load_model(registry).network.decoder(PLAIN)
    publish(registry, TaskId("witness"), decoder, tmp_path, evidence=tmp_path / "evidence.safetensors")
    made = recalibrate(registry, TaskId("witness"), cases, run_dir=tmp_path / "run")
    found = load_evidence(registry, made.card).certainty
    assert found is not None
    assert found.organ_scale is not None
    assert not torch.equal(found.organ_scale, torch.tensor([[1.0, 0.0]]).expand_as(found.organ_scale))
    for name in ("hidden_weight", "hidden_bias"):
        assert torch.equal(getattr(found, name), getattr(head, name))


def test_over_whole_scans_the_task_is_right_as_often_as_it_says(
    registry: Registry, cases: tuple[Case, ...], tmp_path: Path
) -> None:
    made = recalibrate(registry, SHARP, cases, run_dir=tmp_path / "run").card
    facts = made.confidence
    assert facts["scans"] == 3
    assert facts["ece_after"] <= facts["ece_before"]
    model = load_model(registry, [SHARP])
    claims = [found for case in cases if (found := claims_in(case, made, model))]
    sure = torch.cat([part.confidence for part in claims])
    right = torch.cat([part.right for part in claims]).double()
    # The product takes the fastest backend there is, and another one may round a voxel otherwise.
    assert len(right) == pytest.approx(facts["num_voxels"], rel=0.01)
    assert set(facts["usual"]) <= {organ.name for organ in made.organs}
    assert facts["accuracy"] == pytest.approx(float(right.mean()), abs=0.01)
    # Fitted shifts make the mean confidence the share of right answers, but for the ridge and 16 bits.
    assert float(sure.mean()) == pytest.approx(float(right.mean()), abs=0.02)


def claims_in(case: Case, card: TaskCard, model: LoadedModel) -> ScanClaims | None:
    against = judge(case, card)
    return None if against is None else against.claims(model)


def test_a_task_is_wrong_where_the_case_draws_what_it_does_not_know(tmp_path: Path) -> None:
    """A task of the liver alone calls everything from 150 HU on liver: the kidney too, and a bone that nobody drew."""
    hu, labels = np.full(tiny_cases.SHAPE, -100, np.int16), np.zeros(tiny_cases.SHAPE, np.uint8)
    liver, kidney, bone = np.s_[6:16, 4:14, 3:11], np.s_[18:21, 5:8, 4:8], np.s_[1:4, 5:8, 4:8]
    hu[liver] = hu[kidney] = hu[bone] = 200
    labels[liver], labels[kidney] = 3, 1
    write_volume(tmp_path / "a.nii.gz", hu, tiny_cases.AFFINE)
    write_volume(tmp_path / "a_seg.nii.gz", labels, tiny_cases.AFFINE)
    path = tiny_cases.write_list(tmp_path, [{"image": "a.nii.gz", "labels": "a_seg.nii.gz"}])
    (case,) = read_case_list(path)
    model = threshold_model({"first": {"liver": 150.0}}, spacing_mm=(6.0, 6.0, 6.0))
    against = judge(case, model.cards[TaskId("first")])
    assert against is not None
    claims = against.claims(model, options=SegmentOptions(device="cpu", backend="torch"))
    # The case annotates livers, so the bone is known to be none.
    assert int(claims.right.sum()) == labels[liver].size
    assert int((~claims.right).sum()) == labels[kidney].size + labels[bone].size
    both = threshold_model({"first": {"spleen": 150.0, "liver": 1e4}}, spacing_mm=(6.0, 6.0, 6.0))
    against = judge(case, both.cards[TaskId("first")])
    assert against is not None
    claims = against.claims(both, options=SegmentOptions(device="cpu", backend="torch"))
    # Spleens are not annotated: where nothing is drawn nobody knows, where a liver is drawn there is none.
    assert len(claims) == labels[liver].size + labels[kidney].size
    assert not claims.right.any()


def test_a_rescaled_confidence_has_the_log_odds_asked_for_in_that_organ(registry: Registry) -> None:
    generator = torch.Generator().manual_seed(2)
    card = registry.card(PLAIN)
    features = torch.randn(9, card.spec.num_features, generator=generator)
    odds = torch.randn(9, generator=generator)
    organs = torch.arange(9) % len(card.organs)
    first = organs == 0
    scales = {card.organs[0].label: torch.tensor([0.5, -1.0])}
    plain = rescaled(TaskEvidence(), scales, card).certainty
    assert plain is not None
    told = plain.probability(features, odds, organs)
    assert torch.allclose(told[first], torch.sigmoid(0.5 * odds[first] - 1.0))
    assert torch.allclose(told[~first], torch.sigmoid(odds[~first]))
    shapes = confidence_shapes(card.spec)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    head = ConfidenceHead(**{name.removeprefix("confidence."): value for name, value in tensors.items()})
    again = rescaled(rescaled(TaskEvidence(head), scales, card), scales, card).certainty
    assert again is not None
    before = torch.logit(head.probability(features, odds, organs).double())
    told = again.probability(features, odds, organs).double()
    assert torch.allclose(told[first], torch.sigmoid(0.5 * (0.5 * before[first] - 1.0) - 1.0), atol=1e-4)
    assert torch.allclose(told[~first], torch.sigmoid(before[~first]), atol=1e-4)


def test_every_organ_gets_a_scale_of_its_own_if_enough_scans_can_judge_it() -> None:
    """Claims of 0.8: one organ is right in half of them, one in all, one in a single scan, one is never judged."""
    sure = torch.full((400,), 0.8, dtype=torch.float64)
    organs = torch.arange(400) // 100 + 1
    right = (organs == 2) | ((organs == 1) & (torch.arange(400) % 2 == 0))
    scans = [
        a_scan(sure, right, organs=organs, judged={1, 2, 3}),
        a_scan(sure, right, organs=organs, judged={1, 2}),
    ]
    scales = fit_organs(scans)
    assert sorted(scales) == [1, 2]
    told = scaled(scans[0], scales)
    assert float(told[organs == 1].mean()) == pytest.approx(0.5, abs=0.01)
    assert float(told[organs == 2].mean()) > 0.95
    assert torch.equal(told[organs > 2], sure[organs > 2])


def test_halves_of_the_scans_are_judged_by_the_other_half() -> None:
    """Scans of one confidence, right in all of one half and in none of the other: each half is told the opposite."""
    sure = torch.full((100,), 0.8, dtype=torch.float64)
    good, bad = (a_scan(sure, torch.full((100,), value)) for value in (True, False))
    facts = scan_facts([good, bad, good, bad])
    assert facts["accuracy"] == 0.5
    assert facts["ece_before"] == pytest.approx(0.3, abs=1e-5)
    assert facts["ece_after"] > 0.9
    alike = scan_facts([a_scan(sure, torch.arange(100) < 60)] * 4)
    assert alike["ece_after"] < 0.02


def test_claims_of_organs_that_no_scan_annotates_are_not_counted() -> None:
    """Of them nothing but errors is known."""
    sure, organs = torch.full((100,), 0.8, dtype=torch.float64), torch.arange(100) % 2 + 1
    scan = a_scan(sure, organs == 1, organs=organs, judged={1})
    assert scan_facts([scan, scan])["num_voxels"] == 100
    assert scan_facts([scan, scan])["accuracy"] == 1.0


def test_the_card_tells_how_sure_the_task_usually_is_of_organs_that_are_there(registry: Registry) -> None:
    """Half of what is claimed is right, so the fitted scale turns every 0.8 into about 0.5."""
    sure, right = torch.full((100,), 0.8, dtype=torch.float64), torch.arange(100) % 2 == 0
    card = registry.card(PLAIN)
    first, second = (organ.label for organ in card.organs[:2])
    scans = [a_scan(sure, right, organs=torch.full((100,), first), present={first, second}) for _ in range(5)]
    scans.append(a_scan(sure, right, organs=torch.full((100,), second), present={first}))
    usual = usual_confidences(scans, fit_organs(scans), card)
    assert list(usual) == [card.organs[0].name]  # the second organ was claimed where it was not
    sums = ConfidenceSums(**usual[card.organs[0].name])  # type: ignore[arg-type]
    assert sums.count == 5
    assert sums.least(false_alarm_rate=0.05, least_cases=5) == pytest.approx(0.5, abs=0.02)


def a_scan(
    sure: torch.Tensor,
    right: torch.Tensor,
    *,
    organs: torch.Tensor | None = None,
    present: Collection[int] = (),
    judged: Collection[int] | None = None,
) -> ScanClaims:
    whose = torch.ones(len(sure), dtype=torch.int64) if organs is None else organs
    known = frozenset(whose.unique().tolist() if judged is None else judged)
    return ScanClaims(sure, right, whose, frozenset(present), known)


def test_cases_without_an_organ_of_the_task_are_refused(
    registry: Registry, cases: tuple[Case, ...], tmp_path: Path
) -> None:
    with pytest.raises(CaseError, match=r"the cases must annotate an organ of spine@1, got none; see `wbcss tasks"):
        recalibrate(registry, TaskId("spine"), cases, run_dir=tmp_path / "run")


def test_cancelled_nothing_is_published(registry: Registry, cases: tuple[Case, ...], tmp_path: Path) -> None:
    before = registry.fingerprint()
    with pytest.raises(Cancelled):
        recalibrate(registry, PLAIN, cases, run_dir=tmp_path / "run", cancelled=lambda: True)
    assert registry.fingerprint() == before


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_tells_what_it_has_done(
    as_json: bool, registry: Registry, cases: tuple[Case, ...], tmp_path: Path, capsys: Capture
) -> None:
    command = ["calibrate", "--registry", str(registry.root), "--task", "sharp", "--run", str(tmp_path / "run")]
    command += ["--cases", str(tmp_path / "cases" / "list.json"), "--threads", "1", "--first", "2"]
    assert main([*command, *(["--json"] if as_json else [])]) == 0
    out = capsys.readouterr().out
    if as_json:
        facts = json.loads(out.splitlines()[-1])
        assert (facts["version"], facts["temperature"]) == (2, round(registry.card(SHARP).temperature, 5))
        assert facts["unchanged"] == ["spine@1", "plain@1", "sharp@1"]
        assert facts["scans"]["ece_after"] == registry.card(SHARP).confidence["ece_after"]
    else:
        assert out.startswith("sharp@2 is published: the weights of before, temperature ")
        assert f"with the scale that was fitted there {registry.card(SHARP).confidence['ece_after']:.3f}\n" in out
        assert "3 earlier task version(s) answer bit for bit as before\n" in out
    assert registry.card(SHARP).calibration["recalibrated_on"] == 2


def test_a_task_that_is_not_there_is_refused(registry: Registry, tmp_path: Path, capsys: Capture) -> None:
    command = ["calibrate", "--registry", str(registry.root), "--task", "heart", "--run", str(tmp_path / "run")]
    assert main([*command, "--cases", str(tmp_path / "none.json")]) == 2
    assert "no task 'heart' in the registry" in capsys.readouterr().err
