"""Dataclasses from JSON that somebody else wrote: the type hints of the fields are the schema."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

from .errors import ProtocolError

Built = TypeVar("Built")
_SHOWN_CHARACTERS = 60


def build(kind: type[Built], values: Mapping[str, Any], *, where: str) -> Built:
    """Make a dataclass of ``values``, each checked against the type its field declares.

    Lists become tuples and objects become dataclasses. ``where`` names the value in complaints. Raises ProtocolError
    for an unknown, missing or wrong field, and for what the dataclass itself refuses.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ProtocolError(f"{where} has no field {', '.join(unknown)}; its fields are {', '.join(fields)}")
    missing = [name for name, field in fields.items() if _is_required(field) and name not in values]
    if missing:
        raise ProtocolError(f"{where} needs the field {', '.join(missing)}; got {', '.join(values) or 'none'}")
    hints = typing.get_type_hints(kind)
    converted = {name: _convert(hints[name], value, where=f"{where}.{name}") for name, value in values.items()}
    try:
        return kind(**converted)
    except ProtocolError:
        raise
    except ValueError as error:
        raise ProtocolError(f"{where}: {error}") from error


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    """Check a JSON ``value`` against a type hint; lists become tuples, objects become dataclasses."""
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(typing.get_args(hint), value, where=where)
    if origin is tuple and isinstance(value, list):
        return _convert_list(typing.get_args(hint), value, where=where)
    if origin is Literal and isinstance(value, str) and value in typing.get_args(hint):
        return value
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, dict):
        inner = typing.get_args(hint)[1]
        return value if inner is Any else {k: _convert(inner, v, where=f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return build(typing.cast(type, hint), value, where=where)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint in (str, int, bool) and type(value) is hint:
        return value
    raise ProtocolError(f"{where} must be {_described(hint)}, got {shown(value)}")


def _convert_union(hints: tuple[Any, ...], value: Any, *, where: str) -> Any:
    """Null, an object for a dataclass, or the one plain type of the union."""
    if value is None and type(None) in hints:
        return None
    kinds = [hint for hint in hints if hint is not type(None)]
    fitting = [hint for hint in kinds if dataclasses.is_dataclass(hint) == isinstance(value, dict)]
    if len(kinds) == 1 or (len(fitting) == 1 and isinstance(value, (dict, str))):
        return _convert((fitting or kinds)[0], value, where=where)
    raise ProtocolError(f"{where} must be {' or '.join(map(_described, kinds))}, got {shown(value)}")


def _convert_list(hints: tuple[Any, ...], value: list[Any], *, where: str) -> tuple[Any, ...]:
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(hints) != len(value):
        raise ProtocolError(f"{where} must be a list of {len(hints)}, got {len(value)} entries")
    return tuple(_convert(h, v, where=f"{where}[{n}]") for n, (h, v) in enumerate(zip(hints, value, strict=True)))


def _described(hint: Any) -> str:
    names = {str: "a text", int: "an integer", float: "a finite number", bool: "true or false", type(None): "null"}
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return "a list"
    return names.get(hint, "an object")


def plain(value: Any) -> Any:
    """Dataclasses, mappings and tuples as the dictionaries and lists that JSON knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (tuple, list)) else value


def shown(value: Any) -> str:
    """``value`` as it is quoted in a complaint, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 4] + " ..."
