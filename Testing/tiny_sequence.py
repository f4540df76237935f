"""A sequence of two tasks on written cases and tiny networks, learned in a few seconds by any method."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tiny_training

from wbcss.labels import OrganName
from wbcss.specs import spec_to_json
from wbcss_training.continual.sequence import Sequence, read_sequence

LIVER, SPLEEN = OrganName("liver"), OrganName("spleen")
NUM_CASES = 3


def write_cases(folder: Path) -> Path:
    """A list of three cases with liver and spleen."""
    entries = [tiny_training.write_case(folder, f"c{number}") for number in range(NUM_CASES)]
    return tiny_training.write_list(folder, entries)


def sequence_json(**train: Any) -> dict[str, Any]:
    """First the liver on two cases, then the spleen on the third; validated on all."""
    cases = {"kind": "cases", "path": "cases/list.json"}
    decoder = spec_to_json(tiny_training.decoder_spec())
    del decoder["num_organs"]
    return {
        "name": "tiny",
        "encoder": spec_to_json(tiny_training.ENCODER),
        "decoder": decoder,
        "train": spec_to_json(tiny_training.config(**train)),
        "evaluation": {"overlap": 0.0},
        "methods": {"ewc": {"patches": 2}, "plop": {"patches": 2}},
        "tasks": [
            {
                "task": "upper",
                "organs": [LIVER],
                "source": {**cases, "first": 0, "count": 2},
                "validation": cases,
            },
            {
                "task": "side",
                "organs": [SPLEEN],
                "source": {**cases, "first": 2, "count": 1},
                "validation": cases,
            },
        ],
        "few_shot": {"task": "upper", "counts": [1, 2]},
    }


def write_sequence(folder: Path, *, change: Callable[[dict[str, Any]], None] | None = None, **train: Any) -> Path:
    """The sequence as a file beside its cases; ``change`` may edit its JSON first."""
    write_cases(folder / "cases")
    facts = sequence_json(**train)
    if change is not None:
        change(facts)
    path = folder / "sequence.json"
    path.write_text(json.dumps(facts))
    return path


def new_sequence(folder: Path, changes: Mapping[str, Any] | None = None, **train: Any) -> Sequence:
    """The same, read."""
    return read_sequence(write_sequence(folder, change=lambda facts: facts.update(changes or {}), **train))
