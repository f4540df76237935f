"""`wbcss-train reliability`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from wbcss.cli.main import OneLineParser
from wbcss.console import stop_on_signals
from wbcss.errors import EXIT_DONE
from wbcss.loading import load_model
from wbcss.registry import Registry
from wbcss.segment import SegmentOptions

from ..evaluate import check_report
from ..layouts import read_case_list
from ..reliabilitymeasure import measure_reliability, reliability_markdown, write_reliability
from .options import add_common, add_tasks, asked_tasks, count, shown


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Declare the command line."""
    parser = commands.add_parser("reliability", help="measure whether tasks are right as often as they say they are")
    parser.add_argument("--registry", type=Path, required=True, metavar="DIR", help="registry of the model")
    parser.add_argument("--cases", type=Path, required=True, metavar="DIR|LIST.json", help="annotated scans")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="REPORT.json", help="a table and a picture go beside it"
    )
    add_tasks(parser)
    parser.add_argument("--first", type=count, metavar="N", help="only the first N scans")
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    check_report(args.out)
    cases = read_case_list(args.cases)[: args.first]
    model = load_model(Registry(args.registry), asked_tasks(args))
    with stop_on_signals() as stopped:
        measured = measure_reliability(
            model,
            cases,
            options=SegmentOptions(device=args.device, threads=args.threads or None),
            progress=shown(as_json=args.json),
            cancelled=stopped,
        )
    write_reliability(measured, args.out)
    if not args.json:
        sys.stdout.write(reliability_markdown(measured))
    return EXIT_DONE
