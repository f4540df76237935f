"""`wbcss-train check`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wbcss.cli.main import OneLineParser
from wbcss.errors import EXIT_DONE
from wbcss.io.atomic import write_text

from ..cases import read_case_list
from ..check import check_cases
from ..mapping import ALL_ORGANS, parse_choice
from .options import shown


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    parser = commands.add_parser("check", help="say what is wrong with annotated scans before learning from them")
    parser.add_argument("--cases", type=Path, required=True, metavar="DIR|LIST.json", help="folder or list of cases")
    parser.add_argument(
        "--organs",
        metavar="LIST",
        help="what to take: liver,Gland=parotid_gland_left,GTV=new:my_tumor; all takes the rest too (default: all)",
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the whole report here as JSON")
    parser.add_argument(
        "--json", action="store_true", help="progress as JSON lines, then the report, on standard output"
    )
    parser.add_argument("--verbose", action="store_true", help="log to standard error, with every traceback")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    choice = parse_choice(args.organs) if args.organs is not None else ALL_ORGANS
    cases = read_case_list(args.cases, organs=choice)
    report = check_cases(cases, progress=shown(as_json=args.json))
    if args.report:
        write_text(args.report, report.json_text())
    sys.stdout.write(report.json_line() if args.json else report.table())
    sys.stdout.flush()
    report.raise_if_broken()
    return EXIT_DONE
