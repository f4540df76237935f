"""`wbcss organs`: what can be segmented here, and by which task."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..cards import TaskCard
from ..catalogue import Organ
from ..console import table
from ..errors import EXIT_DONE, InputError, RegistryError
from ..registry import REGISTRY_VARIABLE, Registry, default_registry_path


def add_registry_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--registry DIR`` with the default that all commands share."""
    parser.add_argument(
        "--registry",
        type=Path,
        metavar="DIR",
        help=f"folder of the published tasks (default: ${REGISTRY_VARIABLE}, else the one that ships with wbcss)",
    )


def open_registry(path: Path | None) -> Registry:
    """The registry at ``path`` or the default one. Raises RegistryError if there is no such folder."""
    root = default_registry_path() if path is None else path
    if not root.is_dir():
        raise RegistryError(
            f"there is no registry at {root}; name the folder of one with --registry or {REGISTRY_VARIABLE}"
        )
    return Registry(root)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Declare the command line of `wbcss organs`."""
    parser = commands.add_parser(
        "organs",
        help="list what can be segmented here, and by which task",
        description="List the organs that the tasks of a registry segment.",
    )
    add_registry_option(parser)
    parser.add_argument("--group", metavar="NAME", help="only organs of this group, such as abdomen")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the organs. Raises RegistryError if nothing is published, InputError for an unknown group."""
    registry = open_registry(args.registry)
    cards = registry.tasks()
    if not cards:
        raise RegistryError(
            f"no task is published in the registry {registry.root}; import one with `wbcss tasks import FILE` or name "
            f"another registry with --registry or {REGISTRY_VARIABLE}"
        )
    organs = registry.organs()
    groups = sorted({organ.group for organ in organs})
    if args.group is not None and args.group not in groups:
        raise InputError(f"--group must be one of {', '.join(groups)}, got {args.group!r}")
    shown = sorted((o for o in organs if args.group in (None, o.group)), key=lambda organ: organ.label)
    owners = {o.name: [card for card in cards if o.name in card.label_space] for o in shown}
    if args.json:
        rows = [_as_json(organ, owners[organ.name]) for organ in shown]
        sys.stdout.write(json.dumps({"organs": rows}, indent=2, ensure_ascii=False) + "\n")
    else:
        lines = [[str(o.label), o.name, o.display_name, o.group, ", ".join(map(_owner, owners[o.name]))] for o in shown]
        sys.stdout.write(table(("label", "organ", "name", "group", "task"), lines))
        sys.stdout.write(f"{len(shown)} organs\n")
    return EXIT_DONE


def _owner(card: TaskCard) -> str:
    return f"{card.task} (on request)" if card.on_request else card.task


def _as_json(organ: Organ, owners: list[TaskCard]) -> dict[str, object]:
    return {
        **organ.to_json(),
        "display_name": organ.display_name,
        "terminology": organ.terminology,
        "tasks": [card.task for card in owners],
        "on_request": [card.task for card in owners if card.on_request],
    }
