"""What follows from a request: decoder, pools, rounds, identity."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import tiny_enrollment
import tiny_registry
from hypothesis import given
from hypothesis import strategies as st

from wbcss.cards import EncoderCard
from wbcss.errors import RunError, SpecError
from wbcss.specs import DecoderSpec, EncoderSpec
from wbcss_training.annotation import Case
from wbcss_training.config import TrainConfig, TrimConfig
from wbcss_training.enrollment import EnrollmentRequest, schedule_of, thin_decoder
from wbcss_training.features import patch_bytes
from wbcss_training.runfolder import RunFolder

ENCODER = tiny_enrollment.ENCODER


def request(num_training: int = 3, num_validation: int = 1, **changes: Any) -> EnrollmentRequest:
    """Of cases that need not exist."""
    case = Case(image_path=Path("a.nii"), labels_path=Path("b.nii"), values={1: tiny_enrollment.ORGANS[0]})
    made = EnrollmentRequest(
        task=tiny_enrollment.TASK,
        organs=tiny_enrollment.ORGANS,
        training=(case,) * num_training,
        validation=(case,) * num_validation,
        training_ids=tuple(f"t{n}" for n in range(num_training)),
        validation_ids=tuple(f"v{n}" for n in range(num_validation)),
        train=tiny_enrollment.CONFIG,
        license="CC0-1.0",
        provenance="nothing",
    )
    return dataclasses.replace(made, **changes)


def card(**changes: Any) -> EncoderCard:
    return tiny_registry.encoder_card(spec=ENCODER, weights_sha256="0" * 64, **changes)


def test_the_default_decoder_is_half_as_wide_as_the_encoder() -> None:
    spec = thin_decoder(
        EncoderSpec(
            stage_channels=(8, 32, 96, 320),
            strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
            kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
            convs_per_stage=(1, 2, 2, 2),
            tile=(32, 32, 32),
        ),
        num_organs=7,
    )
    assert (spec.stage_channels, spec.convs_per_stage, spec.num_organs) == ((8, 16, 48), (1, 1, 2), 7)
    assert spec.kernels == ((1, 3, 3), (3, 3, 3), (3, 3, 3))


def test_a_decoder_that_was_asked_for_gets_the_organs_of_the_request() -> None:
    asked = dataclasses.replace(tiny_enrollment.DECODER, num_organs=99)
    assert request(decoder=asked).decoder_spec(ENCODER) == tiny_enrollment.DECODER


def test_a_task_begins_as_its_relative_with_nothing_at_rest() -> None:
    relative = tiny_registry.task_card(
        "wholebody", {"liver": 5, "spleen": 1, "colon": 20}, spec=tiny_enrollment.DECODER
    )
    begun = request(start=relative)
    spec = begun.decoder_spec(ENCODER)
    assert spec == dataclasses.replace(tiny_enrollment.DECODER, num_organs=len(tiny_enrollment.ORGANS))
    assert (begun.resting_share, request().resting_share, request(start=relative, coarse_share=0.5).resting_share) == (
        0.0,
        0.6,
        0.5,
    )
    assert begun.identity(card())["start"] == relative.title
    assert begun.identity(card()) != request().identity(card())


@given(st.integers(1, 30), st.integers(0, 6), st.integers(1, 400), st.integers(1, 8), st.floats(0.01, 1), st.booleans())
def test_pools_fit_the_cache_and_are_read_often_enough(
    num_training: int, num_validation: int, steps: int, batch: int, cache_gib: float, shallow: bool
) -> None:
    decoder = dataclasses.replace(
        tiny_enrollment.DECODER, stage_channels=(4,), kernels=((3, 3, 3),), convs_per_stage=(1,)
    )
    made = request(num_training, num_validation, cache_gib=cache_gib, decoder=decoder if shallow else None)
    config = dataclasses.replace(tiny_enrollment.CONFIG, steps=steps, batch_size=batch)
    schedule = schedule_of(made, ENCODER, config)
    assert schedule.features.num_skips == (2 if shallow else 3)
    assert schedule.bytes_per_patch == patch_bytes(ENCODER, schedule.features)
    assert schedule.cache_bytes <= cache_gib * 2**30
    assert schedule.num_validation == min(16, 4 * num_validation)
    assert schedule.num_training >= 1
    assert (schedule.num_training - 1) * 4 < steps * batch  # one more would be read too seldom
    assert schedule.round_steps % config.log_every == 0
    assert schedule.coarse_steps % schedule.round_steps == 0
    assert schedule.coarse_steps <= 0.6 * steps
    assert shallow <= (schedule.coarse_steps == 0)  # a decoder of one level has nothing to rest
    assert schedule.config_at(schedule.coarse_steps) == config
    assert (schedule.patience is not None) == (num_training <= 10 and num_validation > 0)


def test_pools_serve_the_trimming_too() -> None:
    trim = TrimConfig(budget=0.25, shrink=0.5, step_share=0.5)
    config = dataclasses.replace(tiny_enrollment.CONFIG, steps=200)
    plain, trimmed = (schedule_of(request(trim=trim), ENCODER, config) for trim in (None, trim))
    assert plain == dataclasses.replace(trimmed, trim=None)  # a run may be asked to trim when it is resumed
    assert plain.num_training == 100
    deep = dataclasses.replace(trim, target=tiny_enrollment.DECODER)
    flat = DecoderSpec(stage_channels=(4,), kernels=((3, 3, 3),), convs_per_stage=(1,), num_organs=3)
    assert schedule_of(request(decoder=flat, trim=deep), ENCODER, config).features.num_skips == 3
    card_ = tiny_registry.task_card("belly", {"liver": 5, "spleen": 1, "colon": 20}, spec=flat)
    longer = dataclasses.replace(trim, budget=0.01)
    taken = schedule_of(request(decoder=flat, published=card_, trim=longer), ENCODER, config)
    assert (taken.num_training, taken.learns) == (250, False)  # five times half as many steps
    assert request(decoder=flat, published=card_).identity(card())["published"] == card_.title
    assert "published" not in request(trim=trim).identity(card())
    assert request(trim=trim).identity(card()) == request().identity(card())  # its own folder remembers it


@pytest.mark.parametrize(
    ("count", "few", "strength"), [(1, True, "strong"), (10, True, "strong"), (11, False, "normal")]
)
def test_a_handful_of_cases_is_changed_more(count: int, few: bool, strength: str) -> None:
    assert (request(count).is_few_shot, request(count).augmentation) == (few, strength)


def test_the_identity_names_what_decides_the_bits_and_no_case() -> None:
    identity = request().identity(card())
    text = json.dumps(identity)
    assert "nii" not in text
    assert '"t0"' not in text
    for change in (
        {"training_ids": ("x", "t1", "t2")},
        {"organs": tiny_enrollment.ORGANS[:2]},
        {"cache_gib": 1.0},
        {"train": dataclasses.replace(tiny_enrollment.CONFIG, seed=7)},
    ):
        assert request(**change).identity(card()) != identity
    assert request(license="other", limits="other").identity(card()) == identity
    assert request().identity(card(name="x")) == identity


def test_with_minutes_the_steps_are_no_part_of_the_identity() -> None:
    longer = dataclasses.replace(tiny_enrollment.CONFIG, steps=99)
    assert request(minutes=3.0).identity(card()) == request(minutes=3.0, train=longer).identity(card())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"organs": ()}, "task 'belly' must learn at least one organ, got none"),
        ({"training": (), "training_ids": ()}, "task 'belly' must have at least one case to learn from, got none"),
        ({"training_ids": ("a",)}, "training_ids must name each of the 3 cases, got 1"),
        ({"validation_ids": ()}, "validation_ids must name each of the 1 cases, got 0"),
        ({"cache_gib": float("nan")}, "the cache must be larger than 0 GiB, got nan"),
        ({"coarse_share": 1.5}, r"coarse_share must be in \[0, 1\], got 1\.5"),
        ({"minutes": 0.0}, "minutes must be a positive number, got 0.0"),
    ],
)
def test_a_request_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        request(**change)


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        ({"cache_gib": 1e-6}, {}, r"the cache must hold at least 5 encoded patches of 0\.\d MiB, got 1e-06 GiB; raise"),
        ({}, {"patch": (10, 16, 16)}, r"a multiple of the encoder's total stride \(4, 4, 4\), got \(10, 16, 16\)"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(change: dict[str, Any], config: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        schedule_of(request(**change), ENCODER, dataclasses.replace(TrainConfig(), **config))


def test_the_record_of_a_run_is_read_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert not folder.is_begun
    identity = request().identity(card())
    folder.begin(identity, steps=42, estimate={"train": 1.5})
    assert folder.is_begun
    assert folder.recorded_steps(identity) == 42


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be readable JSON, got "),
        ("[1]", "must hold a JSON object, got list"),
        ('{"steps": 3}', "must hold identity and steps, got an error: 'identity'"),
    ],
)
def test_a_damaged_record_is_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=f"run.json of the run {message}"):
        RunFolder(tmp_path).recorded_steps({})


def test_seconds_add_up_over_calls(tmp_path: Path) -> None:
    for expected in (1, 2):
        with RunFolder(tmp_path).timed("train"):
            pass
        assert len(RunFolder(tmp_path).seconds()) == 1
        assert RunFolder(tmp_path).seconds()["train"] < expected
    RunFolder(tmp_path).write("seconds.json", {"train": 10.0})
    with RunFolder(tmp_path).timed("train"):
        pass
    assert 10.0 < RunFolder(tmp_path).seconds()["train"] < 11.0
