"""Enrolling from end to end: law 1, resume, privacy, memory."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_enrollment
import torch

from wbcss.cli.main import main as wbcss
from wbcss.errors import Cancelled, DeviceError, RunError, SpecError
from wbcss.labels import TaskId
from wbcss.loading import load_model
from wbcss.proof import hash_logits
from wbcss.registry import Registry
from wbcss_training import enrolling
from wbcss_training.enrolling import enroll
from wbcss_training.enrollment import EnrollmentReport, EnrollmentRequest
from wbcss_training.learner import DecoderLearner

SHORT = dataclasses.replace(tiny_enrollment.CONFIG, steps=4, log_every=2)


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training; curves have tests of their own."""
    monkeypatch.setattr("wbcss_training.rounds.draw_curves", lambda run_dir: run_dir)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return tiny_enrollment.registry_with_earlier_task(tmp_path / "registry")


@pytest.fixture
def request_(tmp_path: Path) -> EnrollmentRequest:
    return tiny_enrollment.request(tmp_path / "cases", train=SHORT)


def run(request: EnrollmentRequest, registry: Registry, run_dir: Path, **options: Any) -> EnrollmentReport:
    report = enroll(request, registry, run_dir=run_dir, device="cpu", **options)
    assert report is not None
    return report


def test_a_task_is_learned_and_published_and_nothing_old_has_changed(
    registry: Registry, request_: EnrollmentRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, logits = registry.fingerprint(), hash_logits(registry).tasks
    told: list[str] = []
    report = run(request_, registry, tmp_path / "run", tell=told.append)
    assert registry.verify() == []
    assert {name: sha256 for name, sha256 in registry.fingerprint().items() if name in before} == before
    assert hash_logits(registry).tasks.items() >= logits.items()
    assert report.unchanged == ("spine@1",)
    card = registry.card(tiny_enrollment.TASK)
    assert [organ.name for organ in card.organs] == list(tiny_enrollment.ORGANS)
    assert (card.training_cases, card.license, card.limits) == (3, "CC0-1.0", "knows blocks only")
    assert card.validation["held_out"]["cases"] == 1
    assert set(card.validation["held_out"]["organs"]) == set(tiny_enrollment.ORGANS)
    assert 0.05 <= card.temperature <= 20
    assert {"ece_before", "ece_after"} <= set(card.calibration)
    assert sum(row["voxels"] for row in card.calibration["reliability"]["after"]) == card.calibration["num_voxels"]
    assert (tmp_path / "run" / "reliability.png").is_file()
    load_model(registry)
    assert len(told) == 1
    assert told[0].startswith("3 case(s) to learn from, 1 held out; 6 patches of 16x16x16, 4 steps; about ")
    since = ["--since", str(tmp_path / "run" / "before.json")]
    assert wbcss(["tasks", "verify", "--registry", str(registry.root), *since]) == 0
    assert "spine@1: logits bit for bit as before" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "report.json").read_text())["task"] == "belly@1"


