"""Names of the files and folders of a registry, and which of its folders hold a published version."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .errors import LabelSpaceError
from .labels import TaskId, parse_task_id

ENCODER_DIR = "encoder"
TASKS_DIR = "tasks"
CARD = "card.json"
ENCODER = "encoder.safetensors"
DECODER = "decoder.safetensors"
EVIDENCE = "evidence.safetensors"
"""Optional, beside a decoder: how sure it is, and what its organs look like. A card without its hash has none."""

BODY_PART_DIR = "encoder/body_part"
"""Beside the encoder whose features it reads; a registry need not have it."""

BODY_PART = "body_part.safetensors"
RETIRED = "retired.json"

_VERSION = re.compile(r"[1-9][0-9]{0,8}")


def is_task_name(text: str) -> bool:
    """Whether a folder of this name can hold a task."""
    try:
        parse_task_id(text)
    except LabelSpaceError:
        return False
    return True


def is_version_name(text: str) -> bool:
    """Whether a folder of this name can hold a version."""
    return _VERSION.fullmatch(text) is not None


def version_folders(root: Path) -> dict[TaskId, tuple[int, ...]]:
    """Versions, ascending, of every task folder that has any, by task name."""
    found: dict[TaskId, tuple[int, ...]] = {}
    for task in _subfolders(root / TASKS_DIR):
        if is_task_name(task):
            versions = sorted(int(name) for name in _subfolders(root / TASKS_DIR / task) if is_version_name(name))
            if versions:
                found[TaskId(task)] = tuple(versions)
    return found


def _subfolders(path: Path) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
