"""`wbcss-train check`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from wbcss.cli.main import OneLineParser
from wbcss.console import table
from wbcss.errors import EXIT_DONE
from wbcss.io.atomic import write_text

from ..cases import Case, read_case_list
from ..check import check_cases
from ..findings import CheckReport
from ..mapping import ALL_ORGANS, parse_choice
from ..splits import split_cases
from ..survey import Inventory, take_inventory
from .options import add_cases, add_split, count, shown


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = commands.add_parser("check", help="say what is wrong with annotated scans before learning from them")
    add_cases(parser, verb="take")
    add_split(parser)
    parser.add_argument("--seed", type=count, default=0, metavar="N", help="of the split (default: 0)")
    parser.add_argument("--names", action="store_true", help="only list the cases and what their labels are called")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the whole report here as JSON")
    parser.add_argument(
        "--json",
        action="store_true",
        help="JSON lines on standard output: progress, then the cases with who would be held out, then the report",
    )
    parser.add_argument("--verbose", action="store_true", help="log to standard error, with every traceback")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.names:
        inventory = take_inventory(args.cases)
        sys.stdout.write(json.dumps(inventory.to_json()) + "\n" if args.json else _text(inventory))
        return EXIT_DONE
    choice = parse_choice(args.organs) if args.organs is not None else ALL_ORGANS
    cases = read_case_list(args.cases, organs=choice, leave_out=args.leave_out, same_grid=args.same_grid)
    report = check_cases(cases, progress=shown(as_json=args.json))
    if args.report:
        write_text(args.report, report.json_text())
    if args.json:
        held_out = _held_out(cases, report, fraction=args.validation_fraction, seed=args.seed)
        rows = [{"title": case.title, "held_out": held} for case, held in zip(cases, held_out, strict=True)]
        sys.stdout.write(json.dumps({"cases": rows}) + "\n")
    sys.stdout.write(report.json_line() if args.json else report.table())
    sys.stdout.flush()
    report.raise_if_broken()
    return EXIT_DONE


def _held_out(cases: Sequence[Case], report: CheckReport, *, fraction: float, seed: int) -> list[bool | None]:
    """Whether ``enroll`` would hold out each case; None for all as long as one cannot be read."""
    if not all(report.image_hashes):
        return [None for _ in cases]
    split = split_cases(cases, validation_fraction=fraction, seed=seed, image_hashes=report.image_hashes)
    away = {id(case) for case in split.validation}
    return [id(case) in away for case in cases]


def _text(inventory: Inventory) -> str:
    rows = [
        (row.name, str(row.num_cases), row.organ or f"? {' '.join(row.near[:3])}".strip()) for row in inventory.names
    ]
    return table(("name in the cases", "cases", "organ"), rows)
