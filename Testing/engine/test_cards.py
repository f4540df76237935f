"""Cards: what goes in comes out, a changed byte is noticed, and complaints name file, field and value."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from tiny_registry import decoder_spec, encoder_card, make_organ, task_card

from wbcss.cards import (
    TaskCard,
    encoder_card_from_bytes,
    encoder_card_to_bytes,
    task_card_from_bytes,
    task_card_to_bytes,
)
from wbcss.errors import LabelSpaceError, RegistryError
from wbcss.resources import starter_registry
from wbcss.schemas import seal

SHA = "ab" * 32


def published(**changes: Any) -> TaskCard:
    return task_card(version=2, sequence=4, weights_sha256=SHA, **changes)


def changed_text(values: dict[str, Any]) -> bytes:
    """A well-sealed card with ``values`` in place of the right ones."""
    card = json.loads(task_card_to_bytes(published()))
    card.pop("card_sha256")
    return seal({**card, **values}, name="card.json")


def test_a_task_card_survives_the_trip_through_its_file() -> None:
    card = published(
        validation={"mean_dice": 0.81, "organs": {"liver": [0.9, 0.95]}},
        calibration={"temperature": 1.7, "bins": [1, 2]},
        anomaly={"sum": 12.5, "count": 3},
        limits="Not for children under 2 years; Größe ≥ 3 mm",
    )
    assert task_card_from_bytes(task_card_to_bytes(card), source="card.json") == card


def test_an_encoder_card_survives_the_trip_through_its_file() -> None:
    card = encoder_card(weights_sha256=SHA, training={"steps": 1000, "losses": [0.5, 0.25]})
    assert encoder_card_from_bytes(encoder_card_to_bytes(card), source="card.json") == card


def test_equal_cards_have_equal_bytes() -> None:
    assert task_card_to_bytes(published()) == task_card_to_bytes(published())


def test_a_flipped_bit_anywhere_in_a_card_is_noticed() -> None:
    whole = task_card_to_bytes(published())
    for where in range(0, len(whole), 5):
        data = bytearray(whole)
        data[where] ^= 1
        with pytest.raises(RegistryError, match=r"^tasks/liver/2/card\.json"):
            task_card_from_bytes(bytes(data), source="tasks/liver/2/card.json")


def test_an_edited_license_is_noticed() -> None:
    data = task_card_to_bytes(published()).replace(b"CC0-1.0", b"MIT-1.0")
    with pytest.raises(
        RegistryError, match=r"card\.json was changed after it was published: its card_sha256 is \w{12}"
    ):
        task_card_from_bytes(data, source="card.json")


def test_a_card_that_was_cut_is_noticed() -> None:
    with pytest.raises(RegistryError, match=r"card\.json is not readable JSON"):
        task_card_from_bytes(task_card_to_bytes(published())[:-40], source="card.json")


def test_a_card_without_a_seal_is_noticed() -> None:
    data = json.dumps(json.loads(task_card_to_bytes(published()))).encode()
    with pytest.raises(RegistryError, match="must end with its card_sha256"):
        task_card_from_bytes(data, source="card.json")


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"version": 0}, r"version must be bigger than or equal to 1, got 0"),
        ({"version": "two"}, r"version must be integer, got 'two'"),
        ({"kind": "magic"}, r"kind must be one of \['own', 'prior', 'prompt'\], got 'magic'"),
        ({"weights_sha256": "ABC"}, r"weights_sha256 must match pattern .*, got 'ABC'"),
        ({"organs": []}, r"organs must contain at least 1 items, got \[\]"),
        ({"training_cases": -1}, r"training_cases must be bigger than or equal to 0, got -1"),
        ({"calibration": {"temperature": 0}}, r"calibration\.temperature must be bigger than 0, got 0"),
        ({"spec": {"stage_channels": [2]}}, r"spec lacks kernels, convs_per_stage, num_organs"),
        ({"color": "red"}, r"the document must not contain \{'color'\} properties"),
        ({"format": "dataset"}, r"format must be same as const definition: wbcss-task-card, got 'dataset'"),
        ({"format_version": 2}, r"has format_version 2, this program reads version 1; update the program"),
        ({"created": "yesterday"}, r"created must be an ISO date such as 2026-11-20, got 'yesterday'"),
        ({"task": "Liver!"}, r"task must match pattern .*, got 'Liver!'"),
    ],
)
def test_a_wrong_field_is_named_with_the_file_and_the_value(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RegistryError, match=rf"^tasks/liver/2/card\.json:? ?{complaint}"):
        task_card_from_bytes(changed_text(values), source="tasks/liver/2/card.json")


def test_a_wrong_organ_is_named_with_its_place_in_the_list() -> None:
    organs = json.loads(task_card_to_bytes(published()))["organs"]
    organs[1]["label"] = 70000
    with pytest.raises(RegistryError, match=r"organs\[1\]\.label must be smaller than or equal to 65535, got 70000"):
        task_card_from_bytes(changed_text({"organs": organs}), source="card.json")


def test_an_inconsistent_spec_is_named_with_the_file() -> None:
    spec = {"stage_channels": [2, 3], "kernels": [[3, 3, 3]], "convs_per_stage": [1, 1], "num_organs": 2}
    with pytest.raises(RegistryError, match=r"^card\.json: stage_channels, kernels and convs_per_stage must have one"):
        task_card_from_bytes(changed_text({"spec": spec}), source="card.json")


def test_a_card_keeps_the_second_kernels_of_its_decoder() -> None:
    card = published()
    assert b"then_kernels" not in task_card_to_bytes(card)
    split = dataclasses.replace(card, spec=dataclasses.replace(card.spec, then_kernels=((1, 1, 3), ())))
    assert task_card_from_bytes(task_card_to_bytes(split), source="card.json").spec == split.spec


def test_a_card_says_that_its_task_runs_on_request_and_older_cards_keep_their_bytes() -> None:
    older = task_card_to_bytes(published())
    assert b"on_request" not in older
    read = task_card_from_bytes(older, source="card.json")
    assert not read.on_request
    assert task_card_to_bytes(read) == older
    asked = task_card_to_bytes(published(on_request=True))
    assert json.loads(asked)["on_request"] is True
    assert task_card_from_bytes(asked, source="card.json") == published(on_request=True)


def test_every_shipped_card_is_written_back_to_the_same_bytes() -> None:
    paths = sorted(starter_registry().glob("tasks/*/*/card.json"))
    assert paths
    for path in paths:
        data = path.read_bytes()
        assert task_card_to_bytes(task_card_from_bytes(data, source=path.name)) == data


def test_only_yes_and_no_say_whether_a_task_runs_on_request() -> None:
    with pytest.raises(RegistryError, match=r"on_request of task 'liver' must be true or false, got 'yes'"):
        published(on_request="yes")
    with pytest.raises(RegistryError, match=r"on_request must be same as const definition: True, got 'yes'"):
        task_card_from_bytes(changed_text({"on_request": "yes"}), source="card.json")


def test_more_channels_than_organs_are_refused() -> None:
    with pytest.raises(RegistryError, match=r"as many organs as its decoder has channels \(3\), got 2"):
        dataclasses.replace(task_card(), spec=decoder_spec(3))


def test_an_organ_listed_twice_is_refused() -> None:
    twice = (make_organ("liver", 5), make_organ("liver", 6))
    with pytest.raises(RegistryError, match="may list an organ once, got liver more than once"):
        dataclasses.replace(task_card(), organs=twice)


def test_two_organs_with_one_label_value_are_refused() -> None:
    with pytest.raises(LabelSpaceError, match="organs 'liver' and 'spleen' share the label value 5"):
        task_card(organs={"liver": 5, "spleen": 5})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"version": -1}, "version of task 'liver' must be a whole number of at least 0, got -1"),
        ({"sequence": 1.5}, "sequence of task 'liver' must be a whole number of at least 0, got 1.5"),
        ({"training_cases": -3}, "training_cases of task 'liver' must be a whole number of at least 0, got -3"),
        ({"kind": "magic"}, "kind of task 'liver' must be own, prior or prompt, got 'magic'"),
        ({"encoder_sha256": "xyz"}, "encoder_sha256 must be 64 lower-case hexadecimal digits, got 'xyz'"),
        (
            {"calibration": {"temperature": -2.0}},
            "calibration.temperature of task 'liver' must be a positive number, got",
        ),
        ({"calibration": {"temperature": float("nan")}}, "must be a positive number, got nan"),
        ({"created": "20.11.2026"}, "created must be an ISO date such as 2026-11-20, got '20.11.2026'"),
    ],
)
def test_a_card_that_makes_no_sense_cannot_be_made(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RegistryError) as caught:
        dataclasses.replace(task_card(), **changes)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": ""}, "an encoder needs a name, got ''"),
        ({"version": 0}, "version of the encoder must be a whole number of at least 1, got 0"),
        ({"weights_sha256": "12"}, "weights_sha256 must be 64 lower-case hexadecimal digits, got '12'"),
    ],
)
def test_an_encoder_card_that_makes_no_sense_cannot_be_made(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RegistryError, match=complaint):
        encoder_card(**changes)


def test_a_card_with_a_nan_cannot_be_written() -> None:
    with pytest.raises(RegistryError, match=r"card\.json must hold plain finite JSON values"):
        task_card_to_bytes(published(validation={"dice": float("nan")}))


def test_a_card_that_was_never_given_hashes_cannot_be_written() -> None:
    with pytest.raises(RegistryError, match=r"version must be bigger than or equal to 1, got 0"):
        task_card_to_bytes(task_card())


def test_the_temperature_is_one_unless_calibrated() -> None:
    assert task_card().temperature == 1.0
    assert task_card(calibration={}).temperature == 1.0
    assert task_card(calibration={"temperature": 2}).temperature == 2.0


def test_people_see_task_and_version() -> None:
    assert published().title == "liver@2"
    assert published().label_space.values == {"liver": 5, "x_cyst": 10000}
