"""`wbcss tasks`: list, show, verify, export, import and retire the published tasks of a registry."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cards import TaskCard, task_card_to_bytes
from ..console import table
from ..errors import EXIT_DONE, EXIT_FAILED, InputError, LabelSpaceError, RegistryError
from ..io.atomic import write_bytes
from ..labels import TaskId, parse_task_id
from ..package import SUFFIX, export_task, import_task, package_name
from ..registry import Registry
from ..schemas import dump_document, read_document
from .organs import add_registry_option, open_registry

_DESCRIPTION = "List, show, verify, export, import and retire the published tasks of a registry."


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Declare the command line of `wbcss tasks`."""
    parser = commands.add_parser("tasks", help="list, show, verify, export, import, retire", description=_DESCRIPTION)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the published tasks")
    listing.add_argument("--all", action="store_true", help="every version, retired ones too")
    show = actions.add_parser("show", help="print the card of a task")
    show.add_argument("task", metavar="TASK[@VERSION]")
    verify = actions.add_parser("verify", help="check every file against its hash, card and schema")
    verify.add_argument("--snapshot", type=Path, metavar="FILE", help="write the hash of every published file to FILE")
    verify.add_argument("--since", type=Path, metavar="FILE", help="prove that no file of the snapshot FILE changed")
    export = actions.add_parser("export", help=f"write a task as one {SUFFIX} file")
    export.add_argument("task", metavar="TASK[@VERSION]")
    export.add_argument("-o", "--output", type=Path, metavar="FILE", help=f"default: TASK-VERSION{SUFFIX} here")
    importing = actions.add_parser("import", help=f"publish the task of a {SUFFIX} file")
    importing.add_argument("package", type=Path, metavar=f"FILE{SUFFIX}")
    retire = actions.add_parser("retire", help="hide a task; its files and label values stay")
    retire.add_argument("task", metavar="TASK")
    for action in (listing, show, verify, export, importing, retire):
        add_registry_option(action)
        action.add_argument("--json", action="store_true", help="print JSON for machines")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do the action. Problems found by `verify` are exit code 3, whatever the user gave wrong is 2."""
    registry = open_registry(args.registry)
    actions = {
        "list": _list,
        "show": _show,
        "verify": _verify,
        "export": _export,
        "import": _import,
        "retire": _retire,
    }
    return actions[args.action](registry, args)


def _list(registry: Registry, args: argparse.Namespace) -> int:
    visible = registry.tasks()
    retired = registry.retired()
    cards = registry.all_cards() if args.all else visible
    shown = {(card.task, card.version) for card in visible}
    rows = [{**_summary(card), "visible": (card.task, card.version) in shown} for card in cards]
    if args.json:
        _print_json({"tasks": rows, "retired": list(retired)})
        return EXIT_DONE
    if not rows:
        hint = f"; retired are {', '.join(retired)}" if retired else ""
        sys.stdout.write(f"no task is published in the registry {registry.root}{hint}\n")
        return EXIT_DONE
    header = ["task", "version", "kind", "organs", "cases", "created"]
    lines = [[str(row[column]) for column in header] for row in rows]
    if args.all:
        header = [*header, "shown"]
        lines = [[*line, "yes" if row["visible"] else "no"] for line, row in zip(lines, rows, strict=True)]
    sys.stdout.write(table(header, lines))
    return EXIT_DONE


def _show(registry: Registry, args: argparse.Namespace) -> int:
    task, version = _parse_title(args.task)
    card = registry.card(task, version=version)
    if args.json:
        sys.stdout.write(task_card_to_bytes(card).decode("utf-8"))
        return EXIT_DONE
    encoder = registry.encoder_card()
    facts = {
        "task": card.title,
        "kind": card.kind,
        "created": card.created,
        "training cases": str(card.training_cases),
        "encoder": f"{encoder.name} ({card.encoder_sha256[:12]}...)",
        "weights": f"{card.weights_sha256[:12]}...",
        "temperature": f"{card.temperature:g}",
        "validation": json.dumps(dict(card.validation), ensure_ascii=False) if card.validation else "none recorded",
        "license": card.license,
        "provenance": card.provenance,
        "limits": card.limits or "none recorded",
    }
    width = max(map(len, facts))
    sys.stdout.write("".join(f"{name.ljust(width)}  {value}\n" for name, value in facts.items()) + "\n")
    organs = [[str(n), str(o.label), o.name, o.display_name, o.group] for n, o in enumerate(card.organs, start=1)]
    sys.stdout.write(table(("channel", "label", "organ", "name", "group"), organs))
    return EXIT_DONE


def _verify(registry: Registry, args: argparse.Namespace) -> int:
    earlier = None if args.since is None else _read_snapshot(args.since)
    problems, notes = registry.verify(), registry.notes()
    files = registry.fingerprint()
    changes = [] if earlier is None else _changes(earlier, files, args.since)
    num_earlier = None if earlier is None else len(earlier)
    if args.snapshot is not None:
        if problems or changes:
            raise RegistryError(f"a snapshot must be of a sound registry, got: {(problems + changes)[0]}")
        write_bytes(args.snapshot, _snapshot(files))
    if args.json:
        unchanged = None if num_earlier is None else num_earlier - len(changes)
        _print_json({"files": len(files), "problems": problems + changes, "notes": notes, "unchanged": unchanged})
    else:
        _print_findings(problems + changes, notes, num_files=len(files), num_earlier=num_earlier)
    return EXIT_FAILED if problems or changes else EXIT_DONE


def _print_findings(problems: list[str], notes: list[str], *, num_files: int, num_earlier: int | None) -> None:
    for problem in problems:
        sys.stdout.write(f"broken: {problem}\n")
    for note in notes:
        sys.stdout.write(f"note: {note}\n")
    if problems:
        sys.stdout.write(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'} found\n")
        return
    sys.stdout.write(f"{num_files} published files verified, all as published\n")
    if num_earlier is not None:
        sys.stdout.write(f"{num_earlier} earlier files unchanged\n")


def _export(registry: Registry, args: argparse.Namespace) -> int:
    task, version = _parse_title(args.task)
    card = registry.card(task, version=version)
    output = export_task(registry, task, args.output or Path(package_name(card)), version=card.version)
    if args.json:
        _print_json({"task": card.task, "version": card.version, "package": str(output)})
    else:
        sys.stdout.write(f"{card.title} written to {output}\n")
    return EXIT_DONE


def _import(registry: Registry, args: argparse.Namespace) -> int:
    card = import_task(registry, args.package)
    if args.json:
        _print_json(_summary(card))
    else:
        sys.stdout.write(f"{card.title} published: {len(card.organs)} organs\n")
    return EXIT_DONE


def _retire(registry: Registry, args: argparse.Namespace) -> int:
    task, version = _parse_title(args.task)
    if version is not None:
        raise InputError(f"retire hides all versions of a task; name it without a version, got {args.task!r}")
    registry.retire(task)
    if args.json:
        _print_json({"retired": task})
    else:
        sys.stdout.write(f"{task} is retired; its files and label values stay\n")
    return EXIT_DONE


def _parse_title(text: str) -> tuple[TaskId, int | None]:
    """``liver`` or ``liver@2``."""
    name, at, number = text.partition("@")
    if at and not (number.isascii() and number.isdigit()):
        raise InputError(f"a task must be named like liver or liver@2, got {text!r}")
    try:
        return parse_task_id(name), int(number) if at else None
    except LabelSpaceError as error:
        raise InputError(str(error)) from error


def _summary(card: TaskCard) -> dict[str, Any]:
    return {
        "task": card.task,
        "version": card.version,
        "kind": card.kind,
        "organs": len(card.organs),
        "cases": card.training_cases,
        "created": card.created,
    }


def _snapshot(files: Mapping[str, str]) -> bytes:
    values = {
        "format": "wbcss-registry-snapshot",
        "format_version": 1,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "files": dict(files),
    }
    return dump_document(values, name="the snapshot")


def _read_snapshot(path: Path) -> dict[str, str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the snapshot {path} cannot be read: {error.strerror or error}") from error
    files: dict[str, str] = read_document(data, schema="registry_snapshot", source=path.name)["files"]
    return files


def _changes(earlier: Mapping[str, str], now: Mapping[str, str], since: Path) -> list[str]:
    changes = []
    for name, sha256 in earlier.items():
        if name not in now:
            changes.append(f"{name} is gone since {since.name}")
        elif now[name] != sha256:
            changes.append(f"{name} changed since {since.name}: SHA-256 was {sha256[:12]}..., is {now[name][:12]}...")
    return changes


def _print_json(values: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
