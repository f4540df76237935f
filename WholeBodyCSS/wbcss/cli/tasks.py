"""`wbcss tasks`: list, show, verify, export, import and retire the published tasks of a registry."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cards import TaskCard, task_card_to_bytes
from ..console import ProgressLine, table
from ..errors import EXIT_DONE, EXIT_FAILED, InputError, LabelSpaceError, RegistryError
from ..io.atomic import write_bytes
from ..labels import TaskId, parse_task_id
from ..package import SUFFIX, export_task, import_task, package_name
from ..registry import Registry
from ..snapshot import LogitHashes, Snapshot, changed_files, changed_logits, read_snapshot, snapshot_to_bytes
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
    verify.add_argument(
        "--logits", action="store_true", help="let the snapshot hold the hash of every task's logits too"
    )
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
    if any(row["on_request"] for row in rows):
        header = [*header, "runs"]
        lines = [
            [*line, "on request" if row["on_request"] else "always"] for line, row in zip(lines, rows, strict=True)
        ]
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
        "runs": "on request: when it, or an organ that only it knows, is named" if card.on_request else "always",
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
    if args.logits and args.snapshot is None:
        raise InputError("--logits says what --snapshot records, got no --snapshot FILE; --since compares all there is")
    earlier = None if args.since is None else read_snapshot(args.since)
    problems, notes = registry.verify(), registry.notes()
    files = registry.fingerprint()
    changes = [] if earlier is None else changed_files(earlier.files, files, since=args.since.name)
    was = None if earlier is None else earlier.logits
    # Logits of a broken registry cannot be computed, and need not be: it is not what it was.
    wanted = was is not None or (args.logits and not changes)
    logits = _logits(registry) if wanted and not problems else None
    if was is not None and logits is not None:
        changes += changed_logits(was, logits, since=args.since.name)
    if args.snapshot is not None:
        if problems or changes:
            raise RegistryError(f"a snapshot must be of a sound registry, got: {(problems + changes)[0]}")
        recorded = Snapshot(files=files, logits=logits if args.logits else None)
        write_bytes(args.snapshot, snapshot_to_bytes(recorded))
    if args.json:
        _print_json(_findings_json(problems + changes, notes, files, earlier, logits))
    else:
        _print_findings(problems + changes, notes, files=files, earlier=earlier, logits=logits)
    return EXIT_FAILED if problems or changes else EXIT_DONE


def _logits(registry: Registry) -> LogitHashes:
    from ..proof import hash_logits  # the other actions need no torch and start in an instant

    with ProgressLine(sys.stderr, title="logits") as line:
        return hash_logits(registry, progress=lambda fraction, stage: line(fraction, stage, None))


def _findings_json(
    problems: list[str],
    notes: list[str],
    files: Mapping[str, str],
    earlier: Snapshot | None,
    logits: LogitHashes | None,
) -> dict[str, Any]:
    unchanged = None if earlier is None else sum(files.get(name) == sha256 for name, sha256 in earlier.files.items())
    return {
        "files": len(files),
        "problems": problems,
        "notes": notes,
        "unchanged": unchanged,
        "unchanged_logits": _unchanged_logits(earlier, logits),
    }


def _unchanged_logits(earlier: Snapshot | None, now: LogitHashes | None) -> list[str] | None:
    """Titles whose logits are bit for bit what they were; None if the snapshot has none or they were not computed."""
    if earlier is None or earlier.logits is None or now is None:
        return None
    return [title for title, sha256 in earlier.logits.tasks.items() if now.tasks.get(title) == sha256]


def _print_findings(
    problems: list[str],
    notes: list[str],
    *,
    files: Mapping[str, str],
    earlier: Snapshot | None,
    logits: LogitHashes | None,
) -> None:
    for problem in problems:
        sys.stdout.write(f"broken: {problem}\n")
    for note in notes:
        sys.stdout.write(f"note: {note}\n")
    for title in _unchanged_logits(earlier, logits) or ():
        assert logits is not None  # noqa: S101 -- narrows for the type checker
        sys.stdout.write(f"{title}: logits bit for bit as before (SHA-256 {logits.tasks[title][:12]}...)\n")
    if problems:
        sys.stdout.write(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'} found\n")
        return
    sys.stdout.write(f"{len(files)} published files verified, all as published\n")
    if earlier is not None:
        sys.stdout.write(f"{len(earlier.files)} earlier files unchanged\n")


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
        "on_request": card.on_request,
    }


def _print_json(values: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
