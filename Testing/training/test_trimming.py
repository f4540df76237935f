"""Trimming step by step: what is tried next, what is accepted, resume, and the whole way into a registry."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_enrollment
import torch
from safetensors.torch import load_file

from wbcss.errors import Cancelled, RunError, SpecError
from wbcss.loading import load_model
from wbcss.nn.decoder import Decoder
from wbcss.nn.encoder import Encoder
from wbcss.proof import hash_logits
from wbcss.registry import Registry
from wbcss.specs import DecoderSpec
from wbcss_training import trimming
from wbcss_training.config import DistillConfig, TrimConfig
from wbcss_training.continual.cost import decoder_cost
from wbcss_training.enrolling import enroll
from wbcss_training.enrollment import EnrollmentReport, EnrollmentRequest
from wbcss_training.heldout import judge

SHORT = dataclasses.replace(tiny_enrollment.CONFIG, steps=4, log_every=2)
WIDE = dataclasses.replace(tiny_enrollment.DECODER, stage_channels=(8, 8))
TRIM = TrimConfig(budget=0.2, tolerance=1.0, shrink=0.5, multiple=2, keep_finest=True, step_share=0.5, min_cases=1)


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training; curves have tests of their own."""
    monkeypatch.setattr("wbcss_training.rounds.draw_curves", lambda run_dir: run_dir)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return tiny_enrollment.registry_with_earlier_task(tmp_path / "registry")


def run(request: EnrollmentRequest, registry: Registry, run_dir: Path, **options: Any) -> EnrollmentReport:
    report = enroll(request, registry, run_dir=run_dir, device="cpu", **options)
    assert report is not None
    return report


def request(folder: Path, **changes: Any) -> EnrollmentRequest:
    return tiny_enrollment.request(folder, **{"train": SHORT, "decoder": WIDE, "trim": TRIM, **changes})


def pretend(monkeypatch: pytest.MonkeyPatch, dice: Sequence[float]) -> list[DecoderSpec]:
    """Let held-out cases say ``dice`` one after the other; returns what they were asked about."""
    left = iter(dice)
    asked: list[DecoderSpec] = []

    def say(decoder: Decoder, encoder: Encoder, **options: Any) -> Mapping[str, Any]:
        asked.append(options["card"].spec)
        verdict: dict[str, Any] = dict(judge(decoder, encoder, **options))
        verdict["held_out"]["mean"]["dice"] = next(left)
        return verdict

    monkeypatch.setattr("wbcss_training.workbench.judge", say)
    return asked


def test_a_learned_decoder_is_trimmed_published_and_nothing_old_has_changed(registry: Registry, tmp_path: Path) -> None:
    before, logits = registry.fingerprint(), hash_logits(registry).tasks
    told: list[str] = []
    report = run(request(tmp_path / "cases"), registry, tmp_path / "run", tell=told.append)
    assert {name: sha256 for name, sha256 in registry.fingerprint().items() if name in before} == before
    assert hash_logits(registry).tasks.items() >= logits.items()
    assert report.unchanged == ("spine@1",)
    assert registry.verify() == []
    card = registry.card(tiny_enrollment.TASK)
    record = card.validation["trimming"]
    assert record == json.loads(json.dumps(report.trimming))
    assert record["full"]["spec"]["stage_channels"] == [8, 8]
    assert tuple(record["kept"]["spec"]["stage_channels"]) == card.spec.stage_channels == (2, 2)
    for side in ("full", "kept"):
        facts = record[side]
        spec = dataclasses.replace(WIDE, stage_channels=tuple(facts["spec"]["stage_channels"]))
        cost = decoder_cost(spec, tiny_enrollment.ENCODER)
        assert (facts["parameters"], facts["macs"]) == (cost.parameters, cost.macs)
        assert set(facts["organs"]) == set(tiny_enrollment.ORGANS)
    assert record["kept"]["macs"] <= 0.2 * record["full"]["macs"]
    assert record["kept"]["mean"]["dice"] == card.validation["held_out"]["mean"]["dice"]
    assert [step["accepted"] for step in record["steps"]] == [True] * len(record["steps"])
    kept = load_model(registry).network.decoder(tiny_enrollment.TASK)
    assert sum(p.numel() for p in kept.parameters()) == record["kept"]["parameters"]
    assert re.search(r" to trim\b", told[0])
    assert len(told) == 1 + len(record["steps"])
    assert "times fewer multiply-accumulates: Dice " in told[1]


def test_a_decoder_whose_finest_level_needs_no_convolutions_is_published_without(
    registry: Registry, tmp_path: Path
) -> None:
    trim = dataclasses.replace(TRIM, keep_finest=False, budget=0.25)
    report = run(request(tmp_path / "cases", trim=trim), registry, tmp_path / "run")
    assert report.trimming["steps"][0]["spec"]["convs_per_stage"] == [0, 1]
    card = registry.card(tiny_enrollment.TASK)
    assert card.spec.convs_per_stage == (0, 1)
    built = load_model(registry).network.decoder(tiny_enrollment.TASK)
    assert sum(p.numel() for p in built.parameters()) == report.trimming["kept"]["parameters"]


