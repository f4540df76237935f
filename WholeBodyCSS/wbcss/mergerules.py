"""Merge rules as a file: what ``wbcss-train evaluate --learn-rules`` writes and ``wbcss segment`` reads. No torch."""

from __future__ import annotations

import json
from pathlib import Path

from .errors import InputError, SpecError
from .io.atomic import write_text
from .specs import MergeRules, spec_from_json, spec_to_json

FORMAT = "wbcss-merge-rules"


def write_rules(rules: MergeRules, path: Path) -> None:
    """Write rules as JSON. Raises OutputError."""
    write_text(path, json.dumps({"format": FORMAT, **spec_to_json(rules)}, indent=1) + "\n")


def read_rules(path: Path) -> MergeRules:
    """Read what ``write_rules`` wrote. Raises InputError if it cannot be read or makes no sense."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"merge rules must be a readable JSON file, got {path.name}: {error}") from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise InputError(f'{path.name} must be a JSON object with "format": "{FORMAT}"')
    try:
        return spec_from_json(MergeRules, values)
    except SpecError as error:
        raise InputError(f"{path.name}: {error}") from error