def test_a_task_is_published_with_what_its_organs_look_like_and_how_sure_it_is(
    registry: Registry, request_: EnrollmentRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wbcss_training.normality.LEAST_DICE", 0.0)  # four steps teach little
    monkeypatch.setattr("wbcss_training.normality.FALSE_ALARM_RATE", 0.5)
    monkeypatch.setattr("wbcss_training.certainty._STEPS", 5)
    card = run(request_, registry, tmp_path / "run").card
    assert card.anomaly["volume_ml"]["liver"]["count"] >= 1
    assert card.confidence
    facts = json.loads((tmp_path / "run" / "evidence.json").read_text())
    assert facts["is_written"] == bool(card.evidence_sha256) == registry.task_evidence(card).is_file()
    assert registry.verify() == []
    assert set(load_model(registry).evidence) == ({card.task} if facts["is_written"] else set())
    text = (registry.root / "tasks" / "belly" / "1" / "card.json").read_text()
    assert "smith" not in text


def test_a_task_that_starts_from_a_relative_begins_with_its_weights(registry: Registry, tmp_path: Path) -> None:
    still = dataclasses.replace(SHORT, learning_rate=1e-12, weight_decay=0.0)
    relative = registry.card(TaskId("spine"))
    request = tiny_enrollment.request(tmp_path / "cases", train=still, decoder=None, start=relative)
    report = run(request, registry, tmp_path / "run")
    assert report.card.spec == dataclasses.replace(relative.spec, num_organs=3)
    assert report.card.provenance.endswith("Began as a copy of the decoder of spine@1, license CC0-1.0.")
    network = load_model(registry).network
    theirs = network.decoder(relative.task).state_dict()
    for name, value in network.decoder(tiny_enrollment.TASK).state_dict().items():
        known = value if not name.startswith("head.") else value[:1]  # none of its organs, so the background alone
        torch.testing.assert_close(known, theirs[name][: len(known)], atol=1e-6, rtol=0)


def test_training_lowers_the_loss_on_held_out_cases(registry: Registry, tmp_path: Path) -> None:
    train = dataclasses.replace(tiny_enrollment.CONFIG, steps=60, log_every=20, checkpoint_every=60)
    run(tiny_enrollment.request(tmp_path / "cases", train=train, coarse_share=0), registry, tmp_path / "run")
    losses = held_out_losses(tmp_path / "run")
    assert len(losses) == 3
    assert losses[-1] < 0.85 * losses[0]


@pytest.mark.slow
def test_held_out_organs_are_found(registry: Registry, tmp_path: Path) -> None:
    train = dataclasses.replace(
        tiny_enrollment.CONFIG, steps=400, log_every=20, checkpoint_every=400, sampled_voxels=4096, ema_decay=0.9
    )
    decoder = dataclasses.replace(tiny_enrollment.DECODER, stage_channels=(8, 8))
    report = run(tiny_enrollment.request(tmp_path / "cases", train=train, decoder=decoder), registry, tmp_path / "run")
    assert report.validation["mean"]["dice"] > 0.5
    assert report.card.calibration["ece_after"] < report.card.calibration["ece_before"]


def held_out_losses(run_dir: Path) -> list[float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["validation_loss"] for line in lines if "validation_loss" in line]


def stopping_after(questions: int) -> Callable[[], bool]:
    asked = iter(range(1, 100_000))
    return lambda: next(asked) > questions


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A folder with scans and an untouched registry, and the decoder of a run that nothing stopped."""
    root = tmp_path_factory.mktemp("whole")
    registry = tiny_enrollment.registry_with_earlier_task(root / "registry")
    shutil.copytree(registry.root, root / "untouched")
    torch.set_num_threads(1)
    report = run(tiny_enrollment.request(root / "cases", train=SHORT), registry, root / "run")
    return root, registry.task_weights(report.card).read_bytes()


@pytest.mark.parametrize(
    ("questions", "stage"),
    [
        (0, "the start of the enrolment was stopped"),
        (2, "the encoding was stopped after 1 of 2 patches"),
        (5, "the encoding was stopped after 2 of 4 patches"),
        (8, "the training was stopped at step 1 of 4"),
        (10, "the training was stopped at step 2 of 4"),
        (14, "the validation of the enrolment was stopped"),
    ],
)
def test_a_run_that_was_cancelled_goes_on_to_the_same_bits(
    whole_run: tuple[Path, bytes], tmp_path: Path, questions: int, stage: str
) -> None:
    root, decoder = whole_run
    shutil.copytree(root / "untouched", tmp_path / "registry")
    registry, request = Registry(tmp_path / "registry"), tiny_enrollment.request_of(root / "cases", train=SHORT)
    with pytest.raises(Cancelled, match=f"{stage}.* go on with --resume"):
        run(request, registry, tmp_path / "run", cancelled=stopping_after(questions))
    assert [card.task for card in registry.tasks()] == ["spine"]
    assert registry.verify() == []
    report = run(request, registry, tmp_path / "run")
    assert registry.task_weights(report.card).read_bytes() == decoder


def test_a_finished_run_publishes_no_second_version(
    registry: Registry, request_: EnrollmentRequest, tmp_path: Path
) -> None:
    first = run(request_, registry, tmp_path / "run")
    (tmp_path / "run" / "report.json").unlink()  # as a kill between the publication and the report leaves it
    again = run(request_, registry, tmp_path / "run")
    assert again.card == first.card
    assert registry.versions(tiny_enrollment.TASK) == (1,)


def test_a_run_of_something_else_is_not_gone_on_with(
    registry: Registry, request_: EnrollmentRequest, tmp_path: Path
) -> None:
    run(request_, registry, tmp_path / "run")
    other = dataclasses.replace(request_, organs=request_.organs[:2])
    with pytest.raises(
        SpecError, match=r"was begun with organs \['kidney_left', 'kidney_right', 'liver'\], got \['kid"
    ):
        run(other, registry, tmp_path / "run")


def test_if_an_earlier_task_has_changed_nothing_is_published(
    registry: Registry, request_: EnrollmentRequest, tmp_path: Path
) -> None:
    weights = registry.task_weights(registry.card(TaskId("spine")))
    with pytest.raises(Cancelled):
        run(request_, registry, tmp_path / "run", cancelled=stopping_after(3))
    card = weights.with_name("card.json")
    card.write_bytes(card.read_bytes() + b" ")
    with pytest.raises(RunError, match=r"bit for bit as it was, got .* tasks/spine/1/card\.json changed since the run"):
        run(request_, registry, tmp_path / "run")
    assert registry.versions(tiny_enrollment.TASK) == ()


def test_an_encoder_that_was_touched_is_found_out(
    registry: Registry, request_: EnrollmentRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = DecoderLearner.forward
    touched: list[torch.nn.Module] = []

    def touching(self: DecoderLearner, *args: Any, **kwargs: Any) -> torch.Tensor:
        with torch.no_grad():
            next(touched[0].parameters()).add_(1e-4)
        return forward(self, *args, **kwargs)

    load = enrolling.load_encoder

    def loading(registry: Registry) -> torch.nn.Module:
        touched.insert(0, load(registry))
        return touched[0]

    monkeypatch.setattr(enrolling, "load_encoder", loading)
    monkeypatch.setattr(DecoderLearner, "forward", touching)
    with pytest.raises(RunError, match="the encoder's stages"):
        run(request_, registry, tmp_path / "run")
    assert registry.versions(tiny_enrollment.TASK) == ()


def published_bytes(root: Path) -> bytes:
    return b"\0".join(
        path.read_bytes() + str(path.relative_to(root)).encode() for path in root.rglob("*") if path.is_file()
    )


def test_the_registry_learns_no_name_path_or_voxel_and_earlier_data_is_not_opened(
    registry: Registry, tmp_path: Path
) -> None:
    """Enrol twice; before the second time the first one's scans are gone, and no file of theirs is even asked for."""
    first = tiny_enrollment.request(tmp_path / "mueller", train=SHORT)
    run(first, registry, tmp_path / "run1")
    shutil.rmtree(tmp_path / "mueller")
    shutil.rmtree(tmp_path / "run1")
    second = tiny_enrollment.request(tmp_path / "schmidt", train=SHORT, task=TaskId("belly_again"))
    opened: list[str] = []
    listening = [True]

    def listen(event: str, args: tuple[Any, ...]) -> None:
        if listening and event in ("open", "os.scandir", "os.listdir"):
            opened.append(str(args[0]))

    sys.addaudithook(listen)
    try:
        run(second, registry, tmp_path / "run2")
    finally:
        listening.clear()  # a hook cannot be removed
    assert any("schmidt" in name for name in opened)
    assert [name for name in opened if "mueller" in name or "run1" in name] == []
    data = published_bytes(registry.root).lower()
    private = ["smith", "mueller", "schmidt", str(tmp_path).lower(), "nii", "_seg", *second.training_ids]
    assert [text for text in private if text.encode() in data] == []
    scan = second.training[0].image_path.read_bytes()
    assert scan[200:260] not in data
    logs = b"".join((tmp_path / "run2" / name).read_bytes() for name in ("run.json", "report.json", "metrics.jsonl"))
    assert [text for text in private[:4] if text.encode() in logs.lower()] == []


class Starved:
    """A DecoderLearner.forward that runs out of memory above a batch and a patch size."""

    def __init__(self, *, batch: int, voxels: int) -> None:
        self.batch, self.voxels = batch, voxels
        self.forward = DecoderLearner.forward

    def __get__(self, learner: DecoderLearner, owner: type) -> Callable[..., torch.Tensor]:
        def forward(task: TaskId, patches: list[Any], **options: Any) -> torch.Tensor:
            if len(patches) > self.batch or patches[0].labels.numel() > self.voxels:
                raise torch.OutOfMemoryError("CUDA out of memory (made up)")
            return self.forward(learner, task, patches, **options)

        return forward


def test_when_memory_runs_out_the_batch_and_then_the_patch_are_halved(
    registry: Registry, request_: EnrollmentRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    with pytest.raises(Cancelled):  # the estimate is done with enough memory
        run(request_, registry, run_dir, cancelled=stopping_after(3))
    monkeypatch.setattr(DecoderLearner, "forward", Starved(batch=1, voxels=8**3))
    told: list[str] = []
    report = run(request_, registry, run_dir, tell=told.append)
    assert report.ladder == tuple(told)
    assert told == [
        "out of memory; continuing with cpu, 1 tile of 16x16x16 at once",
        "out of memory; continuing with cpu, 1 tile of 8x8x8 at once",
    ]
    assert registry.verify() == []


def test_memory_that_never_suffices_is_told(
    registry: Registry, request_: EnrollmentRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Cancelled):
        run(request_, registry, tmp_path / "run", cancelled=stopping_after(3))
    monkeypatch.setattr(DecoderLearner, "forward", Starved(batch=0, voxels=0))
    with pytest.raises(
        DeviceError, match=r"the last one being cpu, 1 tile of 8x8x8 .*choose a smaller patch or decoder"
    ):
        run(request_, registry, tmp_path / "run")
    assert registry.versions(tiny_enrollment.TASK) == ()


def test_without_held_out_cases_the_card_claims_nothing(registry: Registry, tmp_path: Path) -> None:
    request = tiny_enrollment.request(tmp_path / "cases", count=1, num_validation=0, train=SHORT)
    report = run(request, registry, tmp_path / "run")
    assert report.card.validation["held_out"] == {
        "cases": 0,
        "note": "no case was held out, so how well the organs are found is not known",
    }
    assert report.card.calibration == {
        "temperature": 1.0,
        "note": "not calibrated: no held-out voxel of these organs",
    }


def test_an_organ_that_the_catalogue_lacks_gets_a_label_for_good(registry: Registry, tmp_path: Path) -> None:
    request = tiny_enrollment.request(tmp_path / "cases", train=SHORT)
    organ = tiny_enrollment.OrganName("my_tumor")
    cases = [
        dataclasses.replace(case, values={**case.values, 3: organ}, new_organs=frozenset({organ}))
        for case in (*request.training, *request.validation)
    ]
    request = dataclasses.replace(
        request, organs=(*request.organs[:2], organ), training=tuple(cases[:3]), validation=tuple(cases[3:])
    )
    card = run(request, registry, tmp_path / "run").card
    assert (card.organs[2].name, card.organs[2].label, card.organs[2].exact) == ("my_tumor", 10000, False)
    assert registry.label_owners()[10000] == "my_tumor"
