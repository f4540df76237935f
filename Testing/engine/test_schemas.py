"""Reading JSON that may be damaged or hostile."""

from __future__ import annotations

import json

import pytest

from wbcss.errors import RegistryError
from wbcss.resources import resource_path
from wbcss.schemas import MAX_DOCUMENT_BYTES, check_seal, dump_document, read_document, seal


def ledger_text(labels: str) -> bytes:
    return b'{"format": "wbcss-labels", "format_version": 1, "labels": ' + labels.encode() + b"}"


def test_a_field_given_twice_is_refused() -> None:
    with pytest.raises(RegistryError, match=r"labels\.json is not readable JSON: the field 5 is given twice"):
        read_document(ledger_text('{"5": "liver", "5": "spleen"}'), schema="labels", source="labels.json")


def test_not_a_number_is_refused() -> None:
    with pytest.raises(RegistryError, match="NaN is not a JSON number"):
        read_document(ledger_text('{"5": NaN}'), schema="labels", source="labels.json")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(RegistryError, match=r"labels\.json is not readable JSON"):
        read_document(b"\xff\xfe{}", schema="labels", source="labels.json")


def test_lists_nested_without_end_are_refused() -> None:
    with pytest.raises(RegistryError, match=r"labels\.json is not readable JSON"):
        read_document(b"[" * 200_000, schema="labels", source="labels.json")


def test_a_text_larger_than_any_document_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(
        RegistryError, match=f"must be at most {MAX_DOCUMENT_BYTES} bytes, got {MAX_DOCUMENT_BYTES + 1}"
    ):
        read_document(b" " * (MAX_DOCUMENT_BYTES + 1), schema="labels", source="labels.json")


def test_a_list_is_no_document() -> None:
    with pytest.raises(RegistryError, match=r"labels\.json: the document must be object, got \[\]"):
        read_document(b"[]", schema="labels", source="labels.json")


def test_a_long_wrong_value_is_shown_cut() -> None:
    with pytest.raises(RegistryError) as caught:
        read_document(ledger_text(f'"{"x" * 5000}"'), schema="labels", source="labels.json")
    assert str(caught.value).endswith("...")
    assert len(str(caught.value)) < 200


def test_a_document_that_is_no_json_cannot_be_written() -> None:
    with pytest.raises(RegistryError, match="the snapshot must hold plain finite JSON values"):
        dump_document({"when": object()}, name="the snapshot")


def test_a_sealed_document_is_still_plain_json_and_accepts_its_own_seal() -> None:
    data = seal({"a": 1, "b": ["ü", None]}, name="card.json")
    check_seal(data, source="card.json")
    values = json.loads(data)
    assert (values["a"], values["b"]) == (1, ["ü", None])
    assert list(values)[-1] == "card_sha256"


@pytest.mark.parametrize("path", sorted(resource_path("Schemas").glob("*.json")), ids=lambda path: path.stem)
def test_every_schema_refuses_an_empty_document_and_names_what_it_needs(path: object) -> None:
    stem = getattr(path, "stem", "")
    with pytest.raises(RegistryError, match=r"^x: the document lacks format, format_version"):
        read_document(b"{}", schema=stem, source="x")
