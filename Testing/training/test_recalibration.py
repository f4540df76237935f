"""A published task that learns anew how sure it is: closed forms for the temperature, bits for all else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import tiny_cases
import tiny_enrollment
import torch

from wbcss.cards import TaskCard
from wbcss.confidence import ConfidenceHead
from wbcss.errors import Cancelled, CaseError
from wbcss.labels import TaskId
from wbcss.loading import TaskEvidence, load_evidence, load_model, save_evidence, save_weights
from wbcss.nn.decoder import Decoder
from wbcss.proof import hash_logits
from wbcss.registry import Registry, StagedTask
from wbcss.weights import confidence_shapes
from wbcss_training.cases import Case, read_case_list
from wbcss_training.cli.main import main
from wbcss_training.publishing import organs_for
from wbcss_training.recalibration import recalibrate

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
    kept = {"version": 1, "sequence": old.sequence, "calibration": old.calibration, "provenance": old.provenance}
    assert dataclasses.replace(made.card, **kept) == old  # type: ignore[arg-type]
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
    assert not torch.equal(found.scale, head.scale)
    for name in ("hidden_weight", "hidden_bias"):
        assert torch.equal(getattr(found, name), getattr(head, name))


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
    else:
        assert out.startswith("sharp@2 is published: the weights of before, temperature ")
        assert "3 earlier task version(s) answer bit for bit as before\n" in out
    assert registry.card(SHARP).calibration["recalibrated_on"] == 2


def test_a_task_that_is_not_there_is_refused(registry: Registry, tmp_path: Path, capsys: Capture) -> None:
    command = ["calibrate", "--registry", str(registry.root), "--task", "heart", "--run", str(tmp_path / "run")]
    assert main([*command, "--cases", str(tmp_path / "none.json")]) == 2
    assert "no task 'heart' in the registry" in capsys.readouterr().err
