"""`wbcss-train levels`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from wbcss.cli.main import OneLineParser
from wbcss.console import stop_on_signals
from wbcss.errors import EXIT_DONE
from wbcss.io.atomic import write_text
from wbcss.loading import load_model
from wbcss.registry import Registry
from wbcss.segment import SegmentOptions

from ..evaluate import check_report
from ..layouts import read_case_list
from ..levelmeasure import measure_levels
from .options import add_common, add_tasks, asked_tasks, count, shown


def add_parser(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """Declare the command line."""
    parser = commands.add_parser("levels", help="measure the body-part check of a registry on annotated scans")
    parser.add_argument("--registry", type=Path, required=True, metavar="DIR", help="registry with a level head")
    parser.add_argument("--cases", type=Path, required=True, metavar="DIR|LIST.json", help="annotated scans")
    parser.add_argument("--out", type=Path, required=True, metavar="REPORT.json", help="every organ and every crop")
    add_tasks(parser)
    parser.add_argument(
        "--parts", type=count, default=3, metavar="N", help="cut every scan into N along the body; 0: levels only"
    )
    parser.add_argument("--first", type=count, metavar="N", help="only the first N scans")
    add_common(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    check_report(args.out)
    cases = read_case_list(args.cases)[: args.first]
    tasks = asked_tasks(args)
    with stop_on_signals() as stopped:
        measured = measure_levels(
            load_model(Registry(args.registry), tasks),
            cases,
            parts=args.parts,
            options=SegmentOptions(device=args.device, threads=args.threads or None),
            progress=shown(as_json=args.json),
            cancelled=stopped,
        )
    write_text(args.out, json.dumps(measured.to_json(), indent=1) + "\n")
    summary = measured.summary()
    text = json.dumps(summary) if args.json else "\n".join(f"{name}: {value}" for name, value in summary.items())
    sys.stdout.write(text + "\n")
    return EXIT_DONE