def test_what_loses_too_much_is_taken_back(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = pretend(monkeypatch, [0.8, 0.796, 0.7949, 0.795, 0.79])
    trim = dataclasses.replace(TRIM, tolerance=0.005, budget=0.05, multiple=1, max_rejected=1)
    report = run(request(tmp_path / "cases", trim=trim), registry, tmp_path / "run")
    widths = [spec.stage_channels for spec in asked]
    assert widths == [(8, 8), (4, 4), (2, 2), (3, 3)]
    verdicts = [step["accepted"] for step in report.trimming["steps"]]
    assert verdicts == [True, False, True]
    assert report.card.spec.stage_channels == (3, 3)
    assert report.trimming["kept"]["mean"]["dice"] == 0.795


def test_if_nothing_smaller_is_good_enough_the_full_decoder_is_published(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, [0.8, 0.1, 0.1])
    trim = dataclasses.replace(TRIM, tolerance=0.005, max_rejected=1)
    told: list[str] = []
    report = run(request(tmp_path / "cases", trim=trim), registry, tmp_path / "run", tell=told.append)
    assert report.card.spec == WIDE
    assert [step["accepted"] for step in report.trimming["steps"]] == [False, False]
    assert report.trimming["kept"] == report.trimming["full"]
    assert told[-1].endswith("Dice 0.1000 against 0.8000, taken back")
    assert report.untrimmed == ""  # it could be trimmed; what came of it is in the record of the steps


def test_too_few_held_out_cases_leave_the_decoder_alone(registry: Registry, tmp_path: Path) -> None:
    told: list[str] = []
    asked = request(tmp_path / "cases", trim=dataclasses.replace(TRIM, min_cases=3))
    report = run(asked, registry, tmp_path / "run", tell=told.append)
    assert (report.card.spec, report.trimming) == (WIDE, {})
    assert "trimming" not in report.card.validation
    reason = "what a smaller decoder loses can be seen on at least 3 held-out case(s) with these organs only, got 1"
    assert told[-1] == f"the decoder is not trimmed: {reason}"
    assert report.to_json()["untrimmed"] == report.untrimmed == reason
    assert not re.search(r" to trim\b", told[0])


def stopping_in(run_dir: Path, questions: int) -> Callable[[], bool]:
    """Ask for a stop after so many questions of the trimming itself."""
    asked = iter(range(1, 100_000))
    return lambda: (run_dir / "trim" / "run.json").is_file() and next(asked) > questions


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A folder with scans and an untouched registry, and the decoder of a run that nothing stopped."""
    root = tmp_path_factory.mktemp("whole")
    registry = tiny_enrollment.registry_with_earlier_task(root / "registry")
    shutil.copytree(registry.root, root / "untouched")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wbcss_training.rounds.draw_curves", lambda run_dir: run_dir)
        report = run(request(root / "cases"), registry, root / "run")
    return root, registry.task_weights(report.card).read_bytes()


@pytest.mark.parametrize(
    ("questions", "stage"),
    [(0, "step 0 of 2"), (1, "step 1 of 2"), (4, "was stopped"), (7, "was stopped")],
)
def test_a_trimming_that_was_cancelled_goes_on_to_the_same_bits(
    whole_run: tuple[Path, bytes], tmp_path: Path, questions: int, stage: str
) -> None:
    root, decoder = whole_run
    shutil.copytree(root / "untouched", tmp_path / "registry")
    registry = Registry(tmp_path / "registry")
    again = tiny_enrollment.request_of(root / "cases", train=SHORT, decoder=WIDE, trim=TRIM)
    with pytest.raises(Cancelled, match=r"the trimming of the enrolment was stopped; go on with --resume") as error:
        run(again, registry, tmp_path / "run", cancelled=stopping_in(tmp_path / "run", questions))
    assert stage in f"{error.value} {error.value.__cause__}"
    assert [card.task for card in registry.tasks()] == ["spine"]
    report = run(again, registry, tmp_path / "run")
    assert registry.task_weights(report.card).read_bytes() == decoder


def test_a_trimming_of_something_else_is_not_gone_on_with(registry: Registry, tmp_path: Path) -> None:
    asked = request(tmp_path / "cases")
    run(asked, registry, tmp_path / "run", publish=False)
    other = dataclasses.replace(asked, trim=dataclasses.replace(TRIM, shrink=0.6))
    with pytest.raises(SpecError, match=r"was begun with trim \{.*'shrink': 0.5.*, got \{.*'shrink': 0.6"):
        run(other, registry, tmp_path / "run")


def test_a_lost_start_of_a_step_is_told(registry: Registry, tmp_path: Path) -> None:
    asked = request(tmp_path / "cases")
    run(asked, registry, tmp_path / "run", publish=False)
    step = tmp_path / "run" / "trim" / "step-2"
    (tmp_path / "run" / "trim" / "steps.json").unlink()
    (step.with_name("step-1") / "decoder.safetensors").unlink()
    (step.with_name("step-1") / "start.safetensors").write_bytes(b"broken")
    with pytest.raises(RunError, match=r"weights that a step of the trimming starts from, start\.safetensors, must"):
        run(asked, registry, tmp_path / "run")


def published(registry: Registry, tmp_path: Path) -> EnrollmentReport:
    """The tiny task, learned and published as it is."""
    return run(request(tmp_path / "cases", trim=None), registry, tmp_path / "first")


def smaller(report: EnrollmentReport, tmp_path: Path, **changes: Any) -> EnrollmentRequest:
    asked = tiny_enrollment.request_of(tmp_path / "cases", train=SHORT, decoder=WIDE, trim=TRIM)
    return dataclasses.replace(asked, **{"published": report.card, **changes})


def test_a_published_task_is_trimmed_into_a_new_version(registry: Registry, tmp_path: Path) -> None:
    first = published(registry, tmp_path)
    second = run(smaller(first, tmp_path), registry, tmp_path / "run")
    assert second.card.title == "belly@2"
    assert second.card.spec.stage_channels == (2, 2)
    assert set(second.unchanged) == {"spine@1", "belly@1"}
    assert (tmp_path / "run" / "decoder.safetensors").read_bytes() == registry.task_weights(first.card).read_bytes()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()  # nothing but the smaller decoders was trained
    assert run(smaller(first, tmp_path), registry, tmp_path / "run").card == second.card
    assert registry.versions(tiny_enrollment.TASK) == (1, 2)


def test_a_published_task_is_distilled_into_another_architecture(registry: Registry, tmp_path: Path) -> None:
    first = published(registry, tmp_path)
    target = DecoderSpec(stage_channels=(3,), kernels=((3, 3, 1),), convs_per_stage=(2,), num_organs=3)
    trim = dataclasses.replace(TRIM, target=target, step_share=1.0)
    second = run(smaller(first, tmp_path, trim=trim), registry, tmp_path / "run")
    assert (second.card.title, second.card.spec) == ("belly@2", target)
    assert [step["optimizer_steps"] for step in second.trimming["steps"]] == [4]
    assert second.trimming["budget"] is None


def test_a_narrower_target_begins_with_the_weights_of_its_teacher(registry: Registry, tmp_path: Path) -> None:
    first = published(registry, tmp_path)
    target = dataclasses.replace(WIDE, stage_channels=(4, 2))
    trim = dataclasses.replace(TRIM, target=target, importance="filters")
    run(smaller(first, tmp_path, trim=trim), registry, tmp_path / "run")
    full = load_file(tmp_path / "run" / "decoder.safetensors")["head.bias"]
    start = load_file(tmp_path / "run" / "trim" / "step-1" / "start.safetensors")
    assert torch.equal(start["head.bias"], full.float())
    assert start["ups.0.weight"].shape[:2] == (2, 4)


def test_a_published_task_is_not_made_smaller_blindly(registry: Registry, tmp_path: Path) -> None:
    first = published(registry, tmp_path)
    asked = smaller(first, tmp_path, trim=dataclasses.replace(TRIM, min_cases=2))
    with pytest.raises(SpecError, match=r"where that can be judged, but what a smaller decoder loses .*, got 1"):
        run(asked, registry, tmp_path / "run")
    assert registry.versions(tiny_enrollment.TASK) == (1,)


def test_a_published_decoder_keeps_its_task_and_spec(registry: Registry, tmp_path: Path) -> None:
    first = published(registry, tmp_path)
    with pytest.raises(SpecError, match=r"with its own task and spec, belly@1 and DecoderSpec.*, got 'belly' and None"):
        smaller(first, tmp_path, decoder=None)


def test_a_card_counts_the_cases_of_whichever_learned_from_more(registry: Registry, tmp_path: Path) -> None:
    first = published(registry, tmp_path)
    card = dataclasses.replace(first.card, training_cases=99)
    assert smaller(first, tmp_path, published=card).training_cases == 99
    assert smaller(first, tmp_path).training_cases == 3


def test_the_teacher_of_every_step_is_the_full_decoder(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[tuple[int, ...]] = []
    teacher = trimming.Teacher

    def noted(decoder: Any) -> Any:
        taught.append(decoder.spec.stage_channels)
        return teacher(decoder)

    monkeypatch.setattr(trimming, "Teacher", noted)
    trim = dataclasses.replace(TRIM, distill=DistillConfig(logit_weight=0.5))
    run(request(tmp_path / "cases", trim=trim), registry, tmp_path / "run")
    assert len(taught) > 1
    assert set(taught) == {(8, 8)}
    kept = json.loads((tmp_path / "run" / "trim" / "step-2" / "kept.json").read_text())["kept"]
    assert max(channel for level in kept for group in level for channel in group) > 3  # numbered as in the full one
