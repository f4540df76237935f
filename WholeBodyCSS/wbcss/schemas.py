"""JSON documents of a registry: read strictly, checked against the schemas in Resources/Schemas, written sealed."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .errors import RegistryError, RunError
from .resources import resource_path
from .storage import sha256_bytes

if TYPE_CHECKING:
    from fastjsonschema import JsonSchemaValueException

MAX_DOCUMENT_BYTES = 16 << 20
_SEAL = re.compile(rb',\n  "card_sha256": "([0-9a-f]{64})"\n}\n\Z')
_SHOWN_CHARACTERS = 80


def dump_document(values: Mapping[str, Any], *, name: str) -> bytes:
    """``values`` as the JSON text that goes to disk. Raises RegistryError if they are no JSON or hold NaN."""
    try:
        return (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    except (TypeError, ValueError) as error:
        raise RegistryError(f"{name} must hold plain finite JSON values: {error}") from error


def read_document(data: bytes, *, schema: str, source: str) -> dict[str, Any]:
    """Parse ``data`` and check it against the schema of this name.

    Raises RegistryError naming ``source``, the field and the value.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise RegistryError(f"{source} must be at most {MAX_DOCUMENT_BYTES} bytes, got {len(data)}")
    try:
        values = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"{source} is not readable JSON: {error}") from error
    check_document(values, schema=schema, source=source)
    checked: dict[str, Any] = values
    return checked


def check_document(values: Any, *, schema: str, source: str) -> None:
    """Check parsed JSON. Raises RegistryError naming ``source``, the field, what it must be, and the value.

    Raises RunError if fastjsonschema is missing: it is imported here, so that a fresh 3D Slicer can say what it lacks.
    """
    found = values.get("format_version") if isinstance(values, dict) else None
    if type(found) is int and found > 1:
        raise RegistryError(
            f"{source} has format_version {found}, this program reads version 1; update the program to use it"
        )
    try:
        from fastjsonschema import JsonSchemaValueException
    except ImportError:
        raise RunError(f"{source} cannot be checked without the package fastjsonschema; install it") from None
    try:
        _validator(schema)(values)
    except JsonSchemaValueException as error:
        raise RegistryError(f"{source}: {_complaint(error)}") from error


def _complaint(error: JsonSchemaValueException) -> str:
    name = error.name or "data"
    field = name.removeprefix("data").removeprefix(".") or "the document"
    if error.rule == "required":
        missing = [name for name in error.rule_definition if name not in error.value]
        return f"{field} lacks {', '.join(missing)}"
    demand = error.message.removeprefix(name).strip()
    shown = repr(error.value)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = shown[: _SHOWN_CHARACTERS - 4] + " ..."
    return f"{field} {demand}, got {shown}"


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"the field {', '.join(twice)} is given twice")
    return values


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


@functools.cache
def _validator(schema: str) -> Callable[[Any], Any]:
    import fastjsonschema

    text = resource_path("Schemas", f"{schema}.json").read_text(encoding="utf-8")
    compiled: Callable[[Any], Any] = fastjsonschema.compile(json.loads(text))
    return compiled


def seal(values: Mapping[str, Any], *, name: str) -> bytes:
    """The document with its own SHA-256 as last field, over every byte before that field."""
    body = dump_document(values, name=name)[: -len(b"\n}\n")]
    return body + f',\n  "card_sha256": "{sha256_bytes(body)}"\n}}\n'.encode("ascii")


def check_seal(data: bytes, *, source: str) -> None:
    """Raise RegistryError if a sealed document was changed after it was written."""
    match = _SEAL.search(data)
    if match is None:
        raise RegistryError(f"{source} must end with its card_sha256; it was cut or written by another program")
    found = sha256_bytes(data[: match.start()])
    promised = match.group(1).decode("ascii")
    if found != promised:
        raise RegistryError(
            f"{source} was changed after it was published: its card_sha256 is {promised[:12]}..., its text has "
            f"{found[:12]}...; restore it from a backup or publish the task again"
        )
